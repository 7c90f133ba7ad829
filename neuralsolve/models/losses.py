"""What a direction is worth to the solver that takes a step along it: two losses, blind to scale and sign.

For b = A y, a direction f and the step of the exact line search from zero, alpha = f.b / f.Af:

    residual   || b - alpha A f ||^2 / || b ||^2           Kaneda et al. (2023), for unit b; may exceed 1
    energy     1 - (f.b)^2 / ((f.Af) (y.b))                = ||y - alpha f||_A^2 / ||y||_A^2, in [0, 1]
    scaled     || b - A f || / || b ||                     Lan et al. (2024), for maps linear in b

alpha is the minimiser of ||y - alpha f||_A, not of the residual: an untrained network may well enlarge that.
The gradient flows through alpha. `energy` needs y, which is known where b was made from it, and is what a
step really takes off.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12  # of f.Af relative to |f|^2 |A|: below it a direction says nothing


def dots(u: Tensor, v: Tensor) -> Tensor:
    """Return the inner product of each field of a batch, ``(batch, 1, ...)`` -> ``(batch, 1, ..., 1)``."""
    return (u * v).sum(dim=tuple(range(1, u.ndim)), keepdim=True)


def best_step(f: Tensor, Af: Tensor, b: Tensor) -> Tensor:
    """Return alpha = f.b / f.Af, the minimiser of ||y - alpha f||_A; 0 where f.Af is only rounding."""
    curvature = dots(f, Af)
    usable = curvature > TINY * dots(f, f)
    return torch.where(usable, dots(f, b) / torch.where(usable, curvature, 1.0), 0.0)


def residual_loss(f: Tensor, Af: Tensor, b: Tensor, y: Tensor | None = None) -> Tensor:
    """Return ||b - alpha A f||^2 / ||b||^2 of each field, ``(batch,)``."""
    left = b - best_step(f, Af, b) * Af
    return (dots(left, left) / dots(b, b)).flatten()


def energy_loss(f: Tensor, Af: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return 1 - (f.b)^2 / ((f.Af)(y.b)) of each field, ``(batch,)``."""
    return (1 - best_step(f, Af, b) * dots(f, b) / dots(y, b)).flatten()


def scaled_loss(f: Tensor, Af: Tensor, b: Tensor, y: Tensor | None = None) -> Tensor:
    """Return ||b - A f|| / ||b|| of each field, ``(batch,)``: not squared, and the scale of f counts."""
    left = b - Af
    return (dots(left, left) / dots(b, b)).sqrt().flatten()


LOSSES = {"energy": energy_loss, "residual": residual_loss, "scaled": scaled_loss}
