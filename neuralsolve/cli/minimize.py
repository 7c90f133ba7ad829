"""``neuralsolve minimize``."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from neuralsolve.cases import find_case, load_case
from neuralsolve.cases.control import ControlCase
from neuralsolve.cli.report import answered, in_folders, json_text, print_json, progress, told_of
from neuralsolve.errors import OptionError
from neuralsolve.io import replacing
from neuralsolve.io.files import check_target
from neuralsolve.optimize.minimize import minimize

if TYPE_CHECKING:
    from neuralsolve.optimize.result import MinimizeResult

COLUMNS = ("step", "f", "KKT residual", "max |c|", "step length", "shift", "inner")
KEYS = ("fun", "kkt_residual", "constr_violation", "step_length", "shift", "eta1", "eta2", "inner")
LONGEST = 40  # lines of the table that is told; the file has all


def run(name: str, given: dict[str, Any], out_dir: Path | None, *, json: bool, force: bool) -> None:
    """Minimise, write picture, history and solution, tell; exit 0 only if the tolerance was met."""
    with answered(json):
        path = find_case(name)
        case = load_case(path)
        if not isinstance(case, ControlCase):
            command = getattr(case, "command", "simulate" if not hasattr(case, "problem") else "solve")
            msg = f"{path} is no constrained minimisation; run it with: neuralsolve {command} {name}"
            raise OptionError(msg)
        case = case.changed(**given)
        folder = out_dir if out_dir is not None else Path("out") / "minimize" / path.stem
        targets = {kind: folder / f"{path.stem}{kind}" for kind in (".json", ".csv", ".png", ".npz")}
        with in_folders(folder):
            with told_of("--out-dir"):
                for target in targets.values():
                    check_target(target, force)
            result = _minimised(case, quiet=json)
            facts = _facts(case, result) | {"files": [str(target) for target in targets.values()]}
            _write(case, result, facts, targets, force)
        if json:
            print_json(facts)
        else:
            typer.echo("\n".join(_lines(facts, result)))
    raise typer.Exit(0 if result.success else 1)


def _minimised(case: ControlCase, quiet: bool) -> MinimizeResult:
    with progress(f"minimising {case.path.stem}", quiet=quiet) as tell:

        def callback(intermediate_result: MinimizeResult) -> None:
            r = intermediate_result
            tell(r.nit, f"step {r.nit}, KKT residual {r.kkt_residual:.2e}")

        watched = (
            sys.stderr.isatty() and not quiet
        )  # a callback costs a copy of x and a product at every step
        return minimize(
            case.control().problem(),
            method=case.method(),
            tol=case.minimize.tol,
            maxiter=case.minimize.maxiter,
            callback=callback if watched else None,
        )


def _history(result: MinimizeResult) -> list[dict[str, Any]]:
    """Return a row for the start and for each step: its number is `step`, its length `step_length`."""
    rows = []
    for k, row in enumerate(result.history):
        values = {key: float(row[key]) for key in KEYS}
        rows.append({"step": k} | values | {"inner": int(row["inner"])})
    return rows


def _facts(case: ControlCase, result: MinimizeResult) -> dict[str, Any]:
    w, target = result.x[: case.n**2], case.control().target().ravel()
    return {
        "case": case.path.stem,
        "n": case.n,
        "alpha": case.alpha,
        "unknowns": len(result.x),
        "constraints": len(result.constr),
        "converged": result.success,
        "status": result.status.name,
        "advice": result.message,
        "tol": case.minimize.tol,
        "fun": float(result.fun),
        "kkt_residual": float(result.kkt_residual),
        "constr_violation": float(result.constr_violation),
        "relative_misfit": float(np.linalg.norm(w - target) / np.linalg.norm(target)),
        "steps": result.nit,
        "nfev": result.nfev,
        "njev": result.njev,
        "nhev": result.nhev,
        "inner_iterations": int(result.inner_iterations),
        "seconds": result.seconds,
        "explanation": result.explanation,
        "history": _history(result),
    }


def _write(
    case: ControlCase, result: MinimizeResult, facts: dict[str, Any], targets: dict[str, Path], force: bool
) -> None:
    from neuralsolve.plot import control_figure, save

    control, sides = case.control(), (case.n, case.n)
    title = case.title or case.path.stem
    save(control_figure(control, result, title, case.minimize.tol), targets[".png"], overwrite=force)
    w, z = result.x.reshape(2, *sides)
    with replacing(targets[".npz"], force) as temporary:
        np.savez(temporary, w=w, z=z, multipliers=result.multipliers.reshape(sides), target=control.target())
    for kind, text in ((".csv", _csv(facts["history"])), (".json", json_text(facts) + "\n")):
        with replacing(targets[kind], force) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["step", *KEYS])
    writer.writerows([row["step"], *(f"{row[key]:.9g}" for key in KEYS)] for row in rows)
    return stream.getvalue()


def _lines(facts: dict[str, Any], result: MinimizeResult) -> list[str]:
    n, rows = facts["n"], facts["history"]
    lines = [
        f"{facts['case']}: {n} x {n} nodes, alpha = {facts['alpha']:g}; {facts['unknowns']:,} unknowns, "
        f"{facts['constraints']:,} constraints",
        str(result),
    ]
    if not result.success:
        lines.append(f"status: {facts['advice']}")
    lines.append(f"state: {facts['relative_misfit']:.3g} of the target away from it")
    if rows:
        lines += ["", "".join(f"{name:>14}" for name in COLUMNS)[8:]]
    if len(rows) > LONGEST:
        lines.append(f"   ... {len(rows) - LONGEST} steps before are in the .csv")
    lines += [_line(row) for row in rows[-LONGEST:]]
    return [*lines, "", *(f"wrote {file}" for file in facts["files"])]


def _line(row: dict[str, Any]) -> str:
    values = [f"{row['fun']:.7g}", f"{row['kkt_residual']:.3e}", f"{row['constr_violation']:.3e}"]
    values += [f"{row['step_length']:.3g}", f"{row['shift']:.3g}", str(row["inner"])]
    return f"{row['step']:6d}" + "".join(f"{value:>14}" for value in values)
