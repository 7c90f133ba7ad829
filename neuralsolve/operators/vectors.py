"""New vectors: on huge pages where they are large, and in memory that an earlier one has left.

The system hands out memory page by page, zeroed: at 128^3 the vectors of one solve by CG cost it 30 ms, a
third of the solve. So a large vector's memory is kept when nobody uses it any more, for the next one of its
size.
"""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 22  # bytes from where NumPy's arrays lie on huge pages
KEPT = 8  # arrays: more than CG with M works on
MOST = 1 << 31  # bytes in all
_NUMPY = {torch.float64: np.float64, torch.float32: np.float32}


class _Shelf:
    """The latest large arrays, in use or not.

    Whether one is in use tells the number of references to it: a tensor on its memory holds one.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Keep no array any longer."""
        with self._lock:
            self._arrays.clear()

    def take(self, size: int) -> np.ndarray:
        """Return bytes that nobody uses."""
        with self._lock:
            for k in range(len(self._arrays)):
                # one reference is the list's, one the argument's
                if self._arrays[k].nbytes == size and sys.getrefcount(self._arrays[k]) == 2:
                    self._arrays.append(self._arrays.pop(k))
                    return self._arrays[-1]
            made = np.empty(size, np.uint8)
            if size <= MOST // KEPT:
                unused = [a for a in self._arrays if a.nbytes != size]  # of another size: dropped first
                others = [a for a in self._arrays if a.nbytes == size]
                del self._arrays[:]
                self._arrays = [*unused, *others, made][-KEPT:]
            return made


_shelf = _Shelf()


def release() -> None:
    """Let go of the memory that is kept."""
    _shelf.clear()


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor of the dtype and device of another.

    Large ones on the CPU come from NumPy, which asks Linux for huge pages where torch does not: a vector of
    16 MB costs 8 page faults instead of 4096, which took longer than the product that filled it. Nor does
    NumPy fill and copy with threads that spin: in a busy or a small container they wait for each other.
    """
    if not _is_large(shape, like):
        return like.new_empty(shape)
    kind = np.dtype(_NUMPY[like.dtype])
    return torch.from_numpy(_shelf.take(math.prod(shape) * kind.itemsize)).view(like.dtype).view(shape)


def zeros_like(v: Tensor) -> Tensor:
    """Return zeros of the shape of v; see `empty`."""
    if not _is_large(tuple(v.shape), v):
        return torch.zeros_like(v)
    zeros = empty(tuple(v.shape), v)
    zeros.numpy().fill(0)
    return zeros


def copy_of(v: Tensor) -> Tensor:
    """Return a copy of v, contiguous; see `empty`."""
    if not _is_large(tuple(v.shape), v):
        return v.contiguous().clone()
    copy = empty(tuple(v.shape), v)
    np.copyto(copy.numpy(), v.numpy())
    return copy


def shared(array: np.ndarray) -> Tensor:
    """Return a tensor on the memory of an array; on a copy where that is read-only, which torch warns of."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _is_large(shape: tuple[int, ...], like: Tensor) -> bool:
    return (
        like.device.type == "cpu" and like.dtype in _NUMPY and math.prod(shape) * like.element_size() >= LARGE
    )
