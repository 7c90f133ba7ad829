"""What state-space layers learn: digits pixel by pixel, nested lists beside a recurrent network, a delay."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.data.sequences import Sequences, digits, listops
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
    "step_range": (1e-2, 1.0),
    "bidirectional": True,
}
LIST_SECONDS = 300.0  # of CPU, on one thread
LIST_COUNTS = 40_000, 1000, 2000
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


class Recurrent(nn.Module):
    """Gated recurrent units of about the same size, in both directions, as the rival of `SequenceModel`."""

    def __init__(self, vocabulary: int, classes: int, channels: int, layers: int):
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, channels)
        self.units = nn.GRU(channels, channels // 2, layers, batch_first=True, bidirectional=True)
        self.decoder = nn.Linear(channels, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.encoder(x), lengths, True, enforce_sorted=False)
        h, _ = nn.utils.rnn.pad_packed_sequence(
            self.units(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        valid = torch.arange(x.shape[1]) < lengths[:, None]
        return self.decoder((h * valid[..., None]).sum(1) / lengths[:, None])


def lists(settings: Settings) -> Iterator[BarRow]:
    """Tell values of nested lists, for as many CPU seconds as the rival has, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in settings.seeds(1):
            yield from _against_recurrent(seed, settings.quick)
    finally:
        torch.set_num_threads(threads)


def _against_recurrent(seed: int, quick: bool) -> Iterator[BarRow]:
    counts, seconds = ((60, 20, 20), 0.3) if quick else (LIST_COUNTS, LIST_SECONDS)
    sets, problem = listops(sum(counts)).split(*counts), "ListOps, depth 4, length 128"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models = {
            "S5": SequenceModel(None, 10, layer="s5", vocabulary=16, blocks=8, **LISTS),
            "GRU": Recurrent(16, 10, 80, 4),
        }
    right = {}
    for name, model in models.items():
        right[name], epochs = _for_seconds(model, sets, seed, seconds)
        words = f"{parameters_of(model)} parameters, {epochs:.1f} epochs in {seconds:g} CPU s"
        more = {"seeds": str(seed), "note": words}
        yield row("lists", problem, f"accuracy of {name}", "%", None, [right[name]], **more)
    over = [right["S5"] - right["GRU"]]
    yield row("lists", problem, "points over the GRU", "", Bars(10.0, at_least=True), over, seeds=str(seed))


def _for_seconds(model: nn.Module, sets: list[Sequences], seed: int, seconds: float) -> tuple[float, float]:
    """Return the accuracy on the test after so many seconds of steps, and the epochs that they were.

    Steps are timed beforehand, so that the rates fall to their end in the time there is.
    """
    probe = SequenceTrainer(
        model, sets[0], sets[1], SequenceTraining(seed=seed, learning_rate=1e-12, slow_rate=1e-12)
    )
    taken = [_timed(probe.advance) for _ in range(6)][1:]
    steps = max(1, round(seconds / float(np.median(taken))))
    epochs = max(1, round(steps / probe.every))
    trainer = SequenceTrainer(
        model, sets[0], sets[1], SequenceTraining(seed=seed, epochs=epochs, learning_rate=4e-3)
    )
    to_the_end(trainer)
    return 100 * accuracy(model, sets[2]), trainer.step / trainer.every


def _timed(call: Any) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


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
