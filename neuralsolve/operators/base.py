"""What A is: data and products, no solver inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError, StructureError, nearest
from neuralsolve.kernels import table
from neuralsolve.operators.vectors import empty

if TYPE_CHECKING:
    import scipy.sparse

    from neuralsolve.operators.nullspace import NullSpace

PROPS = ("symmetric", "spd")

_Operator = TypeVar("_Operator", bound="LinearOperator")
_Thing = TypeVar("_Thing")


class LinearOperator(ABC):
    """A real square or rectangular linear map x -> A x.

    Vectors are contiguous tensors ``(n,)`` or ``(n, k)``, k right sides side by side.

    Attributes
    ----------
    shape : (int, int)
    dtype, device : of the data, and so of the products
    props : frozenset of "symmetric", "spd"
        What is *known* of A. "spd" also stands for positive semi-definite with a known null space.
    null_space : NullSpace or None
        The null space where it is known; a solve projects it out of b and x.
    active : (n,) bool tensor or None
        The entries that take part, where some do not (cells that are not fluid): the rest of b is ignored and
        the rest of x is zero.
    columns : int or None
        How many systems stand side by side, each with an A of its own: vectors are (n, columns) alone.
    stays : bool
        On a GPU a product neither copies to the CPU nor waits for it, so that it can be recorded.
    """

    null_space: NullSpace | None = None
    active: Tensor | None = None
    columns: int | None = None
    stays: bool = True

    def __init__(
        self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device, props: Iterable[str] = ()
    ):
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype, self.device = dtype, device
        self.props = check_props(props)

    @property
    def symmetric(self) -> bool:
        """Whether A = A^T is known."""
        return "symmetric" in self.props

    @abstractmethod
    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return A x for x ``(n,)`` or ``(n, k)``; `out`, if given, is overwritten and returned."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Return the diagonal of A, ``(n,)``."""

    @abstractmethod
    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return A as a SciPy CSR array: for small systems, tests and foreign libraries."""

    @abstractmethod
    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> LinearOperator:
        """Return A on another device or in another precision; self where nothing changes."""

    def matvec_dot(self, x: Tensor, out: Tensor) -> Tensor:
        """Overwrite `out` with A x and return x . A x, per column; stencils and CSR do both in one pass."""
        self.matvec(x, out)
        return table(x.device).dot(x, out)

    def direction_dot(
        self, z: Tensor, beta: Tensor, p: Tensor, spare: Tensor | None, Ap: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Set Ap to A times the next direction of CG, z + beta p; overwrite p and `spare`.

        Return the direction, which lies in one of them, the other one, and direction . Ap, per column.
        """
        table(z.device).xpby(z, beta, p)
        return p, spare, self.matvec_dot(p, Ap)

    def rmatvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return A^T x."""
        if self.symmetric:
            return self.matvec(x, out)
        msg = (
            f"{type(self).__name__} has no transposed product; give a symmetric operator "
            f"(props={{'symmetric'}}) or a matrix, for example ns.as_operator(scipy_matrix)"
        )
        raise StructureError(msg)

    def _destination(
        self, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> tuple[torch.device, torch.dtype]:
        """Return where and in what precision `to` brings A; None is as it is."""
        return self.device if device is None else canonical(device), dtype or self.dtype

    def _handing_on(self, other: _Operator) -> _Operator:
        """Return another form of this operator with what is known of it beside its numbers."""
        Z, active = self.null_space, self.active
        other.null_space = None if Z is None else Z.to(other.device)
        other.active = None if active is None else active.to(other.device)
        return other

    def parameters(self) -> tuple[Tensor, ...]:
        """Return the tensors that a gradient can reach: matrix values, face coefficients."""
        return ()

    def parameter_gradients(self, lam: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return -lam .

        (dA/dtheta) x for every tensor theta of `parameters` (the adjoint rule of a solve); lam and x are
        on the device of A.
        """
        return ()

    def __copy__(self: _Operator) -> _Operator:
        return shallow(self)

    def __matmul__(self, x: Tensor) -> Tensor:
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            msg = (
                f"A is {self.shape}, x is {tuple(x.shape)}; x must be ({self.shape[1]},) or "
                f"({self.shape[1]}, k)"
            )
            raise ShapeError(msg)
        return self.matvec(x.contiguous())


def shallow(thing: _Thing) -> _Thing:
    """Return a copy that shares every attribute, also of a class that is pickled by making it anew."""
    other = object.__new__(type(thing))
    vars(other).update(vars(thing))
    return other


def canonical(device: torch.device | str | int) -> torch.device:
    """Return a device with its index: "cuda" is the present one of them.

    Raises
    ------
    OptionError
        No such device is here, or there are no kernels for it.
    """
    try:
        number = isinstance(device, int) and not isinstance(device, bool)
        found = torch.device("cuda", device) if number else torch.device(device)  # type: ignore[arg-type]
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        msg = f"device is {device!r}; there are kernels for 'cpu' and 'cuda', 'cuda:1' of several GPUs"
        raise OptionError(msg)
    if found.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = (
            "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA GPU"
        )
        msg = f"device {str(device)!r} is not here: {build}; leave the device out to run on the CPU"
        raise OptionError(msg)
    index, count = found.index, torch.cuda.device_count()
    if index is not None and index >= count:
        msg = f"device {str(device)!r} is not here: torch finds {count} GPU(s), cuda:0 to cuda:{count - 1}"
        raise OptionError(msg)
    return torch.device("cuda", torch.cuda.current_device() if index is None else index)


def check_props(props: Iterable[str]) -> frozenset[str]:
    """Return the properties, with what they imply; refuse unknown names."""
    props = frozenset([props] if isinstance(props, str) else props)
    for name in props:
        if name not in PROPS:
            msg = f"unknown property {name!r} of an operator{nearest(name, PROPS)}"
            raise OptionError(msg)
    return props | {"symmetric"} if "spd" in props else props


def output_like(x: Tensor, rows: int, out: Tensor | None) -> Tensor:
    """Return `out`, or a new vector of `rows` rows beside x."""
    return out if out is not None else empty((rows, *x.shape[1:]), x)
