"""`solve` and `prepare`: the two calls that most users need."""

from __future__ import annotations

from typing import Any

from neuralsolve.preconditioners.base import Recipe
from neuralsolve.solvers.loop import Callback
from neuralsolve.solvers.method import Method
from neuralsolve.solvers.prepared import Prepared
from neuralsolve.solvers.result import SolveResult
from neuralsolve.solvers.tuning import TunedPrepared
from neuralsolve.tuning.choosing import is_tuned


def solve(
    A: Any,
    b: Any,
    method: Method | Recipe | None = None,
    *,
    M: Any = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Any = None,
    null_space: Any = None,
    grid: Any = None,
    check_every: int | None = None,
    callback: Callback | None = None,
    throw: bool = True,
) -> SolveResult:
    """Solve A x = b.

    Parameters
    ----------
    A : (n, n)
        SciPy sparse or LinearOperator, NumPy or torch dense, torch CSR or COO, a callable with shape and
        dtype, or an operator such as `PoissonStencil`. Never changed.
    b : (n,) or (n, k)
        NumPy or torch; x comes back in the same library, dtype and device. A gradient passes through in
        torch. Iterations run where A is: on a GPU with ``A.to("cuda")`` or a torch matrix from there.
    method : `CG()`, `MINRES()`, `GMRES()`, `BiCGStab()`, `Richardson()`, `SparseLU()`, `FastPoisson()`, ...
        None chooses by structure and says why in `explanation`.
    M : preconditioner, M ~ A^-1
        A recipe such as `AMG()`, an operator, a matrix, or any function r -> z (given what b is: NumPy or
        torch). None with a method means no preconditioner; with no method it is chosen too.
    rtol, atol : stop when ||b - A x|| <= max(rtol ||b||, atol) for every column
        The residual is formed anew at the end. rtol is 1e-8 by default, 1e-5 for float32 b; all iterations
        run in float64.
    maxiter : steps of the method
        By default 10 n, at least 1000 and at most 20 000; of an automatic choice, the steps that each plan
        may take before the next is tried.
    x0 : like b, a first guess
    null_space : None finds it (constants on connected components of a symmetric A), "constant", or vectors
        (n,), (n, m) that A maps to zero; False assumes there is none. b is projected, `result.removed` says
        by how much, and x has no part in it (zero mean on every component).
    grid : `Grid`, or its cells (ny, nx) or (nz, ny, nx) of FLUID, SOLID and AIR
        Where the rows of a sparse A lie: on all cells in C or Fortran order, or on the FLUID ones, numbered
        on. Where A is a stencil there, which is verified, it is solved as a `PoissonStencil`, and that is
        what a recipe gets; else as ever, and `explanation` says what is different. Full boxes are recognised
        without it.
    check_every : steps between two looks of the host at the residual, 1 on the CPU and 10 on a GPU by default
        More than one where the method allows it (CG, FlexibleCG, SingleReductionCG, Richardson): x stands
        still once it has met the tolerance.
    callback : called as callback(iteration, residual_norm, x) at every look; returning True stops
    throw : raise `SolveError` unless converged; with False the result says so

    Returns
    -------
    SolveResult

    Raises
    ------
    SolveError
        The tolerance was not met; its `result` attribute holds what was reached.
    ShapeError, StructureError, NonFiniteError, OptionError
        Wrong input (all are ValueError).

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np, scipy.sparse as sp
    >>> A = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(50, 50))
    >>> result = ns.solve(A, np.ones(50))
    >>> bool(np.linalg.norm(A @ result.x - 1) <= 1e-8 * np.sqrt(50))
    True
    """
    prepared = prepare(
        A,
        method,
        M=M,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        null_space=null_space,
        grid=grid,
        check_every=check_every,
    )
    return prepared.solve(b, x0=x0, callback=callback, throw=throw)


def prepare(
    A: Any,
    method: Method | Recipe | None = None,
    *,
    M: Any = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    null_space: Any = None,
    grid: Any = None,
    check_every: int | None = None,
) -> Prepared:
    """Do the set-up of `solve` once, for many right sides; the parameters are those of `solve`.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> A = ns.PoissonStencil(ns.Grid((8, 8), walls="dirichlet"))
    >>> poisson = ns.prepare(A, ns.CG(), M=ns.SSOR(), rtol=1e-10)
    >>> [poisson.solve(np.full(64, f)).converged for f in (1.0, 2.0)]
    [True, True]
    """
    made = TunedPrepared if is_tuned(method) or is_tuned(M) else Prepared
    return made(
        A,
        method,
        M=M,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        null_space=null_space,
        grid=grid,
        check_every=check_every,
    )
