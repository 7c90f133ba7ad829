"""``.npy`` files, several to a data set, as Geo-FNO keeps them; or one of inputs and one of outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuralsolve.data.readers.arrays import shapes, sides
from neuralsolve.data.readers.found import Found, chosen, held
from neuralsolve.errors import ShapeError
from neuralsolve.io.files import broken, existing_file
from neuralsolve.io.vectors import read_array

SUFFIXES = (".npy",)
ROLES = ("XY", "sigma", "rr", "X", "Y", "Q")
ROLE = re.compile(rf"(?P<stem>.*?)_?(?P<role>{'|'.join(ROLES)})(?P<number>_\d+)?$")
EXPECTED = (
    "the files ..._X, ..._Y, ..._Q of one structured mesh, ..._XY and ..._sigma (and ..._rr) of point "
    "clouds, or two files, inputs first"
)


def read_npy(paths: Sequence[Path], wanted: tuple[Sequence[str], Sequence[str]], dim: int | None) -> Found:
    """Return what several ``.npy`` files hold together; of one, its family beside it is taken too."""
    paths = [existing_file(path, SUFFIXES) for path in paths]
    roles = _roles(paths)
    if {"XY", "sigma"} <= roles.keys():
        return _cloud(roles)
    if {"X", "Y", "Q"} <= roles.keys():
        return _structured(roles, wanted)
    if len(paths) != 2:
        raise broken(paths[0], f"{len(paths)} files of the kinds {', '.join(roles) or 'unknown'}", EXPECTED)
    one, other = ({path.stem: read_array(path)} for path in paths)
    if one.keys() == other.keys():
        one, other = {"inputs": one.popitem()[1]}, {"outputs": other.popitem()[1]}
    return held(paths[0], sides(paths[0], one, other, dim))


def _roles(paths: Sequence[Path]) -> dict[str, Path]:
    found = {}
    for path in paths:
        match = ROLE.fullmatch(path.stem)
        if match:
            found[match["role"]] = path
    if len(paths) == 1 and found:
        match = ROLE.fullmatch(paths[0].stem)
        stem, number = (match["stem"], match["number"] or "") if match else ("", "")
        for role in ROLES:
            beside = paths[0].with_name(f"{stem}_{role}{number}{paths[0].suffix}")
            if beside.is_file():
                found[role] = existing_file(beside, SUFFIXES)
    return found


def _cloud(roles: dict[str, Path]) -> Found:
    """Return XY (points, 2, n), sigma (points, n) and codes rr (k, n) as samples."""
    xy, sigma = read_array(roles["XY"]), read_array(roles["sigma"])
    codes = read_array(roles["rr"]) if "rr" in roles else None
    fits = xy.ndim == 3 and sigma.shape == (xy.shape[0], xy.shape[2])
    if not fits or (codes is not None and (codes.ndim != 2 or codes.shape[1] != xy.shape[2])):
        given = {"XY": xy, "sigma": sigma} | ({} if codes is None else {"rr": codes})
        msg = (
            f"{roles['XY']}: found {shapes(given)}; expected XY (points, 2, n), sigma (points, n), rr (k, n)"
        )
        raise ShapeError(msg)
    points = np.ascontiguousarray(xy.transpose(2, 0, 1))
    names = ("x", "y", "z")[: points.shape[2]]
    return Found(
        roles["XY"],
        fixed={name: points[:, :, k] for k, name in enumerate(names)},
        targets={"sigma": sigma.T},
        points=points,
        codes=None if codes is None else np.ascontiguousarray(codes.T),
    )


def _structured(roles: dict[str, Path], wanted: tuple[Sequence[str], Sequence[str]]) -> Found:
    """Return X, Y (n, i, j) and Q (n, i, j) or (n, channels, i, j), on the logical grid of the mesh."""
    x, y, q = (read_array(roles[role]) for role in ("X", "Y", "Q"))
    if x.ndim < 2 or x.shape != y.shape or q.shape not in (x.shape, (*q.shape[:2], *x.shape[1:])):
        msg = (
            f"{roles['Q']}: found {shapes({'X': x, 'Y': y, 'Q': q})}; expected X and Y (n, i, j), and Q "
            "(n, i, j) or (n, channels, i, j)"
        )
        raise ShapeError(msg)
    q = q[:, None] if q.ndim == x.ndim else q
    if len(q) != len(x):  # the files of the pipe hold more samples of one than of the other
        count = min(len(q), len(x))
        x, y, q = x[:count], y[:count], q[:count]
    targets = {f"q{k}": q[:, k] for k in range(q.shape[1])}
    names = [name if not name.isdigit() else f"q{name}" for name in wanted[1]]
    return Found(
        roles["Q"],
        fixed=chosen(roles["X"], {"x": x, "y": y}, wanted[0], "input"),
        targets=chosen(roles["Q"], targets, names, "output"),
        spaced="i/(n - 1)",
    )
