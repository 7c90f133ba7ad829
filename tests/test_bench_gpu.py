"""Benchmarks on a GPU, which is simulated where there is none: what runs where, what is refused, what moves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from simulated_gpu import Device, gpu
from typer.testing import CliRunner

import neuralsolve as ns
from neuralsolve.bench import Contender, compare, comparison_markdown, csv_text, gpu_bytes, take_suite
from neuralsolve.bench.device import chosen, together
from neuralsolve.bench.device_measures import box, kernel_calls, noise, step_seconds
from neuralsolve.bench.device_rivals import TORCH, device_rivals, torch_cg
from neuralsolve.bench.system import assembled
from neuralsolve.cases import Problem
from neuralsolve.cli import app
from neuralsolve.errors import OptionError

__all__ = ["gpu"]  # a fixture
CPU = torch.device("cpu")


@pytest.fixture
def card(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Simulated")
    return torch.device("cuda", 0)


def masked():
    cells = np.zeros((9, 11), dtype=np.uint8)
    cells[3:6, 4:8], cells[-2:] = ns.SOLID, ns.AIR
    A = ns.PoissonStencil(ns.Grid(cells))
    return Problem("small", A, np.random.default_rng(711).standard_normal(A.shape[0]))


@pytest.mark.parametrize("group", ["bandwidth", "cg", "multigrid", "batch", "rivals", "networks"])
def test_groups(card, group, monkeypatch):
    import time
    t = time.time()
    rows = take_suite("gpu", 1, only=[group], quick=True, device=card)
    for row in rows: print(row)
    print(group, time.time() - t)
    assert 0
