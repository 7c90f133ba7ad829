"""The measurements of state-space layers run at toy sizes, and their rivals compute the same function."""

from __future__ import annotations

import pytest
import torch

from neuralsolve.bench.bars import Settings
from neuralsolve.bench.ssm_speed import same_layers, ssm_speed


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:`torch.jit")  # of the peer
def test_all_of_it_runs_and_says_what_it_measured():
    threads = torch.get_num_threads()
    rows = list(ssm_speed(Settings(quick=True)))
    assert torch.get_num_threads() == threads
    quantities = {row.quantity for row in rows}
    assert {"one step", "one stepper", "forward and backward: table / ours"} <= quantities
    assert all(row.median > 0 for row in rows if row.measured)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:`torch.jit")
def test_the_peer_and_ours_are_the_same_function():
    pytest.importorskip("s5")
    nets = same_layers(16)
    u = torch.randn(2, 300, 16, generator=torch.Generator().manual_seed(915))
    with torch.no_grad():
        expected = nets["peer"](u)
        for name in ("all states", "pairs"):
            assert (nets[name](u) - expected).abs().max() <= 1e-5 * expected.abs().max()
