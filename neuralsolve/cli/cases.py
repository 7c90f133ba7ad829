"""``neuralsolve cases``."""

from __future__ import annotations

import typer

from neuralsolve.cases import list_cases, load_case
from neuralsolve.cli.report import answered, print_json
from neuralsolve.pde.smoke_case import SmokeCase


def run(*, json: bool) -> None:
    """List the cases that can be named without a path."""
    with answered(json):
        rows = {}
        for name, path in list_cases().items():
            case = load_case(path)
            command = "simulate" if isinstance(case, SmokeCase) else getattr(case, "command", "solve")
            title = f"smoke past a {case.obstacle}" if isinstance(case, SmokeCase) else case.title
            rows[name] = {"command": command, "title": title, "file": str(path)}
        if json:
            print_json(rows)
            return
        width = max(map(len, rows), default=0)
        for name, row in rows.items():
            typer.echo(f"{row['command']:8} {name:{width}}  {row['title']}")
