"""Low-rank optimizers beside Adam: error, state and time on a small operator, and cosines on an ordered axis.

Learning rates are picked for each optimizer by the validation error of the first seed, on a grid of factor 2
that is walked until the best is no end of it. All seeds are then trained and tested at that rate. Errors are
compared seed by seed, of one start and one order of the samples; the median counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.lowrank_operator import NODES, Pairs, family, fit, loss, network, relative_error
from neuralsolve.kernels.cpu.threads import torch_on_one_thread
from neuralsolve.lowrank.optim import (
    Adam8bit,
    DCTAdamW,
    Frugal,
    GaLore,
    Method,
    ProjectedOptimizer,
    QGaLore,
    TensorGaLore,
)
from neuralsolve.lowrank.optim.projectors import Place, SVDProjector
from neuralsolve.lowrank.views import MatrixView

GROUP = "optim"
PART, GAP = 0.3125, 20  # of the shorter sides, and steps between refreshes
STEPS, BATCH = 250, 25
COUNTS = 1000, 200, 200  # samples to train on, to choose by, to test on
DATA_SEED = 4409
FACTOR = 2.0  # of the grid of learning rates
STATE, EQUAL = Bars(0.55), Bars(1.02)
MANY = 20  # seeds of comparisons that a bar of 2 % is set for
ADAM = "Adam"
OURS = "FRUGAL, warm, rotated, sign 0.2"
WARM, EXACT, DCT, RANDOM = "GaLore, warm, rotated", "GaLore, exact, rotated", "DCT", "random directions"
PAPER, SPLIT = "GaLore, exact, kept", "FRUGAL, exact, reset, sign 1"
CODED, LAZY = "Q-GaLore", "Q-GaLore, refreshes alone"  # of which the second keeps all in float32


@dataclass(frozen=True)
class Entry:
    """An optimizer, None for Adam, with the rate its grid begins at and the bar of its error over Adam's."""

    method: Method | None
    rate: float
    bar: Bars | None = None


ENTRIES = {
    ADAM: Entry(None, 0.012),
    PAPER: Entry(GaLore(PART, GAP, space="exact", transport="keep"), 0.024, Bars(1.2)),
    EXACT: Entry(GaLore(PART, GAP, space="exact"), 0.024, Bars(1.2)),
    WARM: Entry(GaLore(PART, GAP), 0.024, Bars(1.2)),
    RANDOM: Entry(GaLore(PART, GAP, space="random"), 0.024),
    DCT: Entry(DCTAdamW(PART), 0.024),
    SPLIT: Entry(Frugal(PART, GAP, space="exact", rate=1.0, transport="reset"), 0.006),
    OURS: Entry(Frugal(PART, GAP), 0.024, Bars(1.2, 1.0)),
    CODED: Entry(QGaLore(PART, GAP), 0.024, Bars(1.2)),
    LAZY: Entry(QGaLore(PART, GAP, weights=False, moments=False, bases=False), 0.024, Bars(1.2)),
    "Tensor-GaLore": Entry(TensorGaLore(0.25, GAP), 0.024),
    "Adam in 8 bits": Entry(Adam8bit(), 0.012),
}


@dataclass
class Found:
    """What an optimizer reached: errors by seed, at the best rate; state a weight; seconds of a training."""

    rate: float
    errors: list[float]
    validation: float
    state: float
    bytes: float
    refreshes: float
    seconds: float


def optim(settings: Settings) -> Iterator[BarRow]:
    """Train the operator with each optimizer."""
    with torch_on_one_thread():
        seeds, found = settings.seeds(5)[: 1 if settings.quick else None], {}
        for name, entry in ENTRIES.items():
            found[name] = _tuned(entry, lambda seed: network(seed), seeds, settings.quick)
            yield from _rows(name, entry, found, seeds)
        yield from _compared(found, seeds)
        yield from _equal(found, settings)
        yield from _times(settings)
        yield from _ordered(seeds, settings.quick)


def _rows(name: str, entry: Entry, found: dict[str, Found], seeds: list[int]) -> Iterator[BarRow]:
    this, adam, problem = found[name], found[ADAM], f"family A, {name}"
    errors = ", ".join(f"{error:.4f}" for error in this.errors)
    note = f"rate {this.rate:.3g}; errors {errors}; median of the validation {this.validation:.4f}"
    more: dict[str, Any] = {"seeds": listed(seeds), "note": note, "solve_s": this.seconds}
    yield row(GROUP, problem, "error over Adam's", "x", entry.bar, _ratios(this, adam), **more)
    bars, note = STATE if entry.bar else None, f"{this.bytes:.3f} bytes a weight"
    yield row(GROUP, problem, "state over parameters", "x", bars, [this.state], note=note)


def _ratios(one: Found, other: Found) -> list[float]:
    return [mine / its for mine, its in zip(one.errors, other.errors, strict=True)]


def _compared(found: dict[str, Found], seeds: list[int]) -> Iterator[BarRow]:
    """Rows of pairs: one's median error over the other's."""
    pairs = [
        (WARM, EXACT, Bars(1.05)),
        (EXACT, PAPER, None),
        (DCT, RANDOM, None),
        (SPLIT, PAPER, None),
        (OURS, PAPER, Bars(1.0)),
    ]
    for one, other, bar in pairs:
        words, ratios = f"error over that of {other}", _ratios(found[one], found[other])
        yield row(GROUP, f"family A, {one}", words, "x", bar, ratios, seeds=listed(seeds))
    for name in (CODED, LAZY):
        part = found[name].refreshes / math.ceil(STEPS / GAP)
        yield row(GROUP, f"family A, {name}", "refreshes over those of every gap", "x", Bars(0.5), [part])


def _equal(found: dict[str, Found], settings: Settings) -> Iterator[BarRow]:
    """Rows of pairs that a bar of 2 % is set for: more seeds, as one seed's ratio varies by 5 %."""
    sets, seeds = samples(settings.quick), settings.seeds(MANY)[: 1 if settings.quick else None]
    errors = {}
    for name in (WARM, CODED, LAZY):
        method, this = ENTRIES[name].method, found[name]
        more = [
            _run(method, this.rate, network(seed), sets, seed, settings.quick)[1]
            for seed in seeds[len(this.errors) :]
        ]
        errors[name] = [*this.errors, *more]
    for name in (CODED, LAZY):
        ratios = [mine / its for mine, its in zip(errors[name], errors[WARM], strict=True)]
        words = f"error over that of {WARM}"
        yield row(GROUP, f"family A, {name}", words, "x", EQUAL, ratios, seeds=listed(seeds))


def _tuned(entry: Entry, made: Callable[[int], nn.Module], seeds: list[int], quick: bool) -> Found:
    """Walk the grid of rates until the best is inside; test there."""
    sets, known = samples(quick), {}

    def at(rate: float, seed: int = seeds[0]) -> list[float]:
        if (rate, seed) not in known:
            known[rate, seed] = _run(entry.method, rate, made(seed), sets, seed, quick)
        return known[rate, seed]

    rate = entry.rate
    for factor in () if quick else (FACTOR, 1 / FACTOR):
        while at(rate * factor)[0] < at(rate)[0]:  # a training that diverged is no better: NaN
            rate *= factor
    validation, errors, states, held, refreshes, seconds = zip(
        *(at(rate, seed) for seed in seeds), strict=True
    )
    rest = states[0], held[0], median(refreshes), median(seconds)
    return Found(rate, list(errors), median(validation), *rest)


def _run(
    method: Method | None, rate: float, model: nn.Module, sets: Any, seed: int, quick: bool
) -> list[float]:
    """Return errors on validation and test, state a weight, bytes a weight, refreshes, CPU seconds."""
    made: list[torch.optim.Optimizer] = []

    def factory(model: nn.Module) -> torch.optim.Optimizer:
        made.append(optimizer_of(method, model, rate, seed))
        return made[0]

    dues: list[set[int]] = []

    def look() -> None:
        states = [state for state in made[0].state.values() if "due" in state]
        dues.extend(set() for _ in range(len(states) - len(dues)))
        for due, state in zip(dues, states, strict=True):
            due.add(int(state["due"]))

    watched = look if isinstance(method, QGaLore) else None
    seconds = fit(model, sets[0], factory, 4 if quick else STEPS, BATCH, seed, watched)
    optimizer, size = made[0], sum(p.numel() for p in model.parameters())
    counted = 2 * size, 8 * size  # of torch's Adam
    if isinstance(optimizer, ProjectedOptimizer):
        counted = optimizer.state_elements(), optimizer.state_bytes()
    refreshes = sum(map(len, dues)) / max(1, len(dues))
    errors = [relative_error(model, part) for part in sets[1:]]
    return [*errors, *(each / size for each in counted), refreshes, seconds]


def optimizer_of(method: Method | None, model: nn.Module, rate: float, seed: int) -> torch.optim.Optimizer:
    """Return the optimizer of a method, Adam for None."""
    if method is None:
        return torch.optim.Adam(model.parameters(), rate)
    return replace(method, seed=seed).optimizer(model, rate, exclude=("norm", "bias", "between"))


def samples(quick: bool = False) -> tuple[Pairs, Pairs, Pairs]:
    """Return samples of family A to train on, to choose by, and to test on."""
    counts = (40, 10, 10) if quick else COUNTS
    whole = family("A", sum(counts), DATA_SEED)
    first, second, third = (whole.take(part) for part in torch.arange(sum(counts)).split(list(counts)))
    return first, second, third


def _times(settings: Settings) -> Iterator[BarRow]:
    """Time a refresh, warm and exact, of the gradients of spectral weights; and a step of every optimizer."""
    model, train = network(DATA_SEED), samples(settings.quick)[0].take(slice(0, BATCH))
    loss(model, train).backward()
    view = MatrixView((2,), (1, 0), pairs=True)
    A = torch.stack([view.to_matrix(layer.weights.pairs.grad) for layer in model.layers])  # type: ignore[union-attr]
    rank, place = round(PART * A.shape[-2]), Place(DATA_SEED, GAP)
    exact, warm = SVDProjector("exact"), SVDProjector("warm")
    old = exact.refresh(A, rank, None, place)
    calls = {
        "warm": lambda: warm.refresh(A, rank, old, place),
        "exact": lambda: exact.refresh(A, rank, None, place),
    }
    repeats = 1 if settings.quick else 15
    seconds = _seconds(calls, repeats)
    ratio = [seconds["warm"] / seconds["exact"]]
    more: dict[str, Any] = {"solve_s": seconds["warm"], "baseline": "exact", "baseline_s": seconds["exact"]}
    problem = f"four gradients {tuple(A.shape[1:])}, complex, rank {rank}"
    yield row(GROUP, problem, "CPU time of a refresh, warm over exact", "x", Bars(1 / 3), ratio, **more)
    steps = {}
    for name, entry in ENTRIES.items():
        twin = network(DATA_SEED)
        for p, q in zip(twin.parameters(), model.parameters(), strict=True):
            p.grad = q.grad
        steps[name] = optimizer_of(entry.method, twin, 1e-4, DATA_SEED).step
        steps[name]()
    for name, value in _seconds(steps, 3 * repeats).items():
        yield row(GROUP, f"117 377 parameters, {name}", "CPU time of a step", "s", None, [value])


def _seconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return medians of the CPU's seconds: calls of milliseconds, which a busy machine would interrupt."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name].append(time.process_time() - began)
    return {name: median(values) for name, values in times.items()}


class Sampled(nn.Module):
    """A network that sees fields as numbers at nodes: rows of its first and last weights are places."""

    matrix_views: ClassVar = {
        "first": MatrixView((2,), (0, 1), ordered="rows"),
        "last": MatrixView((0,), (1,), ordered="rows"),
    }

    def __init__(self, width: int = 128, nodes: int = NODES):
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, 2, nodes) / (2 * nodes) ** 0.5)
        self.between = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.last = nn.Parameter(torch.randn(nodes, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return fields (batch, 1, nodes) for (batch, 2, nodes)."""
        return F.linear(self.between(F.linear(x.flatten(1), self.first.flatten(1))), self.last)[:, None]


def sampled(seed: int) -> Sampled:
    """Return the network with weights drawn from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Sampled()


def _ordered(seeds: list[int], quick: bool) -> Iterator[BarRow]:
    """Train the network of places: cosines against random directions, on weights whose rows are ordered."""
    entries = {
        ADAM: Entry(None, 0.003),
        DCT: Entry(DCTAdamW(PART), 0.006),
        RANDOM: Entry(GaLore(PART, GAP, space="random", side="left"), 0.006),
        WARM: Entry(GaLore(PART, GAP, side="left"), 0.006),
    }
    found = {name: _tuned(entry, sampled, seeds, quick) for name, entry in entries.items()}
    for one, other, bar in ((DCT, RANDOM, Bars(1.0)), (DCT, WARM, None), (DCT, ADAM, None)):
        ratios = _ratios(found[one], found[other])
        note = f"errors {median(found[one].errors):.4f} and {median(found[other].errors):.4f}"
        more: dict[str, Any] = {"seeds": listed(seeds), "note": note}
        yield row(GROUP, f"ordered axis, {one}", f"error over that of {other}", "x", bar, ratios, **more)
