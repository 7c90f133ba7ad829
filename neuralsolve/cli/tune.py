"""``neuralsolve tune``: a sequence of systems, solved online, an option of the solver left to a learner."""

from __future__ import annotations

import csv
import dataclasses
import io
import json as json_format
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from neuralsolve.cases import find_case, load_case
from neuralsolve.cases.sequence import SequenceCase
from neuralsolve.cli.names import learner_from, method_from, recipe_from
from neuralsolve.cli.report import answered, going_on_from, in_folders, print_json, progress, seconds, told_of
from neuralsolve.errors import FormatError, OptionError, nearest
from neuralsolve.io import replacing
from neuralsolve.io.files import check_target
from neuralsolve.solvers.solve import prepare
from neuralsolve.tuning.tuned import Tuned

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralsolve.solvers.prepared import Prepared
    from neuralsolve.tuning.report import TuningReport

HALVES = ("method", "M")


@dataclass
class Progress:
    """How far a run has come: steps done, the last solution, what was learned, and the time that took."""

    steps: int = 0
    x: np.ndarray | None = None
    learned: dict[str, Any] | None = None
    seconds: float = 0.0
    report: TuningReport | None = None


def run(
    name: str,
    learner: str | None,
    steps: int | None,
    cells: int | None,
    out_dir: Path | None,
    *,
    json: bool,
    force: bool,
) -> None:
    """Go through the sequence, or on with it; write history, picture and state; tell."""
    with answered(json):
        path = find_case(name)
        case = load_case(path)
        if not isinstance(case, SequenceCase):
            command = getattr(case, "command", "simulate" if not hasattr(case, "problem") else "solve")
            msg = f"{path} is no sequence of systems; run it with: neuralsolve {command} {name}"
            raise OptionError(msg)
        given = {"steps": steps or case.steps, "cells": cells or case.cells}
        case = case.model_copy(update=given)
        method, M = tuned_options(case, learner)
        folder = out_dir if out_dir is not None else Path("out") / "tune" / path.stem
        targets = {kind: folder / f"{path.stem}{kind}" for kind in (".json", ".csv", ".png")}
        identity = _identity(case, method, M)
        with in_folders(folder), going_on_from(folder, json):
            with told_of("--out-dir"):
                done = Progress() if force else _went_before(targets, identity, case.steps)
            try:
                with progress(f"tune {path.stem}", case.steps, quiet=json) as tell:
                    go_on(case, method, M, done, tell)
            finally:
                if done.report is not None:
                    _write(targets, identity, done, case.title)
        facts = _facts(path.stem, case, done) | {"files": [str(target) for target in targets.values()]}
        if json:
            print_json(facts)
        else:
            typer.echo("\n".join(_lines(facts, done)))


def tuned_options(case: SequenceCase, learner: str | None = None) -> tuple[Any, Any]:
    """Return method and preconditioner of a case, with a `Tuned` where `parameter` says.

    Raises
    ------
    OptionError
        An unknown name or option; the nearest is suggested.
    """
    of_case, tune = case.solve, case.tune
    half, dot, option = tune.parameter.partition(".")
    if half not in HALVES:
        msg = f"{case.path}: tune.parameter = {tune.parameter!r}{nearest(half, HALVES)} (such as M.omega)"
        raise OptionError(msg)
    things = {"method": method_from(of_case.method), "M": recipe_from(of_case.M)}
    options: dict[str, Any] = {
        "learner": learner_from(learner or tune.learner),
        "cost": tune.cost,
        "arms": tune.arms,
        "log": tune.log,
        "seed": case.seed,
        "context_range": None if tune.context_range is None else tuple(tune.context_range),
    }
    if not dot:
        named = {"method": method_from, "M": recipe_from}[half]
        given = [named(str(choice)) for choice in tune.choices or ()]
        things[half] = Tuned(given, **options) if given else Tuned(tune.low, tune.high, **options)
        return things["method"], things["M"]
    thing = things[half]
    fields = [field.name for field in dataclasses.fields(thing)] if thing is not None else []
    if option not in fields:
        what = type(thing).__name__ if thing is not None else f"no {half} under [solve]"
        hint = nearest(option, fields) if fields else ""
        msg = f"{case.path}: tune.parameter = {tune.parameter!r}: {what} has no such option{hint}"
        raise OptionError(msg)
    tuned = Tuned(tune.choices, **options) if tune.choices else Tuned(tune.low, tune.high, **options)
    things[half] = replace(thing, **{option: tuned})  # type: ignore[arg-type]
    return things["method"], things["M"]


def go_on(case: SequenceCase, method: Any, M: Any, done: Progress, tell: Callable[[int, str], None]) -> None:
    """Solve the systems that are not yet done, online; `done` follows, whatever ends it."""
    sequence, tolerances = case.sequence(), case.solve.model_dump(exclude={"method", "M"}, exclude_none=True)
    prepared: Prepared | None = None
    began, before = time.perf_counter(), done.seconds
    try:
        for t in range(done.steps, case.steps):
            step = sequence.system(t, done.x)
            if prepared is None:
                prepared = prepare(step.A, method, M=M, **tolerances)
                if done.learned is not None:
                    prepared.load_state_dict(done.learned)  # type: ignore[attr-defined]
            else:
                prepared.update(step.A)
            context = step.context if case.tune.context else None
            result = prepared.solve(step.b, x0=step.x0, context=context)
            done.x, done.steps = np.asarray(result.x), t + 1
            tell(t + 1, f"{prepared.chosen}: {result.iterations} iterations")
    finally:
        done.seconds = before + time.perf_counter() - began
        if prepared is not None:
            done.learned, done.report = prepared.state_dict(), prepared.report()  # type: ignore[attr-defined]


def _identity(case: SequenceCase, method: Any, M: Any) -> dict[str, Any]:
    """Return what a state must have in common with a run that goes on from it."""
    fields = case.model_dump(mode="json", exclude={"title", "steps", "tune"})
    learner = next(v.learner for v in _values(method, M) if isinstance(v, Tuned))
    return fields | {
        "tune": case.tune.model_dump(mode="json", exclude={"learner"}) | {"learner": repr(learner)}
    }


def _values(*things: Any) -> list[Any]:
    inner = [vars(thing).values() for thing in things if dataclasses.is_dataclass(thing)]
    return [*things, *(value for values in inner for value in values)]


def _went_before(targets: dict[str, Path], identity: dict[str, Any], steps: int) -> Progress:
    """Return how far the files say that a run has come; refuse files that it cannot go on from."""
    source = targets[".json"]
    if not source.exists():
        for target in targets.values():
            check_target(target, overwrite=False)
        return Progress()
    try:
        state = json_format.loads(source.read_text(encoding="utf-8"))
        x = None if state["x"] is None else np.array(state["x"], dtype=np.float64)
        done = Progress(int(state["steps"]), x, dict(state["learned"]), float(state["seconds"]))
        same = state["case"] == identity
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{source} is no state of neuralsolve tune ({error}); --force begins anew"
        raise FormatError(msg) from None
    if not same:
        msg = f"{source} is of other options; give those, another --out-dir, or --force to begin anew"
        raise OptionError(msg)
    if done.steps >= steps:
        msg = f"{source} is at step {done.steps} of {steps}; more --steps go on, --force begins anew"
        raise OptionError(msg)
    return done


def _write(targets: dict[str, Path], identity: dict[str, Any], done: Progress, title: str) -> None:
    from neuralsolve.plot import save, tuning_figure

    assert done.report is not None
    x = None if done.x is None else done.x.tolist()
    state = {"case": identity, "steps": done.steps, "x": x, "seconds": done.seconds, "learned": done.learned}
    for kind, text in ((".json", json_format.dumps(state)), (".csv", _history(done.report))):
        with replacing(targets[kind], True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    save(tuning_figure(done.report, title), targets[".png"], overwrite=True)


def _history(report: TuningReport) -> str:
    """Return a row for each solve and tuned place."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["solve", "place", "context", "choice", "cost", "unit", "capped"])
    for table in report.tables:
        for t, pull in enumerate(table.history, 1):
            context = "" if pull.context is None else f"{pull.context:.9g}"
            row = [pull.choice, f"{pull.cost:.9g}", table.unit, int(pull.capped)]
            writer.writerow([t, table.name, context, *row])
    return stream.getvalue()


def _facts(name: str, case: SequenceCase, done: Progress) -> dict[str, Any]:
    assert done.report is not None
    tables = [
        {
            "name": table.name,
            "learner": table.learner,
            "unit": table.unit,
            "solves": len(table.history),
            "cost": float(sum(pull.cost for pull in table.history)),
            "capped": table.capped,
            "pulls": {label: count for label, count, _ in table.summary()},
        }
        for table in done.report.tables
    ]
    unknowns = case.sequence().size
    return {
        "case": name,
        "unknowns": unknowns,
        "steps": done.steps,
        "converged": True,  # a solve that misses its tolerance ends the run
        "seconds": done.seconds,
        "tuned": tables,
    }


def _lines(facts: dict[str, Any], done: Progress) -> list[str]:
    head = (
        f"{facts['case']}: {facts['steps']} systems of n = {facts['unknowns']:,} in {seconds(done.seconds)}"
    )
    return [head, str(done.report), *(f"wrote {file}" for file in facts["files"])]
