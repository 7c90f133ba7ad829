"""What a reader found in a file, and how it becomes samples: frames to channels, bad samples out, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import InputError, NonFiniteError, OptionError, ShapeError, nearest
from neuralsolve.io.files import broken

Fields = dict[str, np.ndarray]
MOST_AXES = 3
LISTED = 100  # numbers of left-out samples that are told one by one
ASSUMED = {
    "i/n": lambda n: np.arange(n) / n,
    "i/(n - 1)": lambda n: np.linspace(0, 1, n),
}


@dataclass
class Found:
    """Fields of one file, every one of them a channel.

    Attributes
    ----------
    path : the file, for messages
    fixed : name -> (n, *nodes), inputs
    initial : name -> (n, *nodes), inputs unless frames of `frames` are chosen as inputs
    frames : name -> (n, times, *nodes), trajectories
    targets : name -> (n, *nodes), outputs
    wanted : names of fields for input and for output; all where none are named
    layout : Layout without channels; its axes may be missing
    spaced : which of `ASSUMED` holds where the axes are missing
    points, cells, codes, residuals : of `Samples`
    """

    path: Path
    fixed: Fields = field(default_factory=dict)
    initial: Fields = field(default_factory=dict)
    frames: Fields = field(default_factory=dict)
    targets: Fields = field(default_factory=dict)
    wanted: tuple[Sequence[str], Sequence[str]] = ((), ())
    layout: Layout = field(default_factory=Layout)
    spaced: str = "i/n"
    points: np.ndarray | None = None
    cells: np.ndarray | None = None
    codes: np.ndarray | None = None
    residuals: np.ndarray | None = None


def held(path: Path, sides: tuple[Fields, Fields, Fields], **rest: Any) -> Found:
    """Return inputs, targets and trajectories of `arrays.sides` as found; inputs beside frames begin them."""
    fixed, targets, frames = sides
    if frames:
        return Found(path, initial=fixed, targets=targets, frames=frames, **rest)
    return Found(path, fixed=fixed, targets=targets, **rest)


def chosen(path: Path, fields: Fields, wanted: Sequence[str], option: str) -> Fields:
    """Return the fields of these names, or their components ``name[0]``, ``name_x``; all if none is named."""
    if not wanted:
        return fields
    found: Fields = {}
    for name in wanted:
        own = {key: each for key, each in fields.items() if key == name}
        own = own or {key: each for key, each in fields.items() if key.startswith((f"{name}[", f"{name}_"))}
        if not own:
            msg = (
                f"{path} has no field {name!r} for {option}{nearest(name, fields)}; all: {', '.join(fields)}"
            )
            raise OptionError(msg)
        found |= own
    return found


def samples_of(
    found: Found,
    frames: tuple[int, int] | None,
    drop_bad: bool,
    axes: Sequence[np.ndarray] | None,
) -> Samples:
    """Return the samples; errors name the file."""
    inputs, outputs = _sides(found, frames)
    if not inputs or not outputs:
        what = ", ".join(f"{name} {values.shape}" for name, values in (inputs | outputs).items())
        lack = "an input" if not inputs else "an output"
        raise broken(
            found.path, f"{what or 'no fields'}, but {lack}", "both; name them with input= and output="
        )
    _alike(found.path, inputs | outputs)
    _few_axes(found, next(iter(inputs.values())).shape[1:], axes)
    layout = replace(
        _placed(found, next(iter(inputs.values())), axes), inputs=tuple(inputs), outputs=tuple(outputs)
    )
    arrays: dict[str, Any] = {
        "inputs": _stacked(found.path, inputs),
        "outputs": _stacked(found.path, outputs),
        "residuals": found.residuals,
        "codes": found.codes,
    }
    points = None if found.points is None else _floats(found.path, "points", found.points)
    if drop_bad:
        layout, good = _good(found.path, layout, arrays["inputs"], arrays["outputs"])
        arrays = {name: None if each is None else each[good] for name, each in arrays.items()}
        points = points if points is None or points.ndim == 2 else points[good]
    return _told(found.path, lambda: Samples(**arrays, layout=layout, points=points, cells=found.cells))


def _told(path: Path, make: Callable[[], Samples]) -> Samples:
    try:
        return make()
    except NonFiniteError as error:
        msg = f"{path}: {error}; or read it with drop_bad=True (--drop-bad)"
        raise NonFiniteError(msg) from None
    except InputError as error:
        msg = f"{path}: {error}"
        raise type(error)(msg) from None


def _sides(found: Found, frames: tuple[int, int] | None) -> tuple[Fields, Fields]:
    """Return inputs and outputs, frames laid out as channels in the order of time."""
    if not found.frames:
        if frames is not None:
            msg = f"{found.path} holds no trajectories, hence no frames {frames}; leave frames out"
            raise OptionError(msg)
        return {**found.fixed, **found.initial}, dict(found.targets)
    times = min(values.shape[1] for values in found.frames.values())
    inner, outer = frames or ((0, times) if found.initial else (1, times - 1))
    inputs = {**found.fixed, **({} if inner else found.initial)}
    if inner < (0 if inputs else 1) or outer < 1 or inner + outer > times:
        msg = (
            f"{found.path} holds {times} frames; frames = ({inner}, {outer}) asks for {inner} as input and "
            f"{outer} as output; one each at least, and {times} in all at most: frames=(n_in, n_out)"
        )
        raise OptionError(msg)
    into = chosen(found.path, inputs | found.frames, found.wanted[0], "input")
    out = chosen(found.path, found.targets | found.frames, found.wanted[1], "output")
    inputs = {name: values for name, values in into.items() if name in inputs}
    inputs |= _between({name: values for name, values in into.items() if name in found.frames}, 0, inner)
    outputs = {name: values for name, values in out.items() if name in found.targets}
    moving = {name: values for name, values in out.items() if name in found.frames}
    return inputs, _between(moving, inner, inner + outer) | outputs


def _between(frames: Fields, start: int, stop: int) -> Fields:
    return {f"{name}[{k}]": values[:, k] for k in range(start, stop) for name, values in frames.items()}


def _alike(path: Path, fields: Fields) -> None:
    if len({values.shape for values in fields.values()}) > 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in list(fields.items())[:8])
        msg = (
            f"{path}: found fields {shapes}; expected the same (samples, *nodes) for all: move axes with "
            "numpy.moveaxis, or choose fields with input= and output= (--input, --output)"
        )
        raise ShapeError(msg)


def _few_axes(found: Found, nodes: tuple[int, ...], axes: Sequence[np.ndarray] | None) -> None:
    """Raise ShapeError of a grid that no network takes, or whose last axis is one channel."""
    if found.points is None and axes is None and not found.layout.axes and nodes[-1] == 1 < len(nodes):
        msg = (
            f"{found.path}: found a grid of {' x '.join(map(str, nodes))} nodes, one along the last axis; "
            "channels come second, numpy.moveaxis(a, -1, 1)"
        )
        raise ShapeError(msg)
    if found.points is None and len(nodes) > MOST_AXES:
        msg = (
            f"{found.path}: found a grid of {' x '.join(map(str, nodes))} nodes; one to three axes are what "
            "networks take: write one of them as channels, the second axis, and give the others as axis0, "
            "axis1, ... or axes="
        )
        raise ShapeError(msg)


def _placed(found: Found, one: np.ndarray, axes: Sequence[np.ndarray] | None) -> Layout:
    """Return the layout with the axes given, found, or assumed, which its origin then says."""
    if found.points is not None:
        return found.layout
    if axes is not None:
        return replace(found.layout, axes=tuple(np.asarray(axis, float) for axis in axes))
    if found.layout.axes:
        return found.layout
    even = tuple(ASSUMED[found.spaced](n) for n in one.shape[1:])
    told = {**found.layout.origin, "axes": f"assumed: nodes at {found.spaced}"}
    return replace(found.layout, axes=even, origin=told)


def _stacked(path: Path, fields: Fields) -> np.ndarray:
    kinds = [_floats(path, name, values[:0]).dtype for name, values in fields.items()]
    first = next(iter(fields.values()))
    stack = np.empty((first.shape[0], len(fields), *first.shape[1:]), np.result_type(*kinds))
    for k, values in enumerate(fields.values()):
        stack[:, k] = values
    return stack


def _floats(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Return float64 as it is, and other real numbers as float32."""
    if values.dtype.kind not in "biuf":
        raise broken(path, f"{name} of type {values.dtype}", "real numbers")
    return values.astype(np.float64 if values.dtype.str[1:] == "f8" else np.float32)


def _good(path: Path, layout: Layout, *fields: np.ndarray) -> tuple[Layout, np.ndarray]:
    fine = np.ones(len(fields[0]), bool)
    for values in fields:
        fine &= np.isfinite(values).reshape(len(values), -1).all(1)
    bad = np.flatnonzero(~fine)
    if len(bad) == len(fine):
        msg = f"{path}: all {len(bad)} samples hold NaN or infinity; nothing is left"
        raise NonFiniteError(msg)
    told = {"count": len(bad), "numbers": bad[:LISTED].tolist()}
    return replace(layout, origin={**layout.origin, "left_out": told}), np.flatnonzero(fine)
