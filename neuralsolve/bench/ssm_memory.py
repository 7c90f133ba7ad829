"""Roll-outs of the Kuramoto-Sivashinsky equation by a Fourier operator with a memory and without one.

All operators have the same number of parameters to a per cent, the same samples, order and number of steps,
and the same schedule. A roll-out begins with the first frame of a test trajectory, alone, and goes on for 25;
the error of a frame is relative, in L2 over the nodes, and its mean over frames and trajectories counts.
Test trajectories took part in no choice. Trainings run on one thread each, two side by side, and go on from
their checkpoints in ``out/bench/ssm_memory``.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.contest import SIDE_BY_SIDE
from neuralsolve.cases.fields import BEST, MADE, FieldCase
from neuralsolve.cases.files import load_case
from neuralsolve.models.heap import keep_freed_memory
from neuralsolve.models.networks import parameters_of
from neuralsolve.models.surrogate import Surrogate

FOLDER = Path("out") / "bench" / "ssm_memory"
SEEDS = 3  # of the trainings
MEMORIES = ("ptd", "legs", "none")
FINE = {"stride": 2, "modes": 32}  # 128 nodes, on which all waves that grow are seen
FINE_EPOCHS = 8
Found = dict[tuple[str, int], dict[str, Any]]


def memory(settings: Settings) -> Iterator[BarRow]:
    """Train at 32 of 256 nodes with both starts and without a memory, and at 128 nodes with and without."""
    seeds = settings.seeds(SEEDS)
    case = _case(settings, load_case("train_memory_ks"))
    folder = FOLDER / ("quick" if settings.quick else "")
    file = _made(case, folder)
    coarse = {(name, seed): _of(case, file, name, seed) for name in MEMORIES for seed in seeds}
    found = _trained(coarse, folder / "coarse")
    problem = "Kuramoto-Sivashinsky, 32 of 256 nodes, 25 steps from one frame"
    yield from _told("memory", problem, found)
    yield _ratio("memory", problem, found, "none", "ptd", Bars(2.0, at_least=True))
    yield _ratio("memory", problem, found, "ptd", "legs", Bars(1.0))
    fine = case.model_copy(
        update={
            "data": case.data.model_copy(update={"stride": FINE["stride"]}),
            "options": case.options | {"modes": FINE["modes"]},
            "schedule": case.schedule | {"epochs": 1 if settings.quick else FINE_EPOCHS},
        }
    )
    jobs = {(name, seed): _of(fine, file, name, seed) for name in ("ptd", "none") for seed in seeds}
    found = _trained(jobs, folder / "fine")
    problem = "the same, 128 of 256 nodes"
    yield from _told("memory", problem, found)
    yield _ratio("memory", problem, found, "ptd", "none", Bars(1.05))


def _case(settings: Settings, case: FieldCase) -> FieldCase:
    """Return the case, of few samples and epochs in a quick run."""
    if not settings.quick:
        return case
    few: dict[str, Any] = {"count": 24, "train": 12, "validation": 4, "test": 8}
    schedule = case.schedule | {"epochs": 2}
    return case.model_copy(update={"data": case.data.model_copy(update=few), "schedule": schedule})


def _made(case: FieldCase, folder: Path) -> Path:
    """Return the file of the trajectories, on all nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    case.sets(folder, lambda done, note: None)
    return (folder / MADE).resolve()


def _of(case: FieldCase, file: Path, name: str, seed: int) -> FieldCase:
    made = {"file": str(file), "equation": None, "count": None}
    return case.model_copy(
        update={
            "data": case.data.model_copy(update=made),
            "options": case.options | {"memory": name},
            "schedule": case.schedule | {"seed": seed},
        }
    )


def _trained(cases: dict[tuple[str, int], FieldCase], folder: Path) -> Found:
    """Return what every training gave, by memory and seed; those of a seed run one after the other."""
    order = sorted(cases, key=lambda key: key[1])
    jobs = [(cases[key], folder / f"{key[0]}_{key[1]}") for key in order]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(SIDE_BY_SIDE, mp_context=context) as pool:
        return dict(zip(order, pool.map(_one, jobs), strict=True))


def _one(job: tuple[FieldCase, Path]) -> dict[str, Any]:
    """Train one and measure it, or return what was measured."""
    case, folder = job
    kept = folder / "result.json"
    if kept.exists():
        return json.loads(kept.read_text())
    torch.set_num_threads(1)
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    case.train(folder, lambda done, note: None)
    seconds = time.process_time() - started
    model = Surrogate.load(folder / BEST)
    data = case.data.samples(case.path, folder, MADE, lambda done, note: None)
    test = data.split(case.data.train, case.data.validation, case.data.test)[2]
    found = {
        "curve": curve(model.predict(test, steps=test.outputs.shape[1]), test.outputs),
        "taught": curve(model.predict(test.history()), test.outputs),
        "parameters": parameters_of(model),
        "epochs": case.plan().epochs,
        "cpu_s": seconds,
    }
    kept.write_text(json.dumps(found))
    return found


def curve(made: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return the mean relative error of each frame, of trajectories ``(n, frames, *shape)``.

    >>> curve(np.zeros((2, 3, 8)), np.ones((2, 3, 8)))
    [1.0, 1.0, 1.0]
    """
    flat = made.reshape(*made.shape[:2], -1).astype(float), truth.reshape(*truth.shape[:2], -1).astype(float)
    missed = np.linalg.norm(flat[0] - flat[1], axis=-1) / np.linalg.norm(flat[1], axis=-1)
    return [float(value) for value in missed.mean(0)]


def _told(group: str, problem: str, found: Found) -> Iterator[BarRow]:
    """Yield the errors of every operator; the note has those of single frames."""
    for name in dict.fromkeys(key[0] for key in found):
        own = [each for key, each in found.items() if key[0] == name]
        frames = np.mean([each["curve"] for each in own], 0)
        shown = ", ".join(f"{frames[k - 1]:.3f} at {k}" for k in (1, 5, 10, 15, 20, 25) if k <= len(frames))
        one, taught = own[0], np.mean([np.mean(each["taught"]) for each in own])
        note = f"{one['parameters']} parameters, {one['epochs']} epochs; {shown}; {taught:.4f} of true frames"
        values = [float(np.mean(each["curve"])) for each in own]
        seconds = float(np.median([each["cpu_s"] for each in own]))
        label = "relative L2 without a memory" if name == "none" else f"relative L2 with the start {name}"
        yield row(group, problem, label, "", None, values, note=note, seeds=_seeds(found), solve_s=seconds)


def _ratio(group: str, problem: str, found: Found, above: str, below: str, bars: Bars) -> BarRow:
    """Return the mean error of one operator over that of another, of all seeds together, seed by seed."""
    seeds = sorted({key[1] for key in found})
    means = {key: float(np.mean(each["curve"])) for key, each in found.items()}
    values = [means[above, seed] / means[below, seed] for seed in seeds]
    return row(group, problem, f"relative L2, {above} / {below}", "x", bars, values, seeds=_seeds(found))


def _seeds(found: Found) -> str:
    return listed(sorted({key[1] for key in found}))
