"""The truncated SVD beside scikit-learn's randomized_svd and SciPy's svds, at equal error.

The rivals' options are tuned first: of a grid of them, the fastest run that reaches the error of ours. Then
all are timed in turn, in one process, with two threads and with one, which is the faster where something else
runs: the better time counts, of ours as of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np
import scipy.fft
import scipy.sparse as sp
import scipy.sparse.linalg
import torch

from neuralsolve.bench.bars import BarRow, Bars, Settings, missing, row
from neuralsolve.bench.clock import interleaved, timed
from neuralsolve.lowrank.svd import svd

GROUP = "svd"
RANK = 50
OPTIMAL = Bars(1.5)
FASTER = Bars(3.0, at_least=True)
EQUAL = 1.01  # a rival reaches our error where its own is at most so much larger
SEED = 2214

Parts = tuple[Any, Any, Any]
Call = Callable[..., Parts]


@dataclass(frozen=True)
class Problem:
    """A matrix (m, n) with the error of its best approximation of rank 50, Frobenius norm."""

    name: str
    A: Any
    optimal: float

    def error(self, parts: Parts) -> float:
        """Return ||A - U diag(s) Vh||_F: by ||A||_F^2 - 2 tr(Vh A^T U diag(s)) + ||U diag(s) Vh||_F^2 is."""
        U, s, Vh = (np.asarray(part, np.float64) for part in parts)
        product = np.asarray(self.A @ Vh.T.astype(self.A.dtype), np.float64)
        values = self.A.data if sp.issparse(self.A) else self.A
        total = float(np.linalg.norm(values.astype(np.float64).ravel())) ** 2
        own = np.sum((U.T @ U) * (Vh @ Vh.T) * np.outer(s, s))
        return float(np.sqrt(total - 2 * np.sum((U * s) * product) + own))


def svd_speed(settings: Settings) -> Iterator[BarRow]:
    """Measure dense matrices in both precisions, and a sparse one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for make in (partial(dense, dtype=np.float64), partial(dense, dtype=np.float32), sparse):
            yield from _contest(make(settings.quick), settings)
    finally:
        torch.set_num_threads(threads)


def dense(quick: bool, dtype: Any) -> Problem:
    """Return a square matrix: 50 singular values from 1 to 0.1, then 0.1 j^(-1/2), without a gap."""
    n = 160 if quick else 4000
    s = _decay(n)
    rng = np.random.default_rng(SEED)
    A = _rotated(_rotated(np.diag(s), rng).T, rng)
    optimal = float(np.linalg.norm(s[RANK:]))
    return Problem(f"dense {n} x {n}, {np.dtype(dtype).name}", np.ascontiguousarray(A, dtype), optimal)


def sparse(quick: bool) -> Problem:
    """Return a sum of 2000 sparse w_i u_i v_i^T: about two of them in every row, and two in every column.

    The weights are the singular values of `dense`; 0.002 of the entries are not zero.
    """
    m, n, count = (900, 300, 120) if quick else (100_000, 10_000, 2000)
    rng = np.random.default_rng(SEED)
    U, V = (_sparse_columns(size, count, 2 * size // count, rng) for size in (m, n))
    weights = _decay(count)
    A = sp.csr_array(U @ sp.diags_array(weights) @ V.T)
    A.sort_indices()
    # of a rank below its sides: its singular values are those of R_U diag(w) R_V^T
    small = [np.linalg.cholesky((X.T @ X).toarray() + 1e-14 * np.eye(count)).T for X in (U, V)]
    s = svd((small[0] * weights) @ small[1].T).s
    return Problem(f"sparse {m} x {n}, {A.nnz} entries", A, float(np.linalg.norm(s[RANK:])))


def _decay(count: int) -> np.ndarray:
    """Return 50 numbers from 1 to 0.1, then 0.1 j^(-1/2), without a gap."""
    j = np.arange(count)
    return np.where(j < RANK, 10.0 ** (-j / (RANK - 1)), 0.1 * np.maximum(j - RANK + 1, 1) ** -0.5)


def _rotated(A: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return Q A for a random orthogonal Q: signs, cosine transform, permutation, twice."""
    for _ in range(2):
        signed = A * rng.choice([-1.0, 1.0], len(A))[:, None]
        A = np.asarray(scipy.fft.dct(signed, axis=0, norm="ortho"))[rng.permutation(len(A))]
    return A


def _sparse_columns(size: int, count: int, filled: int, rng: np.random.Generator) -> sp.csc_array:
    rows = np.concatenate([rng.choice(size, filled, replace=False) for _ in range(count)])
    values = rng.standard_normal(len(rows)) / np.sqrt(filled)
    return sp.csc_array((values, rows, np.arange(0, len(rows) + 1, filled)), shape=(size, count))


def ours(A: Any) -> Parts:
    """Return the SVD as the package finds it without any option."""
    found = svd(A, RANK)
    return found.U, found.s, found.Vh


def peers() -> dict[str, dict[str, Call]]:
    """Return the rivals, each with a grid of options, from fast to accurate."""
    from sklearn.utils.extmath import randomized_svd

    halko: dict[str, Call] = {
        f"n_iter={q}, n_oversamples={p}": partial(
            cast("Call", randomized_svd), n_components=RANK, n_iter=q, n_oversamples=p, random_state=SEED
        )
        for q in (0, 1, 2, 3)
        for p in (5, 10, 20)
    }
    krylov: dict[str, Call] = {
        f"{solver}, {options}": partial(_svds, solver=solver, **options)
        for solver, options in (
            ("arpack", {"tol": 0.3}),
            ("arpack", {"tol": 0.3, "ncv": 3 * RANK}),
            ("arpack", {"tol": 0.01}),
            ("propack", {"tol": 0.1}),
            ("lobpcg", {"maxiter": 5}),
            ("lobpcg", {"maxiter": 20}),
        )
    }
    return {"sklearn.utils.extmath.randomized_svd": halko, "scipy.sparse.linalg.svds": krylov}


def _svds(A: Any, **options: Any) -> Parts:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lobpcg tells that it is not there yet, which is what is wanted
        return cast("Call", scipy.sparse.linalg.svds)(A, RANK, rng=np.random.default_rng(SEED), **options)


def _contest(problem: Problem, settings: Settings) -> Iterator[BarRow]:
    reached = problem.error(ours(problem.A))
    name = problem.name
    yield row(GROUP, name, "error of rank 50 / smallest possible", "x", OPTIMAL, [reached / problem.optimal])
    try:
        release = {"sklearn": version("scikit-learn"), "scipy": version("scipy")}
        rivals = peers()
    except (PackageNotFoundError, ImportError):
        yield missing(GROUP, name, "time at equal error: peers / ours", "x", FASTER, "no scikit-learn")
        return
    for rival, options in rivals.items():
        grid = dict(list(options.items())[-3:]) if settings.quick else options
        words = f"time at equal error: {rival.rsplit('.', 1)[1]} / ours"
        best, error, missed = _tuned(problem, grid, EQUAL * reached)
        if best is None:
            yield missing(GROUP, name, words, "x", FASTER, f"none reached our error: {missed}")
            continue
        runs = {"ours": ours, "peer": grid[best]}
        calls = {
            f"{who} {k}": partial(_threads, k, partial(runs[who], problem.A)) for who in runs for k in (1, 2)
        }
        seconds = interleaved(calls, settings.repeats)
        mine, theirs = (min(seconds[f"{who} {k}"] for k in (1, 2)) for who in runs)
        source = f"{rival.split('.', 1)[0]} {release[rival.split('.', 1)[0]]}: {best}"
        errors = [each / problem.optimal for each in (reached, error)]
        note = f"errors / smallest possible: ours {errors[0]:.4f}, peer {errors[1]:.4f}; "
        note += "; ".join(f"{who} thread(s) {taken:.3g} s" for who, taken in seconds.items())
        times: dict[str, Any] = {"solve_s": mine, "baseline_s": theirs}
        more = {"baseline": source, "repeats": settings.repeats, "note": note}
        yield row(GROUP, name, words, "x", FASTER, [theirs / mine], **times, **more)


def _threads(count: int, call: Callable[[], Parts]) -> Parts:
    """Call with so many threads of BLAS and torch."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            return call()
    finally:
        torch.set_num_threads(before)


def _tuned(
    problem: Problem, grid: Mapping[str, Callable[[Any], Parts]], enough: float
) -> tuple[str | None, float, str]:
    """Return the options of the fastest run with an error that is small enough, and that error."""
    best, error, least, missed = None, np.inf, np.inf, []
    for options, call in grid.items():
        try:
            seconds, parts = timed(partial(_threads, 1, partial(call, problem.A)))
        except (np.linalg.LinAlgError, ValueError) as failure:
            missed.append(f"{options}: {type(failure).__name__}")
            continue
        found = problem.error(parts)
        missed.append(f"{options}: {found / problem.optimal:.3f}")
        if found <= enough and seconds < least:
            best, error, least = options, found, seconds
    return best, error, "; ".join(missed)
