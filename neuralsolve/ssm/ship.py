"""Make the matrices that ship: `python -m neuralsolve.ssm.ship N ...`, the same ones on the same machine.

n = 8 takes seconds, 128 some minutes. The file is written only if the result meets the bars of `BARS`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neuralsolve.ssm import hippo
from neuralsolve.ssm.arrays import Array
from neuralsolve.ssm.diagonalised import Diagonalised
from neuralsolve.ssm.ptd_legs import ptd_init, shipped, write
from neuralsolve.ssm.resonances import worst_gain


class Recipe(NamedTuple):
    """How a matrix is made: arguments of `ptd_init`."""

    size: float
    bound_condition: float
    seed: int
    steps: int


RECIPES = {
    8: Recipe(0.2, 3.98, 103, 2400),
    16: Recipe(0.1, 5.98, 103, 2400),
    32: Recipe(0.05, 8.47, 200, 3000),
    64: Recipe(0.03, 9.95, 11, 4000),
    128: Recipe(0.02, 11.95, 31, 12000),
}
BARS = {8: (8.0, 0.1), 16: (8.0, 0.06), 32: (9.0, 0.08), 64: (10.0, 0.25), 128: (12.0, 0.4)}  # kappa, error


def measured(near: Diagonalised) -> dict[str, float]:
    """Return what the metadata and the tests tell of a result."""
    n = len(near.eigenvalues)
    eigenvalues, V, b = near.eigenvalues, near.V, near.B
    M = hippo.legs(n)[0] + near.E
    backward = np.linalg.norm(((V * eigenvalues) @ np.linalg.inv(V)) - M, 2) / np.linalg.norm(M, 2)
    return {
        "condition": near.condition,
        "transfer_error": near.transfer_error,
        "error_frequency": near.error_frequency,
        "relative_size": near.relative_size,
        "abscissa": near.abscissa,
        "real_eigenvalues": int((eigenvalues.imag == 0).sum()),
        "worst_gain": worst_gain(eigenvalues, b, V, length=n)[1],
        "backward_error": float(backward),
    }


def ship(n: int, folder: Path) -> dict[str, float]:
    """Compute, measure and write the file of n; return the measures.

    Raises
    ------
    RuntimeError
        A bar that is not met.
    """
    recipe, began = RECIPES[n], time.perf_counter()

    def told(steps: int, E: Array) -> None:
        if sys.stderr.isatty():
            print(f"\r{n}: {steps} of {recipe.steps} steps", end="", file=sys.stderr)

    near = ptd_init(n, **recipe._asdict(), told=told)
    found = measured(near)
    condition, error = BARS[n]
    if near.condition > condition or near.transfer_error > error or near.abscissa > -0.4:
        msg = f"n={n}: {found} does not meet kappa <= {condition}, error <= {error}, Re <= -0.4"
        raise RuntimeError(msg)
    metadata = {
        "architecture": json.dumps({"system": "hippo-legs", "n": n, "method": "ptd, error-aware"}),
        "command": f"python -m neuralsolve.ssm.ship {n}",
        "recipe": json.dumps(recipe._asdict()),
        "seed": str(recipe.seed),
        "data": "none",
        "steps": str(recipe.steps),
        "wall_seconds": f"{time.perf_counter() - began:.0f}",
        "threads": "1",
        "date": datetime.date.today().isoformat(),
        "package": f"neuralsolve {importlib.metadata.version('neuralsolve')}",
        "numpy": np.__version__,
        "results": json.dumps(found),
    }
    write(folder / shipped(n).name, near, metadata)
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the shipped diagonalised neighbours of HiPPO-LegS.")
    parser.add_argument("n", type=int, nargs="+", choices=sorted(RECIPES))
    parser.add_argument("--out-dir", type=Path, default=shipped(8).parent)
    options = parser.parse_args()
    for n in options.n:
        print(n, json.dumps(ship(n, options.out_dir)))


if __name__ == "__main__":
    main()
