"""Benchmarks on a GPU, a simulated one: what runs where, what is refused, what moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from simulated_gpu import Device, fast_gpu, gpu, held
from typer.testing import CliRunner

import neuralsolve as ns
from neuralsolve.bench import Contender, compare, comparison_markdown, csv_text, gpu_bytes, take_suite
from neuralsolve.bench.device import chosen, together
from neuralsolve.bench.device_measures import box, kernel_calls, noise, take_measures_on
from neuralsolve.bench.device_rivals import TORCH, device_rivals, torch_cg
from neuralsolve.bench.gpu import GROUPS
from neuralsolve.bench.system import assembled
from neuralsolve.cases import Problem
from neuralsolve.cli import app
from neuralsolve.errors import OptionError

__all__ = ["fast_gpu", "gpu"]  # fixtures
CPU = torch.device("cpu")
PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"


@pytest.fixture
def card(fast_gpu: Device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The simulated GPU as the harness sees one."""
    monkeypatch.setattr("torch.__future__._overwrite_module_params_on_conversion", True)  # networks move
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Simulated")
    return torch.device("cuda", 0)


class Rows:
    """Stands for torch's CSR tensor, which the simulated device has not."""

    def __init__(self, matrix: Any, device: torch.device):
        self._A = ns.as_operator(matrix).to(device)

    def __matmul__(self, x: torch.Tensor) -> torch.Tensor:
        return self._A.matvec(x)


def masked():
    cells = np.zeros((9, 11), dtype=np.uint8)
    cells[3:6, 4:8], cells[-2:] = ns.SOLID, ns.AIR
    A = ns.PoissonStencil(ns.Grid(cells))
    return Problem("small", A, np.random.default_rng(711).standard_normal(A.shape[0]))


def test_our_methods_run_on_the_device_and_the_baselines_on_the_cpu(card, monkeypatch):
    monkeypatch.setattr("neuralsolve.bench.device_rivals.torch_matrix", Rows)
    problem = masked()
    rows = compare(problem, [Contender("cg", ns.CG(), ns.Jacobi())], rtol=1e-9, repeats=1, device=card)
    places = {row.method: row.device for row in rows}
    assert places["cg"] == places[TORCH] == "cuda:0"
    assert {row.device for row in rows if row.method.startswith(("SciPy", "PyAMG"))} == {"cpu"}
    assert all(row.converged and row.residual <= 1.01e-9 for row in rows)
    assert "| cg, cuda:0 |" in comparison_markdown(rows)
    assert "Simulated" in csv_text(rows, card)
    assert "Simulated" not in csv_text(rows)


def test_torch_cg_takes_the_steps_of_cg():
    system = assembled(masked())
    run = torch_cg(system.matrix, system.rhs, CPU)
    x, steps = run(1000, 1e-9)
    assert system.residual(x) <= 1.01e-9
    assert steps == ns.solve(system.matrix, system.rhs, ns.CG(), rtol=1e-9).iterations
    assert run(7, 0.0)[1] == 7
    skew = sp.csr_array(np.array([[2.0, -1.5], [-0.5, 2.0]]))
    assert device_rivals(assembled(Problem("not symmetric", skew, np.ones(2))), CPU) == {}


BYTES = {  # a cell, float64: vectors of 8 bytes each, read or written, and a code of 2
    "stencil_matvec": 18,
    "stencil_matvec_dot": 18,
    "stencil_direction_dot": 34,
    "cg_update": 48,
    "xpby": 24,
    "dot": 16,
}


def test_bytes_are_those_on_paper(card):
    A = box(6)
    known = kernel_calls(A, noise(216, CPU))
    assert {name: moved // 216 for name, (_, moved) in known.items()} == BYTES
    there = noise(216, card)
    step = gpu_bytes.step_bytes(A.to(card), there, card) / 216
    assert step == pytest.approx(34 + 48, abs=1)  # scalars are a few bytes in all


def test_the_page_says_the_same_bytes():
    lines = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {cells[1].strip(" `"): cells[2:] for cells in lines if cells[2].strip().isdigit()}
    assert {name: int(cells[0]) for name, cells in told.items()} == BYTES
    for moved, _, *floors in told.values():
        expected = [1e3 * int(moved) * 256**3 / speed for speed in (4e12, 2.8e12)]
        assert [float(text) for text in floors[:2]] == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("group", GROUPS)
def test_the_suite_runs_at_toy_sizes(card, group, monkeypatch):
    monkeypatch.setattr("neuralsolve.bench.device_rivals.torch_matrix", Rows)
    rows = take_suite("gpu", 1, only=[group], quick=True, device=card)
    assert {row.group for row in rows} == {group}
    for row in rows:
        assert row.measured or "CuPy" in row.note, row
        assert row.residual is None or row.residual <= 0.1


def test_measures_of_a_device(card, monkeypatch):
    for name in ("memory_allocated", "max_memory_allocated", "reset_peak_memory_stats"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_: 0)
    for module in ("device_rivals", "device_measures"):
        monkeypatch.setattr(f"neuralsolve.bench.{module}.torch_matrix", Rows)
    told: list[str] = []
    rows = take_measures_on(card, 1, 0.05, told.append)
    assert told == ["kernels", "time per iteration of CG", "fast Poisson", "memory"]
    assert all(np.isfinite(row.value) for row in rows)
    assert {row.measure.split()[0] for row in rows} >= BYTES.keys()


def test_calls_in_a_graph_are_done_when_it_is_replayed(card):
    x = torch.zeros(3, dtype=torch.float64, device=card)
    replay = together(lambda: x.add_(1), 5, card)
    before = float(held(x)[0])
    replay()
    assert held(x).tolist() == [before + 5] * 3


def test_the_command_takes_a_device(card, monkeypatch, tmp_path):
    monkeypatch.setattr("neuralsolve.bench.device_rivals.torch_matrix", Rows)
    (tmp_path / "c.toml").write_text('kind = "poisson"\nshape = [6, 7]\n')
    command = ["bench", str(tmp_path / "c.toml"), "--device", "cuda", "--repeats", "1", "--method", "cg"]
    result = CliRunner().invoke(app, [*command, "--json", "--csv", str(tmp_path / "rows.csv")])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert "Simulated" in content["environment"]["machine"]
    assert {row["device"] for row in content["rows"] if row["ours"]} == {"cuda:0"}
    assert "cuda:0" in (tmp_path / "rows.csv").read_text()
    wrong = CliRunner().invoke(app, ["bench", "--suite", "tuned", "--quick", "--device", "cuda"])
    assert wrong.exit_code == 2
    assert "the suite tuned runs on the CPU" in wrong.stderr
    beyond = CliRunner().invoke(app, [*command[:3], "cuda:3"])
    assert beyond.exit_code == 2
    assert "cuda:0" in beyond.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured_or_written(tmp_path):
    target = tmp_path / "rows.csv"
    for words, said in (
        (["poisson_box_2d", "--device", "cuda"], "not here"),
        (["--suite", "gpu", "--quick"], "measures a CUDA device"),
        (["--suite", "gpu", "--device", "cpu"], "measures a CUDA device"),
        (["--device", "tpu"], "cuda:N"),
    ):
        result = CliRunner().invoke(app, ["bench", *words, "--csv", str(target)])
        assert result.exit_code == 2
        assert said in result.stderr
        assert not target.exists()
    with pytest.raises(OptionError, match="measures a CUDA device"):
        take_suite("gpu", 1)
    with pytest.raises(OptionError, match="not here"):
        chosen("cuda")
    assert chosen("cpu") == CPU
