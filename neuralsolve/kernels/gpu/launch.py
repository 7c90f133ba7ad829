"""The one door to Triton: how every kernel of this room is started, and with blocks of what size.

Without a GPU the kernels run in Triton's interpreter, on tensors of the CPU, where TRITON_INTERPRET=1 is set
before this room is imported: the same programs, one after the other, in NumPy. That is for tests.

Numbers of a method are passed as float64 whatever the vectors' precision (annotation `fp64`): Triton takes a
Python float for float32 otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from neuralsolve.errors import OptionError

LARGEST_BLOCK = 1024  # entries of a program's block, at most
INTERPRETED = os.environ.get("TRITON_INTERPRET", "") == "1"


class fp64(float):
    """As an annotation of a kernel's argument: Triton goes by its name, and looks up what it knows alone."""

    __triton_builtin__ = True


def launch(kernel: Any, grid: Sequence[int], *arguments: Any, **constants: Any) -> None:
    """Start a kernel on the device of its first tensor; `constants` are its constexpr arguments, and options.

    Raises
    ------
    OptionError
        The tensors are on the CPU, and Triton does not interpret.
    """
    if 0 in grid:
        return
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    if device.type == "cuda" and not INTERPRETED:
        with torch.cuda.device(device):
            # products and sums in one rounding, which Triton will not do by itself for ever
            _start(kernel, tuple(grid), arguments, {"enable_fp_fusion": True} | constants)
    elif INTERPRETED:
        _start(kernel, tuple(grid), arguments, constants)
    else:
        msg = (
            f"kernels of the GPU got tensors on {device}; move them, x.to('cuda'), or set TRITON_INTERPRET=1 "
            "before the start to have them interpreted"
        )
        raise OptionError(msg)


def _start(kernel: Any, grid: tuple[int, ...], arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    kernel[grid](*arguments, **constants)


def block_for(n: int, most: int = LARGEST_BLOCK) -> int:
    """Return the block size for n entries: a power of two, at most `most` and `LARGEST_BLOCK`."""
    return min(triton.next_power_of_2(max(n, 1)), most, LARGEST_BLOCK)


def blocks(n: int, block: int) -> int:
    """Return how many blocks cover n entries."""
    return triton.cdiv(n, block)
