"""The filter that goes on where the merit function fails: what it takes, what restores, where it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import neuralsolve as ns
from neuralsolve.optimize import newton
from neuralsolve.optimize.filter import MARGIN, RESTORED, Filter, violated
from neuralsolve.optimize.problem import EqualityProblem, Evaluations
from neuralsolve.optimize.result import MinimizeStatus


def circle(x: torch.Tensor) -> torch.Tensor:
    return (x @ x - 1)[None]


def frame(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns (4, 2): three conditions, and one of them twice."""
    X = x.reshape(4, 2)
    return (X.T @ X - torch.eye(2, dtype=x.dtype)).reshape(-1)


def parabola(x: torch.Tensor) -> torch.Tensor:
    return 10 * (x[1:] - x[:1] ** 2)


DRAWN = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(41))
PROBLEMS = {
    "circle": (lambda x: x[0] + 2 * x[1], circle, [0.3, 2.0]),
    "parabola": (lambda x: (1 - x[0]) ** 2, parabola, [-1.2, 1.0]),
    "frame": (lambda x: x @ DRAWN @ x + DRAWN[0] @ x, frame, np.linspace(-1, 1, 8) ** 3 + 0.2),
}


def evaluations(x0, constraint, jacobian) -> Evaluations:
    problem = EqualityProblem(
        np.array(x0),
        lambda x: float(x @ x),
        lambda x: 2 * x,
        lambda x: 2 * np.eye(len(x)),
        constraint,
        jacobian,
    )
    return Evaluations(problem, 1000)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_filter_alone_finds_what_the_merit_function_finds(name, monkeypatch):
    f, c, x0 = PROBLEMS[name]
    problem = {"constraints": {"type": "eq", "fun": c}}
    start = torch.as_tensor(np.array(x0))
    by_merit = ns.minimize(f, start, **problem)
    monkeypatch.setattr(newton, "RETRIES", 0)  # no step descends on M
    by_filter = ns.minimize(f, start, **problem)
    assert by_filter.status is MinimizeStatus.CONVERGED
    assert by_filter.kkt_residual <= 1e-8
    assert float(c(by_filter.x).norm()) <= 1e-8
    assert float(by_filter.fun) == pytest.approx(float(by_merit.fun), rel=1e-6, abs=1e-9)


def test_nothing_is_taken_that_an_entry_is_better_than_in_both():
    rng = np.random.default_rng(17)
    ask = evaluations([2.0, 1.0], lambda x: x[:1], lambda x: np.eye(2)[:1])
    found = Filter(ask, ask.start())
    found.entries = [(float(v), float(f)) for v, f in rng.uniform(0, 2, (20, 2))]
    for violation, f in rng.uniform(0, 3, (300, 2)):
        dominated = any(violation > (1 - MARGIN) * v and f > g - MARGIN * v for v, g in found.entries)
        assert found.accepts(violation, f) is not dominated


def test_restoration_makes_the_violation_smaller_and_the_filter_takes_it():
    ask = evaluations([3.0, -2.0], lambda x: np.array([x @ x - 1]), lambda x: 2 * x[None])
    point = ask.start()
    found = Filter(ask, point)
    moved = found.restored(point)
    assert moved is not None
    assert violated(moved.point.c) <= RESTORED * violated(point.c)
    assert found.accepts(violated(moved.point.c), moved.point.f)


def test_constraints_that_cannot_be_met_are_not_restored():
    ask = evaluations([0.5, 1.0], lambda x: np.array([x[0] ** 2 + 1]), lambda x: np.array([[2 * x[0], 0.0]]))
    point = ask.start()
    found = Filter(ask, point)
    found.entries.append((1.05, -1.0))  # the least violation is 1
    found.restored(point)
    assert found.restored(ask.point(np.array([0.0, 1.0]))) is None


def test_an_end_without_convergence_is_the_better_of_the_two(monkeypatch):
    cusp = {"type": "eq", "fun": lambda x: (x[0] ** 3 - x[1] ** 2)[None]}  # no gradient at the solution
    start = torch.tensor([2.0, 1.0], dtype=torch.float64)

    def ended() -> ns.MinimizeResult:
        return ns.minimize(lambda x: x[0], start, constraints=cusp, tol=1e-12, maxiter=60)

    both = ended()
    monkeypatch.setattr(newton.Newton, "_has_filter", False)
    assert both.kkt_residual <= ended().kkt_residual
