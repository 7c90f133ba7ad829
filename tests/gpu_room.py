"""The kernels of the GPU as tests see them: tensors of the CPU in and out, wherever they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from neuralsolve.kernels import use


class Room:
    """Kernels that move their tensors to a GPU, and what they have written back."""

    def __init__(self, table: Any):
        self._table = table

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._table, name)

        def call(*arguments: Any, **options: Any) -> Any:
            moved = [a.cuda() if isinstance(a, Tensor) else a for a in arguments]
            back = kernel(*moved, **options)
            for given, there in zip(arguments, moved, strict=True):
                if isinstance(given, Tensor):
                    given.copy_(there)
            return back.cpu() if isinstance(back, Tensor) else back

        return call


@contextmanager
def room() -> Iterator[Any]:
    """On a GPU where there is one; interpreted on the CPU where there is none."""
    with use("gpu") as table:
        yield Room(table) if torch.cuda.is_available() else table
