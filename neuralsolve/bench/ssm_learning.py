"""What state-space layers learn: digits pixel by pixel, nested lists beside a recurrent network, a delay."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.ssm_rivals import LinearAttention, Recurrent
from neuralsolve.data.sequences import digits, listops
from neuralsolve.models.networks import parameters_of
from neuralsolve.models.sequence_model import SequenceModel
from neuralsolve.models.sequence_training import SequenceTrainer, SequenceTraining, accuracy
from neuralsolve.models.training_loop import train
from neuralsolve.ssm.discretise import discretise
from neuralsolve.ssm.hippo import legs
from neuralsolve.ssm.scan import diagonal_scan
from neuralsolve.ssm.starts import start

WAVES = 24  # of the input of the delay
ENOUGH = Bars(96.0, at_least=True)
DIGITS: dict[str, Any] = {"channels": 32, "layers": 2, "state": 32, "step_range": (1e-2, 1.0)}
LISTS: dict[str, Any] = {
    "channels": 64,
    "layers": 4,
    "state": 64,
    "blocks": 8,
    "step_range": (1e-2, 1.0),
    "bidirectional": True,
}
RIVALS = ("GRU", "linear attention")
LIST_SECONDS = 200.0  # of CPU, on one thread
LIST_COUNTS = 1000, 2000  # to validate and to test
LIST_BATCH, TIMED = 50, 20  # lists a step, and steps that are timed
LIST_RATES: dict[str, dict[str, Any]] = {  # the best of some on other lists
    "S5": {"learning_rate": 4e-3},
    "GRU": {"learning_rate": 4e-3},
    "linear attention": {"learning_rate": 2e-3},
}
DELAY, LENGTH, STATES = 1000, 4000, 64


def learning(settings: Settings) -> Iterator[BarRow]:
    """Tell digits by their 64 pixels, from two starts of two layers."""
    seeds = settings.seeds(5)[: 1 if settings.quick else None]
    sets = digits().split(*((50, 20, 20) if settings.quick else (1200, 200, 397)))
    options: dict[str, Any] = {"epochs": 1 if settings.quick else 20, "slow_rate": 4e-3}
    for layer in ("s4d", "s5"):
        for init in ("ptd", "legs"):
            found, size, began = [], 0, time.perf_counter()
            for seed in seeds:
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    model = SequenceModel(1, 10, layer=layer, init=init, **DIGITS)
                trainer = SequenceTrainer(model, sets[0], sets[1], SequenceTraining(seed=seed, **options))
                to_the_end(trainer)
                found.append(100 * accuracy(model, sets[2]))
                size = parameters_of(model)
            seconds = (time.perf_counter() - began) / len(seeds)
            words = f"{size} parameters, {options['epochs']} epochs; mean {mean(found):.1f}"
            problem = f"digits, L 64, {layer.upper()} from {init}"
            yield row(
                "learning",
                problem,
                "accuracy",
                "%",
                ENOUGH,
                found,
                seeds=listed(seeds),
                note=words,
                setup_s=seconds,
            )


def lists(settings: Settings) -> Iterator[BarRow]:
    """Tell values of nested lists, each network for the same CPU time on one thread, every list a new one."""
    seeds, threads = settings.seeds(3), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [_of_lists(seed, settings.quick) for seed in seeds]
    finally:
        torch.set_num_threads(threads)
    problem, seconds = "ListOps, depth 4, length 128", 0.3 if settings.quick else LIST_SECONDS
    more: dict[str, Any] = {"seeds": listed(seeds)}
    for name in found[0]:
        right, steps, size = zip(*(each[name] for each in found), strict=True)
        words = f"{size[0]} parameters, {round(mean(steps))} steps of 50 in {seconds:g} CPU s"
        yield row("lists", problem, f"accuracy of {name}", "%", None, right, note=words, **more)
    for rival in RIVALS:
        over = [each["S5"].right - each[rival].right for each in found]
        yield row("lists", problem, f"points over {rival}", "", Bars(10.0, at_least=True), over, **more)


class Told(NamedTuple):
    """What a network told right of the test, in per cent, its steps and its parameters."""

    right: float
    steps: int
    size: int


def _of_lists(seed: int, quick: bool) -> dict[str, Told]:
    (validation, test), seconds = ((20, 20), 0.3) if quick else (LIST_COUNTS, LIST_SECONDS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models = {
            "S5": SequenceModel(None, 10, layer="s5", vocabulary=16, **LISTS),
            "GRU": Recurrent(16, 10, 80, 4),
            "linear attention": LinearAttention(16, 10, 64, 3),
        }
    steps = _steps_in(seconds, models, seed)
    data = listops(validation + test + LIST_BATCH * max(steps.values()))
    chosen, measured, rest = data.split(validation, test, LIST_BATCH * max(steps.values()))
    found = {}
    for name, model in models.items():
        options = SequenceTraining(seed=seed, epochs=1, batch=LIST_BATCH, **LIST_RATES[name])
        to_the_end(SequenceTrainer(model, rest.take(slice(LIST_BATCH * steps[name])), chosen, options))
        found[name] = Told(100 * accuracy(model, measured), steps[name], parameters_of(model))
    return found


def _steps_in(seconds: float, models: dict[str, nn.Module], seed: int) -> dict[str, int]:
    """Return how many steps each network takes in the time, by turns on the same lists."""
    data = listops(LIST_BATCH * TIMED, seed=seed)
    still = SequenceTraining(seed=seed, epochs=2, batch=LIST_BATCH, learning_rate=1e-12, slow_rate=1e-12)
    trainers = {
        name: SequenceTrainer(model, data, data.take(slice(1)), still) for name, model in models.items()
    }
    taken = dict.fromkeys(models, 0.0)
    for turn in range(2 * TIMED):
        for name, trainer in trainers.items():
            began = time.process_time()
            trainer.advance()
            taken[name] += (time.process_time() - began) * (turn >= TIMED)
    return {name: max(1, round(seconds * TIMED / total)) for name, total in taken.items()}


def to_the_end(trainer: SequenceTrainer) -> None:
    """Train without files, and take the weights that did best."""
    with tempfile.TemporaryDirectory() as folder:
        train(trainer, Path(folder), writes=False)
    trainer.use_best()


def delay(settings: Settings) -> Iterator[BarRow]:
    """Read the input of 1000 samples ago off the states, by least squares, before anything is learned."""
    length = 1500 if settings.quick else LENGTH
    rng = np.random.default_rng(9301)
    waves = rng.standard_normal((2, WAVES)) / np.sqrt(2 * WAVES)
    phase = 2 * np.pi * np.arange(1, WAVES + 1)[:, None] * np.arange(length) / length
    u = waves[0] @ np.cos(phase) + waves[1] @ np.sin(phase)
    missed = {}
    for name in ("ptd", "legs"):
        given = start(name, STATES)
        made = discretise(given.eigenvalues, torch.full((len(given.B),), 1 / DELAY, dtype=torch.float64))
        v = (made.gain * given.B) * torch.from_numpy(u)[None, :, None]
        x, _ = diagonal_scan(made.factors, v, torch.zeros(1, len(given.B), dtype=v.dtype))
        missed[name] = _unread(torch.view_as_real(x[0]).flatten(1).numpy(), u)
    missed["S4 (exact HiPPO)"] = _unread(_exact(u), u)
    for name, value in missed.items():
        bar = None if name == "legs" else Bars(missed["legs"] * (1 + 1e-9))
        words = "relative error of the read-out" + ("" if bar is None else "; bar: that of S4D-LegS")
        yield row("delay", f"delay of {DELAY}, L {length}, n {STATES}, {name}", words, "", bar, [value])


def _exact(u: np.ndarray) -> np.ndarray:
    """Return states (L, n) of HiPPO itself, by the bilinear rule."""
    A, B = legs(STATES)
    half = A / (2 * DELAY)
    eye = np.eye(STATES)
    step, into = np.linalg.solve(eye - half, eye + half), np.linalg.solve(eye - half, B / DELAY)
    x, found = np.zeros(STATES), np.empty((len(u), STATES))
    for k, value in enumerate(u):
        x = found[k] = step @ x + into * value
    return found


def _unread(states: np.ndarray, u: np.ndarray) -> float:
    X, y = states[DELAY:], u[:-DELAY]
    C = np.linalg.lstsq(X, y, rcond=1e-10)[0]
    return float(np.linalg.norm(X @ C - y) / np.linalg.norm(y))
