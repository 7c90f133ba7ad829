"""What adapters recover of full fine-tuning, by how many numbers, and what they forget.

A network trained on smooth conductivities (family A of `bench.lowrank_operator`) learns those with jumps
of family B from 100 samples. The learning rate of every method is picked on validation samples, of a grid
whose ends are told where one was picked; the test samples are looked at once. GPM sees gradients on 64
samples of A beforehand, no other method sees any.

    recovered = (e_zero - e) / (e_zero - e_full),   e the relative L2 error on B: zero-shot, full fine-tuning
    forgotten = (a - a_before) / (a_full - a_before),   a the error on A after
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.lowrank_operator import Pairs, family, fit, loss, network, relative_error
from neuralsolve.lowrank.adapters import (
    GPM,
    OSF,
    SALT,
    Effort,
    LoLDU,
    LoRA,
    LoRASB,
    LoRAXS,
    SVFit,
    TensorLoRA,
    attach,
    deltas_of,
    summary,
)
from neuralsolve.lowrank.adapters.options import Adapter
from neuralsolve.lowrank.adapters.subspace import SubspaceDelta
from neuralsolve.models.networks import parameters_of

GROUP = "adapters"
SPECTRAL = ["weights.pairs"]
FULL, HEAD = "full fine-tuning", "head alone"
DECAY = 1e-2
PROTECTED = 64  # samples of A whose inputs GPM protects
LEAK = 1e-6


@dataclass(frozen=True)
class Contender:
    """A method: what it is put on, learning rates to pick from, and its bar for the recovered share in %."""

    adapter: Adapter | None
    rates: tuple[float, ...]
    bar: float | None = None
    words: str = ""


CONTENDERS = {
    FULL: Contender(None, (3e-4, 1e-3, 3e-3, 1e-2)),
    HEAD: Contender(None, (3e-3, 1e-2, 3e-2, 1e-1)),
    "LoRA r=2": Contender(LoRA(rank=2), (3e-3, 1e-2, 3e-2, 1e-1), 80.0),
    "TensorLoRA r=3": Contender(
        TensorLoRA(rank=3, targets=SPECTRAL), (1e-2, 3e-2, 1e-1, 3e-1), 90.0, "at most 2 %"
    ),
    "TensorLoRA r=1": Contender(TensorLoRA(rank=1, targets=SPECTRAL), (1e-2, 3e-2, 1e-1)),
    "LoRA-XS r=16": Contender(
        LoRAXS(rank=16, targets=SPECTRAL), (1e-2, 3e-2, 1e-1, 3e-1), 50.0, "at most 2 %"
    ),
    "LoRA-SB r=16": Contender(
        LoRASB(rank=16, targets=SPECTRAL), (1e-2, 3e-2, 1e-1, 3e-1), 50.0, "at most 2 %"
    ),
    "SALT k=16 r=4": Contender(SALT(rank=4, targets=SPECTRAL), (3e-2, 1e-1, 3e-1), 45.0, "at most 1.5 %"),
    "SVFit": Contender(
        SVFit(energy=1.0, targets=[*SPECTRAL, "after.0"]), (3e-2, 1e-1, 3e-1, 1.0), 15.0, "at most 0.3 %"
    ),
    "LoLDU r=32": Contender(LoLDU(rank=32, targets=["layers"]), (1e-2, 3e-2, 1e-1)),
    "Effort t=4": Contender(Effort(tail=4, targets=SPECTRAL), (3e-3, 1e-2, 3e-2), 80.0, "at most 14 %"),
    "OSF keep 0.75": Contender(OSF(keep=0.75), (1e-3, 3e-3, 1e-2), 80.0),
    "GPM keep 0.75": Contender(
        GPM(keep=0.75, modes="batch"), (1e-3, 3e-3, 1e-2), 80.0, "beside samples of A"
    ),
}


@dataclass
class Measured:
    """Of every seed: errors on B and A, the rate picked, the share of trained numbers, what leaked."""

    errors: list[float] = field(default_factory=list)
    old: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    leaks: list[float] = field(default_factory=list)
    share: float = 1.0


@dataclass(frozen=True)
class Sets:
    """Samples of both families: to train on, to pick by, to test with."""

    pretraining: Pairs
    train: Pairs
    validation: Pairs
    test: Pairs
    old: Pairs
    steps: tuple[int, int]

    @classmethod
    def made(cls, quick: bool) -> Sets:
        """Make them; a few for a quick run."""
        many, few, steps = (40, 10, (4, 3)) if quick else (1000, 100, (1200, 250))
        train, validation, test = (family("B", (k > 1) * few + few, 7100 + k) for k in range(3))
        return cls(family("A", many, 7000), train, validation, test, family("A", 2 * few, 7001), steps)


def adapters(settings: Settings) -> Iterator[BarRow]:
    """Yield what every method recovers, then what the two that protect subspaces forget and leak."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seeds, sets = settings.seeds(3), Sets.made(settings.quick)
        found = {name: Measured() for name in CONTENDERS}
        zero, before = [], []
        for seed in seeds:
            base = network(seed)
            fit(base, sets.pretraining, _adamw(2e-3, 0.0), sets.steps[0], seed=seed)
            zero.append(relative_error(base, sets.test))
            before.append(relative_error(base, sets.old))
            for name, contender in CONTENDERS.items():
                _measure(base, name, contender, sets, seed, found[name])
    finally:
        torch.set_num_threads(threads)
    yield from _rows(found, zero, before, listed(seeds))


def _measure(base: nn.Module, name: str, contender: Contender, sets: Sets, seed: int, into: Measured) -> None:
    """Train with every rate; keep the errors of the one that does best on the validation."""
    best: tuple[float, float, nn.Module] | None = None
    seconds = 0.0
    for rate in contender.rates:
        model = _prepared(base, name, contender.adapter, sets)
        seconds += fit(model, sets.train, _adamw(rate, DECAY), sets.steps[1], seed=seed)
        error = relative_error(model, sets.validation)
        if best is None or error < best[0]:
            best = error, rate, model
    assert best is not None
    into.errors.append(relative_error(best[2], sets.test))
    into.old.append(relative_error(best[2], sets.old))
    into.rates.append(best[1])
    into.seconds.append(seconds / len(contender.rates))
    into.share = parameters_of(best[2]) / parameters_of(base)
    if contender.adapter is not None:
        found = summary(best[2])
        into.share = found.trained / found.total
        into.leaks += _leaks(best[2])


def _prepared(base: nn.Module, name: str, adapter: Adapter | None, sets: Sets) -> nn.Module:
    model = copy.deepcopy(base)
    if isinstance(adapter, GPM):
        return attach(model, adapter, lambda: _squares(model, sets.pretraining.take(slice(PROTECTED))))
    if adapter is not None:
        return attach(model, adapter, (lambda: loss(model, sets.train)) if adapter.wants_loss() else None)
    if name == HEAD:
        for path, parameter in model.named_parameters():
            parameter.requires_grad_(path.startswith("head"))
    return model


def _squares(model: nn.Module, data: Pairs) -> Tensor:
    """Return the squared error of every sample."""
    return (model(data.inputs) - data.outputs).square().flatten(1).sum(1)


def _adamw(rate: float, decay: float):
    def made(model: nn.Module) -> torch.optim.Optimizer:
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, rate, weight_decay=decay)

    return made


@torch.no_grad()
def _leaks(model: nn.Module) -> list[float]:
    """Return ||U_k^H Delta|| / ||Delta||, the larger of both sides, of weights with protected subspaces."""
    found = []
    for delta in deltas_of(model).values():
        if isinstance(delta, SubspaceDelta):
            change = delta.matrix()
            sides = (delta.U.mH @ change).norm(), (change @ delta.Vh.mH).norm()
            found.append(float(max(sides) / change.norm()))
    return found


def _rows(found: dict[str, Measured], zero: list[float], before: list[float], seeds: str) -> Iterator[BarRow]:
    full, yielded = found[FULL], 0.0
    for name, contender in CONTENDERS.items():
        each = found[name]
        shares = [100 * (z - e) / (z - f) for z, e, f in zip(zero, each.errors, full.errors, strict=True)]
        bar = contender.bar if name != "SVFit" else max(15.0, yielded)
        rates = ", ".join(f"{rate:g}" for rate in each.rates)
        ends = ", the end of the grid" if {*each.rates} & {contender.rates[0], contender.rates[-1]} else ""
        words = f"{100 * each.share:.2f} % trained; rates {rates}{ends}"
        words += f"; bar {contender.words}" if contender.words else ""
        bars = None if bar is None else Bars(bar, at_least=True)
        more = {"seeds": seeds, "note": words, "solve_s": sorted(each.seconds)[len(each.seconds) // 2]}
        yield row(GROUP, f"A to B, {name}", "recovered", "%", bars, shares, **more)
        if name == HEAD:
            yielded = sorted(shares)[len(shares) // 2]
    errors = {"zero-shot, B": zero, "full fine-tuning, B": full.errors, "before, A": before}
    for name, values in errors.items():
        yield row(GROUP, f"A to B, {name}", "relative L2", "", None, values, seeds=seeds)
    for name, each in found.items():
        lost = [(a - b) / (f - b) for a, b, f in zip(each.old, before, full.old, strict=True)]
        bars = Bars(0.5) if name.startswith(("OSF", "Effort", "GPM")) else None
        note = "error on A added, over that of full fine-tuning"
        yield row(GROUP, f"A to B, {name}", "forgotten", "x", bars, lost, seeds=seeds, note=note)
    for name, each in found.items():
        if each.leaks:
            note = f"AdamW with decay {DECAY:g}, float32; largest of all weights"
            leak = [max(each.leaks)]
            yield row(
                GROUP, f"A to B, {name}", "leak / ||Delta||", "", Bars(LEAK), leak, seeds=seeds, note=note
            )
