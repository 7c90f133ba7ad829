"""``neuralsolve train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from neuralsolve.cases import find_case, load_case
from neuralsolve.cases.fields import FieldCase
from neuralsolve.cases.training import Trained
from neuralsolve.cli.report import answered, going_on_from, print_json, progress, seconds, told_of
from neuralsolve.errors import OptionError
from neuralsolve.models.heap import keep_freed_memory
from neuralsolve.models.parallel import processes, rank
from neuralsolve.models.training_loop import CHECKPOINT, LOG
from neuralsolve.preconditioners.weights import SUFFIX, write_tensors

FineTuned = tuple[Path | None, str | None, int | None]  # --start, --adapter, --rank


def run(
    name: str, out_dir: Path | None, steps: int | None, tuned: FineTuned, *, restart: bool, json: bool
) -> None:
    """Train, or go on; measure; write weights, log and picture; tell."""
    with answered(json):
        path = find_case(name)
        case = load_case(path)
        if getattr(case, "command", "") != "train":
            msg = f"{path} trains nothing; `neuralsolve cases` lists what it is for"
            raise OptionError(msg)
        if processes() > 1 and not case.shared:
            msg = f"{path} is trained by one process; models of fields alone are trained by several"
            raise OptionError(msg)
        if steps is not None:
            case = case.with_steps(steps)
        if any(each is not None for each in tuned):
            case = _fine_tuned(case, tuned)
        label = path.stem.removeprefix("train_")
        folder = out_dir if out_dir is not None else Path("out") / "train" / label
        with told_of("--out-dir"):
            for each in case.folders(folder):
                each.mkdir(parents=True, exist_ok=True)
                for old in (CHECKPOINT, LOG) if restart and not rank() else ():
                    (each / old).unlink(missing_ok=True)
        keep_freed_memory()
        quiet = json or rank() > 0
        with going_on_from(folder, json), progress(f"train {label}", case.steps, quiet=quiet) as tell:
            trained = case.train(folder, tell)
        if rank():  # the first process tells and writes
            return
        weights = folder / f"{label}{SUFFIX}"
        write_tensors(weights, trained.tensors, trained.provenance)
        files = [weights, *trained.files, *(each / LOG for each in case.folders(folder))]
        files += _pictures(folder, label, trained)
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


def _fine_tuned(case: Any, tuned: FineTuned) -> FieldCase:
    """Return the case with the model and the adapter of the command line."""
    start, adapter, rank = tuned
    if not isinstance(case, FieldCase):
        msg = f"{case.path} is no model of fields; those alone begin with --start and take an --adapter"
        raise OptionError(msg)
    if rank is not None and adapter is None:
        msg = f"--rank {rank} of what? --adapter lora --rank {rank}"
        raise OptionError(msg)
    return case.fine_tuned(start, adapter, rank)


def _pictures(folder: Path, label: str, trained: Trained) -> list[Path]:
    """Draw the loss, and of a model of fields what it predicts."""
    from neuralsolve.plot import fields_figure, save, training_figure
    from neuralsolve.plot.fields import last_frames

    figures = {"loss.png": training_figure(trained.curves, trained.loss, f"Training of {label}")}
    if trained.shown is not None:
        shown = trained.shown
        title = f"{label}: test samples that it has not been trained on"
        figures["fields.png"] = fields_figure(
            shown.samples, shown.made, shown.names, title, last_frames(shown.samples, shown.made.shape[1])
        )
    for name, figure in figures.items():
        save(figure, folder / name, overwrite=True)
    return [folder / name for name in figures]
