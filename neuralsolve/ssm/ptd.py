"""Perturb, then diagonalise: a small E such that A + E has well-conditioned eigenvectors.

A matrix far from normal cannot be diagonalised in floating point, and leaving its non-normal part out
changes what it does: the transfer function of a diagonal state-space system made that way has resonances
that the system never had. PTD diagonalises a neighbour instead, A + E = V diag(l) V^-1. Three choices of E:

    "error-aware"   minimises log kappa_2(V) + mu log max_t ||(it-A)^-1 B - (it-A-E)^-1 B|| for a given size
    "condition"     minimises kappa_2(V)^2 + weight ||E||_F as published; its size comes out
    "random"        the best of several Gaussian matrices of a given size

The computed factors are exact for A + E + F with ||F|| of about n eps kappa_2(V) ||A||. What is proved of the
result (`Diagonalised.stable`, `.error_bound`) comes from `certificate`, what is measured from a frequency
grid of 20 000 points with all eigenvalues in it, refined about the maximum.

Source: Yu, Nigmetov, Morozov, Mahoney, Erichson, Robustifying state-space models for long sequences via
approximate diagonalization, ICLR 2024 (arXiv 2310.01698). Its objective is "condition"; "error-aware" and
the certificate are not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neuralsolve.errors import OptionError, ShapeError, SolveError, nearest
from neuralsolve.ssm.arrays import Array, finite, like, square
from neuralsolve.ssm.certificate import certify
from neuralsolve.ssm.diagonalised import Diagonalised, Reference, eigenpairs, normal_eigenpairs
from neuralsolve.ssm.ensemble import best_of_ensemble
from neuralsolve.ssm.ptd_error_aware import error_aware
from neuralsolve.ssm.ptd_faithful import faithful

OBJECTIVES = ("error-aware", "condition", "random")
SIZE = 0.05  # relative, where neither a size nor a bound is given
STEPS = {"error-aware": 1200, "condition": 3000, "random": 1}
LARGEST, SMALLEST, HALVINGS = 4.0, 1e-10, 4
AIM = 0.98  # of the bound, where a size is sought: a penalty is never quite met
TRUSTED = 1e12  # a computed condition number above this tells nothing of the true one


def ptd(
    A: Any,
    B: Any = None,
    *,
    size: float | None = None,
    objective: str = "error-aware",
    bound_condition: float | None = None,
    seed: int = 1905,
    steps: int | None = None,
    error_weight: float = 1.0,
    size_weight: float = 3e-3,
    draws: int = 16,
    told: Callable[[int, Array], Any] | None = None,
) -> Diagonalised:
    """Return A + E = V diag(l) V^-1 with well-conditioned V and small E.

    A normal A comes back with E = 0. All is computed, and returned, in double precision; for a torch A in
    tensors on its device. The same seed gives the same E on the same machine and number of threads.

    Parameters
    ----------
    A : (n, n), real or complex; for a real A, E is real and eigenvalues come in pairs ("condition": E is
        complex, as published)
    B : (n,) or (n, p), the inputs through which the error counts; None is the identity
    size : ||E||_2 / ||A||_2, at most ("random": exactly); default 0.05. Not of "condition"
    objective : "error-aware", "condition" or "random"
    bound_condition : k >= 1. With a size: the error is minimised under kappa_2(V) <= k, to a per cent and as
        far as the size allows it (`condition` tells). Without: the smallest size that reaches it is sought,
        by factors of 4 and then five halvings of its logarithm, at `steps` steps a trial. Not of "condition"
    seed : of the start, or of the draws
    steps : of the optimisation; default 1200, "condition" 3000
    error_weight : mu, of the error against the logarithm of the condition number; 0 leaves the error out
    size_weight : of ||E||_F in "condition"
    draws : of "random"
    told : called with the steps done and E, every 150 steps ("error-aware")

    Raises
    ------
    ShapeError, NonFiniteError
        An A that is not square, a B of another length, NaN or infinity.
    OptionError
        An unknown objective, a size, bound or number that is out of range, options that exclude each other.
    SolveError
        No size up to 4 reached `bound_condition`; it carries the last result.

    Examples
    --------
    >>> jordan = np.diag(np.ones(5), 1) - np.eye(6)  # no eigenbasis at all
    >>> near = ptd(jordan, np.ones(6), size=0.1, steps=150)
    >>> near.condition < 60, near.relative_size <= 0.1, near.abscissa < 0
    (True, True, True)
    """
    given = A
    A, B = square(A), None if B is None else finite(B, "B")
    if B is not None and (B.ndim not in (1, 2) or len(B) != len(A)):
        msg = f"got B of shape {B.shape} for A of {A.shape}; ({len(A)},) or ({len(A)}, p) is needed"
        raise ShapeError(msg)
    _check(objective, size, bound_condition, steps, draws, error_weight, size_weight)
    steps = STEPS[objective] if steps is None else steps
    reference = Reference(A, B)
    if _normal(A):
        return _described(reference, np.zeros_like(A), B, given, normal_eigenpairs(A))
    generator = np.random.default_rng(seed)
    if objective == "condition":
        return _described(reference, faithful(A, size_weight, steps, generator), B, given)

    def perturbation(relative: float, start: Array | None) -> Array:
        if objective == "random":
            return best_of_ensemble(A, relative * reference.norm, draws, generator)
        goal = bound_condition if size is not None or bound_condition is None else AIM * bound_condition
        args = (reference, relative * reference.norm, steps, generator, error_weight, goal)
        return error_aware(*args, start, told)

    if size is None and bound_condition is not None:
        E, reached = _smallest(A, bound_condition, perturbation)
        result = _described(reference, E, B, given)
        if not reached:
            msg = (
                f"no size up to {LARGEST:g} gave kappa_2(V) <= {bound_condition:g}, "
                f"the last {result.condition:.4g}; give more steps or draws, or a larger bound_condition"
            )
            raise SolveError(msg, result)
        return result
    return _described(reference, perturbation(SIZE if size is None else size, None), B, given)


def _smallest(
    A: Array, bound: float, perturbation: Callable[[float, Array | None], Array]
) -> tuple[Array, bool]:
    """Return the E of the smallest size with kappa <= bound: by factors of 4, then bisection in log size."""

    def fits(E: Array) -> bool:
        return bool(np.linalg.cond(eigenpairs(A + E)[1]) <= bound)

    nothing = np.zeros_like(A)
    if bound < TRUSTED and fits(nothing):
        return nothing, True
    high, E = SIZE, perturbation(SIZE, None)
    found, low = fits(E), SMALLEST
    if found:
        while high > SMALLEST:
            trial = perturbation(high / 4, E)
            if not fits(trial):
                low = high / 4
                break
            high, E = high / 4, trial
    while not found and high < LARGEST:
        low, high = high, min(4 * high, LARGEST)
        E = perturbation(high, E)
        found = fits(E)
    for _ in range(HALVINGS + 1 if found else 0):
        middle = float(np.sqrt(low * high))
        trial = perturbation(middle, E)
        low, high, E = (low, middle, trial) if fits(trial) else (middle, high, E)
    return E, found


def _described(
    reference: Reference, E: Array, B: Array | None, given: Any, pairs: tuple[Array, Array] | None = None
) -> Diagonalised:
    eigenvalues, V = eigenpairs(reference.A + E) if pairs is None else pairs
    b = np.linalg.solve(V, reference.B.astype(complex))
    size = float(np.linalg.norm(E, 2))
    frequency, error = reference.worst_error(eigenvalues, V, b)
    return Diagonalised(
        eigenvalues=like(eigenvalues, given),
        V=like(V, given),
        E=like(E, given),
        B=None if B is None else like(b.reshape(B.shape), given),
        condition=float(np.linalg.cond(V)),
        size=size,
        relative_size=size / reference.norm if reference.norm else 0.0,
        **certify(reference.A, reference.B, size)._asdict(),
        transfer_error=error,
        error_frequency=frequency,
        line=reference.line,
    )


def _normal(A: Array) -> bool:
    commutator = A @ A.conj().T - A.conj().T @ A
    return bool(np.linalg.norm(commutator) <= 4 * len(A) * np.finfo(float).eps * np.linalg.norm(A) ** 2)


def _check(
    objective: str,
    size: float | None,
    bound: float | None,
    steps: int | None,
    draws: int,
    error_weight: float,
    size_weight: float,
) -> None:
    if objective not in OBJECTIVES:
        known = f"{list(OBJECTIVES)}{nearest(str(objective), OBJECTIVES)}"
        msg = f"got objective={objective!r}, need one of {known}"
        raise OptionError(msg)
    if objective == "condition" and (size is not None or bound is not None):
        msg = 'objective="condition" finds its size itself; weigh it by size_weight, or take "error-aware"'
        raise OptionError(msg)
    if size is not None and not 0 < size <= LARGEST:
        msg = f"got size={size!r}, ||E||/||A||; 0 < size <= {LARGEST:g} is needed: size=0.05"
        raise OptionError(msg)
    if bound is not None and not 1 <= bound < np.inf:
        msg = f"got bound_condition={bound!r}; a condition number is 1 at least: bound_condition=10"
        raise OptionError(msg)
    numbers = {"steps": 1 if steps is None else steps, "draws": draws}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            msg = f"got {name}={number!r}; an integer of at least 1 is needed"
            raise OptionError(msg)
    for name, weight in {"error_weight": error_weight, "size_weight": size_weight}.items():
        if not 0 <= weight < np.inf:
            msg = f"got {name}={weight!r}; a finite number of at least 0 is needed"
            raise OptionError(msg)
