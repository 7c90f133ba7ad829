"""Trainings of models of fields against bars, at equal CPU time, on samples that were not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from torch import from_numpy

from neuralsolve.bench.bars import BarRow, Bars, Settings, row
from neuralsolve.bench.contest import FOLDER, Entry, contest
from neuralsolve.cases.fields import FieldCase
from neuralsolve.cases.files import load_case
from neuralsolve.data import read_data
from neuralsolve.models.field_losses import l2
from neuralsolve.pde.equation import with_prior

SEEDS = (9101, 9102, 9103)
BUDGET = {
    "small": 60.0,
    "headline": 300.0,
    "prior": 80.0,
    "rollout": 900.0,
    "mesh": 180.0,
}  # CPU seconds of a training
QUICK = 2.0
SMALL = {
    "lsm": ("lsm", {}),
    "unet": ("unet", {"width": 24, "levels": 2}),
    "fno": ("fno", {"width": 20, "modes": 8}),
}
HEADLINE = {
    "lsm": ("lsm", {}),
    "unet": ("unet", {"width": 16}),
    "unet17": ("unet", {"width": 17}),  # as many parameters as LSM
    "fno": ("fno", {"width": 32, "modes": 16}),
}

ONCE = ("unet17",)  # trained with one seed


def small(settings: Settings) -> Iterator[BarRow]:
    """Train on the real 16 x 16 data; measure there and on 32 x 32 nodes."""
    entries = _contest("small", load_case("train_darcy_small"), SMALL, settings)
    yield from _told("small", "Darcy, real data, 16^2", entries, "test16", {"lsm": Bars(0.09)})
    yield _ratio("small", "Darcy, real data, 16^2", entries, "test16", "lsm", "fno", Bars(1.0))
    yield _ratio("small", "Darcy, real data, 16^2", entries, "test16", "lsm", "unet", None)
    yield from _told("small", "the same, 32^2, resampled", entries, "test32", {"lsm": Bars(0.12)})
    yield from _told(
        "small", "the same, 32^2 / 16^2", _over(entries, "test32", "test16"), "", {"lsm": Bars(1.3)}
    )


def headline(settings: Settings) -> Iterator[BarRow]:
    """Train on Darcy flow 12:3, solved on 421^2, learned on 43^2."""
    entries = _contest("headline", load_case("train_darcy"), HEADLINE, settings)
    problem = "Darcy 12:3, 43^2 of 421^2"
    yield from _told("headline", problem, entries, "test", {"lsm": Bars(0.020, 0.0108)})
    yield _ratio("headline", problem, entries, "test", "lsm", "fno", Bars(0.80, 0.70))
    yield _ratio("headline", problem, entries, "test", "lsm", "unet", Bars(0.95, 0.85))
    yield _ratio("headline", problem, entries, "test", "lsm", "unet17", Bars(0.95, 0.85))


def prior(settings: Settings) -> Iterator[BarRow]:
    """Let LSM correct the solutions of the network's own grid; they stand beside it, in the same problem."""
    case = load_case("train_darcy")
    seen = case.model_copy(update={"prior": True})
    entries = _contest("prior", seen, {"lsm with the prior": ("lsm", {})}, settings, SEEDS, data="headline")
    problem = "Darcy 12:3, 43^2 of 421^2"
    yield from _told("prior", problem, entries, "test", {"lsm with the prior": Bars(0.0108)})
    test = with_prior(read_data(_folder("headline", settings) / "data.h5").split(*_parts(case, settings))[2])
    truth = from_numpy(test.outputs)
    arithmetic, harmonic = (from_numpy(test.inputs[:, k : k + 1]) for k in (1, 2))
    guesses = {"arithmetic": arithmetic, "harmonic": harmonic, "mean of both": (arithmetic + harmonic) / 2}
    for name, guess in guesses.items():
        yield row(
            "prior",
            problem,
            f"relative L2 of a solve on 43^2, {name}",
            "",
            None,
            [float(l2(guess, truth).mean())],
        )


def rollout(settings: Settings) -> Iterator[BarRow]:
    """Train on Navier-Stokes, roll out three times as far as ten frames; persistence is what to beat."""
    case = load_case("train_navier_stokes")
    entries = _contest("rollout", case, {"lsm": ("lsm", {})}, settings, SEEDS[:1])
    problem = "Navier-Stokes, viscosity 1e-3, 64^2"
    test = read_data(_folder("rollout", settings) / "data.h5").split(*_parts(case, settings))[2]
    kept = np.repeat(test.inputs[:, -1:], test.outputs.shape[1], 1)

    def persistence(frames: int) -> float:
        return float(l2(from_numpy(kept[:, :frames]), from_numpy(test.outputs[:, :frames])).mean())

    short = [each.results["ten"]["l2"] for each in entries]
    long = [each.results["test"]["l2"] for each in entries]
    more = _more(entries)
    yield row("rollout", problem, "relative L2 of ten frames", "", None, short, **more)
    ratios = [persistence(10) / value for value in short]
    quantity = "persistence / LSM, ten frames"
    yield row("rollout", problem, quantity, "x", Bars(10, at_least=True), ratios, **more)
    yield row("rollout", problem, "relative L2 of thirty frames", "", Bars(persistence(30)), long, **more)


def mesh(settings: Settings) -> Iterator[BarRow]:
    """Train on Poisson's equation around a hole, on meshes."""
    entries = _contest("mesh", load_case("train_holed"), {"lsm": ("lsm-points", {})}, settings, SEEDS[:1])
    yield from _told("mesh", "Poisson around a hole, 1352 nodes", entries, "test", {"lsm": Bars(0.03)})


def _folder(name: str, settings: Settings) -> Path:
    return FOLDER / ("quick" if settings.quick else "") / name


def _small(case: FieldCase, settings: Settings) -> FieldCase:
    """Return the case, of few samples in a quick run."""
    if not settings.quick:
        return case
    few: dict[str, Any] = {"train": 32, "validation": 8, "test": 8}
    few |= {"count": 48} if case.data.equation is not None else {}
    return case.model_copy(update={"data": case.data.model_copy(update=few)})


def _parts(case: FieldCase, settings: Settings) -> list[int]:
    data = _small(case, settings).data
    return [data.train, data.validation, data.test]


def _contest(
    name: str,
    case: FieldCase,
    networks: Mapping[str, tuple[str, dict[str, Any]]],
    settings: Settings,
    seeds: Sequence[int] = SEEDS,
    data: str | None = None,
) -> list[Entry]:
    """Return what trainings gave; those of an equation share its samples, which the group `data` holds."""
    folder, source = _folder(name, settings), _folder(data or name, settings)
    folder.mkdir(parents=True, exist_ok=True)
    source.mkdir(parents=True, exist_ok=True)
    case = _small(case, settings)
    if case.data.equation is not None:
        case.sets(source, lambda done, note: None)  # makes them
        made = {"file": str((source / "data.h5").resolve()), "equation": None, "count": None}
        case = case.model_copy(update={"data": case.data.model_copy(update=made)})
    samples, validation, _ = case.sets(folder, lambda done, note: None)
    cases = {}
    for label, (network, options) in networks.items():
        cases[label] = case.model_copy(update={"network": network, "options": options or case.options})
    budget = QUICK if settings.quick else BUDGET[name]
    by_name = {label: seeds[:1] if settings.quick or label in ONCE else seeds for label in cases}
    return contest(folder, cases, by_name, budget, (samples, validation))


def _told(
    group: str, problem: str, entries: Sequence[Entry], test: str, bars: Mapping[str, Bars]
) -> Iterator[BarRow]:
    """Yield the errors of every network."""
    for name in dict.fromkeys(each.network for each in entries):
        own = [each for each in entries if each.network == name]
        values = [each.results[test]["l2"] for each in own]
        yield row(group, problem, f"relative L2 of {name}", "", bars.get(name), values, **_more(own))


def _more(entries: Sequence[Entry]) -> dict[str, Any]:
    seconds, seeds = mean(each.cpu_s for each in entries), sorted({each.seed for each in entries})
    epochs, parameters = entries[0].epochs, entries[0].parameters
    note = f"{parameters} parameters, {epochs} epochs, {seconds:.0f} CPU s"
    return {"seeds": f"{seeds[0]}-{seeds[-1]}", "note": note, "repeats": 1}


def _ratio(
    group: str, problem: str, entries: Sequence[Entry], test: str, ours: str, other: str, bars: Bars | None
) -> BarRow:
    """Return errors of one network over those of another, seed by seed."""
    found = {(each.network, each.seed): each.results[test]["l2"] for each in entries}
    seeds = sorted(seed for network, seed in found if network == other)
    values = [found[ours, seed] / found[other, seed] for seed in seeds]
    return row(group, problem, f"{ours} / {other}", "x", bars, values, seeds=f"{seeds[0]}-{seeds[-1]}")


def _over(entries: Sequence[Entry], above: str, below: str) -> list[Entry]:
    """Return the entries with the ratio of two tests as the one result, unnamed."""
    return [
        Entry(
            each.network,
            each.seed,
            each.epochs,
            each.parameters,
            each.cpu_s,
            {"": {"l2": each.results[above]["l2"] / each.results[below]["l2"]}},
        )
        for each in entries
    ]
