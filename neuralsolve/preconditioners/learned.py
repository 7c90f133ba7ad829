"""What a learned cycle knows, and how it changes the levels of a grid once per geometry.

A file of weights holds tables for grids of two and of three dimensions: the steps of smoothing of every level
as roots of a polynomial, gains, and two small networks that see the couplings of a coarse level around a cell
(`kernels.reference.learned`) and put factors on couplings, on couplings to fixed values and on the smoother's
1/diagonal. All factors are positive, so every level stays a weakly dominant matrix of 5 or 7 points and a
face has one coupling, seen from both sides.

**Certificate.** A V-cycle with equal polynomials on both sides is symmetric positive definite, whatever its
coarse levels and P are, where the error polynomial q(t) = prod (1 - w_k t) has |q| < 1 on the spectrum of
D'^-1 A without zero. `reach` is the largest t up to which q contracts, found when the weights are read; the
factors on 1/diagonal are clipped so that row sums of |D'^-1 A| are at most that. Where q does not contract on
(0, 2], or any number is not finite, the levels stay as they are and the classical cycle is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import FormatError
from neuralsolve.kernels import table
from neuralsolve.kernels.reference.learned import INPUTS
from neuralsolve.preconditioners.filling import wrap_all
from neuralsolve.preconditioners.levels import Hierarchy, Level
from neuralsolve.preconditioners.weights import read_tensors, weights_file

LARGEST = 2.0  # eigenvalue of D^-1 A, of any A that is weakly dominant
FARTHEST = 4.0  # where a reach is looked for
CONTRACTS = 0.98  # what |q| is at most up to there, where it is not near one for small t
SAMPLES = 4001
UNEVEN = 4.0  # strongest over weakest coupling of a cell: coefficients are anisotropic where half exceed it
ASKED, GOLDEN = 1024, 0.6180339887498949  # cells, and the part of all between one and the next
MOST_STEPS, LARGEST_ROOT = 12, 100.0


@dataclass(frozen=True)
class Knowledge:
    """Tables of one kind of grid; the last entry of each serves all levels below too.

    Attributes
    ----------
    roots : weights of the steps of smoothing of a level, the same before and after the correction
    reach : up to where they contract
    gains : on the restricted residual
    faces, cells : networks (levels, 10 + h, h) and (levels, 11 + h, h), from the second level on; no levels
        where steps and gains alone were learned
    """

    roots: tuple[tuple[float, ...], ...]
    reach: tuple[float, ...]
    gains: tuple[float, ...]
    faces: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Adapted:
    """What was done to the levels: the knowledge used, or why none was; the kind of grid; factors clipped."""

    knowledge: Knowledge | None
    reason: str = ""
    kind: str = ""
    clipped: int = 0


def reach_of(roots: tuple[float, ...]) -> float:
    """Return the largest t up to which prod (1 - w_k t) contracts; 0 where it does not from the start.

    Below 1/max(w) all factors lie in (0, 1). Beyond that |q| is bounded on small intervals by the product of
    the larger ones of |1 - w_k t| at both ends: the factors are linear.
    """
    if not (0 < len(roots) <= MOST_STEPS and all(math.isfinite(w) and 0 < w < LARGEST_ROOT for w in roots)):
        return 0.0
    t = np.linspace(1 / max(roots), FARTHEST, SAMPLES)
    parts = np.abs(1 - np.outer(t, roots))
    bound = np.prod(np.maximum(parts[:-1], parts[1:]), 1)
    bad = bound > CONTRACTS
    return float(t[np.argmax(bad)]) if bad.any() else FARTHEST


def read_knowledge(name: str | Path) -> dict[str, Knowledge | str]:
    """Return the tables of a file of weights, by kind of grid; for unusable ones the reason.

    Raises
    ------
    OptionError
        There are no such weights, or they are those of another network.
    FileNotFoundError
        The path leads nowhere.
    FormatError
        It is no safetensors file.
    """
    path = weights_file(name, "NeuralMultigrid")
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> dict[str, Knowledge | str]:
    tensors, _ = read_tensors(path)
    kinds = sorted({key.split(".")[0] for key in tensors if ".roots." in key})
    if not kinds:
        msg = f"{path} has no table of a learned cycle; weights of `neuralsolve train train_cycle` are needed"
        raise FormatError(msg)
    return {kind: knowledge_from(tensors, kind) for kind in kinds}


def knowledge_from(tensors: Mapping[str, Tensor], kind: str) -> Knowledge | str:
    """Return the tables of one kind of grid from named tensors, or why they cannot be used."""
    depths = sum(key.startswith(f"{kind}.roots.") for key in tensors)
    try:
        roots = tuple(tuple(tensors[f"{kind}.roots.{k}"].double().tolist()) for k in range(depths))
        gains, faces, cells = (tensors[f"{kind}.{name}"] for name in ("gains", "faces", "cells"))
    except KeyError as error:
        return f"weights without {error.args[0]}"
    h = faces.shape[-1]
    shapes = (len(gains), *faces.shape[1:], *cells.shape[1:])
    if not depths or shapes != (depths, INPUTS + 3 + h, h, INPUTS + 4 + h, h) or len(faces) != len(cells):
        return f"weights of odd shapes {shapes}"
    if not all(bool(each.isfinite().all()) for each in (gains, faces, cells)) or not bool((gains > 0).all()):
        return "weights that are not finite"
    reach = tuple(reach_of(each) for each in roots)
    if min(reach) < LARGEST:
        return "smoothing that does not contract"
    return Knowledge(
        roots, reach, tuple(gains.tolist()), faces.float().contiguous(), cells.float().contiguous()
    )


def _kind(finest: Level, tables: Mapping[str, object]) -> str:
    """Return the name of the tables for a grid: "2d" or "3d", with coefficients, or anisotropic ones."""
    shape, faces = finest.plan.shape, finest.faces
    name = "3d" if sum(n > 1 for n in shape) == 3 else "2d"
    if not faces.numel():
        return name
    # a thousand cells, spread by the golden ratio, tell what there is; the layer around has no couplings
    some = faces.numpy()[:3, (np.arange(ASKED) * GOLDEN % 1 * faces.shape[1]).astype(int)]
    some = some[[n > 1 for n in shape]]
    strongest, weakest = some.max(0), some.min(0)
    coupled = weakest > 0
    uneven = np.count_nonzero(coupled & (strongest > UNEVEN * weakest)) > 0.5 * np.count_nonzero(coupled)
    anisotropic = f"{name}-anisotropic"
    return anisotropic if uneven and anisotropic in tables else f"{name}-coefficients"


def adapt(h: Hierarchy, tables: Mapping[str, Knowledge | str]) -> Adapted:
    """Put the learned factors on all levels below the finest, or leave them as they are."""
    plans = [level.plan for level in h.levels]
    kind = _kind(h.levels[0], tables)
    known = tables.get(kind, f"no weights for {kind}")
    if isinstance(known, str):
        return Adapted(None, known)
    if any(len({f for f, n in zip(p.factors, p.shape, strict=True) if n > 1}) > 1 for p in plans):
        return Adapted(None, "stretched cells, or couplings that differ along the axes on the whole")
    if not len(known.faces):
        return Adapted(known, kind=kind)
    K, volume, before, clipped = table(), h.levels[0].inverse, [], 0
    for k in range(1, len(plans)):
        above, level, plan = plans[k - 1], h.levels[k], plans[k]
        means = torch.from_numpy(np.zeros(plan.size, np.float32))
        K.level_volume(volume, k == 1, above.shape, above.factors, plan.shape, means)
        volume = means
        wrap_all([volume, level.faces[3]], plan, h.periodic)
        given, factor = (
            torch.from_numpy(level.faces.numpy().copy()),
            torch.from_numpy(np.zeros(plan.size, np.float32)),
        )
        before.append((given, torch.from_numpy(level.inverse.numpy().copy())))
        at = min(k - 1, len(known.faces) - 1)
        nets = known.faces[at], known.cells[at]
        K.level_adapt(given, volume, plan.nominal, plan.shape, *nets, level.faces, factor)
        wrap_all(level.faces[:3], plan, h.periodic)
        reach = known.reach[min(k, len(known.reach) - 1)]
        count = K.level_inverse(level.faces, factor, reach, plan.shape, level.inverse)
        if count < 0:
            for touched, (faces, inverse) in zip(h.levels[1:], before, strict=False):
                touched.faces.copy_(faces)
                touched.inverse.copy_(inverse)
            return Adapted(None, "factors that are not finite")
        clipped += count
    h.filled.whole = (
        len(plans) == 1
    )  # an update fills all levels anew: these numbers are no longer those of A
    return Adapted(known, kind=kind, clipped=clipped)
