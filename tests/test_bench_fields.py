"""The suite of fields: its groups run, its contests are fair and go on where they were cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuralsolve.bench import contest as contests
from neuralsolve.bench.bars import Settings
from neuralsolve.bench.contest import contest
from neuralsolve.bench.fields import GROUPS
from neuralsolve.cases import load_case
from neuralsolve.data import write_samples
from neuralsolve.pde.darcy import Darcy


@pytest.mark.parametrize("group", ["data", pytest.param("speed", marks=pytest.mark.slow)])
def test_the_groups_run_at_toy_size(group):
    rows = list(GROUPS[group](Settings(repeats=1, quick=True)))
    assert {row.group for row in rows} == {group}
    assert all(row.measured for row in rows)


@pytest.fixture
def case(tmp_path):
    write_samples(tmp_path / "data.h5", Darcy(grid=17, stride=2).samples(range(20), seed=905))
    text = """
    kind = "train"
    network = "unet"
    options = { width = 8, levels = 2 }
    data = { file = "data.h5", train = 12, validation = 4, test = 4 }
    schedule = { batch = 4 }
    """
    (tmp_path / "case.toml").write_text(text)
    return load_case(tmp_path / "case.toml")


def test_a_contest_gives_every_network_the_epochs_that_its_budget_holds(case, tmp_path, monkeypatch):
    folder = tmp_path / "contest"
    folder.mkdir()
    wider = case.model_copy(update={"options": {"width": 16, "levels": 2}})
    seconds = {"narrow": 1.0, "wide": 2.0}  # of an epoch: given, so that nothing hangs on the machine
    (folder / "steps.json").write_text(json.dumps(seconds))
    samples, validation, _ = case.sets(folder, lambda done, note: None)
    seeds = {"narrow": [905], "wide": [905]}
    monkeypatch.setattr(contests, "ProcessPoolExecutor", _InPlace)
    entries = contest(folder, {"narrow": case, "wide": wider}, seeds, 4.0, (samples, validation))
    assert [(each.network, each.epochs) for each in entries] == [("narrow", 4), ("wide", 2)]
    assert all(0 < each.results["test"]["l2"] < 10 for each in entries)
    kept = Path(folder / "wide_905" / "entry.json").read_text()
    assert contest(folder, {"narrow": case, "wide": wider}, seeds, 4.0, (samples, validation)) == entries
    assert Path(folder / "wide_905" / "entry.json").read_text() == kept


class _InPlace:
    """A pool that has no processes."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    map = staticmethod(map)
