"""What resonances cost: accuracy of trained layers while a sinusoid sounds inside every layer.

Sequential digits, every pixel four times (length 256). At test time alone, the input of every layer has
a U cos(w Delta_h k) added, U uniform in [0, 1) for each sequence and channel, Delta_h the step of the channel
and w the highest resonance of S4D's start: the published experiment (Yu et al., ICLR 2024, sec. 5), which
reaches into the layers. `from_outside` adds sinusoids and white noise of the same energy to the input
itself.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.bench.bars import BarRow, Bars, Settings, row
from neuralsolve.data.sequences import Sequences, digits
from neuralsolve.models.s4d import S4D
from neuralsolve.models.sequence_model import SequenceModel
from neuralsolve.models.sequence_training import SequenceTrainer, SequenceTraining, accuracy
from neuralsolve.models.training_loop import train
from neuralsolve.ssm.hippo import normal_frequencies

GROUP = "robustness"
STATE = 32
SEEDS = range(9201, 9206)
LOUD = (0.1, 0.3, 1.0)
OUTSIDE, TONES = 1.0, 40  # amplitude in the input, whose numbers are from -1 to 1; frequencies
STARTS = {"S4D": "legs", "PTD": "ptd", "S4D-Lin": "s4d-lin"}
MODEL: dict[str, Any] = {"channels": 32, "layers": 2, "state": STATE}
BARE_WORDS = "no residual, no D"
KINDS: dict[str, dict[str, Any]] = {
    BARE_WORDS: {"residual": False, "feedthrough": False, "prenorm": False, "norm": "layer"},
    "residual and D": {"norm": "batch"},
}
TRAINING: dict[str, Any] = {"epochs": 12, "schedule": "constant"}


def data(quick: bool = False) -> list[Sequences]:
    """Return sequences to train on, to choose by, to measure on."""
    return digits(repeat=4).split(*((50, 20, 20) if quick else (1200, 200, 397)))


def trained(
    init: str, kind: dict[str, Any], seed: int, sets: list[Sequences], quick: bool = False
) -> SequenceModel:
    """Return a model of a start and a seed."""
    options: dict[str, Any] = TRAINING | ({"epochs": 1} if quick else {})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SequenceModel(1, 10, init=init, **MODEL, **kind)
    trainer = SequenceTrainer(model, sets[0], sets[1], SequenceTraining(**options, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        train(trainer, Path(folder), writes=False)
    trainer.use_best()
    return model


@contextmanager
def sounding(model: nn.Module, loud: float, frequency: float, seed: int) -> Iterator[None]:
    """Let a sinusoid sound inside every layer, of an angular frequency in the time of the layer."""
    generator = torch.Generator().manual_seed(seed)

    def add(layer: S4D, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        u, step = given[0], torch.exp(layer.log_step.double())
        phase = frequency * step * torch.arange(u.shape[1])[:, None]
        size = torch.rand(len(u), 1, u.shape[2], generator=generator)
        return (u + loud * size * torch.cos(phase).to(u.dtype), *given[1:])

    hooks = [each.register_forward_pre_hook(add) for each in model.modules() if isinstance(each, S4D)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def inside(model: SequenceModel, test: Sequences, seed: int) -> dict[float, float]:
    """Return accuracy in per cent by the loudness of the highest resonance of S4D's start."""
    found, frequency = {}, float(normal_frequencies(STATE).max())
    for loud in LOUD:
        with sounding(model, loud, frequency, seed):
            found[loud] = 100 * accuracy(model, test)
    return found


def from_outside(model: SequenceModel, test: Sequences, seed: int, count: int = TONES) -> dict[str, float]:
    """Return accuracy in per cent with noise of one energy in the input: white, and sinusoids.

    "sinusoid" is the mean over `count` frequencies, logarithmic from one turn a sequence to two samples a
    turn; "worst sinusoid" the least of them.
    """
    rng, (n, length, _) = np.random.default_rng(seed), test.values.shape
    white = rng.standard_normal((n, length, 1)) * OUTSIDE / math.sqrt(2)
    tones = []
    for frequency in np.geomspace(2 * math.pi / length, math.pi, count):
        phase = rng.uniform(0, 2 * math.pi, (n, 1, 1))
        tone = OUTSIDE * np.cos(frequency * np.arange(length)[:, None] + phase)
        tones.append(100 * accuracy(model, _with(test, tone)))
    return {
        "white noise": 100 * accuracy(model, _with(test, white)),
        "sinusoid": mean(tones),
        "worst sinusoid": min(tones),
    }


def _with(test: Sequences, noise: np.ndarray) -> Sequences:
    return replace(test, values=test.values + noise.astype(np.float32))


@cache
def trials(kind: str, init: str, quick: bool) -> tuple[dict[str, float], ...]:
    """Return what is measured of a start, of every seed: accuracy by what sounds."""
    sets, found = data(quick), []
    for seed in SEEDS[:1] if quick else SEEDS:
        model = trained(init, KINDS[kind], seed, sets, quick)
        heard = {"clean": 100 * accuracy(model, sets[2])}
        heard |= {f"a = {loud:g}": right for loud, right in inside(model, sets[2], seed).items()}
        found.append(heard | from_outside(model, sets[2], seed, 2 if quick else TONES))
    return tuple(found)


def robustness(settings: Settings) -> Iterator[BarRow]:
    """Yield accuracies, and what is lost to a sinusoid inside the layers, of three starts."""
    for kind in KINDS:
        problem = f"digits, L 256, {kind}"
        all_ = {name: trials(kind, init, settings.quick) for name, init in STARTS.items()}
        seeds = f"{SEEDS[0]}-{SEEDS[-1]}"
        for name, found in all_.items():
            for what in found[0]:
                yield row(
                    GROUP,
                    problem,
                    f"accuracy of {name}, {what}",
                    "%",
                    None,
                    [median(each[what] for each in found)],
                    seeds=seeds,
                    note="median of the seeds",
                )
        lost = {name: mean(each["clean"] - each["a = 1"] for each in all_[name]) for name in ("S4D", "PTD")}
        behind = mean(each["clean"] for each in all_["S4D"]) - mean(each["clean"] for each in all_["PTD"])
        note = "means over the seeds"
        if kind == BARE_WORDS:
            yield row(
                GROUP,
                problem,
                "points lost by PTD at a = 1",
                "",
                Bars(5.0),
                [lost["PTD"]],
                seeds=seeds,
                note=note,
            )
            bar = Bars(50.0, at_least=True)
            yield row(
                GROUP, problem, "points lost by S4D at a = 1", "", bar, [lost["S4D"]], seeds=seeds, note=note
            )
        else:
            share = lost["PTD"] / max(lost["S4D"], 1e-9)
            yield row(
                GROUP,
                problem,
                "points lost at a = 1: PTD / S4D",
                "",
                Bars(0.5),
                [share],
                seeds=seeds,
                note=note,
            )
            yield row(
                GROUP,
                problem,
                "clean: points that PTD is behind S4D",
                "",
                Bars(1.0),
                [behind],
                seeds=seeds,
                note=note,
            )


def curves(quick: bool) -> dict[str, dict[str, dict[float, list[float]]]]:
    """Return accuracies over the loudness of the resonance, for a figure."""
    heard = {0.0: "clean", **{loud: f"a = {loud:g}" for loud in LOUD}}
    return {
        kind: {
            name: {loud: [each[what] for each in trials(kind, init, quick)] for loud, what in heard.items()}
            for name, init in STARTS.items()
        }
        for kind in KINDS
    }
