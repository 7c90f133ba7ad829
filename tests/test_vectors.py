"""New vectors: in memory that nobody uses, and as they were asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralsolve.operators import vectors
from neuralsolve.operators.vectors import copy_of, empty, zeros_like

LARGE = torch.empty(vectors.LARGE // 8, dtype=torch.float64)


@pytest.fixture
def shelf(monkeypatch):
    new = vectors._Shelf()
    monkeypatch.setattr(vectors, "_shelf", new)
    return new


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5,), (3_000_001,), (700_000, 3)])
def test_shapes_and_values_are_those_asked_for(shape, dtype):
    for _ in range(3):
        like = torch.arange(np.prod(shape), dtype=dtype).view(shape)
        assert torch.equal(copy_of(like), like)
        assert torch.equal(zeros_like(like), torch.zeros(shape, dtype=dtype))
        made = empty(shape, like)
        assert (tuple(made.shape), made.dtype) == (shape, dtype)
        made.fill_(7)


@pytest.mark.usefixtures("shelf")
def test_memory_is_used_again_once_nobody_uses_it():
    first = empty(tuple(LARGE.shape), LARGE)
    place = first.data_ptr()
    second = empty(tuple(LARGE.shape), LARGE)
    assert second.data_ptr() != place
    view = first[3:7].numpy()  # a view keeps the memory
    del first
    assert empty(tuple(LARGE.shape), LARGE).data_ptr() != place
    del view
    assert place in [v.data_ptr() for v in [empty(tuple(LARGE.shape), LARGE) for _ in range(3)]]


def test_only_so_many_arrays_are_kept(shelf):
    held = [empty(tuple(LARGE.shape), LARGE) for _ in range(3 * vectors.KEPT)]
    assert len({v.data_ptr() for v in held}) == len(held)
    assert len(shelf._arrays) == vectors.KEPT
    other = empty((vectors.LARGE,), LARGE)
    assert sum(a.nbytes == other.nbytes for a in shelf._arrays) == 1


def test_the_largest_are_not_kept(shelf, monkeypatch):
    monkeypatch.setattr(vectors, "MOST", vectors.LARGE)
    empty(tuple(LARGE.shape), LARGE)
    assert not shelf._arrays


def test_what_is_kept_can_be_let_go(shelf):
    held = empty(tuple(LARGE.shape), LARGE)
    vectors.release()
    assert not shelf._arrays
    held.fill_(1)
    assert float(held.sum()) == len(held)
