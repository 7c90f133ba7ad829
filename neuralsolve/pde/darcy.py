"""Darcy flow on the unit square, -div(a grad u) = 1, u = 0 around it: the benchmark of Li et al. (2021).

a takes two values by the sign of a Gaussian field (alpha = 2, tau = 3, Neumann). Nodes are the vertices i h,
i = 0 .. grid - 1, h = 1 / (grid - 1); the scheme has five points and conserves fluxes, faces take the
arithmetic means of their two vertices, or harmonic ones. Every sample is solved by CG with our multigrid,
whose hierarchy is made once and filled anew.

Differs from the source: 12 : 3 as in the paper's text (copies of its generator have 12 : 4); the rule of the
faces is not stated there, and harmonic means change u by 0.2 % at 421^2.

Source: Z. Li et al., "Fourier neural operator for parametric partial differential equations", ICLR 2021
(arXiv 2010.08895), sec. 5.2 and A.3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.equation import described, stream
from neuralsolve.pde.random_fields import neumann
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.prepared import Prepared
from neuralsolve.solvers.solve import prepare

MEANS = ("arithmetic", "harmonic")


@dataclass(frozen=True)
class Darcy:
    """Darcy flow of random two-phase or log-normal permeability; see the head of this file.

    Parameters
    ----------
    grid : vertices a side that are solved on
    stride : every so many vertices are kept
    far_wall : keep the vertices at 1 too. Without them the nodes are i / n, i = 0 .. n - 1, as in the small
        files of the library neuraloperator; their a is near high = 0.37, low = 0.02.
    high, low : a where the Gaussian field is >= 0, and elsewhere
    lognormal : a = exp(field) instead
    alpha, tau : of the Gaussian field
    faces : "arithmetic" or "harmonic"
    rtol : of every solve

    Raises
    ------
    OptionError

    Examples
    --------
    >>> data = Darcy(grid=33).samples(range(2), seed=7)
    >>> data.inputs.shape, bool((data.residuals < 1e-8).all())
    ((2, 1, 33, 33), True)
    """

    name: ClassVar[str] = "darcy"
    prior_names: ClassVar[tuple[str, ...]] = ("u by arithmetic means", "u by harmonic means")

    grid: int = 421
    stride: int = 1
    far_wall: bool = True
    high: float = 12.0
    low: float = 3.0
    lognormal: bool = False
    alpha: float = 2.0
    tau: float = 3.0
    faces: str = "arithmetic"
    rtol: float = 1e-8

    def __post_init__(self) -> None:
        if not (self.grid >= 5 and self.stride >= 1 and (self.grid - 1) % self.stride == 0):
            msg = (
                f"grid = {self.grid}, stride = {self.stride}; 5 vertices a side at least are needed, and a "
                "stride that divides grid - 1, so that the walls are kept"
            )
            raise OptionError(msg)
        if not (self.high > 0 and self.low > 0 and self.tau > 0 and self.rtol > 0):
            msg = f"{self}: high, low, tau and rtol must be positive"
            raise OptionError(msg)
        if self.faces not in MEANS:
            msg = f"faces = {self.faces!r}; one of {', '.join(MEANS)}"
            raise OptionError(msg)

    @property
    def spacing(self) -> float:
        """Between vertices that are solved on."""
        return 1 / (self.grid - 1)

    @property
    def _kept(self) -> slice:
        return slice(None, None if self.far_wall else -1, self.stride)

    def layout(self) -> Layout:
        axis = np.linspace(0, 1, self.grid)[self._kept]
        return Layout(
            (axis, axis),
            ("a",),
            ("u",),
            {"y": "1", "x": "1", "a": "1", "u": "1"},
            ("dirichlet", "dirichlet"),
            described(self),
        )

    def permeability(self, number: int, seed: int) -> np.ndarray:
        """Return a at all vertices ``(grid, grid)``."""
        field = neumann((self.grid,) * 2, self.alpha, self.tau, stream(seed, number))
        return np.exp(field) if self.lognormal else np.where(field >= 0, self.high, self.low)

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        kept = (self._kept,) * 2
        shape = (len(numbers), 1, *(len(axis) for axis in self.layout().axes))
        inputs, outputs = np.empty(shape, np.float32), np.empty(shape, np.float32)
        residuals, prepared = np.empty(len(numbers)), None
        for k, number in enumerate(numbers):
            a = self.permeability(number, seed)
            u, residuals[k], prepared = self._solved(a, prepared)
            inputs[k, 0], outputs[k, 0] = a[kept], u[kept]
        return Samples(inputs, outputs, self.layout(), residuals)

    def solve(self, a: np.ndarray, x0: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """Return u ``(side, side)`` of one permeability at the vertices, and its relative residual."""
        u, residual, _ = self._solved(a, None, x0)
        return u, residual

    def _solved(
        self, a: np.ndarray, prepared: Prepared | None, x0: np.ndarray | None = None
    ) -> tuple[np.ndarray, float, Prepared]:
        A, b = self.operator(a), self.right_side(a)
        if prepared is None:
            prepared = prepare(A, CG(), M=Multigrid(), rtol=self.rtol)
        else:
            prepared.update(A)
        result = prepared.solve(b, x0=None if x0 is None else x0[1:-1, 1:-1].ravel())
        u = np.zeros_like(a, dtype=np.float64)
        u[1:-1, 1:-1] = result.x.reshape(A.grid.shape)
        return u, result.residual_norms[-1] / float(np.linalg.norm(b)), prepared

    def prior(self, inputs: np.ndarray) -> np.ndarray:
        """Return solutions on the grid of the inputs, by arithmetic and by harmonic means, (n, 2, *shape).

        Where that is a stride of the grid that was solved on, their errors have opposite signs: on every
        tenth vertex of 421^2 they are 1.4 % and 1.0 %, and 0.7 % of the mean of both.
        """
        found = np.empty((len(inputs), 2, *inputs.shape[2:]))
        missing = int(not self.far_wall)
        for k, means in enumerate(MEANS):
            equation, prepared = replace(self, faces=means), None
            for n, a in enumerate(inputs[:, 0].astype(float)):
                u, _, prepared = equation._solved(np.pad(a, (0, missing), mode="edge"), prepared)
                found[n, k] = u[: len(a), : len(a)]
        return found

    def operator(self, a: np.ndarray) -> PoissonStencil:
        """Return A of one permeability ``(side, side)`` at vertices of the unit square, walls included.

        It acts on the inner vertices, ``((side - 2)^2,)``.
        """
        side = _side(a)
        faces = []
        for axis in range(2):
            inner = a[:, 1:-1] if axis == 0 else a[1:-1, :]
            low, high = (inner[:-1], inner[1:]) if axis == 0 else (inner[:, :-1], inner[:, 1:])
            faces.append(self._mean(low, high))
        grid = Grid((side - 2, side - 2), spacing=1 / (side - 1), walls="dirichlet")
        return PoissonStencil(grid, [np.ascontiguousarray(face, np.float64) for face in faces])

    def right_side(self, a: np.ndarray) -> np.ndarray:
        """Return b ``((side - 2)^2,)``: one."""
        return np.ones((_side(a) - 2) ** 2)

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        fields = (torch.from_numpy(np.ascontiguousarray(v, np.float64)) for v in (inputs, outputs))
        return self.residual_of(*fields).numpy()

    def residual_of(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Return ||1 + div(a grad u)|| / ||1|| over the inner vertices, (n,), of tensors; differentiable.

        Rounding of u to float32 costs about 1e-3 at 421^2, and less in proportion to 1 / spacing^2; a stride
        costs the error of the coarser scheme, which is large where a jumps.

        Raises
        ------
        ShapeError
            Inputs and outputs of different samples or vertices.
        """
        if inputs.ndim != 4 or outputs.ndim != 4 or _nodes(inputs) != _nodes(outputs):
            msg = (
                f"inputs {tuple(inputs.shape)} and outputs {tuple(outputs.shape)}; (n, channels, side, side) "
                "of both, on the same vertices, are needed"
            )
            raise ShapeError(msg)
        a, u = inputs[:, 0], outputs[:, 0]
        _side(a[0])
        if not self.far_wall:  # zeros beyond; the equations of the last vertices are not known
            a, u = pad(inputs, (0, 1, 0, 1), mode="replicate")[:, 0], pad(u, (0, 1, 0, 1))
        n = a.shape[1]
        total = torch.ones_like(u[:, 1:-1, 1:-1])
        for axis in (1, 2):
            inner, v = (field.narrow(3 - axis, 1, n - 2) for field in (a, u))
            low, high = inner.narrow(axis, 0, n - 1), inner.narrow(axis, 1, n - 1)
            flux = self._mean(low, high) * v.diff(dim=axis)
            total = total + flux.diff(dim=axis) * (n - 1) ** 2
        known = total if self.far_wall else total[:, :-1, :-1]
        return known.square().mean((1, 2)).sqrt()

    def bound(self, a: np.ndarray, x: np.ndarray) -> float:
        """Return a bound of ||x - A^-1 b|| / ||A^-1 b||.

        A >= min(a) L with L the Laplacian of this grid, whose least eigenvalue is known: the error is at most
        ||b - A x|| / (min(a) lambda). Infinite where it says nothing.

        Parameters
        ----------
        a : (side, side), the permeability
        x : ((side - 2)^2,), at the inner vertices, or (side, side), of which the walls are cut off

        Raises
        ------
        ShapeError
        """
        side, x = _side(a), np.asarray(x)
        if x.shape == a.shape:
            x = x[1:-1, 1:-1].ravel()
        if x.shape != ((side - 2) ** 2,):
            msg = (
                f"x has the shape {x.shape}; {((side - 2) ** 2,)}, at the inner vertices, or {(side, side)}, "
                "walls included, is needed"
            )
            raise ShapeError(msg)
        A, b = self.operator(a), self.right_side(a)
        least = float(a.min()) * 8 * (side - 1) ** 2 * np.sin(np.pi / (2 * (side - 1))) ** 2
        left = b - A.matvec(torch.from_numpy(np.ascontiguousarray(x, np.float64))).numpy()
        error, size = float(np.linalg.norm(left)) / least, float(np.linalg.norm(x))
        return error / (size - error) if error < size else np.inf

    def _mean(self, low: Any, high: Any) -> Any:
        """Return the coefficient of faces between vertices."""
        return (low + high) / 2 if self.faces == "arithmetic" else 2 * low * high / (low + high)


def _nodes(fields: Tensor) -> tuple[int, ...]:
    return len(fields), *fields.shape[2:]


def _side(a: Any) -> int:
    if a.ndim != 2 or a.shape[0] != a.shape[1] or a.shape[0] < 5:
        msg = f"the permeability has the shape {a.shape}; (side, side) vertices are needed, side >= 5"
        raise ShapeError(msg)
    return a.shape[0]
