"""Compression of trained operators of Darcy flow: errors before and after a short fine-tune, sizes, times.

Three networks, three seeds; trained, calibrated and fine-tuned on the same samples, chosen by the validation,
and measured once on test samples that took part in no choice. What is compressed is compared with the dense
model that was trained for the same further epochs. Everything on one thread; trained models stay in
``out/bench/lowrank_compress``, so an interrupted run goes on.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.data import Samples, read_data, write_samples
from neuralsolve.lowrank.compress import (
    Calibration,
    Compressed,
    Plan,
    compensate,
    compress,
    latency,
    moments_of,
    refit,
    targets,
)
from neuralsolve.models.compression import FINE_TUNE, calls, tuned
from neuralsolve.models.evaluation import errors
from neuralsolve.models.field_options import FieldTraining
from neuralsolve.models.fitting import train
from neuralsolve.models.heap import keep_freed_memory
from neuralsolve.models.surrogate import Surrogate
from neuralsolve.pde.darcy import Darcy

FOLDER = Path("out") / "bench" / "lowrank_compress"
SEEDS, DATA_SEED = 3, 8801
PARTS = (400, 100, 100)
CALIBRATED = 256
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {  # and epochs of the training
    "unet": ({"name": "unet", "width": 16, "levels": 2}, 30),
    "lsm": ({"name": "lsm", "width": 16, "levels": 2}, 30),
    "fno": ({"name": "fno", "width": 16, "modes": 12, "layers": 4}, 30),
}
KEPT = (0.75, 0.5)
WAYS = (("svd", "uniform"), ("svd", "greedy"), ("afm", "uniform"), ("afm", "greedy"))
CHOSEN, OURS, PLAIN = "afm greedy", "afm greedy refitted", ("svd uniform", "svd greedy")
BEFORE, AFTER = {0.75: Bars(1.5)}, {0.75: Bars(1.05), 0.5: Bars(1.2)}
RISE = {0.5: Bars(0.5)}
RATE, SHARE = 2e-3, 0.1  # of the training; the part of its epochs that a fine-tune has
FINE: dict[str, Any] = FINE_TUNE | {"symmetry": "square"}
# chosen by the validation of the first seed, the dense model's too
FINE_RATES = (2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
BATCHES = (1, 16)
BITS, RESIDUAL, RECOVERED = 4, 8, Bars(0.5, at_least=True)
TINY = 1e-12


@dataclass(frozen=True)
class Found:
    """Of one trained model: relative L2 on the test, by kept and way, and the rest."""

    dense: float
    before: dict[tuple[float, str], float]
    after: dict[float, float]  # of 1, the dense model after the further epochs
    kept: dict[float, float]
    macs: dict[float, float]
    seconds: dict[int, list[float]]  # batch -> dense, compressed to a half
    rounded: tuple[float, float]  # weights of four bits, and with residuals


def compression(settings: Settings) -> Iterator[BarRow]:
    """Compress U-Nets, LSMs and FNOs to three quarters and to a half of their parameters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        folder = FOLDER / ("quick" if settings.quick else "")
        sets, seeds = _samples(folder, settings.quick), settings.seeds(SEEDS)[: 1 if settings.quick else None]
        for name in NETWORKS:
            began = time.process_time()
            rates: dict[float, float] = {}
            found = [_measured(name, seed, sets, folder, settings, rates) for seed in seeds]
            yield from _rows(name, found, listed(seeds), time.process_time() - began)
    finally:
        torch.set_num_threads(threads)


def _samples(folder: Path, quick: bool) -> list[Samples]:
    """Return samples to train on, to choose by and to test on; they are made once."""
    folder.mkdir(parents=True, exist_ok=True)
    file, parts = folder / "darcy.h5", (24, 8, 8) if quick else PARTS
    if not file.exists():
        write_samples(file, Darcy(grid=63, stride=2).samples(range(sum(parts)), DATA_SEED))
    return list(read_data(str(file)).split(*parts))


def _measured(
    name: str, seed: int, sets: list[Samples], folder: Path, settings: Settings, rates: dict[float, float]
) -> Found:
    """Train a model, compress and measure it; `rates` holds those of fine-tunes by part, once chosen."""
    network, epochs = NETWORKS[name]
    epochs = 2 if settings.quick else epochs
    place = folder / f"{name}_{seed}"
    options = FieldTraining(epochs=epochs, learning_rate=RATE, symmetry="square", seed=seed)
    dense = train(sets[0], sets[1], options=options, folder=place, network=network)
    seen, before, starts = _seen(dense, sets[0]), {}, {1.0: dense}
    kept, macs, seconds = {}, {}, {}
    for part in KEPT:
        for factoriser, allocator in WAYS:
            made = compress(dense, seen if factoriser == "afm" else None, Plan(factoriser, allocator, part))
            before[part, f"{factoriser} {allocator}"] = _error(made.model, sets[2])
            if f"{factoriser} {allocator}" == CHOSEN:
                starts[part] = small = refit(dense, made.model, calls(dense, sets[0], CALIBRATED))
                before[part, OURS], kept[part] = _error(small, sets[2]), made.report.kept
                macs[part] = made.report.macs_kept or 1.0
                if part == min(KEPT):
                    seconds = _seconds(dense, made, sets[2], settings.repeats)
    more = max(1, round(SHARE * epochs))
    after = {part: _tuned(model, dense, sets, more, seed, part, rates) for part, model in starts.items()}
    fewer = rounded(dense, BITS)
    repaired: Any = compensate(dense, fewer, calls(dense, sets[0], CALIBRATED // 4), RESIDUAL)
    errors_of = _error(fewer, sets[2]), _error(repaired, sets[2])
    return Found(_error(dense, sets[2]), before, after, kept, macs, seconds, errors_of)


def rounded(model: Surrogate, bits: int) -> Surrogate:
    """Return a copy whose weights have so many bits, symmetric and with one scale a row of the matrix.

    Spectral weights stay as they are.
    """
    result = copy.deepcopy(model)
    for target in targets(result)[0]:
        if target.kind != "modes":
            matrix = target.view.to_matrix(target.weight)
            step = matrix.abs().amax(-1, keepdim=True).clamp(min=TINY) / (2 ** (bits - 1) - 1)
            target.module.weight.data = target.view.from_matrix(
                (matrix / step).round() * step, target.weight.shape
            )
    return result


def _tuned(
    model: Any,
    dense: Surrogate,
    sets: list[Samples],
    epochs: int,
    seed: int,
    part: float,
    rates: dict[float, float],
) -> float:
    """Return the error of a model on the test after some epochs more, a compressed one's with its teacher."""
    teacher = None if model is dense else dense
    found = {}
    for rate in [rates[part]] if part in rates else FINE_RATES:
        options = FieldTraining(**(FINE | {"epochs": epochs, "learning_rate": rate, "seed": seed + 1}))
        better = tuned(model, sets[0], sets[1], options, teacher)
        found[_error(better, sets[1])] = rate, better
    rates[part], best = found[min(found)]
    return _error(best, sets[2])


def _seen(model: Surrogate, samples: Samples) -> Calibration:
    return moments_of(model, calls(model, samples, CALIBRATED), Plan("afm"))


def _error(model: Surrogate, samples: Samples) -> float:
    return float(errors(model.predict(samples), samples.outputs)["l2"].mean())


def _seconds(dense: Surrogate, made: Compressed, samples: Samples, repeats: int) -> dict[int, list[float]]:
    inputs = torch.from_numpy(np.ascontiguousarray(samples.inputs, np.float32))
    models = [dense.eval(), made.model.eval()]
    return {batch: latency(models, inputs[:batch], repeats=5 * repeats) for batch in BATCHES}


def _rows(name: str, found: list[Found], seeds: str, seconds: float) -> Iterator[BarRow]:
    group, problem = "compress", f"Darcy 12:3, 32^2, {name}"
    more: dict[str, Any] = {"seeds": seeds}
    epochs = NETWORKS[name][1]
    note = f"{epochs} epochs of {PARTS[0]} samples; {seconds:.0f} CPU s in all, unless resumed"
    yield row(
        group, problem, "relative L2, dense", "", None, [each.dense for each in found], note=note, **more
    )
    words = f"relative L2, dense after {round(SHARE * epochs)} epochs more"
    yield row(group, problem, words, "", None, [each.after[1.0] for each in found], **more)
    for part in KEPT:
        kept = f"{part:.0%} kept"
        for way in (*(f"{a} {b}" for a, b in WAYS), OURS):
            ratios = [each.before[part, way] / each.dense for each in found]
            bars = BEFORE.get(part) if way == OURS else None
            yield row(group, problem, f"{kept}, {way}: error / dense", "x", bars, ratios, **more)
        for plain in PLAIN:
            rises = [
                (each.before[part, OURS] - each.dense) / max(each.before[part, plain] - each.dense, TINY)
                for each in found
            ]
            words = f"{kept}: error rise, {OURS} / {plain}"
            yield row(group, problem, words, "x", RISE.get(part), rises, **more)
        ratios = [each.after[part] / each.after[1.0] for each in found]
        words = f"{kept}, {OURS} fine-tuned: error / dense as long"
        told = f"kept {found[0].kept[part]:.3f}, products {found[0].macs[part]:.3f}"
        yield row(group, problem, words, "x", AFTER.get(part), ratios, note=told, **more)
        ratios = [each.after[part] / each.dense for each in found]
        words = f"{kept}, {OURS} fine-tuned: error / dense before"
        yield row(group, problem, words, "x", None, ratios, **more)
    parts = [(e.rounded[0] - e.rounded[1]) / max(e.rounded[0] - e.dense, TINY) for e in found]
    words = f"{BITS} bits: part of the error rise that residuals of rank {RESIDUAL} give back"
    told = f"error / dense {np.median([e.rounded[0] / e.dense for e in found]):.3f} without"
    yield row(group, problem, words, "", RECOVERED, parts, note=told, **more)
    for batch in BATCHES:
        ratios = [each.seconds[batch][1] / each.seconds[batch][0] for each in found]
        words = f"{min(KEPT):.0%} kept: time of a batch of {batch} / dense"
        yield row(group, problem, words, "x", None, ratios, note="CPU, one thread", **more)
