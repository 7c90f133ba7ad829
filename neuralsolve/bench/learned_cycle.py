"""Training of the weights that `NeuralMultigrid` ships, and what they are worth against `Multigrid`.

    python -m neuralsolve.bench.learned_cycle train cycle.safetensors
    python -m neuralsolve.bench.learned_cycle measure [cycle.safetensors]

Training takes free surfaces of seeds 0..197 (2D) and 0..89 (3D), and inclusions of contrasts 1e2, 1e4 and
1e6; validation is on seeds 200 and above; the classes of `scenes.unseen` and seeds from 1000 on are for
`measure` alone.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralsolve.bench.clock import settle, timed
from neuralsolve.bench.scenes import UNSEEN, free_surface, inclusions, unseen
from neuralsolve.models.cycle_search import search_steps, tensors_of
from neuralsolve.models.cycle_training import CycleTraining, save_tensors, train_cycle
from neuralsolve.operators.coefficients import face_coefficients
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.preconditioners.neural_multigrid import NeuralMultigrid
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

Scene = Callable[[Sequence[int], int], PoissonStencil]

PLANES = ((64, 64), (48, 56), (60, 37), (40, 64), (33, 50), (64, 48))
SPACES = ((24, 24, 24), (20, 16, 22), (32, 32, 32), (17, 24, 20), (24, 32, 28), (24, 18, 16))
TRAINED = {  # options, shapes, seeds, seeds of the validation
    "2d": (CycleTraining((4, 4, 4), iterations=1200, unrolled=4), PLANES, range(198), range(200, 220)),
    "3d": (
        CycleTraining((4, 4, 4), iterations=500, unrolled=4, scenes=3),
        SPACES,
        range(90),
        range(200, 218),
    ),
}
SEARCHED = {  # steps, shapes, evaluations
    "2d-coefficients": ((3, 5, 6), ((128, 128), (90, 140)), 700),
    "3d-coefficients": ((3, 4, 5), ((32, 32, 32), (24, 36, 30)), 500),
}
CONTRASTS = (1e2, 1e4, 1e6)
SEARCH_SEED = 500
ROUNDS = 5  # timed runs of each on a scene
MASKED = ((512, 512), (64, 64, 64), (96, 96, 96))
VARIED = ((256, 256), (48, 48, 48))


def liquid(shape: Sequence[int], seed: int) -> PoissonStencil:
    """Return the operator of a free surface with balls."""
    return PoissonStencil(free_surface(tuple(shape), np.random.default_rng(seed)))


def held_out(shape: Sequence[int], seed: int) -> PoissonStencil:
    """Return a scene of a class that no training sees, the classes in turn."""
    kind = list(UNSEEN)[seed % len(UNSEEN)]
    return PoissonStencil(unseen(tuple(shape), np.random.default_rng(seed), kind))


def varied(shape: Sequence[int], seed: int, contrast: float = 1e4) -> PoissonStencil:
    """Return balls and boxes of another coefficient in a box with Dirichlet walls."""
    grid = Grid(tuple(shape), walls="dirichlet")
    return PoissonStencil(
        grid, face_coefficients(inclusions(tuple(shape), np.random.default_rng(seed), contrast), grid)
    )


def layered(shape: Sequence[int], seed: int) -> PoissonStencil:
    """Return anisotropy of up to 100:1 along the axes that changes from place to place.

    The angle of a smooth field turns the ratio of the couplings along both axes from 100:1 to 1:100; a
    stencil of 5 points has no couplings across.
    """
    rng, grid = np.random.default_rng(seed), Grid(tuple(shape), walls="dirichlet")
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    k, phase = rng.integers(1, 4, 2), rng.uniform(0, 2 * np.pi, 2)
    turn = np.sin(2 * np.pi * k[0] * x + phase[0]) * np.sin(2 * np.pi * k[1] * y + phase[1])
    pairs = [face_coefficients(10.0**power, grid) for power in (turn, -turn)]
    return PoissonStencil(grid, tuple(pair[axis] for axis, pair in enumerate(pairs)))


def train(path: Path) -> None:
    """Train all kinds, tell, and write the weights with where they come from."""
    torch.set_num_threads(1)
    tensors: dict[str, Any] = {}
    reached: dict[str, Any] = {}
    for kind, (options, shapes, seeds, validation) in TRAINED.items():
        model, reached[kind] = train_cycle(liquid, shapes, seeds, validation, options, report=_tell)
        tensors |= model.tensors(kind)
    for kind, (steps, shapes, evaluations) in SEARCHED.items():
        scenes = [varied(shapes[k % 2], 10 + k, CONTRASTS[k % 3]) for k in range(6)]
        known, reached[kind] = search_steps(scenes, steps, evaluations, SEARCH_SEED)
        tensors |= tensors_of(known, kind)
    save_tensors(path, tensors, provenance(reached))
    print(json.dumps(reached, indent=1))


def provenance(reached: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of the weights."""
    from neuralsolve import __version__

    return {
        "architecture": "V-cycle, roots and gains of levels; networks 7-8-8-1 on faces, 7-8-8-2 on cells",
        "command": "python -m neuralsolve.bench.learned_cycle train cycle.safetensors",
        "seed": {kind: options.seed for kind, (options, *_) in TRAINED.items()} | {"search": SEARCH_SEED},
        "data": {
            "2d, 3d": "free_surface, seeds 0..197 and 0..89, of 33..64 and 16..32 cells a side",
            "coefficients": "inclusions, seeds 10..15, contrasts 1e2, 1e4, 1e6",
        },
        "seconds": {kind: round(each["seconds"]) for kind, each in reached.items()},
        "version": __version__,
        "validation": {
            kind: {key: round(value, 4) for key, value in each.items() if key != "seconds"}
            for kind, each in reached.items()
        },
    }


def measure(M: NeuralMultigrid, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield rows: iterations and time, set-up included, against `Multigrid()` and a V(2,2), in turns."""
    cases: list[tuple[str, Scene, tuple[int, ...], int, float]] = []
    cases += [("validation", liquid, shape, 200, 1e-6) for shape in MASKED]
    cases += [("held out", held_out, shape, 1000, 1e-6) for shape in MASKED]
    cases += [("contrast 1e4", varied, shape, 1000, 1e-8) for shape in VARIED]
    cases += [("anisotropy 100:1", layered, (256, 256), 1000, 1e-8)]
    for name, scene, shape, first, rtol in cases:
        yield {"case": name, "shape": shape} | race(M, scene, shape, range(first, first + seeds), rtol)


def race(
    M: NeuralMultigrid,
    scene: Scene,
    shape: Sequence[int],
    seeds: Sequence[int],
    rtol: float,
) -> dict[str, Any]:
    """Return medians and worst cases over seeds of iterations and times."""
    recipes = {"learned": M, "multigrid": Multigrid(), "V(2,2)": Multigrid("V")}
    iterations: dict[str, list[int]] = {name: [] for name in recipes}
    times: dict[str, list[float]] = {name: [] for name in recipes}
    missed = 0
    for seed in seeds:
        A = scene(shape, seed)
        b = np.random.default_rng(seed + 5).standard_normal(A.shape[0])
        found: dict[str, list[float]] = {name: [] for name in recipes}
        settle()
        for k in range(ROUNDS + 1):
            for name, recipe in recipes.items():
                fresh = A if A.code is None else PoissonStencil(A.grid)

                def whole(fresh: Any = fresh, recipe: Any = recipe, b: Any = b) -> Any:
                    return prepare(fresh, CG(), M=recipe, rtol=rtol).solve(b, throw=False)

                seconds, result = timed(whole)
                if k:
                    found[name].append(seconds)
                else:
                    iterations[name].append(result.iterations)
                    missed += not result.converged
        for name in recipes:
            times[name].append(statistics.median(found[name]))
    ours = iterations["learned"]
    row: dict[str, Any] = {"iterations": statistics.median(ours), "most": max(ours), "missed": missed}
    for name in ("multigrid", "V(2,2)"):
        ratio = [a / b for a, b in zip(ours, iterations[name], strict=True)]
        gain = [b / a for a, b in zip(times["learned"], times[name], strict=True)]
        row[name] = {
            "iterations": statistics.median(iterations[name]),
            "ratio": [round(statistics.median(ratio), 3), round(max(ratio), 3)],
            "gain": [round(statistics.median(gain), 3), round(min(gain), 3)],
        }
    return row


def _tell(iteration: int, loss: float, validation: float) -> None:
    print(f"{iteration:5d}  loss {loss:.4f}  validation {validation:.4f}", flush=True)


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["help"]
    if what == "train" and rest:
        train(Path(rest[0]))
    elif what == "measure":
        weights = Path(rest[0]) if rest else "cycle"
        for each in measure(NeuralMultigrid(weights), int(rest[1]) if len(rest) > 1 else 10):
            print(json.dumps(each), flush=True)
    else:
        print("python -m neuralsolve.bench.learned_cycle train FILE | measure [FILE|NAME [GEOMETRIES]]")
