"""A method by its options, and which parameters of a model it is for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from neuralsolve.errors import OptionError, check_kind
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projected import ProjectedOptimizer
from neuralsolve.lowrank.optim.projectors import Rank
from neuralsolve.lowrank.views import EXCLUDED, MatrixView, matrices

MIN_DIM = 16


@dataclass(frozen=True)
class Method(ABC):
    """A low-rank optimizer by its options; kinds say what it is put together from.

    Parameters
    ----------
    rank : columns of the basis, or a part of the shorter side of each matrix
    gap : steps between refreshes of the basis
    scale : of the projected step
    side : "std" projects the shorter side of a matrix; others as of `ProjectedOptimizer`
    seed : of all that is drawn at random

    Attributes
    ----------
    shortest : rows and columns from which on a matrix is taken, unless `min_dim` says otherwise
    """

    shortest: ClassVar[int] = MIN_DIM
    rank: Rank = 0.25
    gap: int = 50
    scale: float = 1.0
    side: str = "std"
    seed: int = 1905

    @abstractmethod
    def plan(self) -> Plan:
        """Return the plugs.

        Raises
        ------
        OptionError
        """

    def smallest(self) -> int | None:
        """Return from how many entries on it takes any parameter, matrix or not; None: matrices alone."""
        return None

    def optimizer(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        min_dim: int | None = None,
        exclude: Iterable[str] = EXCLUDED,
        groups: Sequence[dict[str, Any]] | None = None,
    ) -> ProjectedOptimizer:
        """Return the optimizer of a model; groups as of `build_param_groups`."""
        split = build_param_groups(model, self, min_dim=min_dim, exclude=exclude, groups=groups)
        return ProjectedOptimizer(split, lr, betas, eps, weight_decay, self.plan())


def build_param_groups(
    model: nn.Module,
    method: Method,
    *,
    min_dim: int | None = None,
    exclude: Iterable[str] = EXCLUDED,
    groups: Sequence[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Split the parameters of a model into matrices, which are projected, and all others, which are not.

    Parameters
    ----------
    model : its modules say how their parameters are matrices, see `neuralsolve.lowrank.views`
    method : rank, gap, scale and side of the projected groups
    min_dim : of rows and of columns, None: what the method says, 16 by custom; smaller matrices, and those
        whose shorter side is no longer than a whole rank, are not projected: their state would be no smaller
    exclude : words; a parameter with one of them in its path is not projected
    groups : parameters with options of their own, such as "lr"; None: one group of all

    Raises
    ------
    OptionError
        Nothing is left to be projected; no model, or no method.

    Examples
    --------
    >>> from neuralsolve.lowrank.optim import GaLore
    >>> net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1))
    >>> groups = build_param_groups(net, GaLore(rank=4))
    >>> [(group.get("rank"), group["params"][0][0]) for group in groups]
    [(4, '0.weight'), (None, '0.bias')]
    """
    check_kind(model, nn.Module, "the model itself is needed, whose modules tell what is a matrix")
    check_kind(method, Method, "a method is needed: GaLore(rank=16), or METHODS['galore']()")
    min_dim = method.shortest if min_dim is None else min_dim
    chosen = _chosen(model, method, min_dim, exclude)
    names = {p: name for name, p in model.named_parameters()}
    given = [{"params": list(names)}] if groups is None else groups
    made: list[dict[str, Any]] = []
    for group in given:
        own = [p for p in group["params"] if p.requires_grad]
        parts = [p for p in own if p in chosen], [p for p in own if p not in chosen]
        options = {"rank": method.rank, "update_proj_gap": method.gap, "scale": method.scale}
        options |= {"proj_type": method.side, "views": [chosen[p] for p in parts[0]]}
        for part, more in zip(parts, (options, {}), strict=True):
            if part:
                made.append({**group, "params": [(names[p], p) for p in part], **more})
    if not any("rank" in group for group in made):
        least = method.smallest()
        matrix = f"matrices of at least {min_dim} rows and columns, longer than rank = {method.rank},"
        need = matrix if least is None else f"parameters of at least {least} entries"
        msg = f"nothing of {type(model).__name__} is for {type(method).__name__}; {need} are needed, or AdamW"
        raise OptionError(msg)
    return made


def _chosen(
    model: nn.Module, method: Method, min_dim: int, exclude: Iterable[str]
) -> dict[Tensor, MatrixView | None]:
    """Return the parameters that are projected, and how they are seen."""
    smallest = method.smallest()
    if smallest is not None:
        return {p: None for p in model.parameters() if p.numel() >= smallest}
    whole = method.rank if isinstance(method.rank, int) else 0
    found = matrices(model, max(min_dim, whole + 1), exclude)
    return {each.parameter: each.view for each in found}
