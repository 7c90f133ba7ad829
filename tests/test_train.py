"""``neuralsolve train``: from a case to weights that solve, resumable, with their provenance."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest
import torch
from test_cli import answer, run

import neuralsolve as ns
from neuralsolve.cases import list_cases, load_case
from neuralsolve.cases.cycle import Kind
from neuralsolve.cases.training import TrainCase
from neuralsolve.errors import OptionError
from neuralsolve.models.neural import load_network
from neuralsolve.models.training_loop import CHECKPOINT, LOG, read_log
from neuralsolve.preconditioners.weights import read_tensors

SMALL = """
kind = "train"
title = "small"
network = "dcdm"
shapes = [[8, 8]]
[schedule]
steps = 4
batch = 2
[validation]
count = 2
"""
CYCLE = """
kind = "train"
title = "small"
network = "cycle"
[grids.2d]
scenes = "free_surface"
shapes = [[16, 16], [20, 14]]
seeds = [0, 3]
validation = [200, 201]
steps = [2, 2]
iterations = 6
unrolled = 2
batch = 2
[grids.2d-coefficients]
scenes = "inclusions"
contrasts = [1e2, 1e4]
shapes = [[24, 20]]
seeds = [10, 11]
validation = [200, 200]
steps = [2, 2]
iterations = 8
unrolled = 2
batch = 2
width = 0
"""
STENCILS = SMALL.replace(
    '"dcdm"', '"npsdo"\nown_levels = 2\ngeometry = "free_surface"\ngeometries = 3'
).replace("[[8, 8]]", "[[16, 16], [8, 12]]")
RITZ = SMALL.replace("[schedule]", '[data]\nsource = "ritz"\nlanczos = 30\n[schedule]\nloss = "residual"')


@pytest.fixture
def case(tmp_path):
    def write(text, name="train_small.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("text", [SMALL, STENCILS, RITZ], ids=["dcdm", "npsdo", "ritz"])
def test_training_ends_in_weights_that_solve(text, case, tmp_path):
    folder = tmp_path / "out"
    facts, result = answer("train", case(text), "--out-dir", folder)
    assert result.exit_code == 0
    assert facts["steps"] == 4
    assert {row["right_side"] for row in facts["results"]} == {"noise", "divergence"}
    assert all(row["converged"] for row in facts["results"])
    assert {path.name for path in folder.iterdir()} == {
        "small.safetensors",
        "log.csv",
        "loss.png",
        CHECKPOINT,
    }
    _, metadata = load_network(folder / "small.safetensors")
    assert metadata["command"] == "neuralsolve train train_small.toml"
    assert json.loads(metadata["results"]) == facts["results"]
    side = load_case(case(text)).shapes[0][0]
    A = ns.PoissonStencil(ns.Grid((side, side), walls="dirichlet"))
    b = np.random.default_rng(3201).standard_normal(side * side)
    assert ns.solve(A, b, ns.DCDM(), M=ns.NeuralDirection(folder / "small.safetensors")).converged


def test_the_same_command_goes_on_where_it_stopped(case, tmp_path):
    path, folder = case(SMALL), tmp_path / "out"
    assert run("train", path, "--out-dir", folder).exit_code == 0
    weights, _ = read_tensors(folder / "small.safetensors")
    facts, _ = answer("train", path, "--out-dir", folder)  # nothing left to do
    again, _ = read_tensors(folder / "small.safetensors")
    assert facts["steps"] == 4
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    other = run("train", path, "--out-dir", folder, "--steps", 6)
    assert other.exit_code == 2
    assert "with other options" in other.stderr
    facts, result = answer("train", path, "--out-dir", folder, "--steps", 6, "--restart")
    assert result.exit_code == 0
    assert facts["steps"] == 6


def test_a_cycle_is_trained_and_searched(case, tmp_path):
    path, folder = case(CYCLE), tmp_path / "out"
    facts, result = answer("train", path, "--out-dir", folder)
    assert result.exit_code == 0
    assert facts["steps"] == 14
    assert [row["grid"] for row in facts["results"]] == ["2d", "2d-coefficients"]
    assert all(row["after"] <= row["before"] for row in facts["results"])
    for kind, last in (("2d", 6), ("2d-coefficients", 8)):
        assert read_log(folder / kind / LOG)[-1]["step"] == last
    _, metadata = read_tensors(folder / "small.safetensors")
    assert metadata["command"] == "neuralsolve train train_small.toml"
    assert json.loads(metadata["results"]) == facts["results"]
    assert json.loads(metadata["case"])["grids"]["2d"]["seeds"] == [0, 3]
    M = ns.NeuralMultigrid(folder / "small.safetensors", coarsest=12)
    grid = ns.Grid((20, 20), walls="dirichlet")
    for coefficients in (None, ns.face_coefficients(np.full((20, 20), 3.0), grid)):
        A = ns.PoissonStencil(grid, coefficients)
        result = ns.solve(A, np.ones(400), ns.CG(), M=M)
        assert result.converged
        assert "certified" in result.explanation
    before = (folder / "2d" / CHECKPOINT).stat().st_mtime_ns
    again, _ = answer("train", path, "--out-dir", folder)  # nothing left to do
    assert again["results"] == facts["results"]
    assert (folder / "2d" / CHECKPOINT).stat().st_mtime_ns == before
    assert answer("train", path, "--out-dir", folder, "--steps", 3)[1].exit_code == 2
    fewer, _ = answer("train", path, "--out-dir", folder, "--steps", 3, "--restart")
    assert fewer["steps"] == 6


def test_an_interrupted_training_of_a_cycle_goes_on_bit_for_bit(case, tmp_path):
    grids = load_case(case(CYCLE)).grids["2d"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()

    def stop(done, note):
        if done == 4:
            raise KeyboardInterrupt

    once = grids.learned("2d", whole, lambda done, note: None)
    with pytest.raises(KeyboardInterrupt):
        grids.learned("2d", parts, stop)
    again = grids.learned("2d", parts, lambda done, note: None)
    assert all(torch.equal(once[0][name], again[0][name]) for name in once[0])
    assert [row["loss"] for row in once[2]] == pytest.approx([row["loss"] for row in again[2]], abs=1e-15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"cycle"', '"cylce"'), "did you mean 'cycle'"),
        (("unrolled", "unroled"), r"'grids.2d.unroled'; did you mean 'unrolled'"),
        (("batch = 2", "batch = 0"), r"grids.2d.batch = 0"),
        (("validation = [200, 200]\n", ""), "validation is missing"),
        (("width = 0", "width = 8"), "write width = 0"),
        (('"inclusions"\ncontrasts = [1e2, 1e4]', '"layers"'), "'inclusions' are needed"),
        (("contrasts = [1e2, 1e4]", ""), "inclusions alone need them"),
        (("[[24, 20]]", "[[24, 20, 9]]"), "2 sides each"),
        (("[grids.2d]", "[grids.4d]"), r"grids.4d"),
        (("validation = [200, 201]", "validation = [3, 9]"), "take others"),
        (("[16, 16]", "[1, 1]"), "shapes"),
        (("seeds = [0, 3]", "seeds = [3, 0]"), "the first seed and the last"),
        (("steps = [2, 2]\niterations = 6", "steps = [2, 9]\niterations = 6"), "grids.2d.steps"),
        (('scenes = "free_surface"', 'scenes = "inclusions"\ncontrasts = [1e2]'), "2d"),
    ],
)
def test_cycles_that_cannot_be_trained_are_refused(change, message, case):
    assert change[0] in CYCLE
    with pytest.raises(OptionError, match=message):
        load_case(case(CYCLE.replace(*change)))


def test_a_training_that_diverges_ends(case, tmp_path):
    path = case(CYCLE.replace("unrolled = 2\nbatch = 2\n[", "unrolled = 2\nbatch = 2\nrate = 1e9\n["))
    result = run("train", path, "--out-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert "diverged; lower the rates" in result.stderr


@pytest.mark.parametrize("text", [SMALL, CYCLE], ids=["dcdm", "cycle"])
def test_an_interrupt_says_what_the_same_command_does(text, case, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    path, folder = case(text), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("neuralsolve.models.training.Trainer.advance", interrupted)
        patched.setattr("neuralsolve.models.cycle_training.CycleTrainer.advance", interrupted)
        result = run("train", path, "--out-dir", folder)
        facts, quiet = answer("train", path, "--out-dir", folder)
    assert result.exit_code == quiet.exit_code == 130
    assert "the same command begins anew" in result.stderr  # nothing was written yet
    assert facts["error"] in result.stderr
    assert run("train", path, "--out-dir", folder).exit_code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 4", "step = 4"), "did you mean 'steps'"),
        (("network", "netwerk"), "netwerk"),
        (("[8, 8]", "[8, 7]"), "multiples of 2"),
        (("[[8, 8]]", "[[8, 8], [8, 8, 8]]"), "all 2D or all 3D"),
        (("[[8, 8]]", "[]"), "shapes"),
        (("count = 2", "count = 2\nshapes = [[4, 4, 4]]"), "all 2D or all 3D"),
        (("shapes = [[8, 8]]", 'shapes = [[8, 8], [4, 4]]\n[data]\nsource = "ritz"'), "of one shape"),
        (("steps = 4", "steps = -4"), "steps"),
        (("shapes", 'walls = "neumann"\ngeometry = "free_surface"\nshapes'), "'box' takes walls"),
        (('"dcdm"', '"npsdo"\nwalls = "periodic"'), "knows no periodic axis"),
        (('"dcdm"', '"npsdo"\nown_levels = 50'), "own_levels"),
        (('"dcdm"', '"unet"'), "network"),
        (("[schedule]", '[data]\nsource = "ritz"\n[schedule]'), None),
        (("shapes", 'geometry = "free_surface"\n[data]\nsource = "ritz"\n[x]\nshapes'), "x"),
    ],
)
def test_cases_that_cannot_be_trained_are_refused(change, message, case):
    path = case(SMALL.replace(*change))
    if message is None:
        assert isinstance(load_case(path), TrainCase)
        return
    with pytest.raises(OptionError, match=message):
        load_case(path).trainer()


def test_training_cases_are_no_linear_systems():
    result = run("solve", "train_dcdm2d")
    assert result.exit_code == 2
    assert "neuralsolve train train_dcdm2d" in result.stderr
    assert "trains nothing" in run("train", "smoke_bunny").stderr
    assert "neuralsolve train" in run("simulate", "train_dcdm2d").stderr


@pytest.mark.parametrize("name", [name for name in list_cases() if name.startswith("train_")])
def test_packaged_trainings_are_complete(name):
    case = load_case(name)
    assert case.steps >= 1000
    if name == "train_cycle":
        assert list(case.grids) == list(get_args(Kind))
    elif isinstance(case, TrainCase):
        assert case.architecture()["dim"] == len(case.shapes[0])
