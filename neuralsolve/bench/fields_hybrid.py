"""A network and the exact solver: prediction as first guess, from its own grid to that of the equation.

The network sees every tenth vertex of 421^2; splines carry its prediction to all of them, CG with multigrid goes on
from there. Beside it the same solver from zero, and what the true values at every tenth vertex would be worth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import torch

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.contest import FOLDER
from neuralsolve.models.resampling import Resampling
from neuralsolve.models.surrogate import Surrogate
from neuralsolve.pde.darcy import Darcy
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

SEED, SAMPLES = 9002, 20
RTOL = 1e-8


def hybrid(settings: Settings) -> Iterator[BarRow]:
    """Count iterations and time from a prediction and from zero."""
    models = sorted(FOLDER.glob("headline/lsm_*/best.safetensors"))
    if not models:
        msg = "the group headline trains the network that this one takes; run it first"
        raise FileNotFoundError(msg)
    model = Surrogate.load(models[0])
    equation = Darcy(grid=421)
    numbers = range(2 if settings.quick else SAMPLES)
    found = [_one(model, equation, k) for k in numbers]
    more: dict[str, Any] = {"seeds": str(SEED), "note": f"samples {listed(numbers)}"}
    problem = "Darcy 12:3, 421^2"

    def values(name: str) -> list[float]:
        return [each[name] for each in found]

    ratio = [each["iterations"] / each["cold_iterations"] for each in found]
    yield row(
        "hybrid", problem, "iterations to 1e-8 from a prediction / from zero", "x", Bars(0.75), ratio, **more
    )
    ratio = [each["true_iterations"] / each["cold_iterations"] for each in found]
    yield row("hybrid", problem, "the same, from true values at every tenth vertex", "x", None, ratio, **more)
    for name in ("error", "after_1", "after_2"):
        quantity = {
            "error": "relative L2 of the prediction",
            "after_1": "after an iteration",
            "after_2": "after two",
        }
        bars = Bars(1e-3) if name == "after_2" else None
        yield row("hybrid", problem, f"{quantity[name]}", "", bars, values(name), **more)
    for name in ("cold_1", "cold_2"):
        quantity = {"cold_1": "from zero, after an iteration", "cold_2": "from zero, after two"}
        yield row("hybrid", problem, f"relative L2 {quantity[name]}", "", None, values(name), **more)
    share = [each["seconds"] / each["cold_seconds"] for each in found]
    base = {"baseline": "a solve from zero to 1e-8", "baseline_s": median(values("cold_seconds"))}
    quantity = "time of the network, splines and two iterations / of a solve"
    yield row("hybrid", problem, quantity, "x", Bars(0.20), share, **base, **more)


def _one(model: Surrogate, equation: Darcy, number: int) -> dict[str, float]:
    a = equation.permeability(number, SEED)
    A, b = equation.operator(a), equation.right_side(a)
    prepared = prepare(A, CG(), M=Multigrid(), rtol=RTOL)
    exact = equation.solve(a)[0]
    coarse, fine = model.layout.axes, (np.linspace(0, 1, equation.grid),) * 2
    finer = Resampling(coarse, fine, ("dirichlet", "dirichlet"))
    every = (equation.grid - 1) // (len(coarse[0]) - 1)

    def lifted(values: np.ndarray) -> np.ndarray:
        return finer(torch.from_numpy(values.astype(float))).numpy()[1:-1, 1:-1].ravel()

    def predicted() -> np.ndarray:
        return lifted(model.predict(a[None, None, ::every, ::every])[0, 0])

    x0, kept = predicted(), np.ascontiguousarray(exact[::every, ::every])
    cold, warm, true = (prepared.solve(b, x0=start) for start in (None, x0, lifted(kept)))
    truth = exact[1:-1, 1:-1].ravel()

    def error(x: np.ndarray) -> float:
        return float(np.linalg.norm(x - truth) / np.linalg.norm(truth))

    def after(steps: int, start: np.ndarray | None) -> np.ndarray:
        return prepared.solve(b, x0=start, maxiter=steps, throw=False).x

    return {
        "iterations": warm.iterations,
        "cold_iterations": cold.iterations,
        "true_iterations": true.iterations,
        "error": error(x0),
        "after_1": error(after(1, x0)),
        "after_2": error(after(2, x0)),
        "cold_1": error(after(1, None)),
        "cold_2": error(after(2, None)),
        "seconds": _seconds(lambda: after(2, predicted())),
        "cold_seconds": _seconds(lambda: prepared.solve(b)),
    }


def _seconds(call: Callable[[], Any], rounds: int = 5) -> float:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return median(found)
