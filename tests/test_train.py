"""``neuralsolve train``: from a case to weights that solve, resumable, with their provenance."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_cli import answer, run

import neuralsolve as ns
from neuralsolve.cases import list_cases, load_case
from neuralsolve.cases.training import TrainCase
from neuralsolve.errors import OptionError
from neuralsolve.models.files import read_tensors
from neuralsolve.models.neural import load_network
from neuralsolve.models.training import CHECKPOINT

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
    assert "the checkpoint was trained with" in other.stderr
    facts, result = answer("train", path, "--out-dir", folder, "--steps", 6, "--restart")
    assert result.exit_code == 0
    assert facts["steps"] == 6


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
    assert case.plan().steps >= 1000
    assert case.architecture()["dim"] == len(case.shapes[0])
