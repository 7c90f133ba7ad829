"""Trainings against each other: a thread each, two side by side, as many epochs as a budget of seconds holds.

The seconds of a step are the least of many, all networks in turn, so that whatever else runs on the machine
meets them alike; they and the results are kept in the folder, and a contest that was cut off goes on from
there.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neuralsolve.cases.fields import FieldCase
from neuralsolve.data.samples import Samples
from neuralsolve.models.heap import keep_freed_memory

FOLDER = Path("out") / "bench" / "fields"
ROUNDS, STEPS = 6, 4  # of every network's measurement
SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Entry:
    """What a training gave.

    Attributes
    ----------
    network, seed : which
    epochs, parameters : of it
    cpu_s : seconds that so many epochs take by the steps measured beforehand
    results : rows of the tests, by the name of the test
    """

    network: str
    seed: int
    epochs: int
    parameters: int
    cpu_s: float
    results: dict[str, dict[str, Any]]


def contest(
    folder: Path,
    cases: Mapping[str, FieldCase],
    seeds: Mapping[str, Sequence[int]],
    budget_s: float,
    parts: Sequence[Samples],
) -> list[Entry]:
    """Train every network with each of its seeds for the same CPU seconds.

    Parameters
    ----------
    folder : of checkpoints and results
    cases : by the name of the network
    seeds : of the trainings, by the name of the network
    budget_s : CPU seconds of each
    parts : samples and validation to measure steps with
    """
    seconds = _seconds(folder / "steps.json", cases, parts)
    jobs = []
    for label, case in cases.items():
        epochs = max(1, round(budget_s / seconds[label]))
        for seed in seeds[label]:
            seeded = case.schedule | {"epochs": epochs, "seed": seed}
            own = case.model_copy(update={"schedule": seeded})
            jobs.append((label, seed, own, epochs * seconds[label], folder / f"{label}_{seed}"))
    jobs.sort(key=lambda job: job[1])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(SIDE_BY_SIDE, mp_context=context) as pool:
        return list(pool.map(_trained, jobs))


def _seconds(file: Path, cases: Mapping[str, FieldCase], parts: Sequence[Samples]) -> dict[str, float]:
    """Return the CPU seconds that an epoch of each network takes."""
    if file.exists():
        seconds = json.loads(file.read_text())
        if seconds.keys() == cases.keys():
            return seconds
    threads = torch.get_num_threads()
    keep_freed_memory()
    torch.set_num_threads(1)
    trainers = {name: case.trainer(*parts) for name, case in cases.items()}
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):
        for name, trainer in trainers.items():
            started = time.process_time()
            for _ in range(STEPS):
                trainer.advance()
            least[name] = min(least[name], (time.process_time() - started) / STEPS)
    torch.set_num_threads(threads)
    seconds = {name: least[name] * trainer.per_epoch for name, trainer in trainers.items()}
    file.write_text(json.dumps(seconds))
    return seconds


def _trained(job: tuple[str, int, FieldCase, float, Path]) -> Entry:
    """Train one, or return what it gave when it was trained."""
    label, seed, case, cpu_s, folder = job
    kept = folder / "entry.json"
    if kept.exists():
        return Entry(**json.loads(kept.read_text()) | {"cpu_s": cpu_s})
    torch.set_num_threads(1)
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    trained = case.train(folder, lambda done, note: None)
    found = {row["test"]: row for row in trained.results}
    parameters = int(trained.provenance["parameters"])
    entry = Entry(label, seed, case.plan().epochs, parameters, cpu_s, found)
    kept.write_text(json.dumps(entry.__dict__))
    return entry
