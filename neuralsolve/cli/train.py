"""``neuralsolve train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import typer

from neuralsolve.cases import find_case, load_case
from neuralsolve.cases.fields import FieldCase
from neuralsolve.cases.training import Trained
from neuralsolve.cli.report import answered, going_on_from, in_folders, print_json, progress, seconds, told_of
from neuralsolve.errors import OptionError
from neuralsolve.models.heap import keep_freed_memory
from neuralsolve.models.parallel import processes, rank
from neuralsolve.models.training_loop import CHECKPOINT, LOG
from neuralsolve.preconditioners.weights import SUFFIX, write_tensors


def run(
    name: str,
    out_dir: Path | None,
    steps: int | None,
    changes: dict[str, Any],
    *,
    restart: bool,
    json: bool,
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
        case = _changed(case, {key: value for key, value in changes.items() if value is not None})
        label = path.stem.removeprefix("train_")
        folder = out_dir if out_dir is not None else Path("out") / "train" / label
        keep_freed_memory()
        quiet = json or rank() > 0
        with in_folders(*case.folders(folder)), going_on_from(folder, json):
            with told_of("--out-dir"):
                for each in case.folders(folder) if restart and not rank() else ():
                    for old in (CHECKPOINT, LOG):
                        (each / old).unlink(missing_ok=True)
            with progress(f"train {label}", case.steps, quiet=quiet) as tell:
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


def _changed(case: Any, changes: dict[str, Any]) -> Any:
    """Return the case with another start, adapter or options of its schedule; refuse what it has not."""
    tuned = {name: changes.pop(name) for name in ("start", "adapter") if name in changes}
    if "adapter" in tuned and "rank" in changes:
        tuned["rank"] = changes.pop("rank")
    if tuned and not isinstance(case, FieldCase):
        msg = f"{case.path} is no model of fields; those alone begin with --start and take an --adapter"
        raise OptionError(msg)
    if tuned:
        case = case.fine_tuned(**tuned)
    if not changes:
        return case
    known = {field.name for field in dataclasses.fields(case.plan())} if hasattr(case, "plan") else set()
    for option in changes:
        if option not in known:
            msg = f"--{option} with {case.path}, whose training has no such option; models of fields and of "
            msg += "sequences have"
            raise OptionError(msg)
    changed = case.model_copy(update={"schedule": case.schedule | changes})
    changed.plan()  # its checks
    return changed


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
