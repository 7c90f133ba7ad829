"""``neuralsolve solve``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from neuralsolve.cases import Problem, open_problem
from neuralsolve.cli.names import method_from, recipe_from
from neuralsolve.cli.report import answered, print_json, progress, seconds, told_of
from neuralsolve.errors import OptionError
from neuralsolve.io import write_solution
from neuralsolve.io.files import check_target
from neuralsolve.io.write import check_solution_target
from neuralsolve.preconditioners.amg import AMG
from neuralsolve.solvers.solve import prepare

if TYPE_CHECKING:
    from neuralsolve.preconditioners.base import Recipe
    from neuralsolve.solvers.result import SolveResult


def run(
    source: str,
    method: str | None,
    M: str | None,
    tolerances: tuple[float | None, float | None, int | None],
    rhs: str | None,
    out: Path | None,
    plot: Path | None,
    *,
    json: bool,
    explain: bool,
    force: bool,
) -> None:
    """Open, solve, tell, write; exit 0 only if the tolerance was met."""
    with answered(json):
        method_from(method)  # a slip in a name is told before a large file is read
        recipe_from(M)
        if plot is not None:
            with told_of("--plot"):
                check_picture(plot, force)
        problem = open_problem(source, rhs)
        if out is not None:
            with told_of("--out"):
                check_solution_target(out, force, problem.mesh())
        result = _solved(problem, method, M, tolerances, quiet=json)
        if out is not None:
            write_solution(out, problem.field(np.asarray(result.x)), mesh=problem.mesh(), overwrite=force)
        if plot is not None:
            from neuralsolve.plot import save, solution_figure

            save(solution_figure(problem, result), plot, overwrite=force)
        facts = _facts(problem, result) | {"out": out, "plot": plot}
        if json:
            print_json(facts)
        else:
            _tell(facts, explain)
    raise typer.Exit(0 if result.converged else 1)


def check_picture(path: Path, overwrite: bool) -> None:
    """Refuse a picture that could not be written, before the work that it would show."""
    if path.suffix.lower() != ".png":
        msg = f"{path}: pictures are written as .png; give such a name"
        raise OptionError(msg)
    check_target(path, overwrite)


def chosen(problem: Problem, method: str | None, M: str | None) -> tuple[Any, Any]:
    """Return method and preconditioner: of the command line, else of the case."""
    of_case = problem.options
    recipe = recipe_from(M if M is not None or method is not None else of_case.get("M"))
    return method_from(method or of_case.get("method")), with_near_null_space(recipe, problem)


def with_near_null_space(recipe: Recipe | None, problem: Problem) -> Recipe | None:
    """Hand the near null space of a file to smoothed aggregation."""
    B = problem.near_null_space
    if B is not None and isinstance(recipe, AMG) and recipe.kind == "sa" and recipe.near_null_space is None:
        return dataclasses.replace(recipe, near_null_space=B)
    return recipe


def _solved(
    problem: Problem,
    method: str | None,
    M: str | None,
    tolerances: tuple[float | None, float | None, int | None],
    quiet: bool,
) -> SolveResult:
    names = ("rtol", "atol", "maxiter")
    given = {name: value for name, value in zip(names, tolerances, strict=True) if value is not None}
    options: dict[str, Any] = {
        name: problem.options[name] for name in names if name in problem.options
    } | given
    chosen_method, recipe = chosen(problem, method, M)
    with progress(f"solving {problem.name}", quiet=quiet) as tell:
        prepared = prepare(problem.A, chosen_method, M=recipe, **options)
        tell(0, "set up")

        def callback(iteration: int, residual_norm: float, x: Any) -> None:
            tell(iteration, f"iteration {iteration}, residual {residual_norm:.2e}")

        watched = sys.stderr.isatty() and not quiet  # a callback costs a copy of x at every step
        return prepared.solve(problem.b, callback=callback if watched else None, throw=False)


def _facts(problem: Problem, result: SolveResult) -> dict[str, Any]:
    size = float(np.linalg.norm(problem.b))
    final = result.residual_norms[-1] if result.residual_norms else float("nan")
    facts = {
        "problem": problem.name,
        "n": len(problem.b),
        "right_sides": 1 if problem.b.ndim == 1 else problem.b.shape[1],
        "converged": result.converged,
        "status": result.status.name,
        "advice": result.status.value,
        "iterations": result.iterations,
        "matvecs": result.matvecs,
        "residual_norm": final,
        "relative_residual": final / size if size else final,
        "removed": result.removed,
        "setup_seconds": result.setup_seconds,
        "solve_seconds": result.solve_seconds,
        "explanation": result.explanation,
        "note": problem.note,
    }
    if problem.reference is not None:
        difference = float(np.linalg.norm(np.asarray(result.x) - problem.reference))
        facts["relative_error"] = difference / float(np.linalg.norm(problem.reference))
    return facts


def _tell(facts: dict[str, Any], explain: bool) -> None:
    word = "converged" if facts["converged"] else f"NOT converged, {facts['status']}"
    columns = "" if facts["right_sides"] == 1 else f", {facts['right_sides']} right sides"
    lines = [
        f"{facts['problem']}: n = {facts['n']:,}{columns}",
        f"{word}: {facts['iterations']} iterations, {facts['matvecs']} products with A",
        f"residual: ||b - Ax|| = {facts['residual_norm']:.3g}, {facts['relative_residual']:.3g} of ||b||",
        f"time: set-up {seconds(facts['setup_seconds'])}, solve {seconds(facts['solve_seconds'])}",
    ]
    if "relative_error" in facts:
        lines.append(f"error: {facts['relative_error']:.3g} of the known solution")
    if facts["removed"] > 1e-12 * max(facts["residual_norm"], 1e-300):
        lines.append(f"removed: {facts['removed']:.3g} of b lies in the null space of A")
    if explain or not facts["converged"]:
        lines.append(f"method: {facts['explanation']}")
        lines.append(f"status: {facts['advice']}")
    else:
        lines.append(f"method: {facts['explanation'].split(':')[0]} (--explain says why)")
    if facts["note"]:
        lines.append(f"note: {facts['note']}")
    lines += [f"wrote {facts[name]}" for name in ("out", "plot") if facts[name] is not None]
    typer.echo("\n".join(lines))
