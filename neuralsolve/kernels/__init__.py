"""Inner loops on bare tensors: the lowest room, knowing none of the package's classes.

`table(device)` returns a module of functions. Every implementation has the same names and signatures,
takes torch tensors and writes into the outputs it is given: no checks, no allocation of vectors, no
autograd. Vectors are contiguous, (n,) or (n, k) with the k right-hand sides fastest; scalars of a method
are tensors of shape () or (k,).

`reference` is plain torch and plain Python: slow, short, the definition. `cpu` is numba, two or more
threads for large vectors. `gpu` is Triton, for CUDA; it has what iterations need, and no set-up, which is
done on the CPU and moved. Other devices use the reference, whose products are vectorised torch.

Inside an iteration use these functions rather than torch's arithmetic on whole vectors: above 32 768
entries torch wakes threads of its own, which spin for some milliseconds afterwards and take the cores
from the next kernel.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import torch

from neuralsolve.errors import OptionError

_ROOMS = ("reference", "cpu", "gpu")
_SERVED = {"cpu": "cpu", "cuda": "gpu"}  # by which room; other devices by the reference
_forced: ContextVar[str | None] = ContextVar("neuralsolve_kernels", default=None)
_loaded: dict[str, ModuleType] = {}


def table(device: torch.device | str = "cpu") -> ModuleType:
    """Return the kernels that serve tensors of a device.

    Parameters
    ----------
    device : torch.device or str
        Where the tensors live.

    Returns
    -------
    module
        Its functions are listed in its `__all__`; numba and Triton are imported when they are needed.

    Raises
    ------
    OptionError
        The device is a CUDA one and Triton is not installed.

    Examples
    --------
    >>> import torch
    >>> from neuralsolve.kernels import table
    >>> x = torch.tensor([3.0, 4.0], dtype=torch.float64)
    >>> float(table(x.device).dot(x, x))
    25.0
    """
    name = _forced.get()
    if name is None:
        kind = device.type if isinstance(device, torch.device) else torch.device(device).type
        name = _SERVED.get(kind, "reference")
    module = _loaded.get(name)
    if module is None:
        if name == "gpu" and importlib.util.find_spec("triton") is None:
            msg = (
                "tensors on a CUDA device need Triton, which is not installed: pip install 'neuralsolve[gpu]'"
            )
            raise OptionError(msg)
        module = _loaded[name] = importlib.import_module(f"{__name__}.{name}")
    return module


@contextmanager
def use(name: str) -> Iterator[ModuleType]:
    """Force one implementation inside a `with` block (of this thread or task only).

    Parameters
    ----------
    name : {"reference", "cpu", "gpu"}
        "gpu" serves tensors of the CPU where TRITON_INTERPRET=1 was set before it was imported.

    Raises
    ------
    OptionError
        For any other name.

    Examples
    --------
    >>> from neuralsolve.kernels import table, use
    >>> with use("reference") as kernels:
    ...     table("cpu") is kernels
    True
    """
    if name not in _ROOMS:
        msg = f"got kernels {name!r}, need one of {list(_ROOMS)}; call use('reference') for plain torch"
        raise OptionError(msg)
    token = _forced.set(name)
    try:
        yield table()
    finally:
        _forced.reset(token)
