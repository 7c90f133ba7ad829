"""Optimal control of Poisson's equation: a quadratic problem under a PDE, and M for its KKT system.

    minimise 1/2 (||w - w_d||^2 + alpha ||z||^2) subject to Lap w + z = 0,    x = (w, z)

State w and control z live on the n x n inner nodes of [-1, 1]^2, h = 2/(n + 1), w = 0 around it; Lap has five
points, norms are sums over nodes without h^2. With K = -Lap and H = diag(D_w, D_z) the KKT matrix is

    [[H, G^T], [G, 0]],    G = [-K, I],    S = G H^-1 G^T = K D_w^-1 K + D_z^-1

MINRES wants a positive definite M near the inverse of its absolute value. Two are here, both made of
(K + c)^-1, c^2 = D_w / D_z, alone; the eigenvalues of M KKT lie in fixed intervals, whatever n and alpha are.
With D = (D_w D_z)^(1/2):

| blocks  | M                                         | eigenvalues of M KKT                       |
|---------|-------------------------------------------|--------------------------------------------|
| "norms" | (K + c)^-1 / D, 1/(2 D_z), D (K + c)^-1   | 1, (d +- (1 + 5 d^2)^(1/2))/2, |d| <= 1/2  |
| "schur" | D_w^-1, D_z^-1, (K + c)^-1 D_w (K + c)^-1 | 1, (1 +- (1 + 4 s)^(1/2))/2, s in [1/2, 1] |

"norms" (after Zulehner): on an eigenvector of K, of eigenvalue k, M KKT is similar to
[[a, 0, a - 1], [0, 1/2, (a/2)^(1/2)], [a - 1, (a/2)^(1/2), 0]], a = c / (c + k) = d + 1/2. So all lie in
[-1, -5^(-1/2)] and [5^(-1/2), 1]: two steps of MINRES gain (5^(1/2) - 1) / (5^(1/2) + 1) = 0.38. Without the
half, [-1, -0.53] and [0.61, 1.62], two steps gain 0.47. "schur" (Pearson and Wathen): K and c commute and are
positive, so S <= (K + c)^2 / D_w <= 2 S by a^2 + b^2 <= (a + b)^2 <= 2 (a^2 + b^2); 0.17.

In the place of (K + c)^-1 stands C, a multigrid V-cycle or the exact inverse by sine transforms. "norms"
needs the eigenvalues of C (K + c) in [p, q], p <= 1 <= q, which is what multigrid gives (0.78 and 1.21 up to
n = 511; q = 1 for even n); p and q widen the intervals. "schur" applies C twice and needs the *singular*
values of (K + c) C there, s in [p^2/2, q^2]; those of a V-cycle spread as n grows, the more so for odd n.

**The shift.** K + c is a stencil of ours: one layer of cells, (2/c)^(1/2) thick, between walls of value zero.
So multigrid and sine transforms take it as it is.

Cost per application: two V-cycles over n^2 nodes, or two pairs of sine transforms, which are slow where n + 1
has a large prime factor.

Sources: Pearson and Wathen, A new approximation of the Schur complement in preconditioners for
PDE-constrained optimization, Numer. Linear Algebra Appl. 19 (2012) 816-829; Zulehner, Nonstandard norms and
robust estimates for saddle point problems, SIAM J. Matrix Anal. Appl. 32 (2011) 536-560 (there z is
eliminated); Murphy, Golub and Wathen, SIAM J. Sci. Comput. 21 (2000) 1969-1972 (eigenvalues for the exact S).
The problem is that of Hong, Na, Mahoney and Kolar, ICML 2023 (arXiv 2305.18379), whose code has n = 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from neuralsolve.errors import OptionError, ShapeError, StructureError, nearest
from neuralsolve.operators.convert import as_operator
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.operators.structured import Block
from neuralsolve.operators.vectors import shared
from neuralsolve.optimize.problem import EqualityProblem, Matrix, Vector
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.solvers.fast_poisson import FastPoisson

INNER = {"multigrid": Multigrid(cycle="V"), "transform": FastPoisson()}
BLOCKS = ("norms", "schur")
SLOPE = 0.1 / math.sqrt(15)  # of the arguments of w_d, per node


@dataclass(frozen=True)
class PoissonControl:
    """Control of Poisson's equation towards a given state; see the head of this file.

    Parameters
    ----------
    n : inner nodes a side
    alpha : price of the control
    inner : "multigrid" or "transform"
        What stands for (K + c)^-1 in the preconditioner: a V-cycle, or the exact inverse by sine transforms.
    blocks : "norms" or "schur", the form of the preconditioner
        Steps of MINRES to rtol 1e-8 at n = 64, 256, 511, alpha = 0.1: of multigrid 30, 33, 42 by "norms", and
        33, 43, 133 by "schur", which it does not suit; of the transform 17, 17, 17 and 21, 23, 23. At alpha =
        1e-4 the latter are 37, 39, 39 and 29, 33, 33.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> import neuralsolve as ns
    >>> control = PoissonControl(n=32, alpha=1e-4)
    >>> M = control.preconditioner()
    >>> result = ns.solve(control.kkt(), control.right_side(), ns.MINRES(), M=M)
    >>> result.iterations <= 50
    True
    >>> w, z, lam = result.x.reshape(3, 32, 32)
    >>> bool(np.allclose(control.alpha * z + lam, 0, atol=1e-6))  # the gradient in z
    True
    """

    n: int = 32
    alpha: float = 0.1
    inner: str = "multigrid"
    blocks: str = "norms"

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not (isinstance(self.n, int | np.integer) and self.n >= 2):
            msg = (
                f"n = {self.n!r}; a number of inner nodes a side is needed, 2 at least: PoissonControl(n=32)"
            )
            raise OptionError(msg)
        if not (isinstance(self.alpha, int | float) and 0 < self.alpha < math.inf):
            msg = f"alpha = {self.alpha!r}; the price of the control must be positive and finite"
            raise OptionError(msg)
        for name, value, known in (("inner", self.inner, INNER), ("blocks", self.blocks, BLOCKS)):
            if value not in known:
                msg = f"{name} = {value!r} is unknown{nearest(str(value), known)}"
                raise OptionError(msg)

    @property
    def spacing(self) -> float:
        """Between nodes."""
        return 2 / (self.n + 1)

    @property
    def size(self) -> int:
        """Nodes; there are as many constraints, and twice as many unknowns."""
        return self.n**2

    def target(self) -> np.ndarray:
        """Return w_d ``(n, n)``, the state that is wanted."""
        steps = SLOPE * (np.arange(1, self.n + 1) - (self.n + 1) / 2)
        return np.sin(4 + steps)[:, None] + np.cos(3 + steps)

    def jacobian(self) -> sp.csr_array:
        """Return G = [Lap, I], ``(n^2, 2 n^2)``."""
        K = PoissonStencil(Grid((self.n, self.n), spacing=self.spacing, walls="dirichlet")).to_scipy()
        return sp.csr_array(sp.hstack([-K, sp.eye_array(self.size)]))

    def hessian(self) -> sp.csr_array:
        """Return H = diag(I, alpha I), ``(2 n^2, 2 n^2)``."""
        return sp.csr_array(sp.diags_array(np.repeat([1.0, self.alpha], self.size)))

    def problem(self) -> EqualityProblem:
        """Return the problem in x = (w, z) ``(2 n^2,)``, from ones, with sparse H and G."""
        target, weights = self.target().ravel(), np.repeat([1.0, self.alpha], self.size)
        aim = np.concatenate([target, np.zeros(self.size)])
        H, G = self.hessian(), self.jacobian()
        return EqualityProblem(
            np.ones(2 * self.size),
            lambda x: 0.5 * float(weights @ (x - aim) ** 2),
            lambda x: weights * (x - aim),
            lambda x: H,
            lambda x: G @ x,
            lambda x: G,
            multipliers0=np.ones(self.size),
            kkt_preconditioner=self.preconditioner,
        )

    def kkt(self) -> Block:
        """Return [[H, G^T], [G, 0]], ``(3 n^2, 3 n^2)``: its solution for `right_side` is (w, z, lam)."""
        G = self.jacobian()
        return Block(
            [[as_operator(self.hessian()), as_operator(G.T.tocsr())], [as_operator(G), None]],
            props={"symmetric"},
        )

    def right_side(self) -> np.ndarray:
        """Return (w_d, 0, 0) ``(3 n^2,)``."""
        return np.concatenate([self.target().ravel(), np.zeros(2 * self.size)])

    def preconditioner(self, H: Matrix | None = None, G: Matrix | None = None) -> Callable[[Vector], Vector]:
        """Return M, r ``(3 n^2,)`` -> M r, symmetric positive definite: see the head of this file.

        Parameters
        ----------
        H : (2 n^2, 2 n^2), of which the diagonal counts; that of the objective by default
            Where it varies within a block, c is the root of the mean of D_w / D_z: M stays positive definite,
            the intervals are not known any more.
        G : taken for `jacobian`, which does not depend on x

        Raises
        ------
        ShapeError
        StructureError
            The diagonal of H is not positive.
        """
        size = self.size
        for name, given, shape in (("H", H, (2 * size, 2 * size)), ("G", G, (size, 2 * size))):
            if given is not None and given.shape != shape:
                msg = f"{name} has the shape {given.shape}; {shape} is needed for n = {self.n}"
                raise ShapeError(msg)
        diagonal: Any = np.asarray((self.hessian() if H is None else H).diagonal(), float)
        if not (diagonal > 0).all():
            msg = f"the diagonal of H reaches down to {diagonal.min():g}; add a multiple of the identity to H"
            raise StructureError(msg)
        D_w, D_z = diagonal.reshape(2, size)
        cycle = INNER[self.inner].build(self.shifted(math.sqrt(float(np.mean(D_w / D_z)))))
        root = (D_w * D_z) ** 0.25

        def C(r: Vector) -> Vector:
            return cycle.apply(shared(r)).numpy()

        def apply(r: Vector) -> Vector:
            if np.shape(r) != (3 * size,):
                msg = f"r has the shape {np.shape(r)}; {(3 * size,)} is needed for n = {self.n}"
                raise ShapeError(msg)
            w, z, lam = np.asarray(r, float).reshape(3, size)
            if self.blocks == "schur":
                return np.concatenate([w / D_w, z / D_z, C(D_w * C(np.ascontiguousarray(lam)))])
            return np.concatenate([C(w / root) / root, z / (2 * D_z), C(lam * root) * root])

        return apply

    def shifted(self, c: float) -> PoissonStencil:
        """Return K + c as a stencil, ``(n^2, n^2)``, c > 0.

        Its grid is one layer of cells: the two walls across it add 2/thickness^2 to the diagonal.
        """
        spacing = math.sqrt(2 / c), self.spacing, self.spacing
        return PoissonStencil(Grid((1, self.n, self.n), spacing=spacing, walls="dirichlet"))
