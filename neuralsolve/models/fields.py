"""Training data: errors y on a grid and right sides b = A y, fresh ones and the solver's own residuals.

Two sources of fresh y. `smoothed`: white noise on the grid and on coarser ones, interpolated, then s sweeps
of damped Jacobi, s one of 0, 2, 8, 32, 128: every part of the spectrum, at the cost of some products. `Ritz`:
Kaneda et al. (2023), b = sum_i c_i q_i with Ritz vectors q_i of a Lanczos run, c_i = 9 N(0, 1) for the lower
part of them and N(0, 1) for the rest; y = sum_i c_i q_i / theta_i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuralsolve.models.losses import best_step, dots
from neuralsolve.operators.stencil import PoissonStencil

SWEEPS = (0, 2, 8, 32, 128)
DAMPING = 0.8
BOOST = 9.0  # of the coefficients of low Ritz vectors, from the source
COARSEST = 4  # cells a side below which no coarser noise is made


class System:
    """A of one grid, or of many of one shape, on batches of fields ``(batch, 1, *shape)``, in float32.

    A u = D u - sum over axes of (w u(lower neighbour) + (w u)(upper neighbour)), D and w the diagonal and the
    couplings of the stencil, in units of 1/spacing^2 of the finest axis: numbers stay near one. Plain torch:
    a gradient flows through it. With many grids, `take` chooses one for every field of a batch.
    """

    def __init__(self, stencils: Sequence[PoissonStencil]):
        grids = [A.grid for A in stencils]
        self.shape, self.dim, self.periodic = grids[0].shape, len(grids[0].shape), grids[0].periodic
        self.diagonal = torch.stack([_fields(A.faces()[0], A) for A in stencils])
        lower = [[_fields(w, A) for w in A.faces()[1][3 - self.dim :]] for A in stencils]
        self.lower = [torch.stack(list(along)) for along in zip(*lower, strict=True)]
        self.cells = torch.stack([grid.cells[None] for grid in grids])

    @property
    def fluid(self) -> Tensor:
        """Where A acts, ``(grids or batch, 1, *shape)``."""
        return self.diagonal > 0

    def __len__(self) -> int:
        return len(self.diagonal)

    def take(self, which: Tensor) -> System:
        """Return the systems of the grids `which` ``(batch,)``; of a single grid, itself."""
        if len(self) == 1:
            return self
        other = object.__new__(System)
        other.shape, other.dim, other.periodic = self.shape, self.dim, self.periodic
        other.diagonal, other.cells = self.diagonal[which], self.cells[which]
        other.lower = [w[which] for w in self.lower]
        return other

    def matvec(self, u: Tensor) -> Tensor:
        """Return A u."""
        out = self.diagonal * u
        for axis, w in enumerate(self.lower):
            at = axis + 2
            n = u.shape[at]
            if self.periodic[axis]:
                out = out - w * u.roll(1, at) - (w * u).roll(-1, at)
                continue
            inner = w.narrow(at, 1, n - 1)
            down, up = inner * u.narrow(at, 0, n - 1), inner * u.narrow(at, 1, n - 1)
            room = [0, 0] * (self.dim - 1 - axis)
            out = out - nn.functional.pad(down, [*room, 1, 0]) - nn.functional.pad(up, [*room, 0, 1])
        return out

    def smooth(self, y: Tensor, sweeps: int) -> Tensor:
        """Return y after sweeps of damped Jacobi for A y = 0."""
        scale = torch.where(self.fluid, DAMPING / self.diagonal.clamp(min=1e-30), 0.0)
        for _ in range(sweeps):
            y = y - scale * self.matvec(y)
        return y


def _fields(v: Tensor, A: PoissonStencil) -> Tensor:
    return (v / max(A.scale)).float().reshape(1, *A.grid.shape)


def smoothed(system: System, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` errors y of unit size: multi-scale noise, smoothed by a random number of sweeps.

    The noise of the grid coarsened 2^l times has weight 2^(l u) with u uniform in [-1, 2], one u a field:
    from rough y to the smooth y that white right sides have.
    """
    mode = "bilinear" if system.dim == 2 else "trilinear"
    tilt = 3 * torch.rand(count, *[1] * (system.dim + 1), generator=generator) - 1
    y = torch.zeros(count, 1, *system.shape)
    level = 0
    while level == 0 or min(system.shape) >> level >= COARSEST:
        coarse = [max(1, -(-side // 2**level)) for side in system.shape]
        noise = torch.randn(count, 1, *coarse, generator=generator)
        if level:
            noise = nn.functional.interpolate(noise, system.shape, mode=mode, align_corners=False)
        y += 2 ** (level * tilt) * noise
        level += 1
    y = torch.where(system.fluid, y, 0.0)
    chosen = torch.randint(len(SWEEPS), (count,), generator=generator)
    done = 0
    for k, sweeps in enumerate(SWEEPS):  # those that want more go on together
        rest = chosen >= k
        if sweeps > done and bool(rest.any()):
            y[rest] = system.take(rest.nonzero().flatten()).smooth(y[rest], sweeps - done)
        done = sweeps
    return y / dots(y, y).sqrt()


class Ritz:
    """Ritz vectors of A from a Lanczos run with full orthogonalisation (Kaneda et al. 2023).

    Parameters
    ----------
    count : Lanczos steps m; memory m n numbers of 4 bytes, time O(m^2 n)
    boosted : part of the Ritz vectors, the lowest, whose coefficients are nine times larger; 0.55 in the
        source, 0.6 in Lan et al. (2024)
    start : vector the run starts from; A times white noise by default

    Attributes
    ----------
    values : (k,) Ritz values, ascending, those below 1e-8 left out
    vectors : (k, n) Ritz vectors
    """

    def __init__(
        self,
        system: System,
        count: int,
        generator: torch.Generator,
        boosted: float = 0.55,
        start: Tensor | None = None,
    ):
        self.system = system
        if start is None:
            start = system.matvec(
                torch.where(system.fluid, torch.randn(1, 1, *system.shape, generator=generator), 0.0)
            )
        basis, T = lanczos(
            lambda v: system.matvec(v.reshape(1, 1, *system.shape)).reshape(-1), start.reshape(-1), count
        )
        theta, Q = torch.linalg.eigh(T)
        kept = theta > 1e-8
        self.values = theta[kept].float()
        self.vectors = Q.float().T[kept] @ basis
        self.low = int(boosted * len(self.values))

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` errors y = sum_i (c_i / theta_i) q_i with b = A y of about unit size."""
        c = torch.randn(count, len(self.values), generator=generator)
        c[:, : self.low] *= BOOST
        c /= torch.linalg.vector_norm(c, dim=1, keepdim=True)
        return ((c / self.values) @ self.vectors).reshape(count, 1, *self.system.shape)


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis ``(m, n)`` of the Krylov space of `start` and T = W A W^T ``(m, m)``.

    Every vector is orthogonalised against all before it, twice. Stops early where the space is invariant.
    """
    basis = torch.empty(min(count, len(start)), len(start))
    diagonal, off = [], []
    v = start / torch.linalg.vector_norm(start)
    for k in range(len(basis)):
        basis[k] = v
        w = product(v)
        diagonal.append(torch.dot(w, v).double())
        for _ in range(2):
            w = w - basis[: k + 1].T @ (basis[: k + 1] @ w)
        size = torch.linalg.vector_norm(w)
        off.append(size.double())
        if size <= 1e-6 * max(float(max(diagonal)), 1e-30):
            break
        v = w / size
    T = torch.diag(torch.stack(diagonal))
    beside = torch.stack(off)[: len(T) - 1]
    return basis[: len(T)], T + torch.diag(beside, 1) + torch.diag(beside, -1)


class Pool:
    """A batch of errors, each on its way through the solver: fresh data and on-policy residuals in one.

    Every field carries its error e, the last two directions p with A p, and which grid it is on. After a
    direction f was proposed for r = A e, `advance` takes the step of the outer loop (DCDM with history 2),
    and what is left is the next residual to train on: those the solver itself meets, at no cost beyond a
    product.
    """

    def __init__(self, count: int, shape: tuple[int, ...]):
        self.error = torch.zeros(count, 1, *shape)
        self.past = torch.zeros(4, count, 1, *shape)  # p, Ap, newest first
        self.age = torch.full((count,), -1, dtype=torch.int64)
        self.grid = torch.zeros(count, dtype=torch.int64)

    def old(self, oldest: Tensor) -> Tensor:
        """Return which fields are to be replaced: older than their own limit ``(count,)``, or empty."""
        return (self.age < 0) | (self.age > oldest)

    def put(self, where: Tensor, error: Tensor) -> None:
        """Start the fields `where` afresh."""
        self.error[where] = error
        self.past[:, where] = 0
        self.age[where] = 0

    def conjugate(self, f: Tensor) -> Tensor:
        """Return f made A-orthogonal to the last directions, as the outer loop does it."""
        for p, Ap in (self.past[:2], self.past[2:]):
            curvature = dots(p, Ap)
            f = f - torch.where(curvature > 0, dots(f, Ap) / curvature.clamp(min=1e-30), 0.0) * p
        return f

    def advance(self, system: System, d: Tensor) -> None:
        """Step along d; errors are renewed at unit size, so that float32 holds them at any age."""
        size = dots(d, d).sqrt()
        d = torch.where(torch.isfinite(size) & (size > 0), d / size.clamp(min=1e-30), 0.0)
        Ad = system.matvec(d)
        e = self.error - best_step(d, Ad, system.matvec(self.error)) * d
        self.error = e / dots(e, e).sqrt().clamp(min=1e-30)
        self.past = torch.stack([d, Ad, self.past[0], self.past[1]])
        self.age += 1
