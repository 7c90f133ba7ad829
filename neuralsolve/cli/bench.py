"""``neuralsolve bench``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import typer

from neuralsolve.bench import (
    BarRow,
    Contender,
    Measure,
    Row,
    bars_markdown,
    compare,
    comparison_markdown,
    csv_text,
    environment,
    measures_markdown,
    take_measures,
    take_measures_on,
    take_suite,
)
from neuralsolve.bench.device import chosen
from neuralsolve.bench.suites import ON_A_GPU, SUITES, check_place
from neuralsolve.cases import open_problem
from neuralsolve.cli.names import method_from, recipe_from
from neuralsolve.cli.report import answered, print_json, progress, told_of
from neuralsolve.cli.solve import check_picture, with_near_null_space
from neuralsolve.errors import OptionError, nearest
from neuralsolve.io import replacing
from neuralsolve.io.files import check_target

BARRED = tuple(SUITES)
TITLES = {
    "multigrid": "Multigrid against its bars",
    "learned": "Learned solvers against their bars",
    "tuned": "Tuned options against their bars",
    "fields": "Models of fields against their bars",
    "optimize": "Constrained optimisation against its bars",
    "ssm": "State-space layers against their bars",
    "lowrank": "Low-rank methods against their bars",
    "gpu": "A GPU against its bars",
}
REPEATS = {
    "multigrid": 5,
    "learned": 3,
    "tuned": 3,
    "fields": 3,
    "optimize": 3,
    "ssm": 7,
    "lowrank": 5,
    "gpu": 7,
    "kernels": 3,
}


def run(
    sources: list[str],
    suite: str | None,
    methods: list[str],
    options: dict[str, Any],
    csv: Path | None,
    plot: Path | None,
    *,
    json: bool,
    force: bool,
) -> None:
    """Measure, print a table, write the rows and a picture; exit 1 where one of our methods missed rtol."""
    with answered(json):
        if suite is not None and suite not in REPEATS:
            msg = f"no suite {suite!r}{nearest(suite, list(REPEATS))}"
            raise OptionError(msg)
        if sources and suite is not None:
            msg = f"SOURCE and --suite {suite} exclude each other; leave one out"
            raise OptionError(msg)
        if suite not in BARRED and (options["only"] or options["quick"]):
            msg = f"--only and --quick belong to --suite {', '.join(BARRED)}; add one, or leave them out"
            raise OptionError(msg)
        device = options["device"] = _device(suite, options["device"])
        if csv is not None:
            with told_of("--csv"):
                check_target(csv, force)
        if plot is not None:
            with told_of("--plot"):
                check_picture(plot, force)
        options["repeats"] = options["repeats"] or REPEATS.get(suite or "", 3)
        rows: list[Row] | list[Measure] | list[BarRow]
        if sources:
            rows = _compared(sources, methods, options, json)
        else:
            rows = _barred(suite, options, json) if suite in BARRED else _measured(options, json)
        if csv is not None:
            with replacing(csv, force) as temporary:
                temporary.write_text(csv_text(rows, device), encoding="utf-8")
        pictures = [] if plot is None else [plot]
        if plot is not None:
            _draw(suite, rows, plot, force)
            if suite == "learned":
                pictures.append(plot.with_stem(plot.stem + "_histories"))
                _draw_histories(pictures[-1], force)
            if suite == "optimize":
                pictures.append(plot.with_stem(plot.stem + "_profiles"))
                _draw_profiles(pictures[-1], options["quick"], force)
            groups = {row.group for row in rows if isinstance(row, BarRow)}
            if suite == "ssm" and "starts" in groups:
                pictures.append(plot.with_stem(plot.stem + "_gains"))
                _draw_gains(pictures[-1], force)
            if suite == "ssm" and "robustness" in groups:
                pictures.append(plot.with_stem(plot.stem + "_robustness"))
                _draw_robustness(pictures[-1], options["quick"], force)
        if json:
            print_json({"environment": environment(device), "rows": [row.as_dict() for row in rows]})
        else:
            _tell(rows, [path for path in (csv, *pictures) if path is not None], device)
    missed = any(isinstance(row, Row) and row.ours and not row.converged for row in rows)
    raise typer.Exit(1 if missed else 0)


def _device(suite: str | None, name: str | None) -> torch.device:
    """Return where to measure: the CPU, and a GPU for its suite, unless a name says otherwise."""
    with_suite = suite in ON_A_GPU
    try:
        device = chosen(name or ("cuda" if with_suite else "cpu"))
    except OptionError as error:
        if name is None:
            msg = f"--suite {suite} measures a CUDA device: {str(error).split(';')[0]}"
            msg += "; run it on a machine with one, the other suites need none"
            raise OptionError(msg) from None
        msg = f"--device: {error}"
        raise OptionError(msg) from None
    if suite in BARRED:
        check_place(suite, device)
    return device


def contenders(texts: list[str]) -> list[Contender]:
    """Return our methods from texts such as ``cg+amg(kind=sa)``, ``auto``, ``sparselu``.

    Examples
    --------
    >>> [each.name for each in contenders(["gmres(restart=9)+ilu"])]
    ['gmres(restart=9)+ilu']
    """
    found = []
    for text in texts:
        method, _, M = text.partition("+")
        found.append(Contender(text, method_from(method), recipe_from(M or None)))
    return found


def _compared(sources: list[str], methods: list[str], options: dict[str, Any], json: bool) -> list[Row]:
    chosen = contenders(methods)
    problems = [open_problem(source, options["rhs"]) for source in sources]
    rows: list[Row] = []
    with progress("bench", quiet=json) as tell:
        for problem in problems:
            rows += compare(
                problem,
                [dataclasses.replace(each, M=with_near_null_space(each.M, problem)) for each in chosen],
                rtol=options["rtol"],
                repeats=options["repeats"],
                limit=options["limit"],
                device=options["device"],
                progress=lambda note: tell(0, note),
            )
    return rows


def _measured(options: dict[str, Any], json: bool) -> list[Measure]:
    with progress("bench", quiet=json) as tell:
        device, told = options["device"], lambda note: tell(0, note)
        if device.type == "cuda":
            return take_measures_on(device, max(3, options["repeats"]), progress=told)
        return take_measures(max(3, options["repeats"]), progress=told)


def _barred(suite: str, options: dict[str, Any], json: bool) -> list[BarRow]:
    with progress("bench", quiet=json) as tell:
        return take_suite(
            suite,
            options["repeats"],
            only=options["only"],
            quick=options["quick"],
            device=options["device"],
            progress=lambda note: tell(0, note),
        )


def _draw(suite: str | None, rows: list[Row] | list[Measure] | list[BarRow], plot: Path, force: bool) -> None:
    from neuralsolve.plot import bars_figure, bench_figure, measures_figure, save

    barred = [row.as_dict() for row in rows if isinstance(row, BarRow) and row.must and row.measured]
    if any(isinstance(row, BarRow) for row in rows):
        save(bars_figure(barred, TITLES[suite or ""]), plot, overwrite=force)
        return
    compared = [row.as_dict() for row in rows if isinstance(row, Row) and row.setup_s == row.setup_s]
    measured = [row.as_dict() for row in rows if isinstance(row, Measure) and row.bar is not None]
    save(bench_figure(compared) if compared else measures_figure(measured), plot, overwrite=force)


def _draw_histories(plot: Path, force: bool) -> None:
    from neuralsolve.bench.learned import histories
    from neuralsolve.plot import history_figure, save

    title = "turned boxes, a class that no training has seen, 64 x 64"
    save(history_figure(histories(), title), plot, overwrite=force)


def _draw_profiles(plot: Path, quick: bool, force: bool) -> None:
    from neuralsolve.bench.optimize import TOL, profiles
    from neuralsolve.plot import profiles_figure, save

    found = profiles(quick)
    title = f"{len(next(iter(found.values())))} problems of CUTEst under equality constraints, to {TOL:g}"
    save(profiles_figure(found, "values of f", title), plot, overwrite=force)


def _draw_gains(plot: Path, force: bool) -> None:
    from neuralsolve.bench.ssm import gains
    from neuralsolve.plot import save, transfer_function_figure

    frequencies, systems, spikes = gains()
    highest = sorted(spikes, key=lambda spike: spike[1])[-6:]
    title = "States of HiPPO-LegS and of its diagonal neighbours, n = 32"
    save(transfer_function_figure(frequencies, systems, highest, title), plot, overwrite=force)


def _draw_robustness(plot: Path, quick: bool, force: bool) -> None:
    from neuralsolve.bench.ssm_robustness import curves
    from neuralsolve.plot import robustness_figure, save

    title = "Sequential digits while the highest resonance of S4D's start sounds in every layer"
    save(robustness_figure(curves(quick), title), plot, overwrite=force)


def _tell(rows: list[Row] | list[Measure] | list[BarRow], written: list[Path], device: torch.device) -> None:
    compared = [row for row in rows if isinstance(row, Row)]
    measured = [row for row in rows if isinstance(row, Measure)]
    barred = [row for row in rows if isinstance(row, BarRow)]
    where = environment(device)
    lines = [comparison_markdown(compared) if compared else measures_markdown(measured)]
    if barred:
        lines = [bars_markdown(barred)]
    lines.append(
        f"{where['machine']}; {where['threads']} threads; Python {where['python']}; {where['versions']}"
    )
    lines += [f"wrote {path}" for path in written]
    typer.echo("\n".join(lines))
