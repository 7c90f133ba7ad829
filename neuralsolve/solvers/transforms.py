"""The axes of a constant-coefficient box, and the trigonometric transform that diagonalises each.

Along an axis of n cells the box Laplacian is c T, T = tridiag(-1, 2, -1) with ends that the walls give it;
its eigenvectors are sampled sines and cosines (Strang, The Discrete Cosine Transform, SIAM Review 41, 1999,
sec. 3), its eigenvalues 4 sin^2(theta_k / 2):

| low, high wall            | transform, inverse | theta_k                                  |
|---------------------------|--------------------|------------------------------------------|
| Neumann, Neumann          | DCT-II, DCT-III    | pi k / n, k = 0..n-1                     |
| Dirichlet, Dirichlet      | DST-I              | pi k / (n + 1), k = 1..n                 |
| face Dirichlet, both      | DST-II, DST-III    | pi k / n, k = 1..n                       |
| Neumann, face Dirichlet   | DCT-IV             | pi (k + 1/2) / n, k = 0..n-1             |
| face Dirichlet, Neumann   | DST-IV             | pi (k + 1/2) / n, k = 0..n-1             |
| periodic                  | real FFT           | 2 pi k / n, k = 0, 1, 1, 2, 2, ...       |
| Neumann, Dirichlet        | odd FFT of 2n + 1  | pi (2 (n - k) + 1) / (2n + 1), k = 1..n  |
| face Dirichlet, Dirichlet | odd FFT of 2n + 1  | 2 pi k / (2n + 1), k = 1..n              |

"Dirichlet" puts the value zero into the centre of the ghost cell, as a `Grid` does; "face Dirichlet" puts it
on the wall itself, which is a wall face of twice the coefficient.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import StructureError
from neuralsolve.operators.stencil import PoissonStencil

REMEDY = "use ns.CG() with M=ns.IncompleteCholesky(0.97), or leave the method out and one is chosen"
REAL = {  # walls: name, SciPy's function, type, type of the inverse, theta_k = pi (k + first) / (n + longer)
    (0, 0): ("DCT-II", "dct", 2, 3, 0.0, 0),
    (1, 1): ("DST-I", "dst", 1, 1, 1.0, 1),
    (2, 2): ("DST-II", "dst", 2, 3, 1.0, 0),
    (0, 2): ("DCT-IV", "dct", 4, 4, 0.5, 0),
    (2, 0): ("DST-IV", "dst", 4, 4, 0.5, 0),
}

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Axis:
    """One axis of a box: c T, and where T ends.

    Attributes
    ----------
    size : cells along it
    coupling : c >= 0, in units of the matrix
    walls : what each wall adds to the end diagonals of T: 0 Neumann, 1 Dirichlet, 2 face Dirichlet; None:
    periodic
    diagonal : (n,) the whole operator where cells do not couple (one cell, or c = 0), else None
    """

    size: int
    coupling: float = 0.0
    walls: tuple[int, int] | None = (0, 0)
    diagonal: np.ndarray | None = None


@dataclass(frozen=True)
class Transform:
    """A change of basis along one axis; both steps may work in place, and leave a scale to `gain`.

    Attributes
    ----------
    name : what it is
    forward, backward : (n0, n1, n2, k) -> the same shape
    gain : number that makes backward(forward(v)) the identity
    eigenvalues : of c T, one per mode
    """

    name: str
    forward: Step
    backward: Step
    gain: float
    eigenvalues: np.ndarray


def box_axes(A: PoissonStencil) -> list[Axis]:
    """Return the axes of a full box with one coefficient per axis; refuse any other stencil.

    Raises
    ------
    StructureError
        Cells that are not fluid, coefficients that vary, wall coefficients other than one or two times those
        inside.
    """
    if not A.grid.is_box:
        cells = np.count_nonzero(A.grid.cells.numpy())
        msg = (
            f"FastPoisson needs every cell FLUID; {cells} of the {A.grid.size} cells are SOLID or AIR: "
            f"{REMEDY}"
        )
        raise StructureError(msg)
    return [_axis(A, a) for a in range(len(A.grid.shape))]


def is_constant_box(A: PoissonStencil) -> bool:
    """Whether `box_axes` takes A."""
    if A.active is not None:
        return False
    try:
        box_axes(A)
    except StructureError:
        return False
    return True


def _axis(A: PoissonStencil, a: int) -> Axis:
    n, scale = A.grid.shape[a], 1 / A.grid.spacing[a] ** 2
    dirichlet = [wall == "dirichlet" for wall in A.grid.walls[a]]
    if A.coefficients is None:
        inner, ends = 1.0, [float(d) for d in dirichlet]
    else:
        faces = A.coefficients[a].detach()
        periodic = A.grid.periodic[a]
        inner = _constant(faces if periodic else faces.narrow(a, 1, n - 1), a)
        ends = [d and _constant(faces.select(a, end), a) for d, end in zip(dirichlet, (0, -1), strict=True)]
    if A.grid.periodic[a]:
        return Axis(n, inner * scale, None) if n > 1 and inner > 0 else Axis(n, diagonal=np.zeros(n))
    if n == 1 or inner == 0:
        diagonal = np.zeros(n)
        diagonal[0] += ends[0] * scale
        diagonal[-1] += ends[1] * scale
        return Axis(n, diagonal=diagonal)
    return Axis(n, inner * scale, _walls(ends[0] / inner, ends[1] / inner, a))


def _constant(faces: Tensor, a: int) -> float:
    """Return the one value of all faces, to rounding; 0 where there are none."""
    if faces.numel() == 0:
        return 0.0
    low, high = float(faces.min()), float(faces.max())
    if high - low > 8 * torch.finfo(faces.dtype).eps * high:
        msg = (
            f"FastPoisson needs one coefficient per axis; those of axis {a} run from {low:.6g} to "
            f"{high:.6g}: {REMEDY}"
        )
        raise StructureError(msg)
    return high


def _walls(low: float, high: float, a: int) -> tuple[int, int]:
    for ratio in (low, high):
        if min(abs(ratio - known) for known in (0, 1, 2)) > 1e-6:
            msg = (
                f"the wall faces of axis {a} have {ratio:.6g} times the coefficient inside; FastPoisson "
                f"needs 1 (zero in the ghost cell) or 2 (zero on the wall): {REMEDY}"
            )
            raise StructureError(msg)
    return round(low), round(high)


def transform(axis: Axis, a: int, workers: int) -> Transform:
    """Return the transform along axis a of (n0, n1, n2, k)."""
    if axis.walls is None:
        return _fourier(axis, a, workers)
    if axis.walls in REAL:
        return _real(axis, a, workers)
    return _odd(axis, a, workers)


def has_fast_transform(axis: Axis) -> bool:
    """Whether the transform of an axis runs without a longer copy of its data."""
    return axis.walls is None or axis.walls in REAL


def eigenvalues_of(axis: Axis, theta: np.ndarray) -> np.ndarray:
    """Return those of c T at the angles theta."""
    return 4 * axis.coupling * np.sin(theta / 2) ** 2


def _real(axis: Axis, a: int, workers: int) -> Transform:
    name, function, kind, inverse, first, longer = REAL[axis.walls]  # type: ignore[index]
    change = getattr(_scipy("fft"), function)

    def forward(v: np.ndarray) -> np.ndarray:
        return change(v, kind, axis=a, overwrite_x=True, workers=workers)

    def backward(v: np.ndarray) -> np.ndarray:
        return change(v, inverse, axis=a, overwrite_x=True, workers=workers)

    length = axis.size + longer
    theta = math.pi * (np.arange(axis.size) + first) / length
    return Transform(
        name, _on_tensors(forward), _on_tensors(backward), 1 / (2 * length), eigenvalues_of(axis, theta)
    )


def _fourier(axis: Axis, a: int, workers: int) -> Transform:
    """Return the real FFT as n real numbers (1, cos, sin, cos, sin, ...), in place: `scipy.fft` has none."""
    fft, packed = _scipy("fft"), _scipy("fftpack")

    def forward(v: np.ndarray) -> np.ndarray:
        with fft.set_workers(workers):
            return packed.rfft(v, axis=a, overwrite_x=True)

    def backward(v: np.ndarray) -> np.ndarray:
        with fft.set_workers(workers):
            return packed.irfft(v, axis=a, overwrite_x=True)

    k = (np.arange(axis.size) + 1) // 2
    eigenvalues = eigenvalues_of(axis, 2 * math.pi * k / axis.size)
    return Transform("real FFT", _on_tensors(forward), _on_tensors(backward), 1.0, eigenvalues)


def odd_basis(axis: Axis) -> tuple[bool, np.ndarray, np.ndarray]:
    """Return what the sine transform with one Dirichlet end needs: B_jm = 2 sin(2 pi j m / L), j, m = 1..n.

    L = 2n + 1. It is minus the imaginary part of the FFT of the odd extension (0, f, -reversed f); B B = L I.
    Cell j counts from the Dirichlet wall. Towards a face Dirichlet wall its columns are the eigenvectors;
    towards a Neumann wall those are sin(pi (2k + 1) j / L) = (-1)^(j + 1) sin(2 pi j m / L), m = n - k: the
    same with alternating signs (DST-VII; Reznik, ICASSP 2013).

    Returns
    -------
    reverse : whether the Dirichlet wall is the high one
    signs, theta : (n,)
    """
    assert axis.walls is not None
    n, m, length = axis.size, np.arange(1, axis.size + 1), 2 * axis.size + 1
    if 0 in axis.walls:
        signs, theta = np.where(m % 2, 1.0, -1.0), math.pi * (2 * (n - m) + 1) / length
    else:
        signs, theta = np.ones(n), 2 * math.pi * m / length
    return axis.walls[0] != 1, signs, theta


def _odd(axis: Axis, a: int, workers: int) -> Transform:
    """Return the transform of `odd_basis`."""
    fft, n, length = _scipy("fft"), axis.size, 2 * axis.size + 1
    reverse, signs, theta = odd_basis(axis)
    from_dirichlet = slice(None, None, -1) if reverse else slice(None)

    def sines(f: np.ndarray) -> np.ndarray:
        extended = np.zeros((*f.shape[:-1], length), f.dtype)
        extended[..., 1 : n + 1] = f
        extended[..., n + 1 :] = -f[..., ::-1]
        return -fft.rfft(extended, overwrite_x=True, workers=workers).imag[..., 1:]

    def forward(v: np.ndarray) -> np.ndarray:
        lines = np.moveaxis(v, a, -1)
        lines[...] = sines(lines[..., from_dirichlet] * signs)
        return v

    def backward(v: np.ndarray) -> np.ndarray:
        lines = np.moveaxis(v, a, -1)
        lines[..., from_dirichlet] = sines(lines) * signs
        return v

    eigenvalues = eigenvalues_of(axis, theta)
    return Transform("odd FFT", _on_tensors(forward), _on_tensors(backward), 1 / length, eigenvalues)


def _on_tensors(step: Callable[[np.ndarray], np.ndarray]) -> Step:
    """Return a step of NumPy's for tensors, the given one where it worked in place: SciPy need not."""

    def taken(v: Tensor) -> Tensor:
        before = v.numpy()
        after = step(before)
        return v if np.may_share_memory(after, before) else torch.from_numpy(after)

    return taken


def _scipy(module: str) -> Any:
    """Return a module of SciPy: imported late, typed loosely as the stubs know only a dispatch protocol."""
    return importlib.import_module(f"scipy.{module}")
