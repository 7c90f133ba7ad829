"""``neuralsolve evaluate``, ``predict`` and ``compare``: what trained models of fields are worth."""

from __future__ import annotations

import csv as csv_format
import dataclasses
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer

from neuralsolve.cli.report import answered, print_json, seconds, told_of
from neuralsolve.data import Layout, Samples, read_data, write_samples
from neuralsolve.errors import OptionError
from neuralsolve.io import replacing
from neuralsolve.io.files import check_target
from neuralsolve.models.evaluation import measured, steps_for
from neuralsolve.models.networks import parameters_of
from neuralsolve.models.surrogate import Surrogate
from neuralsolve.pde.equation import equation_of, with_prior
from neuralsolve.preconditioners.weights import read_tensors

Part = tuple[int, int | None]
TABLE = ("l2", "median", "worst", "h1", "max", "residual")
TIMED = 3  # predictions, of which the fastest counts


def evaluate(
    model: str,
    data: str,
    steps: int | None,
    part: Part,
    plot: Path | None,
    csv: Path | None,
    *,
    json: bool,
    force: bool,
) -> None:
    """Measure, tell, write."""
    with answered(json):
        check_targets({"--plot": plot, "--csv": csv}, force)
        surrogate = Surrogate.load(model)
        samples = as_seen(surrogate, samples_of(data, part))
        made = surrogate.predict(samples, steps=steps or steps_for(surrogate, samples))
        found = measured(samples, made, _residual(samples))
        metrics = {
            name: {"mean": float(values.mean()), "worst": float(values.max())}
            for name, values in found.items()
        }
        facts: dict[str, Any] = {
            "model": model,
            "data": data,
            "samples": len(samples),
            "shape": list(samples.shape),
            "trained_on": list(surrogate.layout.shape),
            "metrics": metrics,
        }
        if csv is not None:
            rows = [{"metric": name, **values} for name, values in metrics.items()]
            _write_rows(csv, rows, force)
        if plot is not None:
            _draw_fields(plot, samples, made, f"{Path(model).stem} on {Path(data).name}", force)
        facts["files"] = [str(path) for path in (csv, plot) if path is not None]
        if json:
            print_json(facts)
            return
        nodes = " x ".join(map(str, samples.shape))
        lines = [f"{Path(model).name} on {len(samples)} samples of {nodes} nodes"]
        if surrogate.layout.axes and surrogate.layout.shape != samples.shape:
            lines[0] += f" (trained on {' x '.join(map(str, surrogate.layout.shape))}; resampled)"
        lines.append(f"{'':<16}{'mean':>10}{'worst':>10}")
        lines += [f"{name:<16}{v['mean']:>10.4g}{v['worst']:>10.4g}" for name, v in metrics.items()]
        typer.echo("\n".join([*lines, *(f"wrote {file}" for file in facts["files"])]))


def predict(
    model: str,
    data: str,
    out: Path,
    steps: int | None,
    part: Part,
    plot: Path | None,
    *,
    json: bool,
    force: bool,
) -> None:
    """Predict, write."""
    with answered(json):
        if out.suffix.lower() not in (".h5", ".hdf5", ".npz"):
            msg = f"--out {out}: predictions are written as .h5 or .npz"
            raise OptionError(msg)
        check_targets({"--out": out, "--plot": plot}, force)
        surrogate = Surrogate.load(model)
        samples = as_seen(surrogate, samples_of(data, part))
        steps = steps or steps_for(surrogate, samples)
        started = time.perf_counter()
        made = surrogate.predict(samples, steps=steps)
        taken = time.perf_counter() - started
        predicted = _as_samples(samples, made, model, data, steps)
        with told_of("--out"):
            if out.suffix.lower() == ".npz":
                arrays: dict[str, Any] = {f"axis{k}": axis for k, axis in enumerate(samples.layout.axes)}
                arrays |= {"inputs": predicted.inputs, "outputs": predicted.outputs}
                arrays |= {} if samples.points is None else {"points": samples.points}
                with replacing(out, force) as temporary, temporary.open("wb") as stream:
                    np.savez(stream, **arrays)
            else:
                write_samples(out, predicted, overwrite=force)
        files = [str(out)]
        if plot is not None:
            _draw_fields(plot, samples, made, f"{Path(model).stem} on {Path(data).name}", force)
            files.append(str(plot))
        if json:
            print_json({"samples": len(made), "shape": list(made.shape), "seconds": taken, "files": files})
        else:
            line = f"{len(made)} predictions {made.shape[1:]} in {seconds(taken)}"
            typer.echo("\n".join([line, *(f"wrote {file}" for file in files)]))


def compare(
    sources: Sequence[str],
    steps: int | None,
    part: Part,
    plot: Path | None,
    csv: Path | None,
    *,
    json: bool,
    force: bool,
) -> None:
    """Measure all models on the samples, sort by error, tell, write."""
    with answered(json):
        if len(sources) < 2:
            msg = f"{sources[0]} alone; models are needed, and last the samples: compare A.safetensors DATA"
            raise OptionError(msg)
        *models, data = sources
        check_targets({"--plot": plot, "--csv": csv}, force)
        samples = samples_of(data, part)
        found = [_compared(name, samples, steps) for name in models]
        found.sort(key=lambda pair: pair[0]["l2"])
        rows = [row for row, _ in found]
        if csv is not None:
            _write_rows(csv, rows, force)
        if plot is not None:
            from neuralsolve.plot import comparison_figure, save
            from neuralsolve.plot.fields import last_frames

            frames = min(made.shape[1] for _, made in found)
            shown = {label: made[:, :frames] for label, (_, made) in zip(_labels(rows), found, strict=True)}
            title = f"Errors on {len(samples)} samples of {Path(data).name}"
            channel = last_frames(samples, frames)[1]
            with told_of("--plot"):
                save(comparison_figure(samples, shown, title, channel=channel, first=part[0]), plot, force)
        files = [str(path) for path in (csv, plot) if path is not None]
        if json:
            print_json({"data": data, "samples": len(samples), "models": rows, "files": files})
        else:
            typer.echo("\n".join([*_table(rows), *(f"wrote {file}" for file in files)]))


def _compared(path: str, samples: Samples, steps: int | None) -> tuple[dict[str, Any], np.ndarray]:
    """Return a row of the table, and the predictions; the fastest of some runs is the one timed."""
    surrogate = Surrogate.load(path)
    _, metadata = read_tensors(Path(path))
    times = []
    made = np.empty(0)
    for _ in range(TIMED):
        started = time.perf_counter()
        seen = as_seen(surrogate, samples)
        made = surrogate.predict(seen, steps=steps or steps_for(surrogate, seen))
        times.append(time.perf_counter() - started)
    found = measured(samples, made, _residual(samples))
    row: dict[str, Any] = {
        "model": path,
        "network": surrogate.network["name"],
        "parameters": parameters_of(surrogate),
        "training_seconds": _number(metadata.get("wall_seconds")),
        "l2": float(found["l2"].mean()),
        "median": float(np.median(found["l2"])),
        "worst": float(found["l2"].max()),
    }
    row |= {name: float(found[name].mean()) if name in found else None for name in ("h1", "max", "residual")}
    return row | {"ms_per_sample": 1e3 * min(times) / len(samples)}, made


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    labels = _labels(rows)
    wide = max(8, *(len(label) + 2 for label in labels))
    head = f"{'':<{wide}}{'network':<9}{'parameters':>11}{'trained':>9}"
    lines = [head + "".join(f"{name:>10}" for name in (*TABLE, "ms each"))]
    for label, row in zip(labels, rows, strict=True):
        trained = "-" if row["training_seconds"] is None else f"{row['training_seconds']:.0f} s"
        numbers = "".join("         -" if row[name] is None else f"{row[name]:>10.4g}" for name in TABLE)
        start = f"{label:<{wide}}{row['network']:<9}{row['parameters']:>11,}{trained:>9}"
        lines.append(f"{start}{numbers}{row['ms_per_sample']:>10.3g}")
    return lines


def _labels(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return names of the models: of their files, or with the folders where these are the same."""
    short = [Path(row["model"]).stem for row in rows]
    return short if len(set(short)) == len(short) else [str(row["model"]) for row in rows]


def samples_of(data: str, part: Part) -> Samples:
    """Return a part of a file of samples, or raise an OptionError where it has fewer."""
    samples, (first, count) = read_data(data), part
    if first >= len(samples):
        msg = f"--first {first}: {data} has {len(samples)} samples, numbered from 0"
        raise OptionError(msg)
    if count is not None and first + count > len(samples):
        msg = f"--first {first} --count {count}: {data} has {len(samples)} samples"
        raise OptionError(msg)
    return samples.take(slice(first, None if count is None else first + count))


def as_seen(surrogate: Surrogate, samples: Samples) -> Samples:
    """Return the samples with the cheap solutions that the model begins from, if it does."""
    lacks = samples.inputs.shape[1] + surrogate.prior == surrogate.network["inputs"]
    return with_prior(samples) if surrogate.prior and lacks else samples


def _as_samples(samples: Samples, made: np.ndarray, model: str, data: str, steps: int | None) -> Samples:
    names = samples.layout.outputs[: made.shape[1]] if samples.layout.outputs else ()
    layout = dataclasses.replace(
        samples.layout,
        outputs=names if len(names) == made.shape[1] else (),
        origin={"predicted_by": str(model), "inputs_of": str(data), "steps": steps},
    )
    return dataclasses.replace(samples, outputs=made, layout=layout, residuals=None)


def _residual(samples: Samples) -> Any:
    """Return how the equation of the samples measures predictions; None where it is not known."""
    layout: Layout = samples.layout
    if not layout.equation:
        return None
    try:
        return getattr(equation_of(layout), "residual", None)
    except OptionError:  # of another version: errors are told all the same
        return None


def _draw_fields(path: Path, samples: Samples, made: np.ndarray, title: str, force: bool) -> None:
    """Draw the worst, the median and the best prediction; of a roll-out the last frame."""
    from neuralsolve.plot import fields_figure, save
    from neuralsolve.plot.fields import last_frames

    order = np.argsort(measured(samples, made)["l2"])[::-1]
    which = list(dict.fromkeys(int(order[k]) for k in (0, len(order) // 2, -1)))
    names = ["worst", "median", "best"] if len(which) == 3 else [f"sample {k}" for k in which]
    shown = samples.take(which)
    with told_of("--plot"):
        figure = fields_figure(shown, made[which], names, title, last_frames(samples, made.shape[1]))
        save(figure, path, force)


def check_targets(targets: dict[str, Path | None], force: bool) -> None:
    """Raise an error that names the option where a file cannot be written."""
    for option, path in targets.items():
        if path is not None:
            with told_of(option):
                check_target(path, force)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]], force: bool) -> None:
    stream = io.StringIO()
    writer = csv_format.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with told_of("--csv"), replacing(path, force) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
