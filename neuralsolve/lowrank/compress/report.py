"""What a compression did: layer by layer, in all, and in time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes
    ----------
    path, kind : of the layer; "linear", "conv" or "modes"
    shape : of one matrix, (out, in)
    rank : of the factors, of several matrices their mean; None: it is as it was
    full_rank : the smaller side
    parameters, parameters_before : real numbers, with a bias that came with the factors
    macs, macs_before : multiplications with additions a sample, by how often the layer works in the
        calibration; None without. Spectral weights are formed anew at every call, which is not counted
    error : sqrt(E||y' - y||^2 / E||y - mean||^2) of the outputs on the calibration, all layers before as they
        were; of factorisers that see no data ||W' - W|| / ||W||
    note : why it is as it was
    """

    path: str
    kind: str
    shape: tuple[int, int]
    rank: float | None
    full_rank: int
    parameters: int
    parameters_before: int
    macs: float | None = None
    macs_before: float | None = None
    error: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class CompressionReport:
    """All layers that were looked at, and totals.

    Attributes
    ----------
    layers : one row each
    parameters, parameters_before : of the whole model
    left : path -> why, of layers that are not factored
    """

    layers: tuple[LayerReport, ...]
    parameters: int
    parameters_before: int
    left: dict[str, str]

    @property
    def kept(self) -> float:
        """Part of the parameters of the whole model."""
        return self.parameters / self.parameters_before

    @property
    def macs_kept(self) -> float | None:
        """Part of the multiplications of the layers that were looked at; None without calibration."""
        before = [each.macs_before for each in self.layers if each.macs_before]
        after = [each.macs for each in self.layers if each.macs is not None and each.macs_before]
        return sum(after) / sum(before) if before else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self) | {"kept": self.kept, "macs_kept": self.macs_kept}

    def table(self) -> list[str]:
        """Return lines for people."""
        wide = 2 + max(map(len, [*(each.path for each in self.layers), *self.left, "layer"]))
        lines = [f"{'layer':<{wide}}{'matrix':>12}{'rank':>8}{'parameters':>20}{'kept':>7}{'error':>9}"]
        for each in self.layers:
            m, n = each.shape
            rank, error = "whole", ""
            if each.rank is not None:
                rank, error = f"{each.rank:.4g}", f"{each.error:.3g}"
            counts = f"{each.parameters_before:,} > {each.parameters:,}"
            share = f"{each.parameters / each.parameters_before:.0%}"
            line = f"{each.path:<{wide}}{f'{m} x {n}':>12}{rank:>8}{counts:>20}{share:>7}{error:>9}"
            lines.append(f"{line}  {each.note}".rstrip())
        lines += [f"{path:<{wide}}{why}" for path, why in self.left.items()]
        macs = "" if self.macs_kept is None else f"; {self.macs_kept:.1%} of the products of these layers"
        total = f"{self.parameters_before:,} > {self.parameters:,} parameters, {self.kept:.1%} kept{macs}"
        return [*lines, total]


def latency(models: Iterable[nn.Module], *arguments: Tensor, repeats: int = 9) -> list[float]:
    """Return the median seconds of a call of each model, measured in turn, without gradients.

    Examples
    --------
    >>> len(latency([nn.Linear(3, 2), nn.Linear(3, 1)], torch.ones(4, 3), repeats=1))
    2
    """
    models = list(models)
    taken: list[list[float]] = [[] for _ in models]
    with torch.no_grad():
        for each in models:
            each(*arguments)
        for _ in range(repeats):
            for times, each in zip(taken, models, strict=True):
                began = time.perf_counter()
                each(*arguments)
                if arguments[0].is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - began)
    return [median(times) for times in taken]
