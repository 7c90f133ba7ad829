"""Two threads for every library, and where the real data lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from neuralsolve.kernels import use

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


@pytest.fixture(params=["reference", "cpu"])
def kernels(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Both implementations of the kernels, one after the other."""
    with use(request.param) as table:
        yield table


@pytest.fixture(params=["reference", "cpu", "threads"])
def all_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Both implementations; "threads" is `cpu` with every loop, however short, cut into ranges and blocks."""
    if request.param == "threads":
        monkeypatch.setattr("neuralsolve.kernels.cpu.threads.SERIAL_BELOW", 0)
        monkeypatch.setattr("neuralsolve.kernels.cpu.threads.BLOCK", 3)
    with use("cpu" if request.param == "threads" else request.param) as table:
        yield table
