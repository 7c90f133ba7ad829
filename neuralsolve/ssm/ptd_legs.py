"""The diagonalised neighbour of HiPPO-LegS: shipped for n = 8, 16, 32, 64, 128, computed for other n.

A shipped file `weights/ptd_legs_<n>.safetensors` holds, in float64 and complex128, one eigenvalue and one
eigenvector of each conjugate pair and those that are real; E = V diag(l) V^-1 - A and V^-1 B follow to
rounding, so nothing hangs on the eigensolver of the machine. Its metadata say how it was made and what it
measures; `python -m neuralsolve.ssm.ship 64` makes it again.

How small the error can be at a given condition number was sought with many starts and sizes: error times
condition number comes out near 0.28, 0.32, 0.39 for n = 16, 32, 64, and a size beyond 1.6/n gains little.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.ssm import hippo
from neuralsolve.ssm.arrays import Array
from neuralsolve.ssm.certificate import certify
from neuralsolve.ssm.diagonalised import Diagonalised, in_order
from neuralsolve.ssm.ptd import ptd

WEIGHTS = Path(__file__).parents[1] / "weights"


def shipped(n: int) -> Path:
    """Return where the file for n would be."""
    return WEIGHTS / f"ptd_legs_{n}.safetensors"


@lru_cache(maxsize=16)
def ptd_legs(n: int) -> Diagonalised:
    """Return A_H + E = V diag(l) V^-1 for HiPPO-LegS, B = V^-1 B_H: from the shipped file, or `ptd_init(n)`.

    Parameters
    ----------
    n : state size; 8, 16, 32, 64 and 128 take milliseconds, others seconds, and from 100 on minutes

    Raises
    ------
    OptionError
        n that is no integer of at least 1.

    Examples
    --------
    >>> near = ptd_legs(32)
    >>> near.condition <= 9, near.transfer_error <= 0.08, near.abscissa <= -0.4
    (True, True, True)
    """
    path = shipped(hippo.checked_size(n))
    if not path.is_file():
        return ptd_init(n)
    eigenvalues, V, metadata = read(path)
    A, B = hippo.legs(n)
    E = ((V * eigenvalues) @ np.linalg.inv(V)).real - A
    known = json.loads(metadata["results"])  # 20 000 frequencies take a second at n = 128
    size = float(np.linalg.norm(E, 2))
    return Diagonalised(
        *(eigenvalues, V, E, np.linalg.solve(V, B.astype(complex))),
        condition=float(np.linalg.cond(V)),
        size=size,
        relative_size=size / float(np.linalg.norm(A, 2)),
        **certify(A, B[:, None], size)._asdict(),
        transfer_error=known["transfer_error"],
        error_frequency=known["error_frequency"],
        line=0.0,
    )


def ptd_init(
    n: int,
    *,
    size: float | None = None,
    bound_condition: float | None = None,
    seed: int = 1905,
    steps: int = 1500,
    told: Callable[[int, Array], Any] | None = None,
) -> Diagonalised:
    """Compute a diagonalised neighbour of HiPPO-LegS by `ptd`, error-aware.

    Parameters
    ----------
    n : state size
    size : ||E||/||A||, at most; default min(0.2, 1.6/n)
    bound_condition : goal of kappa_2(V); default max(4, 2 log2(n) - 2): 6, 8, 10, 12 for n = 16, ..., 128
    seed, steps, told : as in `ptd`

    Examples
    --------
    >>> near = ptd_init(6, steps=300)
    >>> near.condition < 5, near.transfer_error < 0.1
    (True, True)
    """
    A, B = hippo.legs(n)
    size = min(0.2, 1.6 / n) if size is None else size
    bound = max(4.0, 2 * math.log2(n) - 2) if bound_condition is None else bound_condition
    return ptd(A, B, size=size, bound_condition=bound, seed=seed, steps=steps, told=told)


def read(path: Path) -> tuple[Array, Array, dict[str, str]]:
    """Return all eigenvalues (n,) and eigenvectors (n, n) of a shipped file, sorted, and its metadata."""
    from safetensors import safe_open

    with safe_open(str(path), "np") as file:
        half, V = file.get_tensor("eigenvalues"), file.get_tensor("V")
        metadata = dict(file.metadata() or {})
    half, V = half[0] + 1j * half[1], V[0] + 1j * V[1]
    paired = np.imag(half) > 0
    eigenvalues = np.concatenate([half, half[paired].conj()])
    V = np.concatenate([V, V[:, paired].conj()], 1)
    return *in_order(eigenvalues, V), metadata


def write(path: Path, near: Diagonalised, metadata: dict[str, str]) -> None:
    """Write one eigenvalue and eigenvector of each pair and the real ones, real and imaginary parts apart."""
    from safetensors.numpy import save_file

    places, _ = near.pairs()
    half, V = np.asarray(near.eigenvalues)[places], np.asarray(near.V)[:, places]
    tensors = {"eigenvalues": _parts(half), "V": _parts(V)}
    unfinished = path.with_suffix(".part")  # an older file stays until the new one is whole
    save_file(tensors, str(unfinished), metadata)
    unfinished.chmod(0o644)
    unfinished.replace(path)


def _parts(x: Array) -> Array:
    return np.ascontiguousarray(np.stack([np.real(x), np.imag(x)]))  # safetensors writes memory as it lies
