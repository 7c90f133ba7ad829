"""``neuralsolve train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import typer

from neuralsolve.cases import find_case, load_case
from neuralsolve.cases.training import TrainCase, write_weights
from neuralsolve.cli.report import answered, print_json, progress, seconds, told_of
from neuralsolve.errors import OptionError
from neuralsolve.models.files import SUFFIX
from neuralsolve.models.training import CHECKPOINT, LOG, train


def run(name: str, out_dir: Path | None, steps: int | None, *, restart: bool, json: bool) -> None:
    """Train, or go on; measure; write weights, log and picture; tell."""
    with answered(json):
        path = find_case(name)
        case = load_case(path)
        if not isinstance(case, TrainCase):
            msg = f"{path} trains nothing; `neuralsolve cases` lists what it is for"
            raise OptionError(msg)
        if steps is not None:
            case = case.model_copy(update={"schedule": case.schedule | {"steps": steps}})
        label = path.stem.removeprefix("train_")
        folder = out_dir if out_dir is not None else Path("out") / "train" / label
        with told_of("--out-dir"):
            folder.mkdir(parents=True, exist_ok=True)
        if restart:
            for old in (CHECKPOINT, LOG):
                (folder / old).unlink(missing_ok=True)
        trainer = case.trainer()
        with progress(f"train {label}", trainer.schedule.steps, quiet=json) as tell:
            rows = train(trainer, folder, tell)
        results = case.results(trainer.net)
        weights = folder / f"{label}{SUFFIX}"
        write_weights(weights, case, trainer, results)
        files = [weights, folder / LOG, _picture(folder, label, rows)]
        facts: dict[str, Any] = {
            "case": label,
            "steps": trainer.step,
            "seconds": trainer.seconds,
            "loss": rows[-1]["loss"] if rows else None,
            "schedule": dataclasses.asdict(trainer.schedule),
            "results": results,
            "files": [str(file) for file in files],
        }
        if json:
            print_json(facts)
        else:
            typer.echo("\n".join(_lines(facts)))


def _picture(folder: Path, label: str, rows: list[dict[str, float]]) -> Path:
    from neuralsolve.plot import save, training_figure

    target = folder / "loss.png"
    save(training_figure(rows, f"Training of {label}"), target, overwrite=True)
    return target


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{facts['case']}: {facts['steps']} steps in {seconds(facts['seconds'])}, loss {facts['loss']:.3g}"
    ]
    for row in facts["results"]:
        lines.append(
            f"{' x '.join(map(str, row['shape']))}, {row['right_side']}, "
            f"seeds {row['seeds'][0]} to {row['seeds'][1]}, to {row['rtol']:g}: "
            f"{row['iterations']:g} iterations, CG {row['cg_iterations']:g}, ratio {row['ratio']:.3g} (worst "
            f"{row['worst_ratio']:.3g}); {seconds(row['seconds'])}, CG {seconds(row['cg_seconds'])}"
        )
    return [*lines, *(f"wrote {file}" for file in facts["files"])]
