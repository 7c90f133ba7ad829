"""Fast Poisson solver: the exact inverse of a constant-coefficient box, O(n log n).

Problem: A x = b, A = sum_a c_a I x T_a x I on a full box of cells. Every T_a is diagonal in a trigonometric
basis (see `transforms`). All axes but one are transformed; the one that is kept leaves one tridiagonal system
per mode (see `lines`; Hockney, J. ACM 12, 1965; Buzbee, Golub and Nielson, SIAM J. Numer. Anal. 7, 1970;
Swarztrauber, SIAM Review 19, 1977). That saves a transform each way, as a rule the slow one across memory.

Singular boxes get the pseudo-inverse: the constant is taken out of b and of x. All happens in the place of x;
memory beside it: the pivots, one vector, none where the kept axis is periodic. The residual left by one
application is a few eps ||A|| ||x||; as a method FastPoisson is iterated by `Richardson`, which refines it
where that is not enough.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import GridError, OptionError
from neuralsolve.operators.base import LinearOperator, output_like, shallow
from neuralsolve.operators.csr import CSROperator
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.solvers import fft_transforms
from neuralsolve.solvers.lines import Uncoupled, line_solver
from neuralsolve.solvers.recognise import box_stencil
from neuralsolve.solvers.transforms import REMEDY, Axis, Transform, box_axes, has_fast_transform, transform

SERIAL_BELOW = 20_000  # cells, from where threads pay in the transforms


@dataclass(frozen=True)
class FastPoisson(Recipe):
    """The exact inverse of a full constant-coefficient box by sine, cosine and Fourier transforms.

    As a method, `ns.solve(A, b, ns.FastPoisson())`, it solves in one application; it may stand as M too. A
    CSR matrix that is a box stencil, or a multiple of one, is taken as that stencil.

    Parameters
    ----------
    workers : threads of the transforms; None is two where there are two cores

    Raises
    ------
    OptionError
        `workers` is not a positive integer.
    StructureError
        At `build`: A is no such box; the message says why, and what to call instead.

    Examples
    --------
    >>> from neuralsolve.operators.grid import Grid
    >>> A = PoissonStencil(Grid((8, 12), walls=("periodic", "dirichlet")))
    >>> x = torch.arange(96, dtype=torch.float64)
    >>> bool(torch.dist(FastPoisson().build(A).apply(A @ x), x) <= 1e-12 * torch.linalg.vector_norm(x))
    True
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not (isinstance(self.workers, int) and self.workers > 0):
            msg = f"workers is {self.workers!r}; a number of threads is needed: ns.FastPoisson(workers=2)"
            raise OptionError(msg)

    def build(self, A: LinearOperator) -> BoxInverse:
        """Return the inverse of A, its pseudo-inverse where A is singular."""
        return BoxInverse(A, self.workers or min(2, os.cpu_count() or 1))


class BoxInverse(Preconditioner):
    """The inverse of a box, or its pseudo-inverse; made by `FastPoisson().build(A)`."""

    def __init__(self, A: LinearOperator, workers: int):
        self.workers, self.device = workers, torch.device("cpu")
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        """Take another box: eigenvalues and pivots are made anew, O(n)."""
        stencil, self._multiple = _as_box(A_next)
        self._axes = [Axis(1, diagonal=np.zeros(1))] * (3 - len(stencil.grid.shape)) + box_axes(stencil)
        self.symmetric = self._multiple > 0  # the inverse of a negative definite box is of no use to CG
        self._set_up()

    def to(self, device: torch.device) -> BoxInverse:
        """Return the inverse for vectors on another device: the transforms there are those of torch.fft."""
        if device == self.device:
            return self
        moved = shallow(self)
        moved.device, moved.stays = device, device.type != "cpu"
        moved._set_up()
        return moved

    def _set_up(self) -> None:
        axes = self._axes
        self.shape3 = tuple(axis.size for axis in axes)
        coupled = [a for a in range(3) if axes[a].diagonal is None]
        self._kept = min(coupled, key=lambda a: (has_fast_transform(axes[a]), a), default=None)
        self._transforms = {a: self._transform(axes[a], a) for a in coupled if a != self._kept}
        eigenvalues = [np.zeros(1) if axis.diagonal is None else axis.diagonal for axis in axes]
        for a, change in self._transforms.items():
            eigenvalues[a] = change.eigenvalues
        self._gain = math.prod(change.gain for change in self._transforms.values()) / self._multiple
        z, y, x = (torch.from_numpy(values) for values in eigenvalues)
        self._set_up_lines(axes, z[:, None, None] + y[:, None] + x)

    def _transform(self, axis: Axis, a: int) -> Transform:
        if self.device.type != "cpu":
            return fft_transforms.transform(axis, a, self.device)
        return transform(axis, a, 1 if math.prod(self.shape3) < SERIAL_BELOW else self.workers)

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(r, len(r), out)
        box = (*self.shape3, r.numel() // len(r))
        answer = _copied(r.reshape(box), out.view(box))
        v = answer if answer.dtype == torch.float64 else answer.double()
        for change in self._transforms.values():
            v = change.forward(v)
        v = v.contiguous()
        self._lines.solve(v.view(*self._modes, -1), self._gain)
        for change in reversed(self._transforms.values()):
            v = change.backward(v)
        if v is not answer:
            _copied(v, answer)
        return out

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        """Return A^-T r = A^-1 r."""
        return self.apply(r, out)

    def describe(self) -> str:
        names = [change.name for change in self._transforms.values()]
        if self._kept is not None:
            names.append(f"tridiagonal along {'zyx'[self._kept]}")
        return f"exact inverse of a box: {', '.join(names) or 'diagonal'}"

    def _set_up_lines(self, axes: list[Axis], eigenvalues: Tensor) -> None:
        """Prepare the solves along the kept axis, given the eigenvalues (m0, m1, m2) of the others."""
        if self._kept is None:
            self._lines = Uncoupled(eigenvalues.reshape(1, 1, -1)).to(self.device)
            self._modes = (1, 1, eigenvalues.numel())
            return
        axis = axes[self._kept]
        lines = math.prod(eigenvalues.shape[: self._kept])
        shift = (eigenvalues / axis.coupling).reshape(lines, -1)
        self._gain /= axis.coupling
        self._lines = line_solver(axis, shift).to(self.device)
        self._modes = (lines, axis.size, shift.shape[1])


def _copied(source: Tensor, to: Tensor) -> Tensor:
    """Copy into `to` and return it; by NumPy on the CPU: its copies wake no threads that spin."""
    if to.device.type == "cpu":
        np.copyto(to.numpy(), source.numpy())
        return to
    return to.copy_(source)


def _as_box(A: LinearOperator) -> tuple[PoissonStencil, float]:
    if isinstance(A, PoissonStencil):
        return A, 1.0
    found = box_stencil(A) if isinstance(A, CSROperator) else None
    if found is None:
        msg = (
            f"FastPoisson needs the stencil of a box; A is a {type(A).__name__} of shape {A.shape} that is "
            f"none: {REMEDY}, or build ns.PoissonStencil(ns.Grid(...))"
        )
        raise GridError(msg)
    return found
