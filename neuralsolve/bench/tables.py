"""Benchmark rows as markdown and CSV, and what machine they were measured on."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import platform
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from neuralsolve.bench.compare import Row
    from neuralsolve.bench.measures import Measure

PACKAGES = ("neuralsolve", "torch", "numpy", "scipy", "numba", "pyamg", "petsc4py")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the installed versions; packages that are absent are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, str]:
    """Return where a run took place: processor, threads, Python, versions."""
    return {
        "machine": f"{_processor()}, {platform.system()}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def comparison_markdown(rows: Sequence[Row]) -> str:
    """Return a table per problem."""
    lines = []
    for name in dict.fromkeys(row.problem for row in rows):
        chosen = [row for row in rows if row.problem == name]
        lines += [
            f"**{name}**, n = {chosen[0].n:,}, {chosen[0].threads} threads",
            "",
            "| method | set-up, s | solve, s | iterations | products | true residual | time / baseline |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [_line(row) for row in chosen]
        baseline = chosen[0].baseline
        lines += ["", f"Baseline: {baseline}, the fastest of the others in this run." if baseline else "", ""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if row.setup_s != row.setup_s:  # NaN: it never ran through
        return f"| {row.method} | failed: {row.note} | | | | | |"
    word = "" if row.converged else " **missed**"
    return (
        f"| {row.method} | {row.setup_s:.3g} | {row.solve_s:.3g} | {row.iterations} | {row.matvecs} "
        f"| {row.residual:.1e}{word} | {row.ratio:.2f} |"
    )


def measures_markdown(rows: Sequence[Measure]) -> str:
    """Return the table of measures and bars."""
    lines = ["| measure | value | bar | | ours | other | what |", "|---|---:|---:|---|---:|---:|---|"]
    for row in rows:
        bar = "" if row.bar is None else f"<= {row.bar:g}"
        word = "" if row.bar is None else "met" if row.value <= row.bar else "**short**"
        times = " | ".join(_short(value) for value in (row.ours, row.other))
        lines.append(
            f"| {row.measure} | {row.value:.3g} {row.unit} | {bar} | {word} | {times} | {row.what} |"
        )
    return "\n".join(lines) + "\n"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def csv_text(rows: Sequence[Any]) -> str:
    """Return rows (with an `as_dict`) as CSV; machine, Python and versions stand in every line."""
    stream = io.StringIO()
    where = environment()
    where.pop("threads")
    table = [row.as_dict() | {"threads": torch.get_num_threads()} | where for row in rows]
    writer = csv.DictWriter(stream, fieldnames=list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        )
    return stream.getvalue()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")]
        if names:
            return f"{names[0]} ({len(names)} cores)"
    except OSError:
        pass
    return platform.processor() or platform.machine()
