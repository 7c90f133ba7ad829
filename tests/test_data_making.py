"""Making data in chunks: interrupted anywhere, the same call ends in the same arrays."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pytest

from neuralsolve.data import Layout, Samples, make, read_samples
from neuralsolve.errors import OptionError


@dataclass(frozen=True)
class Invented:
    """Sample k of a seed is the same whatever is made beside it; `breaks` is called before each."""

    name: ClassVar[str] = "invented"
    size: int = 8
    factor: float = 2.0

    def layout(self):
        equation = {"name": self.name} | asdict(self)
        axes = (np.arange(self.size) / self.size,)
        return Layout(axes, ("a",), ("u",), equation=equation, origin={"source": "test"})

    def breaks(self, number):
        pass

    def samples(self, numbers, seed):
        fields = []
        for number in numbers:
            self.breaks(number)
            fields.append(np.random.default_rng([seed, number]).standard_normal((1, self.size)))
        u = np.stack(fields)
        return Samples(u, self.factor * u, self.layout(), 1e-9 * np.arange(1, len(u) + 1))


class Breaking(Invented):
    """Is interrupted at a sample, once."""

    at: ClassVar[list[int]] = []

    def breaks(self, number):
        if number in self.at:
            self.at.remove(number)
            raise KeyboardInterrupt


def arrays(path):
    data = read_samples(path)
    return [
        data.inputs.tobytes(),
        data.outputs.tobytes(),
        data.residuals.tobytes(),
        data.layout.axes[0].tobytes(),
    ]


def whole(tmp_path, **options):
    make(Invented(), 11, tmp_path / "whole.h5", seed=58, chunk=4, **options)
    return arrays(tmp_path / "whole.h5")


def test_the_file_tells_how_it_was_made(tmp_path):
    told = []
    made = make(Invented(), 11, tmp_path / "d.h5", 58, 3, 4, lambda done, note: told.append((done, note)))
    data = read_samples(tmp_path / "d.h5")
    assert made.count == len(data) == 11
    assert made.residual == 4e-9
    assert made.bytes == (tmp_path / "d.h5").stat().st_size
    assert [done for done, _ in told] == [4, 8, 11]
    assert "per sample" in told[0][1]
    assert np.array_equal(data.inputs[2], Invented().samples([5], 58).inputs[0])
    origin = data.layout.origin
    assert {key: origin[key] for key in ("seed", "first", "count", "source")} == {
        "seed": 58,
        "first": 3,
        "count": 11,
        "source": "test",
    }
    words = ["--n 11 --seed 58 --first 3", "--set size=8 --set factor=2.0", "--chunk 4 --out d.h5"]
    assert origin["command"] == f"neuralsolve data make invented {' '.join(words)}"
    assert origin["seconds_per_sample"] > 0
    assert origin["version"]
    assert data.layout.equation["name"] == "invented"
    assert [each.name for each in tmp_path.iterdir()] == ["d.h5"]


@pytest.mark.parametrize("at", [[0], [3], [4], [10], [2, 6, 9], [4, 5, 6]])
def test_interrupted_within_the_equation_it_goes_on_to_the_same_arrays(tmp_path, at):
    Breaking.at[:] = at
    for _ in range(len(at)):
        with pytest.raises(KeyboardInterrupt):
            make(Breaking(), 11, tmp_path / "d.h5", seed=58, chunk=4)
        assert not (tmp_path / "d.h5").exists()
    make(Breaking(), 11, tmp_path / "d.h5", seed=58, chunk=4)
    assert arrays(tmp_path / "d.h5") == whole(tmp_path)
    assert not (tmp_path / "d.h5.parts").exists()


@pytest.mark.parametrize("at", [4, 8, 11])
def test_interrupted_after_a_chunk_nothing_is_made_twice(tmp_path, at):
    def tell(done, note):
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4, tell=tell)
    kept = {each.name: each.stat().st_mtime_ns for each in (tmp_path / "d.h5.parts").glob("*.h5")}
    assert len(kept) == -(-at // 4)
    Breaking.at[:] = range(at)  # would interrupt
    make(Breaking(), 11, tmp_path / "d.h5", seed=58, chunk=4)
    Breaking.at.clear()
    assert arrays(tmp_path / "d.h5") == whole(tmp_path)


def test_interrupted_while_the_file_is_put_together_it_goes_on(tmp_path, monkeypatch):
    from neuralsolve.data import making

    def broken(folder, start, true=making._part):
        if start == 4 and all((folder / f"{k:09d}.h5").exists() for k in (0, 4, 8)) and not done:
            done.append(start)
            raise KeyboardInterrupt
        return true(folder, start)

    done = []
    (tmp_path / "d.h5").write_text("an older file")
    monkeypatch.setattr(making, "_part", broken)
    with pytest.raises(KeyboardInterrupt):
        make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4, overwrite=True)
    assert (tmp_path / "d.h5").read_text() == "an older file"
    make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4, overwrite=True)
    assert arrays(tmp_path / "d.h5") == whole(tmp_path)


def test_interrupted_after_the_file_was_whole_only_the_chunks_go(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("neuralsolve.data.making.shutil.rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4)
    assert (tmp_path / "d.h5.parts").exists()
    before = (tmp_path / "d.h5").stat().st_mtime_ns
    assert make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4).count == 11
    assert (tmp_path / "d.h5").stat().st_mtime_ns == before
    assert not (tmp_path / "d.h5.parts").exists()


def test_a_damaged_chunk_is_made_again(tmp_path):
    Breaking.at[:] = [9]
    with pytest.raises(KeyboardInterrupt):
        make(Breaking(), 11, tmp_path / "d.h5", seed=58, chunk=4)
    part = tmp_path / "d.h5.parts" / "000000004.h5"
    part.write_bytes(part.read_bytes()[:900])
    make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4)
    assert arrays(tmp_path / "d.h5") == whole(tmp_path)


def interrupted(tmp_path):
    Breaking.at[:] = [9]
    with pytest.raises(KeyboardInterrupt):
        make(Breaking(), 11, tmp_path / "d.h5", seed=58, chunk=4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 59}, "seed was 58 and is 59"),
        ({"count": 12}, "count was 11 and is 12"),
        ({"first": 2}, "first was 0 and is 2"),
        ({"chunk": 5}, "chunk was 4 and is 5"),
        ({"equation": Invented(factor=3.0)}, r"factor was 2\.0 and is 3\.0"),
    ],
)
def test_other_parameters_are_refused_or_begin_anew(tmp_path, change, words):
    interrupted(tmp_path)
    options = {"equation": Invented(), "count": 11, "seed": 58, "chunk": 4} | change
    with pytest.raises(OptionError, match=words + ".*--restart"):
        make(path=tmp_path / "d.h5", **options)
    make(path=tmp_path / "d.h5", restart=True, **options)
    assert len(read_samples(tmp_path / "d.h5")) == options["count"]


def test_the_chunk_of_the_run_holds_where_none_is_given(tmp_path):
    interrupted(tmp_path)
    make(Invented(), 11, tmp_path / "d.h5", seed=58)
    assert read_samples(tmp_path / "d.h5").layout.origin["chunk"] == 4


@pytest.mark.parametrize("content", ["", "[", "[1]", '{"seed": 58}'])
def test_a_damaged_note_of_the_run_is_told(tmp_path, content):
    interrupted(tmp_path)
    (tmp_path / "d.h5.parts" / "run.json").write_text(content)
    with pytest.raises(OptionError, match="--restart"):
        make(Invented(), 11, tmp_path / "d.h5", seed=58)


@pytest.mark.parametrize(
    "change", [{"count": 0}, {"seed": -1}, {"first": -1}, {"chunk": 0}, {"path": "d.npz"}]
)
def test_parameters_out_of_range_are_refused(tmp_path, change):
    options = {"count": 3, "seed": 58, "path": "d.h5"} | change
    with pytest.raises(OptionError, match=r"needed|HDF5"):
        make(Invented(), **(options | {"path": tmp_path / options["path"]}))
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_seen_before_any_work(tmp_path):
    (tmp_path / "d.h5").write_text("an older file")
    Breaking.at[:] = [0]
    with pytest.raises(FileExistsError, match="--force"):
        make(Breaking(), 11, tmp_path / "d.h5", seed=58)
    Breaking.at.clear()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_second_process_is_refused(tmp_path):
    def tell(done, note):
        with pytest.raises(OptionError, match="another process"):
            make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4)

    make(Invented(), 11, tmp_path / "d.h5", seed=58, chunk=4, tell=tell)


class Slow(Invented):
    """Takes its time, for a kill to hit."""

    def breaks(self, number):
        time.sleep(0.01)


def slowly(path):
    make(Slow(), 11, path, seed=58, chunk=4)


def test_killed_at_any_time_it_goes_on_to_the_same_arrays(tmp_path):
    reference, context = whole(tmp_path), multiprocessing.get_context("fork")
    for wait in (0.0, 0.01, 0.03, 0.05, 0.08, 0.11):
        child = context.Process(target=slowly, args=(tmp_path / "d.h5",))
        child.start()
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    if not (tmp_path / "d.h5").exists() or (tmp_path / "d.h5.parts").exists():
        slowly(tmp_path / "d.h5")
    assert arrays(tmp_path / "d.h5") == reference
    assert not (tmp_path / "d.h5.parts").exists()


CTRL_C = """
import os, signal, sys, threading, h5py
sys.path.insert(0, sys.argv[2])
from test_data_making import Invented
from neuralsolve.data import make
came, over = 0, threading.Event()

def strike():
    for k in range(8):
        if over.wait(0.02 + 0.013 * k):
            return
        os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=strike)
while True:
    try:
        if not thread.ident:
            thread.start()
        make(Invented(size=1000), 1200, sys.argv[1], seed=58, chunk=50, overwrite=True)
        over.set()
        thread.join()
        break
    except KeyboardInterrupt:
        came += 1
print(came)
"""


def test_ctrl_c_at_any_time_leaves_a_process_that_goes_on_and_ends_well(tmp_path):
    path = tmp_path / "d.h5"
    command = [sys.executable, "-c", CTRL_C, str(path), os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 0
    make(Invented(size=1000), 1200, tmp_path / "whole.h5", seed=58, chunk=50)
    assert arrays(path) == arrays(tmp_path / "whole.h5")


def test_the_note_of_a_run_is_json_for_people(tmp_path):
    interrupted(tmp_path)
    run = json.loads((tmp_path / "d.h5.parts" / "run.json").read_text())
    assert run["equation"] == {"name": "invented", "size": 8, "factor": 2.0}
    assert (run["seed"], run["first"], run["count"], run["chunk"]) == (58, 0, 11, 4)
