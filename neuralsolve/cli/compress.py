"""``neuralsolve compress``: a trained model of fields by fewer numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from neuralsolve.cli.fields import as_seen, check_targets, samples_of
from neuralsolve.cli.report import answered, print_json, told_of
from neuralsolve.data import Samples
from neuralsolve.errors import OptionError
from neuralsolve.lowrank.compress import Calibration, Plan, compress, moments_of, refit
from neuralsolve.models.compression import FINE_TUNE, calls, tuned
from neuralsolve.models.evaluation import measured, steps_for
from neuralsolve.models.field_options import FieldTraining
from neuralsolve.models.surrogate import Surrogate
from neuralsolve.preconditioners.weights import SUFFIX

HELD = 10  # one in so many samples is held back to measure by
DRAWN = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # parts that are kept, of the picture


def run(
    model: str,
    data: str,
    out: Path,
    plan: dict[str, Any],
    samples: int,
    refitted: bool,
    training: dict[str, Any],
    plot: Path | None,
    *,
    json: bool,
    force: bool,
) -> None:
    """Compress, train on, measure, write, tell."""
    with answered(json):
        if out.suffix != SUFFIX:
            msg = f"--out {out}: models are written as {SUFFIX}"
            raise OptionError(msg)
        check_targets({"--out": out, "--plot": plot}, force)
        way, dense = Plan(**plan), Surrogate.load(model)
        given, held = _parts(as_seen(dense, samples_of(data, (0, None))), data)
        seen = moments_of(dense, calls(dense, given, samples), way) if not way.propagate else None
        made = compress(dense, seen or calls(dense, given, samples), way)
        small: Any = made.model
        errors = {"dense": _error(dense, held), "compressed": _error(small, held)}
        if refitted:
            small = refit(dense, small, calls(dense, given, samples))
            errors["refitted"] = _error(small, held)
        if training["epochs"]:
            small = tuned(small, given, held, FieldTraining(**(FINE_TUNE | training)), teacher=dense)
            errors["fine-tuned"] = _error(small, held)
        report = made.report
        about = {"compressed_from": model, "kept": f"{report.kept:.4f}", "epochs": str(training["epochs"])}
        with told_of("--out"):
            small.save(out, about)
        files = [str(out)]
        if plot is not None:
            _draw(plot, dense, report.layers, held, way, seen, errors, force)
            files.append(str(plot))
        if json:
            print_json(report.as_dict() | {"held": len(held), "relative_l2": errors, "files": files})
            return
        told = ", ".join(f"{name} {value:.4g}" for name, value in errors.items())
        line = f"relative L2 of {len(held)} held samples: {told}"
        typer.echo("\n".join([*report.table(), line, *(f"wrote {file}" for file in files)]))


def _parts(samples: Samples, data: str) -> tuple[Samples, Samples]:
    """Return what is calibrated and trained on, and the last tenth, by which is measured."""
    held = max(1, len(samples) // HELD)
    if len(samples) < 2:
        msg = f"{data} has one sample; two at least are needed, to calibrate by and to measure by"
        raise OptionError(msg)
    given, kept = samples.split(len(samples) - held, held)
    return given, kept


def _error(model: Surrogate, samples: Samples) -> float:
    made = model.predict(samples, steps=steps_for(model, samples))
    return float(measured(samples, made)["l2"].mean())


def _draw(
    path: Path,
    dense: Surrogate,
    layers: Any,
    held: Samples,
    way: Plan,
    seen: Calibration | None,
    errors: dict[str, float],
    force: bool,
) -> None:
    """Draw the ranks of the layers, and the errors of other parts that are kept, where these can be."""
    from dataclasses import replace

    from neuralsolve.plot import compression_figure, save

    curve = {1.0: errors["dense"], way.kept: errors["compressed"]}
    for part in DRAWN if seen is not None else ():
        try:
            curve[part] = _error(compress(dense, seen, replace(way, kept=part)).model, held)
        except OptionError:  # less than rank 1 everywhere
            break
    figure = compression_figure(
        {each.path: (each.parameters_before, each.parameters) for each in layers},
        {f"{way.factoriser}, {way.allocator}": curve},
        (way.kept, errors["fine-tuned"]) if "fine-tuned" in errors else None,
        f"{path.stem}: {way.kept:.0%} of the parameters",
    )
    with told_of("--plot"):
        save(figure, path, force)
