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
from neuralsolve.models.memory import keep_freed_memory

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
    cpu_s : seconds of the training, validation included
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
    seeds: Sequence[int],
    budget_s: float,
    parts: Sequence[Samples],
) -> list[Entry]:
    """Train every network with every seed for the same CPU seconds.

    Parameters
    ----------
    folder : of checkpoints and results
    cases : by the name of the network
    seeds : of the trainings
    budget_s : CPU seconds of each
    parts : samples and validation to measure steps with
    """
    epochs = _epochs(folder / "steps.json", cases, budget_s, parts)
    jobs = [
        (label, seed, _for(case, seed, epochs[label]), folder / f"{label}_{seed}")
        for seed in seeds
        for label, case in cases.items()
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(SIDE_BY_SIDE, mp_context=context) as pool:
        return list(pool.map(_trained, jobs))


def _for(case: FieldCase, seed: int, epochs: int) -> FieldCase:
    schedule = case.schedule | {"epochs": epochs, "seed": seed}
    return case.model_copy(update={"schedule": schedule})


def _epochs(
    file: Path, cases: Mapping[str, FieldCase], budget_s: float, parts: Sequence[Samples]
) -> dict[str, int]:
    """Return how many epochs of each network take the budget."""
    if file.exists():
        seconds = json.loads(file.read_text())
        if seconds.keys() == cases.keys():
            return {name: max(1, round(budget_s / value)) for name, value in seconds.items()}
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
    return {name: max(1, round(budget_s / value)) for name, value in seconds.items()}


def _trained(job: tuple[str, int, FieldCase, Path]) -> Entry:
    """Train one, or return what it gave when it was trained."""
    label, seed, case, folder = job
    kept = folder / "entry.json"
    if kept.exists():
        return Entry(**json.loads(kept.read_text()))
    torch.set_num_threads(1)
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    trained = case.train(folder, lambda done, note: None)
    found = {row["test"]: row for row in trained.results}
    parameters = int(trained.provenance["parameters"])
    seconds = time.process_time() - started
    entry = Entry(label, seed, case.plan().epochs, parameters, seconds, found)
    kept.write_text(json.dumps(entry.__dict__))
    return entry
