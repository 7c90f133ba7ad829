"""The commands of models of fields and of their data; what they do is imported when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralsolve.cli.options import Count, Csv, Data, First, Force, Json, Model, Plot, Steps

# those of `pde`, not imported
EQUATIONS = "darcy, navier-stokes, burgers, kuramoto-sivashinsky, poisson-void or elasticity-void"

data = typer.Typer(help="Data sets of fields: make, look at, convert.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (evaluate, predict, compare, compress):
        app.command()(command)
    app.add_typer(data, name="data")


def evaluate(
    model: Model,
    data: Data,
    steps: Steps = None,
    first: First = 0,
    count: Count = None,
    plot: Plot = None,
    csv: Csv = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Measure a trained model of fields on samples, at their own resolution."""
    from neuralsolve.cli.fields import evaluate as run

    run(model, data, steps, (first, count), plot, csv, json=json, force=force)


def predict(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE.h5|.npz", help="where the predictions go")],
    steps: Steps = None,
    first: First = 0,
    count: Count = None,
    plot: Plot = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Write what a trained model of fields makes of the inputs of samples."""
    from neuralsolve.cli.fields import predict as run

    run(model, data, out, steps, (first, count), plot, json=json, force=force)


def compare(
    sources: Annotated[
        list[str], typer.Argument(metavar="MODEL... DATA", help="models, and last the samples")
    ],
    steps: Steps = None,
    first: First = 0,
    count: Count = None,
    plot: Plot = None,
    csv: Csv = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Measure several trained models of fields on the same samples, in one table."""
    from neuralsolve.cli.fields import compare as run

    run(sources, steps, (first, count), plot, csv, json=json, force=force)


def compress(
    model: Model,
    data: Annotated[
        str, typer.Option("--data", metavar="DATA", help="samples that the model was trained on: .h5, ...")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="where the model goes")],
    kept: Annotated[float, typer.Option(help="part that is kept, in (0, 1]")] = 0.5,
    factoriser: Annotated[str, typer.Option(help="afm, afm-uncentred, whitened or svd")] = "afm",
    allocator: Annotated[str, typer.Option(help="greedy, uniform, energy, value or threshold")] = "greedy",
    measure: Annotated[str, typer.Option(help="what is kept a part of: parameters or macs")] = "parameters",
    round_to: Annotated[int, typer.Option(min=1, help="ranks are multiples of it")] = 1,
    include: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="in paths of layers; may be repeated")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="in paths of layers; may be repeated")
    ] = None,
    propagate: Annotated[
        bool, typer.Option("--propagate", help="layers see what the factored ones before them make")
    ] = False,
    refitted: Annotated[
        bool, typer.Option("--refit/--no-refit", help="factors solved anew, each by what those before make")
    ] = True,
    samples: Annotated[int, typer.Option(min=1, help="to calibrate by, at most")] = 256,
    epochs: Annotated[int, typer.Option(min=0, help="of a fine-tune afterwards")] = 0,
    learning_rate: Annotated[float, typer.Option(help="of the fine-tune")] = 2e-3,
    seed: Annotated[int, typer.Option(min=0, help="of the fine-tune")] = 1905,
    plot: Plot = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Compress a trained model of fields by factors of low rank; the last tenth of DATA measures it."""
    from neuralsolve.cli.compress import run

    plan = {
        "factoriser": factoriser,
        "allocator": allocator,
        "kept": kept,
        "measure": measure,
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "round_to": round_to,
        "propagate": propagate,
    }
    training = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    run(model, data, out, plan, samples, refitted, training, plot, json=json, force=force)


@data.command("make")
def data_make(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"of the equation: {EQUATIONS}")],
    n: Annotated[int, typer.Option("--n", min=1, help="number of samples")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.h5", help="where they go")],
    grid: Annotated[int | None, typer.Option(help="nodes a side that are solved on")] = None,
    stride: Annotated[int | None, typer.Option(help="every so many nodes are kept")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="another parameter; may be repeated"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of all samples")] = 1905,
    first: Annotated[int, typer.Option(min=0, help="number of the first sample")] = 0,
    chunk: Annotated[int | None, typer.Option(min=1, help="samples made and kept at once")] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="begin anew where an interrupted run exists; by default it goes on"),
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make samples of an equation and write them to one file. Interrupted, it goes on later."""
    from neuralsolve.cli.data import run_make

    sizes = {"grid": grid, "stride": stride}
    numbers = (seed, first, chunk)
    run_make(name, n, out, sizes, settings or [], numbers, restart=restart, force=force, json=json)


@data.command("info")
def data_info(
    file: Annotated[Path, typer.Argument(metavar="FILE.h5", help="of `data make` or `data convert`")],
    json: Json = False,
) -> None:
    """Say what a file of samples holds: channels, ranges, axes, equation, origin."""
    from neuralsolve.cli.data import run_info

    run_info(file, json=json)


@data.command("convert")
def data_convert(
    files: Annotated[
        list[Path], typer.Argument(metavar="IN...", help=".pt, .mat, .npz, .npy (several), .h5 of others")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.h5", help="where the samples go")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="KEY", help="of the input; may be repeated")
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", metavar="KEY", help="of the output; may be repeated")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="IN,OUT", help="frames of trajectories: 10,10 maps ten to the next ten"),
    ] = None,
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="leave out samples with NaN or infinity, and say how many")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Read a data set of another format and write it as a file of samples."""
    from neuralsolve.cli.data import run_convert

    keys = (inputs or [], outputs or [])
    run_convert(files, out, keys, frames, drop_bad=drop_bad, force=force, json=json)
