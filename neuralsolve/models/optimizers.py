"""The optimizers of a training by name: torch's, and those of low rank or few bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from neuralsolve.errors import OptionError, check_known

PLAIN = ("adamw", "adam")
LOW_RANK = ("galore", "tensor-galore", "q-galore", "dct", "frugal", "adam8bit", "muon")


@dataclass(frozen=True)
class Optimizing:
    """Which optimizer, and how it projects.

    Parameters
    ----------
    optimizer : "adamw"; "adam", with the decay inside the gradient; or a low-rank one,
        `neuralsolve.lowrank.optim.METHODS`
    rank : directions of a matrix, or a part of its shorter side; None here and below: the method's own
    refresh : steps between refreshes of the subspace
    scale : of the projected step
    seed : of what is drawn at random

    Raises
    ------
    OptionError
    """

    optimizer: str = "adamw"
    rank: int | float | None = None
    refresh: int | None = None
    scale: float | None = None
    seed: int = 1905

    def __post_init__(self) -> None:
        check_known("optimizer =", self.optimizer, (*PLAIN, *LOW_RANK))
        given = {name: value for name in ("rank", "refresh", "scale") if (value := getattr(self, name))}
        if self.optimizer in PLAIN and given:
            msg = f"{next(iter(given))} = {next(iter(given.values()))} with optimizer = {self.optimizer!r}, "
            msg += "which projects nothing; 'galore' does"
            raise OptionError(msg)
        if self.optimizer == "muon" and given.keys() - {"scale"}:
            name = next(name for name in given if name != "scale")
            msg = f"{name} = {given[name]} with optimizer = 'muon', which takes whole matrices; leave it out"
            raise OptionError(msg)
        good = {
            "rank": self.rank is None
            or (self.rank >= 1 if isinstance(self.rank, int) else 0 < self.rank <= 1),
            "refresh": self.refresh is None or self.refresh >= 1,
            "scale": self.scale is None or self.scale > 0,
        }
        for name, fits in good.items():
            if not fits:
                msg = f"{name} = {getattr(self, name)}; more than 0 is needed, a rank whole or at most 1.0"
                raise OptionError(msg)

    def made(self, model: nn.Module, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimizer of a model; matrices of the first group alone are projected.

        Raises
        ------
        OptionError
            The model has no matrix for it.
        """
        if self.optimizer in PLAIN:
            kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.optimizer]
            return kind(list(groups))
        from neuralsolve.lowrank.optim import METHODS, ProjectedOptimizer, build_param_groups

        named = {"rank": self.rank, "gap": self.refresh, "scale": self.scale, "seed": self.seed}
        method = METHODS[self.optimizer](
            **{name: value for name, value in named.items() if value is not None}
        )
        names = {p: name for name, p in model.named_parameters()}
        others = [
            group | {"params": [(names[p], p) for p in group["params"]]}
            for group in groups[1:]
            if group["params"]
        ]
        return ProjectedOptimizer(
            [*build_param_groups(model, method, groups=groups[:1]), *others], plan=method.plan()
        )
