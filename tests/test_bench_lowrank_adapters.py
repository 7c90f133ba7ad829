"""The measures of adapters at toy sizes: that all runs, and what holds at any size."""

from __future__ import annotations

import math

import pytest

from neuralsolve.bench.bars import Settings
from neuralsolve.bench.lowrank_adapters import CONTENDERS, FULL, HEAD, LEAK, adapters


@pytest.mark.slow
def test_every_adapter_is_measured():
    rows = list(adapters(Settings(quick=True)))
    named = {(row.problem.removeprefix("A to B, "), row.quantity): row for row in rows}
    assert all(math.isfinite(row.median) for row in rows)
    for name in CONTENDERS:
        assert (name, "recovered") in named
        assert (name, "forgotten") in named
    assert named[FULL, "recovered"].median == 100
    assert named[FULL, "forgotten"].median == 1
    assert named["SVFit", "recovered"].must >= named[HEAD, "recovered"].median
    leaks = [row for row in rows if row.quantity.startswith("leak")]
    assert len(leaks) == 2
    assert all(row.median < LEAK for row in leaks)
    limits = {
        "TensorLoRA r=3": 2,
        "LoRA-XS r=16": 2,
        "LoRA-SB r=16": 2,
        "SALT k=16 r=4": 1.5,
        "SVFit": 0.3,
        "Effort t=4": 14,
    }
    for name, limit in limits.items():
        assert float(named[name, "recovered"].note.split(" %")[0]) <= limit
