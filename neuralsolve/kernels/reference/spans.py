"""What has changed on a grid level since it was filled: the definition, plain torch and Python.

A span is the part of a row that is to be done, from its first cell up to before its last one: `changed`
(lines, 2) int32 counts cells of the lines of a level, all cells of one z and y; `spans` counts blocks of its
rows of blocks, which are the lines of the level below. Where nothing is to be done the last is not beyond the
first. Kernels that take spans write there alone; what else there is has to be right already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralsolve.kernels.reference.assemble import faces_assemble, faces_outlets
from neuralsolve.kernels.reference.padded import inside

Shape = Sequence[int]


def code_changes(before: Tensor, code: Tensor, shape: Shape, changed: Tensor) -> None:
    """Set the spans of lines in which two codes (n,) differ."""
    set_spans((before.int() != code.int()).view(-1, shape[2]), changed)


def level_faces(
    cells: Tensor,
    walls: Tensor,
    scale: Sequence[float],
    coefficients: Sequence[Tensor],
    unit: float,
    faces: Tensor,
    outlets: Tensor,
    leaks: Tensor,
    changed: Tensor,
) -> Tensor:
    """Set the couplings and the outlets of the finest level to those of a stencil, divided by `unit`.

    Parameters
    ----------
    cells, walls, scale, coefficients
        As in `faces_assemble`.
    faces, outlets : (4, n) and (3, n) of the padded box, or both empty
        The last row of faces is left alone.
    leaks : (3, lines) uint8
        0 for lines that are known to have no outlets along an axis, before and afterwards.
    changed : (lines, 2) int32
        Overwritten: the spans of cells of which a coupling or an outlet has become another.

    Returns
    -------
    (3, 2) float64: sum and number of the couplings to lower neighbours along z, y and x, not divided.
    """
    shape, n, dtype = tuple(cells.shape), cells.numel(), coefficients[2].dtype
    diagonal, lower, gone = (torch.zeros(k, dtype=dtype) for k in ((n,), (3, n), (3, n)))
    faces_assemble(cells, walls, scale, coefficients, diagonal, lower)
    for axis in range(3):
        faces_outlets(cells, walls, axis, scale[axis], coefficients[axis], gone[axis])
    if faces.numel():
        other = torch.zeros(shape, dtype=torch.bool)
        for new, old in ((lower, inside(faces[:3], shape)), (gone, inside(outlets, shape))):
            numbers = (new.double() / unit).to(faces.dtype).view(3, *shape)
            other |= (numbers != old).any(0)
            old.copy_(numbers)
        leaks.copy_(inside(outlets, shape).amax(-1).view(3, -1) > 0)
        set_spans(other.view(-1, shape[2]), changed)
    return torch.stack([lower.double().sum(1), (lower != 0).sum(1).double()], 1)


def spans_below(changed: Tensor, shape: Shape, factors: Shape, spans: Tensor) -> None:
    """Set the spans of blocks that have a cell which has changed, or whose upper neighbour has.

    Their diagonals are those that change.
    """
    (nz, ny, nx), (fz, fy, fx) = shape, factors
    rows = -(-ny // fy)
    for row in range(len(spans)):
        Z, Y = row // rows, row % rows
        first, last = nx, 0
        for z in range(Z * fz, min(Z * fz + fz + 1, nz)):
            for y in range(Y * fy, min(Y * fy + fy + 1, ny)):
                lo, hi = changed[z * ny + y].tolist()
                if lo < hi:
                    first, last = min(first, max(lo - 1, 0)), max(last, hi)
        spans[row] = torch.tensor([first // fx, -(-last // fx)] if first < last else [0, 0])


def spans_around(spans: Tensor, coarse_shape: Shape, out: Tensor) -> None:
    """Set the spans of blocks that are in one of `spans`, or next to one along an axis."""
    nz, ny, nx = coarse_shape
    for row in range(len(spans)):
        z, y = row // ny, row % ny
        first, last = nx, 0
        for other, there, wide in (
            (row, True, 1),
            (row - ny, z > 0, 0),
            (row + ny, z < nz - 1, 0),
            (row - 1, y > 0, 0),
            (row + 1, y < ny - 1, 0),
        ):
            lo, hi = spans[other].tolist() if there else (0, 0)
            if lo < hi:
                first, last = min(first, max(lo - wide, 0)), max(last, min(hi + wide, nx))
        out[row] = torch.tensor([first, last] if first < last else [0, 0])


def spans_join(others: Tensor, spans: Tensor) -> None:
    """Widen spans so that they hold others."""
    for row, (first, last) in enumerate(others.tolist()):
        lo, hi = spans[row].tolist()
        if first < last:
            spans[row] = torch.tensor([min(lo, first), max(hi, last)] if lo < hi else [first, last])


def spans_attached(
    attached: Tensor, shape: Shape, factors: Shape, coarse_shape: Shape, spans: Tensor
) -> None:
    """Widen spans of the level below by what `coarse_attached` may add to.

    That is within the boxes whose corners are the coarse cells of an attached cell and of a neighbour.
    """
    flags = inside(attached, shape)
    for cell in flags.nonzero().tolist():
        here = _target(cell, int(flags[tuple(cell)]), factors)
        for axis in range(3):
            for hop in (-1, 1):
                other = list(cell)
                other[axis] += hop
                if not 0 <= other[axis] < shape[axis]:
                    continue
                there = _target(other, int(flags[tuple(other)]), factors)
                (z, Z), (y, Y), (x, X) = (sorted(pair) for pair in zip(here, there, strict=True))
                box = torch.zeros(tuple(coarse_shape), dtype=torch.bool)
                box[z : Z + 1, y : Y + 1, x : X + 1] = True
                more = torch.zeros_like(spans)
                set_spans(box.view(-1, coarse_shape[2]), more)
                spans_join(more, spans)


def _target(cell: Sequence[int], flag: int, factors: Shape) -> list[int]:
    """Return the coarse cell that a fine one belongs to."""
    block = [i // f for i, f in zip(cell, factors, strict=True)]
    if flag:
        block[flag - 1] += 1 if cell[flag - 1] % 2 else -1
    return block


def spanned(spans: Tensor, shape: Shape, factors: Shape) -> Tensor:
    """Return which cells of a level lie in spans of blocks, of its shape."""
    (nz, ny, nx), (fz, fy, fx) = shape, factors
    cells = torch.zeros((-(-nz // fz), -(-ny // fy), -(-nx // fx)), dtype=torch.bool)
    for line, (lo, hi) in zip(cells.view(len(spans), -1), spans.tolist(), strict=True):
        line[lo:hi] = True
    for axis, (n, f) in enumerate(zip(shape, factors, strict=True)):
        cells = cells.repeat_interleave(f, axis).narrow(axis, 0, n)
    return cells


def set_spans(other: Tensor, changed: Tensor) -> None:
    """Set the spans of rows from the first to the last true one of each."""
    for line, flags in enumerate(other):
        found = flags.nonzero()
        ends = [int(found[0]), int(found[-1]) + 1] if len(found) else [0, 0]
        changed[line] = torch.tensor(ends)
