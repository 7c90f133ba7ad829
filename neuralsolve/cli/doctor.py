"""``neuralsolve doctor``."""

from __future__ import annotations

import dataclasses
import platform

import typer

from neuralsolve import doctor
from neuralsolve.cli.report import print_json, seconds


def run(*, json: bool) -> None:
    """Tell what is there and what works; exit 1 where something is broken."""
    versions, kernels, cache = doctor.installed(), doctor.kernels(), doctor.cache()
    missing = [name for name in doctor.REQUIRED if versions[name] == "missing"]
    missing += [f"kernel {name}" for name, room in kernels.items() if room == "missing"]
    if not json:
        _tell_state(versions, kernels, cache)
    checks = []
    for check in doctor.self_test():
        checks.append(check)
        if not json:
            word = "ok    " if check.passed else "BROKEN"
            typer.echo(f"  {word}  {check.name}: {check.detail} ({seconds(check.seconds)})")
    broken = missing + [check.name for check in checks if not check.passed]
    if json:
        state = {"versions": versions, "threads": doctor.threads(), "kernels": kernels, "cache": cache}
        print_json(state | {"checks": [dataclasses.asdict(check) for check in checks], "broken": broken})
    else:
        total = seconds(sum(check.seconds for check in checks))
        typer.echo(f"\n{'all is well' if not broken else 'BROKEN: ' + ', '.join(broken)} ({total})")
    raise typer.Exit(1 if broken else 0)


def _tell_state(versions: dict[str, str], kernels: dict[str, str], cache: dict[str, object]) -> None:
    threads = doctor.threads()
    limits = "".join(f"; {name}={value}" for name, value in threads["limits"].items())
    served = sum(room == "numba" for room in kernels.values())
    lines = [f"Python {platform.python_version()} on {platform.platform()}", ""]
    for name, version in versions.items():
        hint = (
            f"  (optional: {doctor.OPTIONAL[name]})"
            if name in doctor.OPTIONAL and version == "missing"
            else ""
        )
        lines.append(f"  {name:12} {version}{hint}")
    note = "" if cache["writable"] else "; NOT writable, so every process compiles: set NUMBA_CACHE_DIR"
    lines += [
        "",
        f"threads: {threads['torch and kernels']} on {threads['cores']} cores{limits}",
        f"kernels: {served} of {len(kernels)} compiled by numba",
        f"kernel cache: {cache['kernels']} functions, {cache['megabytes']} MB in {cache['folder']}{note}",
        "",
        "self-test",
    ]
    typer.echo("\n".join(lines))
