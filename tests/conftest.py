"""Two threads for every library, and where the real data lie."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels of the GPU run on the CPU then
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


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Parameters in float64, so that dense references take the same numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread for torch, hence for the kernels too: small dense algebra gains nothing by two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["reference", "cpu"])
def kernels(request: pytest.FixtureRequest, one_thread: None) -> Iterator[ModuleType]:
    """Both implementations of the kernels, one after the other."""
    from neuralsolve.kernels import use

    with use(request.param) as table:
        yield table


@contextmanager
def implementation(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One implementation of the kernels; "threads" is `cpu` with every loop cut into ranges and blocks.

    "gpu" runs on a GPU where there is one, and interpreted where there is none; its blocks are so small that
    vectors of tests have several.
    """
    from neuralsolve.kernels import use

    if name == "gpu":
        pytest.importorskip("triton")
        from gpu_room import room

        monkeypatch.setattr("neuralsolve.kernels.gpu.launch.LARGEST_BLOCK", 16)
        with room() as table:
            yield table
        return
    if name == "threads":
        monkeypatch.setattr("neuralsolve.kernels.cpu.threads.SERIAL_BELOW", 0)
        monkeypatch.setattr("neuralsolve.kernels.cpu.threads.BLOCK", 3)
        monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    with use("cpu" if name == "threads" else name) as table:
        yield table


@pytest.fixture(params=["reference", "cpu", "threads"])
def all_kernels(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> Iterator[Any]:
    """Implementations for the CPU; see `implementation`."""
    with implementation(request.param, monkeypatch) as table:
        yield table


@pytest.fixture
def tiled(every_room: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """All implementations; tiles of the GPU have several rows and columns, its programs several tiles."""
    if importlib.util.find_spec("triton"):
        monkeypatch.setattr("neuralsolve.kernels.gpu.launch.LARGEST_BLOCK", 64)
        monkeypatch.setattr("neuralsolve.kernels.gpu.box.ENOUGH", 2)
    return every_room


@pytest.fixture(params=["reference", "cpu", "threads", "gpu"])
def every_room(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> Iterator[Any]:
    """All implementations, for kernels that every room has; see `implementation`."""
    with implementation(request.param, monkeypatch) as table:
        yield table
