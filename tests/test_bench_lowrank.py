"""The measurements of the SVD run at toy sizes, and say truly how far a decomposition is from its matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralsolve.bench.bars import Settings
from neuralsolve.bench.lowrank_svd import RANK, dense, ours, sparse, svd_speed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_all_of_it_runs_and_says_what_it_measured():
    pytest.importorskip("sklearn")
    threads = torch.get_num_threads()
    rows = list(svd_speed(Settings(repeats=1, quick=True)))
    assert torch.get_num_threads() == threads
    assert len(rows) == 9
    assert all(row.measured for row in rows)
    errors = [row.median for row in rows if row.quantity.startswith("error")]
    assert len(errors) == 3
    assert max(errors) <= 1.5


@pytest.mark.parametrize("make", [lambda: dense(True, np.float64), lambda: sparse(True)])
def test_problems_know_their_smallest_error(make):
    problem = make()
    A = problem.A.toarray() if hasattr(problem.A, "toarray") else problem.A
    exact = np.linalg.svd(A, compute_uv=False)
    assert abs(problem.optimal / np.linalg.norm(exact[RANK:]) - 1) <= 1e-9
    parts = ours(problem.A)
    U, s, Vh = parts
    assert abs(problem.error(parts) / np.linalg.norm(A - (U * s) @ Vh) - 1) <= 1e-9
