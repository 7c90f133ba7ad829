"""Two threads for every library, and where the real data lie."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real inputs; tests that need it are skipped where it is not given."""
    folder = os.environ.get("NEURALSOLVE_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NEURALSOLVE_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """Random numbers of a test's own, the same in every run."""
    seed = sum(ord(letter) * (i + 7) for i, letter in enumerate(request.node.nodeid))
    return torch.Generator().manual_seed(seed)
