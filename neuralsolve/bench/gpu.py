"""The suite of a GPU: kernels and iterations beside a copy, whole solves, batches, rivals on the same card.

Speeds of kernels are parts of the bandwidth of a copy that is measured in the same run: numbers of a data
sheet are reached by nobody. True residuals are formed on the CPU from a copy of x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from neuralsolve.bench.bars import BarRow, Settings
from neuralsolve.bench.gpu_bytes import bandwidth, cg
from neuralsolve.bench.gpu_solves import batch, multigrid, networks, rivals

GROUPS: dict[str, Callable[[Settings], Iterable[BarRow]]] = {
    "bandwidth": bandwidth,
    "cg": cg,
    "multigrid": multigrid,
    "batch": batch,
    "rivals": rivals,
    "networks": networks,
}
