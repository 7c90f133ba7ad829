"""What all commands share: errors as one line, JSON, progress."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from neuralsolve.errors import InputError, SolveError
from neuralsolve.models.parallel import rank

INTERRUPTED = 130  # as a shell says it of a program that ended by Ctrl-C
PATIENCE = 2.0  # seconds before progress is shown


@contextmanager
def answered(as_json: bool) -> Iterator[None]:
    """Turn wrong input and failed solves into one line on standard error, and an exit code.

    With `as_json` the line is also standard output's one object, under "error".
    """
    try:
        yield
    except (InputError, OSError, SolveError) as error:
        text = " ".join(str(error).split())
        if as_json:
            print_json({"error": text, "kind": type(error).__name__})
        say(f"error: {text}")
        raise typer.Exit(1 if isinstance(error, SolveError) else 2) from None


@contextmanager
def going_on_from(folder: Path, as_json: bool) -> Iterator[None]:
    """Say of an interrupted run that the same command goes on, and exit as a shell says it of Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        begun = any(each.is_file() for each in folder.rglob("*"))
        text = "interrupted; the same command " + (f"goes on from {folder}" if begun else "begins anew")
        if as_json:
            print_json({"error": text, "kind": "KeyboardInterrupt"})
        say(text)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def told_of(option: str) -> Iterator[None]:
    """Put the option that named a file before what is wrong with that file."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename} cannot be made ({error.strerror})" if error.strerror else str(error)
        msg = f"{option}: {what}"
        raise type(error)(msg) from None


@contextmanager
def in_folders(*folders: Path) -> Iterator[None]:
    """Make the folders of --out-dir; where the work is refused, those that nothing was put into go again."""
    made = [each for folder in folders for each in (folder, *folder.parents) if not each.exists()]
    try:
        with told_of("--out-dir"):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in sorted(set(made), key=lambda path: -len(path.parts)):
            with suppress(OSError):  # something is in it
                each.rmdir()
        raise


def json_text(content: dict[str, Any]) -> str:
    """Return one JSON object; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object; of several processes the first alone does."""
    text = json_text(content)
    if not rank():
        typer.echo(text)


def say(text: str) -> None:
    """Print a line on standard error; of several processes the first alone does."""
    if not rank():
        typer.echo(text, err=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


@contextmanager
def progress(
    label: str, total: int | None = None, quiet: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Show a bar on a terminal's standard error once the work has taken two seconds.

    Yields a function (done, note) that moves the bar; without `total` the bar only says that work goes on.
    Where standard error is no terminal, a line appears at every tenth of `total`.
    """
    if quiet:
        yield lambda done, note: None
        return
    if not sys.stderr.isatty():
        yield _tenths(label, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total, note="")
    starter = threading.Timer(PATIENCE, bar.start)
    starter.daemon = True
    starter.start()
    try:
        yield lambda done, note: bar.update(task, completed=done, note=note)
    finally:
        starter.cancel()
        starter.join()
        bar.stop()


def _tenths(label: str, total: int | None) -> Callable[[int, str], None]:
    shown = 0

    def tell(done: int, note: str) -> None:
        nonlocal shown
        if total and 10 * done // total > shown:
            shown = 10 * done // total
            typer.echo(f"{label}: {done} of {total}, {note}", err=True)

    return tell


def seconds(value: float) -> str:
    """Return a duration for people: three digits, ms below a tenth of a second."""
    return f"{1e3 * value:.3g} ms" if value < 0.1 else f"{value:.3g} s"
