"""The benchmark page: ``python -m neuralsolve.bench.page data/bench docs/benchmarks.md``."""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path
from typing import Any, TypeVar

from neuralsolve.bench.compare import Row
from neuralsolve.bench.measures import Measure
from neuralsolve.bench.tables import comparison_markdown, measures_markdown

INTRODUCTION = """# Benchmarks

Made by `make bench` from the rows in `data/bench`; do not edit. All runs of a table took place in one
process, interleaved, on the same number of threads; times are medians, in seconds. Every true residual is
recomputed by the harness in float64 from the assembled matrix. A ratio is the time of set-up and solve over
that of the fastest method that is not ours, in the same run: below 1 is faster. Rows that we lose stay.
"""

_Record = TypeVar("_Record", Row, Measure)


def page(folder: Path) -> str:
    """Return the page for a folder of CSV files, measures or comparisons, and of simulations' tables."""
    parts = [INTRODUCTION]
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
        if not lines:
            continue
        where = lines[0]
        parts.append(f"## {path.stem.replace('_', ' ').capitalize()}\n")
        parts.append(
            f"{where['machine']}; {where['threads']} threads; Python {where['python']}; {where['versions']}\n"
        )
        if "measure" in where:
            parts.append(measures_markdown([_record(Measure, line) for line in lines]))
        else:
            parts.append(comparison_markdown([_record(Row, line) for line in lines]))
    for path in sorted(folder.glob("*/*.md")):
        parts.append(f"## Simulation: {path.stem.replace('_', ' ')}\n")
        parts.append(
            f"Every step's pressure system by each solver, in one process ([rows]({_link(path)})).\n"
        )
        parts.append(path.read_text(encoding="utf-8"))
    return "\n".join(parts).rstrip() + "\n"


def _link(path: Path) -> str:
    return f"../{path.with_suffix('.csv').as_posix()}"


def _record(kind: type[_Record], line: dict[str, str]) -> _Record:
    """Return a row as it was before it became text."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        text = line[field.name]
        words = str(field.type)
        if "float" in words:
            values[field.name] = None if text == "" else float(text)
        elif words == "int":
            values[field.name] = int(text)
        elif words == "bool":
            values[field.name] = text == "True"
        else:
            values[field.name] = text
    return kind(**values)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(Path(sys.argv[1])), encoding="utf-8")
