"""Options of a projected group: their defaults, what they may be, and which side of a matrix they mean."""

from __future__ import annotations

from typing import Any

import torch

from neuralsolve.errors import OptionError, ShapeError, check_known
from neuralsolve.lowrank.optim.projectors import Projector
from neuralsolve.lowrank.views import MatrixView

DEFAULTS = {"update_proj_gap": 200, "scale": 1.0, "proj_type": "std"}
SIDES = ("std", "reverse_std", "left", "right", "full")


def check_adam(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    """Raise OptionError of options that Adam cannot have."""
    try:
        fits = {
            "lr >= 0": lr >= 0,
            "two betas from 0 to less than 1": len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            "eps >= 0": eps >= 0,
            "weight_decay >= 0": weight_decay >= 0,
        }
    except TypeError:
        fits = {"a number for each, and a pair for betas,": False}
    for needed, good in fits.items():
        if not good:
            given = f"lr = {lr!r}, betas = {betas!r}, eps = {eps!r}, weight_decay = {weight_decay!r}"
            msg = f"{given}; {needed} is needed"
            raise OptionError(msg)


def check_group(group: dict[str, Any], views: list[MatrixView | None] | None) -> None:
    """Raise OptionError of options that a projected group cannot have; the rank depends on its parameters."""
    gap, count = group["update_proj_gap"], len(group["params"])
    check_known("proj_type =", group["proj_type"], SIDES)
    if isinstance(gap, bool) or not isinstance(gap, int) or gap < 1:
        msg = f"update_proj_gap = {gap!r}; steps between refreshes, at least 1, are needed"
        raise OptionError(msg)
    if views is not None and len(views) != count:
        msg = f"{len(views)} views of {count} parameters; one for each is needed, or None"
        raise OptionError(msg)


def check_same_ranks(groups: list[dict[str, Any]], saved: list[dict[str, Any]]) -> None:
    """Raise ShapeError where the state of a group is of another rank; None is that of one not projected."""
    for number, pair in enumerate(zip(saved, groups, strict=False)):  # of other numbers of groups torch tells
        ranks = [group.get("rank") for group in pair]
        there, here = (tuple(rank) if isinstance(rank, list) else rank for rank in ranks)
        if there != here:
            msg = (
                f"group {number} of the state has rank {there}, that of this optimizer rank {here}; make the "
                "optimizer with the rank of the state, or begin without the state"
            )
            raise ShapeError(msg)


def turned(group: dict[str, Any], projector: Projector, view: MatrixView | None, shape: torch.Size) -> bool:
    """Return whether the columns of a parameter's matrix are projected, not its rows.

    Along the shorter side the basis is smallest; of square matrices it is the columns, as in GaLore's code.
    A projector that wants an ordered axis takes that one, where the view names one.
    """
    side = group["proj_type"]
    if view is None or side in ("left", "right"):
        return side == "right" and view is not None
    if projector.ordered and view.ordered is not None:
        return view.ordered == "columns"
    m, n = view.sizes(shape)
    return (m < n) if side == "reverse_std" else (m >= n)
