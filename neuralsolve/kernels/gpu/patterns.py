"""What is read off a sparsity pattern once, and kept as long as the pattern's tensor lives.

A product must not wait for the host to look at its matrix: whether rows are regular, and where equal shares
of the entries begin, is found at the first product with a pattern and remembered, by the tensor itself. A
tensor that is written to is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

import torch
import triton
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

LANES = 32  # entries of a row that are added side by side, at most
WASTE = 4  # lanes per entry from which rows count as irregular: the lanes of short rows wait for the longest
LONGEST = 64  # turns of a row's lanes from which it is cut

Made = TypeVar("Made")
_kept = WeakTensorKeyDictionary()


def remembered(tensor: Tensor, key: Hashable, make: Callable[[], Made]) -> Made:
    """Return what `make` made of a tensor the first time, as long as the tensor's numbers stay."""
    version = version_of(tensor)
    found = _kept.get(tensor)
    if found is None or found[0] != version:
        found = _kept[tensor] = version, {}
    if key not in found[1]:
        found[1][key] = make()
    return found[1][key]


def version_of(tensor: Tensor) -> int:
    """Count how often a tensor was written to; tensors of inference mode do not tell."""
    return 0 if tensor.is_inference() else tensor._version


def numbers_of(tensor: Tensor) -> list[int]:
    """Return a small tensor of integers as a list."""
    return remembered(tensor, "list", tensor.tolist)


def lanes_of(indptr: Tensor, nnz: int) -> int:
    """Return how many entries of a row are worth adding side by side: those of a row of mean length."""
    return min(triton.next_power_of_2(max(1, -(-nnz // max(1, len(indptr) - 1)))), LANES)


def is_regular(indptr: Tensor, rows: int, lanes: int) -> bool:
    """Say whether tiles of `rows` rows, as many turns of `lanes` as the longest takes, waste little."""

    def look() -> bool:
        lengths = torch.diff(indptr).long()
        m, nnz = len(lengths), int(lengths.sum())
        turns = torch.nn.functional.pad(-(-lengths // lanes), (0, -m % rows)).reshape(-1, rows).amax(1)
        return int(turns.max()) <= LONGEST and int(turns.sum()) * rows * lanes <= WASTE * (nnz + m * lanes)

    return len(indptr) == 1 or remembered(indptr, ("regular", rows, lanes), look)


class Shares(NamedTuple):
    """Equal shares of the entries of a CSR matrix, and the rows that go across their borders.

    Attributes
    ----------
    rows : (shares + 1,) int64, the row of the first entry of every share, and that of the last entry
    depth : steps of a binary search for a row within a share
    crossing : (c,) int64, rows of more than one share
    first, end : (c,) int64, the shares after the first one of each of them
    """

    rows: Tensor
    depth: int
    crossing: Tensor
    first: Tensor
    end: Tensor


def shares_of(indptr: Tensor, nnz: int, size: int) -> Shares:
    """Cut the entries of a CSR matrix, nnz > 0, into shares of `size`."""

    def cut() -> Shares:
        starts = indptr.long()
        borders = torch.arange(0, nnz + size, size, device=indptr.device).clamp(max=nnz - 1)
        rows = torch.searchsorted(starts, borders, right=True) - 1
        most = int(torch.diff(rows).max()) + 1
        crossing = torch.unique(rows[:-1])
        crossing = crossing[starts[crossing + 1] > (starts[crossing] // size + 1) * size]
        first, last = starts[crossing] // size, (starts[crossing + 1] - 1) // size
        return Shares(rows, (most - 1).bit_length(), crossing, first + 1, last + 1)

    return remembered(indptr, ("shares", size), cut)


def groups_of(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return where the places of each label 0, 1, ... begin, (count + 1,), and the places by label."""

    def sort() -> tuple[Tensor, Tensor]:
        ordered, order = torch.sort(labels, stable=True)
        bounds = torch.arange(count + 1, dtype=labels.dtype, device=labels.device)
        starts = torch.searchsorted(ordered, bounds)
        return starts - starts[0], order[int(starts[0]) : int(starts[-1])].contiguous()  # from label 0 on

    return remembered(labels, ("groups", count), sort)


class Transposed(NamedTuple):
    """Pattern of A^T: `order` are the places of its entries among those of A.

    It holds the `source`, A's indptr: the name under which it is remembered stays that tensor's own.
    """

    indptr: Tensor
    indices: Tensor
    order: Tensor
    source: Tensor


def transposed(indptr: Tensor, indices: Tensor, columns: int) -> Transposed:
    """Return the pattern of A^T for the pattern of A of so many columns."""

    def turn() -> Transposed:
        starts, order = groups_of(indices, columns)
        return Transposed(starts, torch.searchsorted(indptr.long(), order, right=True) - 1, order, indptr)

    return remembered(indices, ("transposed", columns, id(indptr), version_of(indptr)), turn)
