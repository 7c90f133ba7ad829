"""The commands and their options; what they do is imported when one of them runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="neuralsolve",
    help="Linear systems and PDEs: solve, simulate, train, measure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

THREADS = 2
QUIET = ("simulate", "train", "tune", "data", "evaluate", "predict", "compare")  # with threads that sleep

Method = Annotated[
    str | None,
    typer.Option(
        "--method", metavar="NAME", help="cg, minres, 'gmres(restart=50)', sparselu, ...; chosen if left out"
    ),
]
Preconditioner = Annotated[
    str | None,
    typer.Option(
        "--M",
        metavar="NAME",
        help="preconditioner: jacobi, 'ssor(omega=1.5)', multigrid, 'amg(kind=sa)', ic, ...",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
Force = Annotated[bool, typer.Option("--force", help="replace existing output files")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="write a picture")]


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"neuralsolve {installed('neuralsolve')}")
        raise typer.Exit


@app.command()
def solve(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="MATRIX.mtx|.npz|.mat, MESH.msh|.vtk|..., CASE.toml or name"),
    ],
    method: Method = None,
    M: Preconditioner = None,
    rtol: Annotated[
        float | None, typer.Option(help="stop at ||b - Ax|| <= max(rtol ||b||, atol); 1e-8")
    ] = None,
    atol: Annotated[float | None, typer.Option(help="see --rtol; 0")] = None,
    maxiter: Annotated[int | None, typer.Option(help="largest number of iterations")] = None,
    rhs: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="b: a file, or ones, random, sine, dipole")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write x: .npy, .npz, .mtx, .txt, .vtu")
    ] = None,
    plot: Plot = None,
    json: Json = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="say what was found in A and why this method")
    ] = False,
    force: Force = False,
) -> None:
    """Solve A x = b from a matrix, a mesh or a case, and check the residual."""
    from neuralsolve.cli.solve import run

    run(source, method, M, (rtol, atol, maxiter), rhs, out, plot, json=json, explain=explain, force=force)


@app.command()
def simulate(
    case: Annotated[str, typer.Argument(metavar="CASE", help="CASE.toml or the name of a packaged case")],
    steps: Annotated[int | None, typer.Option(min=1, help="number of time steps")] = None,
    dim: Annotated[int | None, typer.Option(min=2, max=3, help="2 or 3 dimensions")] = None,
    size: Annotated[
        int | None, typer.Option(min=4, help="cells along x; 256 in 2D, 64 in 3D when --dim changes")
    ] = None,
    out_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="where files go; out/CASE")] = None,
    compare: Annotated[
        bool, typer.Option(help="solve every pressure system with SciPy and PyAMG too")
    ] = True,
    method: Method = None,
    M: Preconditioner = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="let the run choose preconditioners and their options by their time"),
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Run a simulation; write a picture and a timing table."""
    from neuralsolve.cli.simulate import run

    options = {"tune": tune, "compare": compare, "json": json, "force": force}
    run(case, steps, dim, size, out_dir, (method, M), **options)


@app.command()
def tune(
    case: Annotated[str, typer.Argument(metavar="CASE", help="CASE.toml or the name of a packaged case")],
    learner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="tsallisinf, 'chebcb(degree=5)', scalarfit, 'fixed(value=1.5)', ..."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="number of systems")] = None,
    cells: Annotated[int | None, typer.Option(min=3, max=10_000, help="cells a side")] = None,
    out_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="where files go; out/tune/CASE")] = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Solve a sequence of systems, learning an option of the solver. Interrupted, it goes on later."""
    from neuralsolve.cli.tune import run

    run(case, learner, steps, cells, out_dir, json=json, force=force)


@app.command()
def train(
    case: Annotated[str, typer.Argument(metavar="CASE", help="CASE.toml or the name of a packaged case")],
    out_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where files go; out/train/CASE")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="steps of training instead of the case's")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="begin anew where a checkpoint exists; by default it goes on")
    ] = False,
    json: Json = False,
) -> None:
    """Train a network; write its weights, a log and a picture of the loss. Interrupted, it goes on later."""
    from neuralsolve.cli.train import run

    run(case, out_dir, steps, restart=restart, json=json)


Data = Annotated[str, typer.Argument(metavar="DATA", help="samples: .h5, .mat, .npy, .npz, .pt, ...")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="a .safetensors file of `neuralsolve train`")]
Steps = Annotated[int | None, typer.Option(min=1, help="of a roll-out; all frames of DATA if left out")]
First = Annotated[int, typer.Option(min=0, help="number of the first sample")]
Count = Annotated[int | None, typer.Option(min=1, help="how many samples; all that follow if left out")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE.csv", help="write the rows")]


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def bench(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", help="matrices, meshes or cases")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="kernels, multigrid, learned, tuned, fields: against bars"),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", metavar="NAME[+M]", help="'cg+amg', ...; may be repeated")
    ] = None,
    rtol: Annotated[float, typer.Option(help="relative tolerance for all")] = 1e-8,
    rhs: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="b: a file, or ones, random, sine, dipole")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="timings per row, the median counts; by default 3, for multigrid 5"),
    ] = None,
    limit: Annotated[float, typer.Option(help="seconds after which a method is not repeated")] = 30.0,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="of the suite; may be repeated"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="the suite at toy sizes")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="write the rows")] = None,
    plot: Plot = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Measure our methods beside SciPy, PyAMG and PETSc; without SOURCE, the package's own measures."""
    from neuralsolve.cli.bench import run

    options = {
        "rtol": rtol,
        "rhs": rhs,
        "repeats": repeats,
        "limit": limit,
        "only": only or [],
        "quick": quick,
    }
    run(sources or [], suite, methods or [], options, csv, plot, json=json, force=force)


data = typer.Typer(help="Data sets of fields: make, look at, convert.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command("make")
def data_make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the equation: darcy, ...")],
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


@app.command()
def doctor(json: Json = False) -> None:
    """Say what is installed, and solve small systems to see that it works."""
    from neuralsolve.cli.doctor import run

    run(json=json)


@app.command()
def cases(json: Json = False) -> None:
    """List the packaged cases."""
    from neuralsolve.cli.cases import run

    run(json=json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the entry point of the package."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["bench"]:
        _with_two_threads(arguments)
    if arguments[:1] and arguments[0] in QUIET:
        _with_quiet_threads(arguments)
    app(arguments)


def _with_two_threads(arguments: list[str]) -> None:
    """Start Python anew where the environment does not hold every library to the same number of threads.

    OpenBLAS and OpenMP read it once, when they are loaded, which is before this line. Threads that wait
    sleep, unless the caller has said otherwise.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = os.environ.get("NEURALSOLVE_BENCH_THREADS", str(min(THREADS, os.cpu_count() or 1)))
    if all(os.environ.get(name) == threads for name in names):
        return
    policy = os.environ.get("OMP_WAIT_POLICY", "passive")
    _start_anew(arguments, dict.fromkeys(names, threads) | {"OMP_WAIT_POLICY": policy})


def _with_quiet_threads(arguments: list[str]) -> None:
    """Start Python anew so that waiting threads sleep: spinning, they slow a busy machine down tenfold.

    The short vectors of a baseline's CG gain nothing from a second thread of OpenBLAS either. What the caller
    has set stays.
    """
    quiet = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
    missing = {name: value for name, value in quiet.items() if name not in os.environ}
    if missing:
        _start_anew(arguments, missing)


def _start_anew(arguments: list[str], variables: dict[str, str]) -> None:
    os.environ.update(variables)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "neuralsolve", *arguments])
