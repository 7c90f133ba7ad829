"""Consistent systems by sketch and project: solvers that stop early and go on where they stopped.

The system Gamma d = rhs, Gamma (m, n), is replaced by a small random one, S Gamma d = S rhs, and d moves to
the nearest point that solves it (Gower & Richtarik, SIAM J. Matrix Anal. Appl. 36 (2015) 1660-1690):

    r = Gamma d - rhs,   W = S Gamma,   d -= W^+ S r = Gamma^T S^T (S Gamma Gamma^T S^T)^+ S r

with S (q, m) as in `lowrank.sketch`, the transpose of theirs. S r = W (d - d*) for any solution d*, so every
step projects the error d - d* orthogonally: it never grows. d moves in the row space of Gamma alone, so Gamma
may be singular, and from d = 0 the shortest solution is reached; rhs must lie in the range of Gamma.

    RandomizedKaczmarz   S a random row of I         d -= (r_i / ||Gamma_i||^2) Gamma_i
    GaussianVector       S = s^T, s ~ N(0, I)        d -= (s.r / ||w||^2) w,  w = Gamma^T s
    BlockSketch          q rows, three kinds         d -= W^+ S r

Rates of E ||d - d*||^2, d* the shortest solution and sigma the smallest nonzero singular value. Kaczmarz:
one iteration takes (1/m) ||D^-1 Gamma (d - d*)||^2 away on average, exactly, with D = diag(||Gamma_i||), so
the factor is at most 1 - sigma(D^-1 Gamma)^2 / m. Gaussian vector: at most 1 - (2/pi) sigma(Gamma)^2 /
||Gamma||_F^2.

Costs of an iteration: Kaczmarz the entries of a row of Gamma and of one of Gamma Gamma^T, which is formed
once (a dense row of Gamma fills it); Gaussian vector nnz(Gamma) + BATCH (m + n); block the sketch of Gamma
and O(q^2 n). r is updated, never recomputed: after k iterations it has drifted by at most about
k eps ||Gamma|| max ||d||, which `true_residual` shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError, nearest
from neuralsolve.kernels import table
from neuralsolve.lowrank.sketch import SRHT, CountSketch, Gaussian, Sketch
from neuralsolve.optimize.problem import Matrix, Vector

CHUNK = 100_000  # row numbers drawn at a time: 0.8 MB, and Ctrl-C is heard in between
BATCH = 32  # Gaussian vectors drawn at a time; their products with Gamma are one of matrices
ROWS = 16  # of a block sketch, where none are asked for
KINDS: dict[str, Sketch] = {"gaussian": Gaussian(), "countsketch": CountSketch(), "srht": SRHT()}


class SketchAndProject(ABC):
    """Gamma d = rhs by random projections, from d = 0 and as far as it is told to `advance`.

    Parameters
    ----------
    Gamma : (m, n), SciPy sparse or NumPy
    rhs : (m,), in the range of Gamma
    generator : of all random numbers, on the CPU; the same seed and the same calls of `advance` give the
        same d

    Attributes
    ----------
    d : (n,), the approximate solution; its array is updated in place
    r : (m,), Gamma d - rhs as updated
    iterations : how many have been done

    Raises
    ------
    ShapeError, StructureError, NonFiniteError
        Gamma and rhs that do not fit together, complex numbers, NaN or infinity.
    """

    def __init__(self, Gamma: Matrix, rhs: Vector, generator: torch.Generator):
        self.Gamma, self.rhs = _system(Gamma, rhs)
        self.generator = generator
        self.d = np.zeros(self.Gamma.shape[1])
        self.r = -self.rhs
        self.iterations = 0

    def advance(self, iterations: int) -> None:
        """Do so many inner iterations more.

        Raises
        ------
        OptionError
            A negative number of them.
        """
        if iterations < 0:
            msg = f"got iterations={iterations}; 0 or more are needed: there is no way back"
            raise OptionError(msg)
        self._advance(iterations)
        self.iterations += iterations

    @property
    def residual(self) -> float:
        """||r|| of the r that is updated."""
        return float(np.linalg.norm(self.r))

    def true_residual(self) -> float:
        """Return ||Gamma d - rhs||, formed anew: one product with Gamma."""
        return float(np.linalg.norm(self.Gamma @ self.d - self.rhs))

    @abstractmethod
    def _advance(self, iterations: int) -> None: ...


class RandomizedKaczmarz(SketchAndProject):
    """One equation at a time, drawn uniformly; rows of zeros count as an iteration that does nothing.

    Strohmer & Vershynin (J. Fourier Anal. Appl. 15 (2009) 262-278) draw row i with probability
    ||Gamma_i||^2 / ||Gamma||_F^2; drawn uniformly, the method is theirs on the rows scaled to length one.
    `advance(j)` and then `advance(k)` is `advance(j + k)`, to the bit.

    Examples
    --------
    >>> K = np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 0.0]])  # min x.x - 2 x_0, x_0 + x_1 = 0
    >>> solver = RandomizedKaczmarz(K, np.array([2.0, 0.0, 0.0]), torch.Generator().manual_seed(7))
    >>> solver.advance(400)
    >>> solver.d.round(6).tolist()
    [0.5, -0.5, 1.0]
    """

    def __init__(self, Gamma: Matrix, rhs: Vector, generator: torch.Generator):
        super().__init__(Gamma, rhs, generator)
        A = sp.csr_array(self.Gamma)
        gram = sp.csr_array(A @ A.T)
        self._rows = tuple(
            torch.from_numpy(part) for M in (A, gram) for part in (M.indptr, M.indices, M.data)
        )

    def _advance(self, iterations: int) -> None:
        d, r, kernels = torch.from_numpy(self.d), torch.from_numpy(self.r), table("cpu")
        for start in range(0, iterations, CHUNK):
            size = (min(CHUNK, iterations - start),)
            kernels.csr_kaczmarz(*self._rows, torch.randint(len(r), size, generator=self.generator), d, r)


class GaussianVector(SketchAndProject):
    """One random combination of all equations at a time.

    With s_1, s_2, ... drawn ahead and w_j = Gamma^T s_j, the steps alpha_j of a batch solve a lower
    triangular system, since s_i.(Gamma w_j) = w_i.w_j, and are those that would be taken one by one:

        ||w_i||^2 alpha_i = s_i.r - sum_(j < i) (w_i.w_j) alpha_j,   d -= sum_j alpha_j w_j

    Examples
    --------
    >>> K = np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    >>> solver = GaussianVector(K, np.array([2.0, 0.0, 0.0]), torch.Generator().manual_seed(7))
    >>> solver.advance(400)
    >>> solver.d.round(6).tolist()
    [0.5, -0.5, 1.0]
    """

    def _advance(self, iterations: int) -> None:
        for start in range(0, iterations, BATCH):
            size = (min(BATCH, iterations - start), len(self.r))
            S = torch.randn(size, generator=self.generator, dtype=torch.float64).numpy()
            W = (self.Gamma.T @ S.T).T
            steps = W @ W.T
            zero = np.flatnonzero(steps.diagonal() == 0)  # w = 0: any alpha will do
            steps[zero, zero] = 1
            alpha = scipy.linalg.solve_triangular(steps, S @ self.r, lower=True, check_finite=False)
            step = alpha @ W
            self.d -= step
            self.r -= self.Gamma @ step


class BlockSketch(SketchAndProject):
    """Several random combinations of the equations at a time, solved together.

    Parameters
    ----------
    Gamma, rhs, generator : as in `SketchAndProject`
    kind : "gaussian", "countsketch" (sums of disjoint sets of equations) or "srht"
    rows : combinations per iteration, 1 to m (default: 16, or m where that is less)

    Raises
    ------
    OptionError
        Another kind, or rows out of range.

    Examples
    --------
    >>> K = np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    >>> generator = torch.Generator().manual_seed(7)
    >>> solver = BlockSketch(K, np.array([2.0, 0.0, 0.0]), generator, kind="srht", rows=2)
    >>> solver.advance(100)
    >>> solver.d.round(6).tolist()
    [0.5, -0.5, 1.0]
    """

    def __init__(
        self,
        Gamma: Matrix,
        rhs: Vector,
        generator: torch.Generator,
        kind: str = "gaussian",
        rows: int | None = None,
    ):
        super().__init__(Gamma, rhs, generator)
        m = len(self.rhs)
        if kind not in KINDS:
            msg = f"got kind={kind!r}, need one of {list(KINDS)}{nearest(kind, KINDS)}"
            raise OptionError(msg)
        if rows is not None and not 1 <= rows <= m:
            msg = f"got rows={rows} for {m} equations; 1 <= rows <= {m} is needed"
            raise OptionError(msg)
        self.kind, self.rows = kind, min(ROWS, m) if rows is None else rows

    def _advance(self, iterations: int) -> None:
        m, n = self.Gamma.shape
        # below this part of the largest, singular values of W are rounding: those of a singular Gamma
        cond = max(self.rows, n) * np.finfo(float).eps
        for _ in range(iterations):
            S = KINDS[self.kind].draw(self.rows, m, self.generator)
            # a sparse Gamma does not stay sparse under a sketch: (Gamma^T S^T)^T for every kind
            W = (self.Gamma.T @ S.to_dense().numpy().T).T if sp.issparse(self.Gamma) else S @ self.Gamma
            # W^+ by a complete orthogonal factorisation: its rows may be dependent, or zero
            solved: Any = scipy.linalg.lstsq(W, S @ self.r, cond, lapack_driver="gelsy", check_finite=False)
            self.d -= solved[0]
            self.r -= self.Gamma @ solved[0]


def _system(Gamma: Matrix, rhs: Vector) -> tuple[Matrix, Vector]:
    """Return Gamma as a CSR array, columns sorted, or a NumPy array, and rhs, in float64 and checked."""
    if np.iscomplexobj(Gamma) or np.iscomplexobj(rhs):
        msg = "Gamma or rhs is complex; real numbers are needed: [[Re, -Im], [Im, Re]] is the real system"
        raise StructureError(msg)
    sparse = sp.issparse(Gamma)
    A: Matrix = sp.csr_array(Gamma, dtype=float, copy=True) if sparse else np.array(Gamma, dtype=float)
    b = np.array(rhs, dtype=float)
    if A.ndim != 2 or b.shape != A.shape[:1] or 0 in A.shape:
        msg = f"Gamma of shape {np.shape(Gamma)} and rhs {b.shape} do not fit; (m, n) and (m,) are needed"
        raise ShapeError(msg)
    if sparse:
        A.sum_duplicates()
    if not (np.isfinite(A.data if sparse else A).all() and np.isfinite(b).all()):
        msg = "Gamma or rhs holds NaN or infinity; np.isfinite(...) tells where"
        raise NonFiniteError(msg)
    return A, b
