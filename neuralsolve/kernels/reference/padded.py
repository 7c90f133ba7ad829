"""Passes over one level of a grid, for multigrid: the definition, plain torch.

**Layout.** A vector of a box (nz, ny, nx) lies in a padded one, flat in C order, with a layer of cells around
the box: (nz + 2, ny + 2, nx + 2), or (1, ny + 2, nx + 2) where nz = 1. The layer holds zeros; along a
periodic axis what a pass reads there is filled by `level_wrap` before. A pass over all cells is then one loop
without branches.

**Matrix.** A level has couplings g >= 0 to its neighbours and to fixed values of zero: (A x)_i = sum over the
neighbours g_ij (x_i - x_j) + f_i x_i. `faces` (4, n) holds the couplings to the lower neighbours along z, y,
x and f; where it is (4, 0), the couplings are `scale` along each axis, x is zero outside the fluid, and the
diagonal is 1/`inverse`. `inverse` is 1/diagonal, 0 for cells that take no part. The sums of differences keep
their digits in float32 where coefficients jump by 1e6; the difference of b and a sum does not.

**Interpolation.** P takes a cell's value from the block it lies in, and from the next block on its side along
every axis that is coarsened: `weights` (4, n), bytes in units of 1/252, z, y, x and the own block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

WHOLE = 252  # a weight of one: a half, a third and a quarter are exact
OWN = 3
LARGE = 1e18  # half the room of float32
MOST = 1000  # exponent of a size: the inverse is a number too

Shape = Sequence[int]


def boxed(v: Tensor, shape: Shape) -> Tensor:
    """View a padded vector, or rows of them, as (..., z, y, x)."""
    nz, ny, nx = shape
    return v.view(*v.shape[:-1], nz + 2 if nz > 1 else 1, ny + 2, nx + 2)


def inside(v: Tensor, shape: Shape) -> Tensor:
    """View the cells of the box, (..., nz, ny, nx)."""
    z = slice(1, -1) if shape[0] > 1 else slice(None)
    return boxed(v, shape)[..., z, 1:-1, 1:-1]


def beside(v: Tensor, shape: Shape, axis: int, step: int) -> Tensor:
    """Return the neighbours at step -1 or +1 of the cells of the box; along z in 2D the cells themselves."""
    if axis == 0 and shape[0] == 1:
        return inside(v, shape)
    return inside(boxed(v, shape).roll(-step, axis - 3).reshape(v.shape), shape)


def level_load(v: Tensor, scale: float, shape: Shape, out: Tensor) -> bool:
    """Set the cells of the padded vector `out` to scale * v, v (n,); return whether any is beyond 1e18."""
    cells = inside(out, shape)
    cells.copy_(scale * v.view(tuple(shape)))
    return bool((cells.abs() > LARGE).any())


def level_load_scaled(v: Tensor, shape: Shape, out: Tensor, size: Tensor) -> None:
    """Set the cells of the padded vector `out` to v / size, without a read by the host.

    `size` () float64 is set to the power of two above max |v|, at most 2^1000 either way; to 1 where that is
    not finite.
    """
    top = v.abs().max().double()
    exponent = torch.frexp(top).exponent.clamp(-MOST, MOST)
    size.copy_(torch.where(top.isfinite(), torch.ldexp(torch.ones_like(top), exponent), 1.0))
    inside(out, shape).copy_((v.double() / size).view(tuple(shape)))


def level_store(x: Tensor, scale: float, shape: Shape, out: Tensor) -> None:
    """Set `out` (n,) to scale times the cells of the padded vector x."""
    out.copy_((scale * inside(x, shape).to(out.dtype)).reshape(-1))


def level_store_scaled(x: Tensor, size: Tensor, scale: float, shape: Shape, out: Tensor) -> None:
    """Set `out` (n,) to size * scale times the cells of the padded vector x; `size` () float64."""
    out.copy_((size * scale * inside(x, shape).double()).reshape(-1))


def level_wrap(v: Tensor, shape: Shape, periodic: Sequence[bool]) -> None:
    """Fill the layer around the box from the other side along periodic axes, edges and corners too."""
    cells = boxed(v, shape)
    for axis in (2, 1, 0):
        if periodic[axis] and (axis > 0 or shape[0] > 1):
            n = shape[axis]
            cells.select(axis, 0).copy_(cells.select(axis, n))
            cells.select(axis, n + 1).copy_(cells.select(axis, 1))


def level_relax(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Shape,
    step: tuple[float, float],
    x: Tensor,
    out: Tensor,
) -> None:
    """Set out to x + momentum (x - out) + weight D^-1 (b - A x); step is (weight, momentum).

    Without momentum `out` is not read. Cells whose `inverse` is zero keep their x.
    """
    weight, momentum = step
    r = b.new_zeros(b.shape)
    level_residual(b, inverse, scale, faces, shape, x, r)
    past = (x - out) if momentum else 0 * x
    new = x + momentum * past + weight * inverse * r
    inside(out, shape).copy_(inside(new, shape))


def level_start(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Shape,
    first: float,
    second: tuple[float, float],
    out: Tensor,
) -> None:
    """Do two steps of `level_relax` from zero: of weight `first`, then of (weight, momentum) `second`."""
    x = torch.zeros_like(b)
    inside(x, shape).copy_(inside(first * inverse * b, shape))
    out.zero_()
    level_relax(b, inverse, scale, faces, shape, second, x, out)


def level_residual(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Shape,
    x: Tensor,
    out: Tensor,
) -> None:
    """Set out to b - A x, to 0 where `inverse` is."""
    own, d = inside(x, shape), inside(inverse, shape)
    r = inside(b, shape).clone()
    if faces.numel():
        r -= inside(faces[3], shape) * own
    else:
        r -= torch.where(d != 0, own / d, 0.0)
    for axis, lower in enumerate(faces[:3]):
        for upward in (0, 1):
            there = beside(x, shape, axis, 2 * upward - 1)
            if faces.numel():
                g = beside(lower, shape, axis, 1) if upward else inside(lower, shape)
                r += g * (there - own)
            else:
                r += scale[axis] * there
    inside(out, shape).copy_(torch.where(d != 0, r, 0.0))


def _parts(
    shape: Shape, factors: Shape, coarse_shape: Shape, weights: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (place in the padded coarse vector, weight) of every cell.

    First its own block, then the next along every axis; places are exact only where the weight is not zero.
    """
    fine = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    block = [i // f for i, f in zip(fine, factors, strict=True)]
    _, Ny, Nx = coarse_shape
    strides = ((Ny + 2) * (Nx + 2) if coarse_shape[0] > 1 else 0, Nx + 2, 1)
    own = sum((block[a] + (a > 0 or coarse_shape[0] > 1)) * strides[a] for a in range(3))
    parts = inside(weights, shape).float() / WHOLE
    yield torch.as_tensor(own), parts[OWN]
    for axis in range(3):
        if factors[axis] == 2:
            yield torch.as_tensor(own) + (2 * (fine[axis] % 2) - 1) * strides[axis], parts[axis]


def level_prolong(
    e: Tensor, weights: Tensor, shape: Shape, factors: Shape, coarse_shape: Shape, x: Tensor
) -> None:
    """Add P e to x; e has its layer filled along periodic axes."""
    for place, weight in _parts(shape, factors, coarse_shape, weights):
        inside(x, shape).add_(weight * e[place.clamp(0, len(e) - 1)])


def level_restrict(
    r: Tensor,
    weights: Tensor,
    shape: Shape,
    factors: Shape,
    coarse_shape: Shape,
    gain: float,
    out: Tensor,
) -> None:
    """Set out on the coarse level to gain P^T r; r and the weights have their layers filled, too.

    What falls on the layer of the coarse box belongs to the cells on the other side, whom it reaches by the
    copies of r around the fine box; the sum over the box alone is what is left here.
    """
    total = torch.zeros(len(out), dtype=torch.float64)
    for place, weight in _parts(shape, factors, coarse_shape, weights):
        spread = (weight * inside(r, shape)).double()
        total.index_add_(0, place.clamp(0, len(out) - 1).reshape(-1), spread.reshape(-1))
    cells = boxed(total, coarse_shape)
    for axis in range(3):  # periodic: the layer's share goes to the other side; else there is none
        n = coarse_shape[axis]
        if axis == 0 and n == 1:
            continue
        cells.select(axis, n).add_(cells.select(axis, 0))
        cells.select(axis, 1).add_(cells.select(axis, n + 1))
    inside(out, coarse_shape).copy_(gain * inside(total, coarse_shape))
