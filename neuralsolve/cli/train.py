"""``neuralsolve train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from neuralsolve.cases import find_case, load_case
from neuralsolve.cli.report import answered, going_on_from, print_json, progress, seconds, told_of
from neuralsolve.errors import OptionError
from neuralsolve.models.training_loop import CHECKPOINT, LOG
from neuralsolve.preconditioners.weights import SUFFIX, write_tensors


def run(name: str, out_dir: Path | None, steps: int | None, *, restart: bool, json: bool) -> None:
    """Train, or go on; measure; write weights, log and picture; tell."""
    with answered(json):
        path = find_case(name)
        case = load_case(path)
        if getattr(case, "command", "") != "train":
            msg = f"{path} trains nothing; `neuralsolve cases` lists what it is for"
            raise OptionError(msg)
        if steps is not None:
            case = case.with_steps(steps)
        label = path.stem.removeprefix("train_")
        folder = out_dir if out_dir is not None else Path("out") / "train" / label
        with told_of("--out-dir"):
            for each in case.folders(folder):
                each.mkdir(parents=True, exist_ok=True)
                for old in (CHECKPOINT, LOG) if restart else ():
                    (each / old).unlink(missing_ok=True)
        with going_on_from(folder, json), progress(f"train {label}", case.steps, quiet=json) as tell:
            trained = case.train(folder, tell)
        weights = folder / f"{label}{SUFFIX}"
        write_tensors(weights, trained.tensors, trained.provenance)
        files = [weights, *(each / LOG for each in case.folders(folder)), _picture(folder, label, trained)]
        facts: dict[str, Any] = {
            "case": label,
            "steps": trained.steps,
            "seconds": trained.seconds,
            "results": trained.results,
            "files": [str(file) for file in files],
        }
        if json:
            print_json(facts)
        else:
            done = f"{label}: {trained.steps} steps in {seconds(trained.seconds)}"
            typer.echo("\n".join([done, *trained.told, *(f"wrote {file}" for file in files)]))


def _picture(folder: Path, label: str, trained: Any) -> Path:
    from neuralsolve.plot import save, training_figure

    target = folder / "loss.png"
    save(training_figure(trained.curves, trained.loss, f"Training of {label}"), target, overwrite=True)
    return target
