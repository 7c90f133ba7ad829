"""Kernels in Triton for CUDA devices, under the names and signatures of `kernels.reference`.

Only what an iteration needs is here. Hierarchies, factors and colours are made on the CPU, once, and moved:
asking for one of those kernels is an error that says so.
"""

from __future__ import annotations

from typing import Any

from neuralsolve.errors import OptionError
from neuralsolve.kernels.gpu.vector import axpy

__all__ = ["axpy"]


def __getattr__(name: str) -> Any:
    from neuralsolve.kernels import reference

    if name not in reference.__all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    msg = f"the kernel {name} runs on the CPU alone: make what needs it there, then move it with .to('cuda')"
    raise OptionError(msg)
