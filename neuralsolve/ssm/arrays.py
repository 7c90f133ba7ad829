"""Arrays that come in and go out: finite, of the right shape, NumPy for NumPy and torch for torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neuralsolve.errors import NonFiniteError, ShapeError

Array = np.ndarray[Any, np.dtype[Any]]


def finite(values: Any, name: str) -> Array:
    """Return numbers, torch's too, as a NumPy array, finite all.

    >>> finite(torch.tensor([1.0, 2.0]), "x").tolist()
    [1.0, 2.0]
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().resolve_conj().numpy()
    if hasattr(values, "toarray"):
        msg = f"{name} is sparse; an array is needed: {name}.toarray()"
        raise ShapeError(msg)
    try:
        array = np.asarray(values)
        good = bool(np.isfinite(array).all())
    except (TypeError, ValueError) as error:
        msg = f"{name} is no array of numbers ({error}); np.asarray({name}, dtype=float) should work"
        raise ShapeError(msg) from None
    if not good:
        msg = f"{name} holds NaN or infinity; np.isfinite({name}) tells where"
        raise NonFiniteError(msg)
    return array


def square(A: Any, name: str = "A") -> Array:
    """Return A as a float64 or complex128 array, square and finite, of at least one row."""
    A = finite(A, name)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size:
        msg = f"got {name} of shape {A.shape}; (n, n) with n >= 1 is needed"
        raise ShapeError(msg)
    return A.astype(complex if np.iscomplexobj(A) else float)


def like(result: Array, given: Any) -> Any:
    """Return a result as a tensor on the device of `given` where that is one; its precision stays.

    >>> like(np.ones(2), torch.zeros(1)).dtype, type(like(np.ones(2), [0.0])).__name__
    (torch.float64, 'ndarray')
    """
    if isinstance(given, torch.Tensor):
        return torch.from_numpy(np.ascontiguousarray(result)).to(given.device)
    return result
