"""What every preconditioner is: a recipe (frozen options) that builds M, an approximate inverse of A."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuralsolve.errors import StructureError
from neuralsolve.operators.base import LinearOperator
from neuralsolve.tuning.tuned import Tunable

if TYPE_CHECKING:
    import scipy.sparse.linalg


class Recipe(Tunable, ABC):
    """Options of a preconditioner, a frozen dataclass; `build` makes the preconditioner for an A."""

    @abstractmethod
    def build(self, A: LinearOperator) -> Preconditioner:
        """Set up M for A."""


class Preconditioner(ABC):
    """M, an approximation of A^-1 that is applied to residuals.

    Attributes
    ----------
    symmetric : bool
        M = M^T and positive definite, as CG and MINRES need it.
    by_columns : bool
        Several right sides cost as much together as one by one: the loop solves each on its own thread.
    stays : bool
        On a GPU `apply` neither copies to the CPU nor waits for it, so that steps with it can be recorded.
    """

    symmetric: bool = False
    by_columns: bool = False
    stays: bool = False

    @abstractmethod
    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        """Return z = M r, ``(n,)`` or ``(n, k)``; `out`, if given, is overwritten and returned."""

    @abstractmethod
    def update(self, A_next: LinearOperator) -> None:
        """Follow A to new values on the same pattern, keeping what need not be made again."""

    def retune(self, recipe: Recipe) -> bool:
        """Take the options of another recipe, where that needs no set-up; return whether it was done."""
        return False

    @abstractmethod
    def describe(self) -> str:
        """One short phrase for a solve's explanation."""

    def twin(self) -> Preconditioner:
        """Return the same M with working room of its own, so that two threads may apply it at once."""
        return self

    def to(self, device: torch.device) -> Preconditioner:
        """Return M for vectors on another device; where M has no kernels there, one that copies them."""
        return self if device.type == "cpu" else OnCPU(self, device)

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        """Return M^T r."""
        if self.symmetric:
            return self.apply(r, out)
        msg = f"{self.describe()} has no transpose; a symmetric one is needed, for example ns.SSOR()"
        raise StructureError(msg)

    def aslinearoperator(self, n: int) -> scipy.sparse.linalg.LinearOperator:
        """Return M as a SciPy operator of size n, to pass as `M` to SciPy's own solvers."""
        from scipy.sparse.linalg import LinearOperator as SciPyOperator

        def product(r: object) -> object:
            return self.apply(torch.as_tensor(r, dtype=torch.float64).reshape(n).contiguous()).numpy()

        def transposed(r: object) -> object:
            return self.apply_transpose(
                torch.as_tensor(r, dtype=torch.float64).reshape(n).contiguous()
            ).numpy()

        return SciPyOperator((n, n), matvec=product, rmatvec=transposed, dtype=float)  # type: ignore[call-arg]


class OnCPU(Preconditioner):
    """M that is applied on the CPU to vectors of another device: each is copied there, the answer back."""

    def __init__(self, M: Preconditioner, device: torch.device):
        self.M, self.device, self.symmetric, self.by_columns = M, device, M.symmetric, False

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        z = self.M.apply(r.cpu())
        return z.to(r.device) if out is None else out.copy_(z)

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        z = self.M.apply_transpose(r.cpu())
        return z.to(r.device) if out is None else out.copy_(z)

    def to(self, device: torch.device) -> Preconditioner:
        return self.M.to(device)

    def update(self, A_next: LinearOperator) -> None:
        self.M.update(A_next)

    def describe(self) -> str:
        return f"{self.M.describe()}, applied on the CPU, vectors copied from {self.device} and back"


def by_columns(apply: Callable[[Tensor], Tensor], r: Tensor, out: Tensor) -> Tensor:
    """Fill `out` column by column from a map of single vectors."""
    if r.ndim == 1:
        return out.copy_(apply(r))
    for j in range(r.shape[1]):
        out[:, j] = apply(r[:, j].contiguous())
    return out
