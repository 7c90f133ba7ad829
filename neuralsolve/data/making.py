"""Make a data set in chunks that outlive an interruption.

Every chunk goes into the folder ``FILE.parts`` in one step, so that Ctrl-C, a kill or a full disk lose the
chunk at work and no more; the same call goes on. Chunks always begin at the same samples: the arrays are the
same, bit for bit, however often it was interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from neuralsolve.data.guarded import SUFFIXES, dataset, opened
from neuralsolve.data.hdf5 import read_header, read_samples, write_parts, write_samples
from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import FormatError, OptionError
from neuralsolve.io.files import check_target, replacing

RUN = "run.json"
CHUNK_BYTES, LARGEST_CHUNK = 2**24, 64  # of the chunks of one folder, and samples
Tell = Callable[[int, str], None]


class Maker(Protocol):
    """What makes samples: `layout`, whose equation tells the parameters, and `samples`."""

    def layout(self) -> Layout: ...

    def samples(self, numbers: Sequence[int], seed: int) -> Samples: ...


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes
    ----------
    path : the file
    count : samples in it
    seconds : that the samples took, all runs together
    residual : the largest relative residual; None where the equation tells none
    bytes : of the file
    """

    path: Path
    count: int
    seconds: float
    residual: float | None
    bytes: int


def make(
    equation: Maker,
    count: int,
    path: str | os.PathLike[str],
    seed: int,
    first: int = 0,
    chunk: int | None = None,
    tell: Tell | None = None,
    restart: bool = False,
    overwrite: bool = False,
) -> Made:
    """Make the samples number `first` to ``first + count - 1`` of a seed, and write them to one file.

    Interrupted, the same call goes on where it was. The file's ``layout.origin`` tells seed, first, count,
    chunk, version, the command that makes the same, and seconds per sample.

    Parameters
    ----------
    equation : of `neuralsolve.pde`; or anything with its ``layout`` and ``samples``
    count : number of samples
    path : ``.h5``; the chunks lie in the folder ``path.parts`` until the file is whole
    seed : of all samples; number k of a seed is always the same
    first : number of the first sample; test data are made with a `first` beyond the training data
    chunk : samples made and written at once; by default 16 MB of them, 64 at most
    tell : called with (samples done, a note) after every chunk
    restart : throw away what an interrupted run with other parameters has left
    overwrite : whether an existing file may be replaced

    Returns
    -------
    Made

    Raises
    ------
    OptionError
        Parameters out of range, or a folder of chunks that were made with others.
    FileExistsError, OSError

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from neuralsolve.data import make, read_samples
    >>> from neuralsolve.pde.darcy import Darcy
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "darcy.h5"
    >>> made = make(Darcy(grid=17), 3, path, seed=7)
    >>> made.count, made.residual < 1e-8, read_samples(path).shape
    (3, True, (17, 17))
    """
    path = Path(path)
    _in_range(path, count, seed, first, chunk)
    layout = equation.layout()
    run = {
        "equation": json.loads(json.dumps(layout.equation, default=str)),
        "seed": int(seed),
        "first": int(first),
        "count": int(count),
        "chunk": int(chunk or _chunk(layout)),
        "version": version("neuralsolve"),
    }
    folder = path.with_name(path.name + ".parts")
    if not (restart or overwrite) and folder.is_dir() and _finished(path, run):
        _clear(folder)  # interrupted after the file was whole
        return _made(path)
    check_target(path, overwrite)
    folder.mkdir(exist_ok=True)
    with _alone(folder):
        for old in (*folder.glob("*.h5"), *folder.glob(RUN)) if restart else ():
            old.unlink()
        _same_run(folder, run, chunk)
        seconds = _chunks(equation, folder, run, tell or (lambda done, note: None))
        origin = {**layout.origin, **{key: run[key] for key in run if key != "equation"}}
        origin |= {"command": _command(run, path), "seconds_per_sample": seconds / count}
        starts = _starts(run)
        write_parts(
            path,
            (read_samples(_part(folder, start)) for start in starts),
            count,
            replace(layout, origin=origin),
            overwrite,
        )
    _clear(folder)
    return _made(path)


def _clear(folder: Path) -> None:
    """Remove the chunks, and after them what says whose they are: what is left can always be told."""
    for part in folder.glob("*.h5"):
        part.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _in_range(path: Path, count: int, seed: int, first: int, chunk: int | None) -> None:
    if path.suffix.lower() not in SUFFIXES:
        msg = f"{path}: samples are written as HDF5; give a name that ends in {' or '.join(SUFFIXES)}"
        raise OptionError(msg)
    if count < 1 or seed < 0 or first < 0 or (chunk is not None and chunk < 1):
        msg = (
            f"count = {count}, seed = {seed}, first = {first}, chunk = {chunk}; count and chunk >= 1, seed "
            "and first >= 0 are needed"
        )
        raise OptionError(msg)


def _chunk(layout: Layout) -> int:
    numbers = int(np.prod(layout.shape)) * (len(layout.inputs) + len(layout.outputs))
    return max(1, min(LARGEST_CHUNK, CHUNK_BYTES // max(4 * numbers, 1)))


def _starts(run: dict[str, Any]) -> range:
    return range(run["first"], run["first"] + run["count"], run["chunk"])


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start:09d}.h5"


def _same_run(folder: Path, run: dict[str, Any], chunk: int | None) -> None:
    """Note the run's parameters, or see that they are those of the run which is gone on with."""
    try:
        before = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(folder.glob("*.h5")):
            msg = f"{folder} holds chunks and no {RUN}; begin anew with --restart (in Python: restart=True)"
            raise OptionError(msg) from None
        with replacing(folder / RUN) as temporary:
            temporary.write_text(json.dumps(run, indent=2), encoding="utf-8")
        return
    except (ValueError, RecursionError) as error:
        msg = f"{folder / RUN} is damaged ({error}); begin anew with --restart (in Python: restart=True)"
        raise OptionError(msg) from None
    before = before if isinstance(before, dict) else {}
    differ = [
        f"{name} was {old!r} and is {new!r}"
        for name, old, new in _pairs(before, run)
        if old != new and not (name == "chunk" and chunk is None)
    ]
    if differ:
        msg = (
            f"{folder} holds an interrupted run of other parameters: {', '.join(differ)}; give the same ones "
            "to go on, or begin anew with --restart (in Python: restart=True)"
        )
        raise OptionError(msg)
    run["chunk"] = before["chunk"]


def _pairs(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name, new in now.items():
        old = before.get(name)
        if isinstance(new, dict):
            yield from _pairs(old if isinstance(old, dict) else {}, new)
        else:
            yield name, old, new


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second process at the same folder; the lock ends with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another process is making samples in {folder}; wait for it, or name another file"
            raise OptionError(msg) from None
        except OSError:  # a file system without locks
            pass
        yield


def _chunks(equation: Maker, folder: Path, run: dict[str, Any], tell: Tell) -> float:
    """Make the chunks that are not there, and return the seconds that all took."""
    end, seconds, told = run["first"] + run["count"], 0.0, 0
    for start in _starts(run):
        numbers = range(start, min(start + run["chunk"], end))
        taken = _taken(_part(folder, start), len(numbers))
        if taken is None:
            begin = time.perf_counter()
            samples = equation.samples(numbers, run["seed"])
            taken = time.perf_counter() - begin
            marked = replace(samples, layout=replace(samples.layout, origin={"seconds": taken}))
            write_samples(_part(folder, start), marked, overwrite=True)
        seconds += taken
        told += len(numbers)
        tell(told, f"{seconds / told:.3g} s per sample")
    return seconds


def _taken(part: Path, count: int) -> float | None:
    """Return the seconds that a chunk took; None where there is none, or a damaged one."""
    try:
        header = read_header(part)
    except (FileNotFoundError, FormatError):
        return None
    seconds = header.layout.origin.get("seconds")
    return float(seconds) if len(header) == count and isinstance(seconds, int | float) else None


def _finished(path: Path, run: dict[str, Any]) -> bool:
    try:
        layout = read_header(path).layout
    except (FileNotFoundError, FormatError):
        return False
    told = {**layout.origin, "equation": layout.equation}
    return all(told.get(name) == value for name, value in run.items() if name != "chunk")


def _made(path: Path) -> Made:
    header = read_header(path)
    seconds = float(header.layout.origin.get("seconds_per_sample", 0.0)) * len(header)
    residual = largest_residual(path)
    return Made(path, len(header), seconds, residual, header.bytes)


def largest_residual(path: Path) -> float | None:
    """Return the largest residual that a file of samples tells; None where it tells none."""
    with opened(path) as file:
        return float(np.max(dataset(path, file, "residuals")[()])) if "residuals" in file else None


def _command(run: dict[str, Any], path: Path) -> str:
    """Return the command line that makes the same samples."""
    given = dict(run["equation"])
    words = [f"neuralsolve data make {given.pop('name', '?')} --n {run['count']} --seed {run['seed']}"]
    words += [f"--first {run['first']}"] if run["first"] else []
    for name, value in given.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words.append(f"--{name} {text}" if name in ("grid", "stride") else f"--set {name}={text}")
    return " ".join([*words, f"--chunk {run['chunk']} --out {path.name}"])
