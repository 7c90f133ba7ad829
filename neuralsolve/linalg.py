"""SciPy's iterative solvers, call for call: `cg`, `minres`, `gmres`, `bicgstab`.

The signatures are those of `scipy.sparse.linalg` 1.17, and so are the defaults, the shapes (x is always
(n,), b may be (n,) or (n, 1)), the dtype of x (float32 only where A and b both are; `minres` returns
float64) and the meaning of `maxiter` and of the callbacks. Nothing is detected or mended behind the
caller's back: no null space, no change of sign, no choice of method; for those call `neuralsolve.solve`.

What differs, for all four:

- `info` is 0 only where the residual b - A x, formed anew in float64 from the x returned, meets
  max(rtol ||b||, atol). SciPy trusts the recurrence, and `minres` there tests rtol ||A|| ||x|| instead and
  also returns 0 for a least-squares solution of an inconsistent system.
- The iteration runs in float64 throughout.
- Otherwise `info` is the number of iterations (that of cycles in `gmres`), where maxiter was reached or the
  residual stopped falling before; or negative, from `INFO`, where the method cannot go on. SciPy's `cg` and
  `minres` go on with an A that is not positive definite, or nonsymmetric, and may return any number.
- Wrong input raises a ValueError (`neuralsolve.InputError`): NaN or infinity in A or b, complex or half
  precision.
- `gmres` is preconditioned from the right, so the norm that it minimises, and hands to the callback, is the
  true one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError, StructureError
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.convert import as_operator, as_vector, check_finite
from neuralsolve.operators.structured import CallableOperator
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.preconditioners.given import Library, as_recipe
from neuralsolve.solvers.bicgstab import BiCGStab
from neuralsolve.solvers.gmres import GMRES
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.loop import Callback, iterate
from neuralsolve.solvers.method import Method, norm
from neuralsolve.solvers.minres import MINRES
from neuralsolve.solvers.result import Status

INFO = {
    Status.BREAKDOWN: -10,  # the recurrence divided by zero, SciPy's number for it
    Status.NOT_POSITIVE_DEFINITE: -20,
    Status.INDEFINITE_PRECONDITIONER: -21,
    Status.NON_FINITE: -30,  # NaN or infinity from A or M
}


def cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callable[[np.ndarray], Any] | None = None,
) -> tuple[np.ndarray, int]:
    """Solve A x = b by conjugate gradients, A symmetric positive definite.

    Parameters
    ----------
    A : (n, n) sparse or dense matrix, SciPy LinearOperator, or an operator of neuralsolve
    b : (n,) or (n, 1)
    x0 : (n,) or (n, 1), or "Mb" for M @ b; zero by default
    rtol, atol : stop when ||b - A x|| <= max(rtol ||b||, atol)
    maxiter : steps, 10 n by default
    M : SPD approximation of A^-1: matrix, SciPy LinearOperator, function r -> z, or a recipe such as
        `ns.SSOR()`
    callback : called as callback(x) after every step

    Returns
    -------
    x : (n,)
    info : 0 converged; > 0 iterations done without convergence; < 0 breakdown (`INFO`)

    Raises
    ------
    ShapeError, StructureError, NonFiniteError, OptionError

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from neuralsolve.linalg import cg
    >>> A = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(30, 30))
    >>> x, info = cg(A, np.ones(30), rtol=1e-10)
    >>> info, bool(np.linalg.norm(A @ x - 1) <= 1e-10 * np.sqrt(30))
    (0, True)
    """
    system = _System(A, b, x0, M, rtol, atol)
    return system.solve(CG(), _count(maxiter, 10 * system.n), system.with_x(callback))


def minres(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    shift: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callable[[np.ndarray], Any] | None = None,
    show: bool = False,
    check: bool = False,
) -> tuple[np.ndarray, int]:
    """Solve (A - shift I) x = b by minimal residuals, A symmetric, possibly indefinite or singular.

    Parameters
    ----------
    A, b, x0, M, callback : see `cg`
    rtol : stop when ||b - (A - shift I) x|| <= rtol ||b||
    shift : multiple of the identity to subtract from A
    maxiter : steps, 5 n by default
    show : print a line per step
    check : test A and M for symmetry first, two products each

    Returns
    -------
    x : (n,) float64
    info : see `cg`

    Raises
    ------
    StructureError
        M is not positive definite, or `check` found A or M nonsymmetric; otherwise see `cg`.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from neuralsolve.linalg import minres
    >>> x, info = minres(sp.diags_array([1.0, -2.0]), np.array([3.0, 4.0]))
    >>> info, x.round(12).tolist()
    (0, [3.0, -2.0])
    """
    system = _System(A, b, x0, M, rtol, 0.0, shift)
    system.dtype = np.dtype(np.float64)
    if check:
        system.check_symmetry()
    observe = system.with_x(callback)
    if show:
        observe = _shown(observe, float(norm(system.b)))
    x, info = system.solve(MINRES(), _count(maxiter, 5 * system.n), observe)
    if info == INFO[Status.INDEFINITE_PRECONDITIONER]:
        msg = "indefinite preconditioner: r.Mr < 0 was met, M must be positive definite; drop M or use gmres"
        raise StructureError(msg)
    return x, info


def gmres(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    restart: int | None = None,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callable[[Any], Any] | None = None,
    callback_type: str | None = None,
) -> tuple[np.ndarray, int]:
    """Solve A x = b by restarted generalised minimal residuals.

    Parameters
    ----------
    A, b, x0, rtol, atol : see `cg`; A any regular matrix
    restart : steps per cycle, min(20, n) by default
    maxiter : cycles, 10 n by default; steps where a callback of type "legacy" is given
    M : approximation of A^-1, of any kind
    callback : see `callback_type`
    callback_type : "x": callback(x) after every cycle; "pr_norm": callback(||b - A x|| / ||b||) after every
        step; "legacy", the default: the same, and maxiter counts steps

    Returns
    -------
    x : (n,)
    info : see `cg`; where maxiter was reached it is maxiter

    Raises
    ------
    ShapeError, StructureError, NonFiniteError, OptionError

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from neuralsolve.linalg import gmres
    >>> A = sp.csc_array([[3.0, 2.0, 0.0], [1.0, -1.0, 0.0], [0.0, 5.0, 1.0]])
    >>> x, info = gmres(A, np.array([2.0, 4.0, -1.0]), atol=1e-5)
    >>> info, bool(np.allclose(A @ x, [2.0, 4.0, -1.0]))
    (0, True)
    """
    kind = callback_type or "legacy"
    if kind not in ("x", "pr_norm", "legacy"):
        msg = f"callback_type={callback_type!r} is unknown; pass 'x', 'pr_norm' or 'legacy'"
        raise OptionError(msg)
    system = _System(A, b, x0, M, rtol, atol)
    restart = min(_count(restart, 20), system.n)
    maxiter = _count(maxiter, 10 * system.n)
    by_steps = callback is not None and kind == "legacy"
    size = float(norm(system.b))
    last_seen = 0

    def observe(iteration: int, residual_norm: float, x: Tensor) -> None:
        nonlocal last_seen
        if callback is not None and kind != "x":
            callback(residual_norm / size)
        elif callback is not None and iteration % restart == 0:
            last_seen = iteration
            callback(system.bring(x))

    steps = maxiter if by_steps else maxiter * restart
    x, info = system.solve(GMRES(restart=restart), steps, None if callback is None else observe)
    if callback is not None and kind == "x" and system.iterations > last_seen:
        callback(x)  # the last cycle was cut short
    return x, max(1, maxiter) if info > 0 and system.iterations >= steps else info


def bicgstab(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callable[[np.ndarray], Any] | None = None,
) -> tuple[np.ndarray, int]:
    """Solve A x = b by stabilised biconjugate gradients, A any regular matrix.

    Parameters, return values and errors are those of `cg`; M may be any linear map, a step costs two
    products.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralsolve.linalg import bicgstab
    >>> A = np.array([[4.0, 2.0, 0.0, 1.0], [3.0, 0.0, 0.0, 2.0], [0.0, 1.0, 1.0, 1.0], [0.0, 2.0, 1.0, 0.0]])
    >>> b = np.array([-1.0, -0.5, -1.0, 2.0])
    >>> x, info = bicgstab(A, b)
    >>> info, bool(np.allclose(A @ x, b, atol=1e-4))
    (0, True)
    """
    system = _System(A, b, x0, M, rtol, atol)
    return system.solve(BiCGStab(), _count(maxiter, 10 * system.n), system.with_x(callback))


class _System:
    """A, b, x0, M as SciPy's callers pass them, in float64; and the way back."""

    def __init__(self, A: Any, b: Any, x0: Any, M: Any, rtol: float, atol: float, shift: float = 0.0):
        source = as_operator(A)
        if source.shape[0] != source.shape[1]:
            msg = f"A is {source.shape}; it must be square: scipy.sparse.linalg.lsmr solves least squares"
            raise ShapeError(msg)
        self.n = source.shape[0]
        b = np.asarray(b)
        single = source.dtype == torch.float32 and b.dtype == np.float32
        self.dtype = np.dtype(np.float32 if single else np.float64)
        self.b = self._vector(b, "b")
        self.A = _shifted(source.to(dtype=torch.float64), shift)
        self.M = _preconditioner(M, self.A)
        if isinstance(x0, str):
            if x0 != "Mb":
                msg = f"x0={x0!r} is unknown; pass an array ({self.n},), None for zero, or 'Mb' for M @ b"
                raise OptionError(msg)
            self.x0 = self.b.clone() if self.M is None else self.M.apply(self.b)
        else:
            self.x0 = None if x0 is None else self._vector(np.asarray(x0), "x0")
        for name, value in (("rtol", rtol), ("atol", atol)):
            if not (isinstance(value, int | float | np.number) and value >= 0):
                msg = f"{name}={value!r}; a number of at least 0 is needed, such as {name}=1e-8"
                raise OptionError(msg)
        self.tolerance = torch.clamp_min(float(rtol) * norm(self.b), float(atol))
        self.iterations = 0

    def solve(self, method: Method, maxiter: int, observe: Callback | None) -> tuple[np.ndarray, int]:
        """Return x and SciPy's info."""
        if not bool(self.b.any()):
            return np.zeros(self.n, self.dtype), 0
        outcome = iterate(method, self.A, self.M, self.b, self.x0, self.tolerance, maxiter, observe)
        self.iterations = outcome.iterations
        x = self.bring(outcome.x)
        if outcome.status is Status.CONVERGED and self._holds(x):
            return x, 0
        return x, INFO.get(outcome.status, max(1, outcome.iterations))

    def bring(self, x: Tensor) -> np.ndarray:
        """Return x as the caller's kind of array."""
        return x.numpy().astype(self.dtype, copy=False)

    def with_x(self, callback: Callable[[np.ndarray], Any] | None) -> Callback | None:
        """Return the loop's callback for one that wants x and returns nothing."""
        if callback is None:
            return None

        def observe(iteration: int, residual_norm: float, x: Tensor) -> None:
            callback(self.bring(x))

        return observe

    def check_symmetry(self) -> None:
        """Refuse an A or M that fails SciPy's test of symmetry on one vector."""
        y = self.b if self.M is None else self.M.apply(self.b)
        maps: list[tuple[str, Callable[[Tensor], Tensor], Tensor]] = [("matrix", self.A.matvec, y)]
        if self.M is not None:
            maps.append(("preconditioner", self.M.apply, self.b))
        for name, product, v in maps:
            w = product(v)
            square, other = w.dot(w), v.dot(product(w))
            if bool((square - other).abs() > square * torch.finfo(torch.float64).eps ** (1 / 3)):
                msg = (
                    f"non-symmetric {name} B: v.(B B v) = {float(other):.3g}, |B v|^2 = {float(square):.3g}; "
                    "a symmetric one is needed, or use gmres"
                )
                raise StructureError(msg)

    def _vector(self, v: np.ndarray, name: str) -> Tensor:
        if v.shape not in ((self.n,), (self.n, 1)):
            msg = (
                f"{name} has shape {v.shape} and A {(self.n, self.n)}; {name} must be ({self.n},) or "
                f"({self.n}, 1): neuralsolve.solve takes several right sides"
            )
            raise ShapeError(msg)
        vector, _ = as_vector(v.ravel(), self.n, name)
        check_finite(vector, name)
        return vector

    def _holds(self, x: np.ndarray) -> bool:
        """Whether x still meets the tolerance after rounding to float32."""
        if x.dtype == np.float64:
            return True
        rounded = torch.from_numpy(x).double()
        return bool(norm(self.b - self.A.matvec(rounded)) <= self.tolerance)


def _count(given: int | None, default: int) -> int:
    if given is None:
        return default
    if int(given) != given or given < 0:
        msg = f"got {given!r} iterations; a whole number of at least 0 is needed, or None for {default}"
        raise OptionError(msg)
    return int(given)


def _shifted(A: LinearOperator, shift: float) -> LinearOperator:
    if shift == 0:
        return A

    def product(x: Tensor) -> Tensor:
        return A.matvec(x).add_(x, alpha=-float(shift))

    return CallableOperator(product, A.shape, torch.float64, props=A.props - {"spd"}, block=True)


def _preconditioner(M: Any, A: LinearOperator) -> Preconditioner | None:
    numpy = Library()
    numpy.torch = False
    recipe = as_recipe(M, A.shape[0], numpy)
    return None if recipe is None else recipe.build(A)


def _shown(observe: Callback | None, size: float) -> Callback:
    """Return a callback that prints one line per step as well."""
    print(f"{'step':>6} {'x[0]':>13} {'||r||/||b||':>12}")

    def show(iteration: int, residual_norm: float, x: Tensor) -> None:
        print(f"{iteration:6d} {float(x[0]):13.5e} {residual_norm / size:12.3e}")
        if observe is not None:
            observe(iteration, residual_norm, x)

    return show
