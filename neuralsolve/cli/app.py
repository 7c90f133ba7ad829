"""The commands and their options; what they do is imported when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralsolve.cli import fields_app
from neuralsolve.cli.options import Force, Json, Method, Plot, Preconditioner

app = typer.Typer(
    name="neuralsolve",
    help="Linear systems and PDEs: solve, simulate, train, measure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
def minimize(
    case: Annotated[str, typer.Argument(metavar="CASE", help="CASE.toml or the name of a packaged case")],
    n: Annotated[int | None, typer.Option("--n", help="inner nodes a side")] = None,
    alpha: Annotated[float | None, typer.Option(help="price of the control")] = None,
    inner: Annotated[
        str | None, typer.Option(metavar="NAME", help="what finds steps: auto, direct, minres, kaczmarz, ...")
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="the algorithm as published, for study")
    ] = False,
    tol: Annotated[float | None, typer.Option(help="of the KKT residual ||(grad L, c)||, absolute")] = None,
    maxiter: Annotated[int | None, typer.Option(help="largest number of steps")] = None,
    out_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where files go; out/minimize/CASE")
    ] = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Minimise under equality constraints; write a picture, the history and the solution."""
    from neuralsolve.cli.minimize import run

    given = {"n": n, "alpha": alpha, "inner": inner, "faithful": faithful or None}
    run(case, given | {"tol": tol, "maxiter": maxiter}, out_dir, json=json, force=force)


@app.command()
def train(
    case: Annotated[str, typer.Argument(metavar="CASE", help="CASE.toml or the name of a packaged case")],
    out_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where files go; out/train/CASE")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="steps of training instead of the case's")] = None,
    start: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="a trained model of fields to begin with")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="train it alone: lora, tensor-lora, lora-xs, lora-sb, svfit, ..."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="adamw, adam, galore, tensor-galore, q-galore, dct, frugal, adam8bit, muon"
        ),
    ] = None,
    rank: Annotated[
        float | None,
        typer.Option(
            help="of the adapter; or of a low-rank optimizer: directions, or a part of them as 0.25"
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="begin anew where a checkpoint exists; by default it goes on")
    ] = False,
    json: Json = False,
) -> None:
    """Train a network; write its weights, a log and a picture of the loss. Interrupted, it goes on later."""
    from neuralsolve.cli.train import run

    whole = rank is not None and rank >= 1 and rank.is_integer()
    number = int(rank) if whole and rank is not None else rank
    changes = {"optimizer": optimizer, "start": start, "adapter": adapter, "rank": number}
    run(case, out_dir, steps, changes, restart=restart, json=json)


@app.command()
def bench(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", help="matrices, meshes or cases")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="kernels, multigrid, learned, tuned, fields, gpu: against bars"),
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
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="of our methods: cpu, cuda, cuda:N; cuda is that of --suite gpu"),
    ] = None,
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
        "device": device,
    }
    run(sources or [], suite, methods or [], options, csv, plot, json=json, force=force)


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


fields_app.add_to(app)
