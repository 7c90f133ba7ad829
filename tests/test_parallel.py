"""Several processes: two are one with twice the batch, the first writes and tells, an interrupt ends all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_fields_cli import CASE

from neuralsolve.errors import OptionError
from neuralsolve.models.parallel import Parallel, processes, rank
from neuralsolve.models.training_loop import CHECKPOINT, LOG, read_log
from neuralsolve.preconditioners.weights import read_tensors

SMALL = CASE.replace("[data]", 'norm = "instance"\n[data]').replace("epochs = 2", "epochs = 3\nema = 0.9")


def started(case, folder, count=2):
    command = [sys.executable, "-m", "neuralsolve", "train", str(case), "--out-dir", str(folder)]
    if count > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        command[1:1] = launch
    environment = {
        k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"
    }  # so that Python starts anew
    environment |= {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def ended(process, seconds=120):
    try:
        return process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_one_process_is_the_first_and_waits_for_nobody(monkeypatch):
    one = Parallel()
    one.wait()
    assert (one.rank, one.count, one.any(True), one.any(False), one.of_first(3.5)) == (0, 1, True, False, 3.5)
    assert (processes(), rank()) == (1, 0)
    monkeypatch.setenv("RANK", "3")
    assert rank() == 0  # a variable that something else has left
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (processes(), rank()) == (4, 3)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Parallel("auto").device.type == "cpu"
    with pytest.raises(OptionError, match="'auto'"):
        Parallel("cuda")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["{ l2 = 1.0, residual = 0.1 }", "{ h1 = 1.0 }"])
def test_two_processes_are_one_with_twice_the_batch(loss, tmp_path):
    case, text = tmp_path / "train_small.toml", SMALL.replace("batch = 4", f"batch = 2\nloss = {loss}")
    case.write_text(text)
    two = started(case, tmp_path / "two")
    out, err = ended(two)
    assert two.returncode == 0, err
    assert out.count("wrote") == out.count("small.safetensors") + 3  # told once: weights, log, two figures
    case.write_text(text.replace("batch = 2", "batch = 4"))
    alone = started(case, tmp_path / "one", 1)
    assert ended(alone)
    assert alone.returncode == 0
    rows = [read_log(tmp_path / name / LOG) for name in ("two", "one")]
    for ours, expected in zip(*rows, strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert ours["validation"] == pytest.approx(expected["validation"], rel=1e-4)
        assert ours["learning_rate"] == expected["learning_rate"]
    weights = [read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("two", "one")]
    for name, value in weights[1].items():
        if name.startswith(("net.", "average.")):
            assert np.allclose(weights[0][name], value, rtol=0, atol=2e-3 * max(1.0, abs(value).max())), name


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_and_the_run_goes_on(tmp_path):
    case, folder = tmp_path / "train_small.toml", tmp_path / "out"
    case.write_text(SMALL.replace("epochs = 3", "epochs = 100").replace("batch = 4", "batch = 2"))
    process, deadline = started(case, folder), time.monotonic() + 90
    while not (folder / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to all of them
    began = time.monotonic()
    _, err = ended(process, 60)
    assert time.monotonic() - began < 25  # torchrun kills what does not end in 30
    assert process.returncode != 0
    assert err.count(f"the same command goes on from {folder}") == 1
    again = started(case, folder)
    _, err = ended(again)
    assert again.returncode == 0, err
    assert [row["step"] for row in read_log(folder / LOG)] == list(range(3, 301, 3))
