"""Benchmark rows as markdown and CSV, and what machine they were measured on."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import platform
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from neuralsolve.bench.clock import CPU
from neuralsolve.bench.device import card

if TYPE_CHECKING:
    from neuralsolve.bench.bars import BarRow
    from neuralsolve.bench.compare import Row
    from neuralsolve.bench.measures import Measure

PACKAGES = ("neuralsolve", "torch", "numpy", "scipy", "numba", "pyamg", "petsc4py")
ON_A_GPU = ("triton", "cupy-cuda12x", "cupy-cuda13x", "cupy")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the installed versions; packages that are absent are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment(device: torch.device = CPU) -> dict[str, str]:
    """Return where a run took place: processor, GPU if it ran on one, threads, Python, versions."""
    found = versions((*PACKAGES, *ON_A_GPU) if device.type == "cuda" else PACKAGES)
    return {
        "machine": ", ".join(filter(None, (_processor(), platform.system(), card(device)))),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in found.items()),
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
    where = "" if row.device == "cpu" else f", {row.device}"
    return (
        f"| {row.method}{where} | {row.setup_s:.3g} | {row.solve_s:.3g} | {row.iterations} | {row.matvecs} "
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


def bars_markdown(rows: Sequence[BarRow]) -> str:
    """Return tables of what has no bar, of times, of counts, of what is left out, and of kernels."""
    timed = [row for row in rows if row.measured and row.must is not None and row.baseline]
    counted = [row for row in rows if row.measured and row.must is not None and not row.baseline]
    free = [row for row in rows if row.measured and row.must is None]
    floors = [row for row in free if row.group == "kernels"]
    lines = []
    if len(free) > len(floors):
        lines += [
            "| problem | quantity | median | worst | set-up, s | solve, s | compared with, s | iterations "
            "| true residual | seeds | note |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|",
        ]
        for row in (row for row in free if row not in floors):
            value = [row.problem, row.quantity, f"{row.median:.3g} {row.unit}", f"{row.worst:.3g}"]
            times = [_short(row.setup_s), _short(row.solve_s), _short(row.baseline_s), _short(row.iterations)]
            lines.append(_cells(*value, *times, _residual(row), row.seeds, row.note))
        lines.append("")
    if timed:
        lines += [
            "| problem | quantity | median | worst | must | aim | | set-up, s | solve, s | compared with, s "
            "| iterations | true residual | runs | seeds | note |",
            "|---|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---|---|",
        ]
        for row in timed:
            times = [_short(row.setup_s), _short(row.solve_s), _short(row.baseline_s), _short(row.iterations)]
            lines.append(
                _cells(*_against_bars(row), *times, _residual(row), str(row.repeats), row.seeds, row.note)
            )
        lines.append("")
    if counted:
        lines += [
            "| problem | quantity | median | worst | must | aim | | true residual | seeds | note |",
            "|---|---|---:|---:|---:|---:|---|---:|---|---|",
        ]
        lines += [_cells(*_against_bars(row), _residual(row), row.seeds, row.note) for row in counted]
        lines.append("")
    for row in rows:
        if not row.measured:
            lines += [f"- {row.problem}: {row.quantity}{_bars_in_words(row)}: {row.note}"]
    if floors:
        lines += ["", *_floor_lines(floors)]
    return "\n".join(lines).strip() + "\n"


def _cells(*texts: str) -> str:
    return "| " + " | ".join(texts) + " |"


def _against_bars(row: BarRow) -> list[str]:
    bars = ["" if bar is None else f"{row.sense} {bar:g}" for bar in (row.must, row.aim)]
    return [
        row.problem,
        row.quantity,
        f"{row.median:.3g} {row.unit}",
        f"{row.worst:.3g}",
        *bars,
        row.verdict(),
    ]


def _bars_in_words(row: BarRow) -> str:
    if row.must is None:
        return ""
    aim = "" if row.aim is None else f", aim {row.aim:g}"
    return f" (must {row.sense} {row.must:g}{aim})"


def _residual(row: BarRow) -> str:
    return "" if row.residual is None else f"{row.residual:.1e}"


def _floor_lines(rows: Sequence[BarRow]) -> list[str]:
    """Return a sentence on the bandwidth and a table of everything that is measured against it."""
    floors = [row for row in rows if row.baseline_s is not None]
    lines = [
        f"Bandwidth of a {row.problem}: {row.median:.3g} {row.unit}." for row in rows if row not in floors
    ]
    lines += ["", "| kernel | where | moves at least | floor, ms | measured, ms | measured / floor |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for row in floors:
        floor, measured = (1e3 * (seconds or 0.0) for seconds in (row.baseline_s, row.solve_s))
        name = row.quantity.removesuffix(" / floor")
        cells = f"{row.note} | {floor:.3g} | {measured:.3g} | {row.median:.3g}"
        lines.append(f"| {name} | {row.problem} | {cells} |")
    return lines


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def csv_text(rows: Sequence[Any], device: torch.device = CPU) -> str:
    """Return rows (with an `as_dict`) as CSV; machine, Python and versions stand in every line."""
    stream = io.StringIO()
    where = environment(device)
    where.pop("threads")
    table = [row.as_dict() | {"threads": torch.get_num_threads()} | where for row in rows]
    writer = csv.DictWriter(stream, fieldnames=list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow(
            {key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()}
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
