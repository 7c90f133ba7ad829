"""Where a system is iterated on: A, M and the steps that are taken there, kept from solve to solve.

Set-up is done on the CPU; what iterations need is then brought to the device of A, once.
"""

from __future__ import annotations

import torch

from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.method import Method
from neuralsolve.solvers.products import Products
from neuralsolve.solvers.structure import Structure, placed
from neuralsolve.solvers.unseen import Unseen


class Placement:
    """A system on a device.

    Attributes
    ----------
    structure : of A, with the A that is iterated with
    check_every : steps between two looks at the residual
    """

    def __init__(self, structure: Structure, device: torch.device, check_every: int):
        self.structure, self.check_every = placed(structure, device), check_every
        self._device = device
        self.forget()

    def forget(self) -> None:
        """Forget what was made of M: it is another, or has changed."""
        self._M: Preconditioner | None = None
        self._unseen: Unseen | None = None

    def describe(self, M: Preconditioner) -> str:
        """Return one phrase for M as it is applied here."""
        return (self._M or M).describe()

    def M(self, M: Preconditioner | None) -> Preconditioner | None:
        """Return M for vectors on the device."""
        if self._M is None and M is not None:
            self._M = M.to(self._device)
        return self._M

    def steps(self, method: Method, M: Preconditioner | None, kept: bool) -> tuple[Products, Unseen | None]:
        """Return A, counted, and what takes steps that the host does not look at, if it looks at fewer.

        Not `kept`: for one solve alone, as another one may begin before it ends.
        """
        if self.check_every == 1:
            return Products(self.structure.A), None
        unseen = self._unseen
        if not kept or unseen is None or not unseen.serves(method, M):
            unseen = Unseen(method, Products(self.structure.A), M, self.check_every)
            self._unseen = unseen if kept else self._unseen
        unseen.products.count = 0
        return unseen.products, unseen
