"""``neuralsolve simulate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from neuralsolve.cases import find_case, load_case
from neuralsolve.cli.names import method_from, recipe_from
from neuralsolve.cli.report import answered, in_folders, print_json, progress, seconds, told_of
from neuralsolve.errors import OptionError
from neuralsolve.io import replacing
from neuralsolve.io.files import check_target
from neuralsolve.pde.smoke import SmokeResult, StepRecord
from neuralsolve.pde.smoke import simulate as simulate_smoke
from neuralsolve.pde.smoke_case import SmokeCase
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.preconditioners.neural_multigrid import NeuralMultigrid
from neuralsolve.solvers.embedded import EmbeddedBox
from neuralsolve.solvers.krylov import CG
from neuralsolve.tuning.tuned import Tuned

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_SIZE = {2: 256, 3: 64}


def run(
    name: str,
    steps: int | None,
    dim: int | None,
    size: int | None,
    out_dir: Path | None,
    solver: tuple[str | None, str | None],
    *,
    tune: bool,
    compare: bool,
    json: bool,
    force: bool,
) -> None:
    """Simulate, write the pictures and the tables, tell."""
    with answered(json):
        path = find_case(name)
        case = load_case(path)
        if not isinstance(case, SmokeCase):
            command = getattr(case, "command", "solve")
            msg = f"{path} is no simulation; run it with: neuralsolve {command} {name}"
            raise OptionError(msg)
        case = changed(case, steps, dim, size)
        folder = out_dir if out_dir is not None else Path("out") / path.stem
        kinds = [".png", ".csv", ".md", *(["_tuning.png"] if tune else [])]
        targets = {kind: folder / f"{path.stem}{kind}" for kind in kinds}
        with in_folders(folder):
            with told_of("--out-dir"):
                for target in targets.values():
                    check_target(target, force)
            method, M = method_from(solver[0]), recipe_from(solver[1])
            if tune:
                method, M = CG(), _choices(case, solver)
            with progress(f"{path.stem} {' x '.join(map(str, case.shape))}", case.steps, quiet=json) as tell:
                result = simulate_smoke(case, progress=_teller(tell), compare=compare, method=method, M=M)
            _write(result, targets, force)
        if json:
            print_json(_facts(path.stem, result) | {"files": [str(target) for target in targets.values()]})
        else:
            _tell(path.stem, result, targets)


def changed(case: SmokeCase, steps: int | None, dim: int | None, size: int | None) -> SmokeCase:
    """Return the case with other steps, dimensions or cells along x; the box keeps its proportions.

    Examples
    --------
    >>> changed(SmokeCase(shape=(256, 128)), None, 3, 32).shape
    (32, 64, 32)
    """
    shape = case.shape
    dim = dim or len(shape)
    if size is None and dim != len(shape):
        size = DEFAULT_SIZE[dim]
    if size is not None:
        shape = tuple(max(1, round(side * size / shape[-1])) for side in shape)
    if dim > len(shape):
        shape = (shape[-1], *shape)  # as deep as it is wide
    elif dim < len(shape):
        shape = shape[1:]
    centers = {}
    for name in ("obstacle_center", "source_center"):
        center = getattr(case, name)
        if len(center) > 2:
            centers[name] = center[-dim:] if dim == 2 else center
    return dataclasses.replace(case, shape=shape, steps=case.steps if steps is None else steps, **centers)


def _teller(tell: Callable[[int, str], None]) -> Callable[[int, int, StepRecord], None]:
    def show(step: int, _: int, record: StepRecord) -> None:
        note = f"divergence {record.divergence_before:.1e} -> {record.divergence_after:.1e}"
        tell(step, f"{note}, {record.iterations} iterations")

    return show


def _choices(case: SmokeCase, solver: tuple[str | None, str | None]) -> Tuned:
    """Return the preconditioners among which a run chooses by their time."""
    if any(solver):
        msg = "--tune chooses the preconditioner of CG; drop --method and --M"
        raise OptionError(msg)
    steps = Tuned([1, 3], cost="seconds")
    choices = [Multigrid(), Multigrid("V"), Multigrid("V", sweeps=steps), NeuralMultigrid()]
    return Tuned([*choices, EmbeddedBox()] if len(case.shape) == 2 else choices, cost="seconds")


def _write(result: SmokeResult, targets: dict[str, Path], force: bool) -> None:
    from neuralsolve.plot import save, smoke_figure, tuning_figure

    save(smoke_figure(result), targets[".png"], overwrite=force)
    if "_tuning.png" in targets:
        save(tuning_figure(result.tuning), targets["_tuning.png"], overwrite=force)
    for kind, text in ((".csv", result.timings.csv()), (".md", result.timings.markdown())):
        with replacing(targets[kind], force) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _facts(name: str, result: SmokeResult) -> dict[str, Any]:
    return {
        "case": name,
        "shape": list(result.case.shape),
        "steps": len(result.records),
        "converged": True,  # a projection that misses its tolerance ends the run
        "rtol": result.case.rtol,
        "largest_relative_divergence": max(record.relative_divergence for record in result.records),
        "largest_divergence": max(record.divergence_after for record in result.records),
        "seconds": result.seconds,
        "explanation": result.explanation,
        "pressure_solvers": result.timings.totals(),
        "tuning": {
            table.name: dict(zip(table.choices, table.pulls.tolist(), strict=True))
            for table in result.tuning.tables
        },
    }


def _tell(name: str, result: SmokeResult, targets: dict[str, Path]) -> None:
    facts = _facts(name, result)
    cells = " x ".join(map(str, result.case.shape))
    lines = [
        f"{name}: {facts['steps']} steps on {cells} cells in {seconds(result.seconds)}, baselines apart",
        f"divergence after every projection: at most {facts['largest_relative_divergence']:.2g} of what it "
        f"was (tolerance {result.case.rtol:g}), largest |div u| {facts['largest_divergence']:.2g}",
        f"pressure: {result.explanation}",
        "",
        result.timings.markdown(),
        *([str(result.tuning), ""] if result.tuning.tables else []),
        *(f"wrote {target}" for target in targets.values()),
    ]
    typer.echo("\n".join(lines))
