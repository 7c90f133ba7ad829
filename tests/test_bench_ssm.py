"""The measurements of state-space layers run at toy sizes, and their rivals compute the same function."""

from __future__ import annotations

import pytest
import torch

from neuralsolve.bench import take_suite
from neuralsolve.bench.bars import Settings
from neuralsolve.bench.ssm import gains
from neuralsolve.bench.ssm_parity import same_models
from neuralsolve.bench.ssm_peer import same_layers
from neuralsolve.bench.ssm_robustness import curves, sounding
from neuralsolve.bench.ssm_speed import ssm_speed
from neuralsolve.models.sequence_model import SequenceModel
from neuralsolve.plot import robustness_figure, save


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
        *ours, theirs = (model.eval()(u[..., :1]) for model in same_models(916).values())
        assert all((each - theirs).abs().max() <= 1e-5 * theirs.abs().max() for each in ours)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:`torch.jit")  # of the peer
def test_the_suite_runs_and_every_row_was_measured(tmp_path):
    pytest.importorskip("sklearn")
    groups = ["starts", "delay", "learning", "parity", "lists", "robustness"]
    rows = take_suite("ssm", 1, only=groups, quick=True)
    assert {row.group for row in rows} == set(groups)
    assert all(row.measured for row in rows), [row.note for row in rows if not row.measured]
    save(robustness_figure(curves(quick=True), "toy"), tmp_path / "robustness.png")
    assert (tmp_path / "robustness.png").stat().st_size > 10_000


def test_a_sound_of_no_loudness_changes_nothing_and_ends():
    torch.manual_seed(3)
    model, x = SequenceModel(1, 4, channels=4, layers=2, state=8).eval(), torch.randn(2, 50, 1)
    with torch.no_grad():
        silent = model(x)
        with sounding(model, 0.0, 80.0, seed=1):
            assert torch.equal(model(x), silent)
        with sounding(model, 1.0, 80.0, seed=1):
            assert not torch.equal(model(x), silent)
        assert torch.equal(model(x), silent)


def test_resonances_are_those_of_s4d_alone():
    frequencies, systems, spikes = gains()
    top = max(height for _, height in spikes)
    assert top == pytest.approx(20.39, rel=1e-3)  # of the method's own table
    assert systems["PTD"].max() < 1.1
    assert systems["HiPPO"].max() <= 1
    assert frequencies.shape == systems["S4D"].shape
