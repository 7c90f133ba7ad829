"""The suite of learned solvers: networks beside the classical methods of this package and of others.

Scenes of a class that no training has seen (`scenes.unseen`, seeds 1000 and on), unless a group says
otherwise; white noise on the right; true residual 1e-6. Times hold A, the set-up, what the networks make of
the geometry included, and the solve. Training is not among them: its own group has it, and the number of
solves that pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import neuralsolve as ns
from neuralsolve.bench.bars import BarRow, Settings
from neuralsolve.bench.learned_counts import (
    against,
    directions,
    masked_directions,
    precision,
    sizes,
    transfer,
)
from neuralsolve.bench.learned_scenes import FIRST, RTOL, unseen_system
from neuralsolve.bench.learned_times import anisotropy, batch, coefficients, table, times, training, worth

GROUPS: dict[str, Callable[[Settings], Iterable[BarRow]]] = {
    "table": table,
    "directions": directions,
    "masked_directions": masked_directions,
    "transfer": transfer,
    "sizes": sizes,
    "against": against,
    "times": times,
    "worth": worth,
    "coefficients": coefficients,
    "anisotropy": anisotropy,
    "precision": precision,
    "batch": batch,
    "training": training,
}


def histories(shape: tuple[int, ...] = (64, 64), kind: str = "boxes") -> dict[str, list[float]]:
    """Return the residual norms of the methods on one scene, by name, for a figure."""
    make, _, b = unseen_system(shape, FIRST, kind)
    A = make()
    chosen: dict[str, tuple[Any, Any]] = {
        "CG": (ns.CG(), None),
        "CG, MIC(0)": (ns.CG(), ns.IncompleteCholesky(modified=0.97)),
        "CG, multigrid": (ns.CG(), ns.Multigrid()),
        "CG, learned cycle": (ns.CG(), ns.NeuralMultigrid()),
        "DCDM, its network": (ns.DCDM(history=2), ns.NeuralDirection("dcdm2d")),
        "DCDM, NPSDO": (ns.DCDM(history=2), ns.NeuralDirection("npsdo2d")),
    }
    return {
        name: ns.solve(A, b, method, M=M, rtol=RTOL, throw=False).residual_norms
        for name, (method, M) in chosen.items()
    }
