"""``neuralsolve data``: make, info, convert."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer

from neuralsolve.cli.report import answered, going_on_from, print_json, progress, say, seconds, told_of
from neuralsolve.data import Header, Samples, make, read_data, read_header, read_samples, write_samples
from neuralsolve.data.making import largest_residual
from neuralsolve.errors import FormatError, OptionError, nearest
from neuralsolve.io.files import check_target
from neuralsolve.pde.equation import equations

LARGE = 1e-2  # a residual that tells of samples that are no solutions
PIECE = 2**26  # bytes of fields that are looked at together


def run_make(
    name: str,
    count: int,
    path: Path,
    sizes: dict[str, int | None],
    settings: Sequence[str],
    numbers: tuple[int, int, int | None],
    *,
    restart: bool,
    force: bool,
    json: bool,
) -> None:
    """Make a data set, or go on; tell."""
    with answered(json):
        if path.is_dir():
            msg = f"--out {path} is a folder; a file is needed: --out {path / name}.h5"
            raise OptionError(msg)
        equation = equation_from(name, sizes, settings)
        seed, first, chunk = numbers
        with told_of("--out"):
            check_target(path, overwrite=force or path.with_name(path.name + ".parts").is_dir())
        folder = path.with_name(path.name + ".parts")
        with going_on_from(folder, json), progress(f"make {name}", count, quiet=json) as tell:
            made = make(equation, count, path, seed, first, chunk, tell, restart, overwrite=force)
        facts = {
            "equation": equation.name,
            "count": made.count,
            "seed": seed,
            "first": first,
            "seconds_per_sample": made.seconds / made.count,
            "largest_residual": made.residual,
            "file": str(path),
            "bytes": made.bytes,
        }
        if made.residual is not None and made.residual > LARGE:
            say(
                f"warning: largest residual {made.residual:.2g}: the samples miss their equation; a finer "
                "--grid or a smaller dt"
            )
        if json:
            print_json(facts)
            return
        typer.echo(f"{made.count} samples of {name}, {seconds(made.seconds / made.count)} each")
        if made.residual is not None:
            typer.echo(f"largest residual {made.residual:.2e}")
        typer.echo(f"wrote {path}, {made.bytes / 1e6:.3g} MB")


def run_info(path: Path, *, json: bool) -> None:
    """Tell what a file of samples holds."""
    with answered(json):
        try:
            header = read_header(path)
        except FormatError as error:
            msg = f"{error}; files of others: neuralsolve data convert {path} --out OUT.h5"
            raise FormatError(msg) from None
        facts = facts_of(header)
        if json:
            print_json(facts)
        else:
            typer.echo("\n".join(_lines(facts)))


def run_convert(
    paths: Sequence[Path],
    out: Path,
    keys: tuple[Sequence[str], Sequence[str]],
    frames: str | None,
    *,
    drop_bad: bool,
    force: bool,
    json: bool,
) -> None:
    """Read a file of others and write it as ours; tell."""
    with answered(json):
        with told_of("--out"):
            check_target(out, force)
        samples = read_data(
            *paths,
            input=tuple(keys[0]) or None,
            output=tuple(keys[1]) or None,
            frames=_frames(frames),
            drop_bad=drop_bad,
        )
        origin = {**samples.layout.origin, "converted_from": [path.name for path in paths]}
        samples = dataclasses.replace(samples, layout=dataclasses.replace(samples.layout, origin=origin))
        write_samples(out, samples, overwrite=force)
        facts = facts_of(read_header(out))
        if json:
            print_json(facts)
        else:
            typer.echo("\n".join([*_lines(facts), f"wrote {out}, {facts['bytes'] / 1e6:.3g} MB"]))


def equation_from(name: str, sizes: dict[str, int | None], settings: Sequence[str]) -> Any:
    """Return the equation of a name, with grid, stride and other parameters as given in words.

    Raises
    ------
    OptionError
        An unknown name or parameter (the nearest is suggested), or a value of another type.

    Examples
    --------
    >>> darcy = equation_from("darcy", {"grid": 33, "stride": None}, ["faces=harmonic", "high=6"])
    >>> darcy.grid, darcy.faces, darcy.high
    (33, 'harmonic', 6.0)
    """
    known = equations()
    if name not in known:
        msg = f"no equation {name!r}{nearest(name, known)}"
        raise OptionError(msg)
    kinds = typing.get_type_hints(known[name])
    fields = {each.name: kinds[each.name] for each in dataclasses.fields(known[name])}
    given: dict[str, Any] = {}
    for option, value in sizes.items():
        if value is not None and option not in fields:
            msg = f"--{option}: {name} has no such parameter; it has {', '.join(fields)}"
            raise OptionError(msg)
        given |= {} if value is None else {option: value}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if key.strip() not in fields:
            msg = f"--set {setting}: {name} has no parameter {key.strip()!r}{nearest(key.strip(), fields)}"
            raise OptionError(msg)
        if not equals:
            msg = f"--set {setting}: no value; write {key.strip()}=value"
            raise OptionError(msg)
        if key.strip() in given:
            msg = f"--set {setting}: {key.strip()} = {given[key.strip()]} is given already; leave one out"
            raise OptionError(msg)
        given[key.strip()] = _typed(setting, text.strip(), fields[key.strip()])
    return known[name](**given)


def _typed(setting: str, text: str, kind: Any) -> Any:
    """Return a value from its text, of the type of the parameter."""
    options = [each for each in typing.get_args(kind) if each is not type(None)]
    if typing.get_origin(kind) is tuple:
        return tuple(
            _typed(setting, word.strip(), options[0]) for word in text.strip("()").split(",") if word.strip()
        )
    if options and all(isinstance(each, str) for each in options):  # a Literal
        return text
    if options:
        if type(None) in typing.get_args(kind) and text.lower() == "none":
            return None
        kind = options[0]
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                text.lower()
            ]
        return kind(text) if kind in (int, float) else text
    except (ValueError, KeyError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a word")
        msg = f"--set {setting}: {text!r} is no value of this parameter; {wanted} is needed"
        raise OptionError(msg) from None


def _frames(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        inner, outer = (int(word) for word in text.split(","))
    except ValueError:
        msg = f"--frames {text}: two whole numbers are needed, frames of input and of output: --frames 10,10"
        raise OptionError(msg) from None
    return inner, outer


def facts_of(header: Header) -> dict[str, Any]:
    """Return what a file of samples holds, with the range of every channel, read piece by piece."""
    layout, ranges = header.layout, _ranges(header)
    shape = header.shapes["inputs"][2:]
    return {
        "file": str(header.path),
        "bytes": header.bytes,
        "count": len(header),
        "shape": list(shape),
        "inputs": _channels(layout.inputs, ranges[0], layout.units, "input"),
        "outputs": _channels(layout.outputs, ranges[1], layout.units, "output"),
        "types": header.types,
        "axes": [
            {"nodes": len(axis), "from": float(axis[0]), "to": float(axis[-1]), "boundary": boundary}
            for axis, boundary in zip(layout.axes, layout.boundary or ("",) * len(layout.axes), strict=False)
        ],
        "points": list(header.shapes["points"]) if "points" in header.shapes else None,
        "cells": list(header.shapes["cells"]) if "cells" in header.shapes else None,
        "codes": header.shapes["codes"][1] if "codes" in header.shapes else None,
        "equation": layout.equation,
        "units": layout.units,
        "largest_residual": largest_residual(header.path),
        "origin": layout.origin,
    }


def _ranges(header: Header) -> tuple[np.ndarray, np.ndarray]:
    """Return least and largest value of every channel, (2, channels), of inputs and of outputs."""
    of_one = sum(
        int(np.prod(header.shapes[name][1:])) * np.dtype(header.types[name]).itemsize
        for name in ("inputs", "outputs")
    )
    step = max(1, PIECE // max(of_one, 1))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(header), step):
        piece: Samples = read_samples(header.path, slice(start, start + step))
        found.append((_extremes(piece.inputs), _extremes(piece.outputs)))
    return _merged([each[0] for each in found]), _merged([each[1] for each in found])


def _extremes(values: np.ndarray) -> np.ndarray:
    flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    return np.stack([flat.min(1), flat.max(1)]).astype(float)


def _merged(parts: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.min([each[0] for each in parts], 0), np.max([each[1] for each in parts], 0)])


def _channels(
    names: Sequence[str], ranges: np.ndarray, units: dict[str, str], role: str
) -> list[dict[str, Any]]:
    names = names or [f"{role} {k}" for k in range(ranges.shape[1])]
    return [
        {"name": name, "unit": units.get(name), "min": float(low), "max": float(high)}
        for name, low, high in zip(names, *ranges, strict=True)
    ]


def _lines(facts: dict[str, Any]) -> list[str]:
    nodes = " x ".join(map(str, facts["shape"])) + (" points" if facts["points"] else "")
    lines = [f"{facts['file']}: {facts['count']} samples on {nodes}, {facts['bytes'] / 1e6:.3g} MB"]
    for role in ("inputs", "outputs"):
        lines += _of_channels(role, facts[role], facts["types"][role])
    for k, axis in enumerate(facts["axes"]):
        walls = f", {axis['boundary']}" if axis["boundary"] else ""
        lines.append(f"axis {k}: {axis['nodes']} nodes from {axis['from']:g} to {axis['to']:g}{walls}")
    for name in ("points", "cells"):
        lines += [f"{name}: {tuple(facts[name])}"] if facts[name] else []
    lines += [f"codes: {facts['codes']} numbers per sample"] if facts["codes"] else []
    if facts["equation"]:
        lines.append(f"equation: {_words(facts['equation'])}")
    if facts["largest_residual"] is not None:
        lines.append(f"largest residual {facts['largest_residual']:.2e}")
    if facts["origin"]:
        lines.append(f"origin: {_words(facts['origin'])}")
    return lines


def _of_channels(role: str, channels: list[dict[str, Any]], kind: str) -> list[str]:
    """Return a line per channel; of many, the first and the last."""
    shown = channels if len(channels) <= 6 else [*channels[:3], None, channels[-1]]
    lines = []
    for channel in shown:
        if channel is None:
            lines.append(f"{role[:-1]}: ... {len(channels) - 4} more ...")
            continue
        unit = f" [{channel['unit']}]" if channel["unit"] not in (None, "1") else ""
        lines.append(
            f"{role[:-1]}: {channel['name']}{unit}, {kind}, {channel['min']:.4g} to {channel['max']:.4g}"
        )
    return lines


def _words(value: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {each}" for key, each in value.items())
