"""Random sketches: a matrix S (rows, n) with few rows that keeps lengths and angles on average, E[S^T S] = I.

A kind of sketch is a frozen object of options; `draw` takes the random numbers and returns S, which is
applied by `S @ A` and `S.T @ y` and, but for `Gaussian`, never formed. For A (n, k) with nnz(A) entries that
costs:

    Gaussian      rows n k                       any shape; the one with the sharpest theory
    SRHT          n k log n                      dense A only
    CountSketch   nnz(A)                         needs rows ~ dimension^2 for a subspace
    SparseSign    per_column nnz(A)              behaves as Gaussian from about 8 per column on

S embeds a subspace V where | ||S v||^2 - ||v||^2 | <= eps ||v||^2 for all v in V: for V of dimension k that
takes rows ~ k/eps^2 (Gaussian), ~ (k + log n) log k / eps^2 (SRHT), ~ k^2/eps^2 (CountSketch).

Sources: Martinsson & Tropp, Randomized numerical linear algebra, Acta Numerica 29 (2020) 403-572, sec. 8 and
9; those of a kind stand with it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError

Device = torch.device | str


class Sketch(ABC):
    """A kind of sketch; `draw` makes one."""

    def draw(
        self,
        rows: int,
        n: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
        device: Device = "cpu",
    ) -> Drawn:
        """Draw S.

        Parameters
        ----------
        rows, n : its shape; both at least 1
        generator : where the random numbers come from: drawn on its device, then moved, so that a generator
            of the CPU gives the same S on every device
        dtype : floating point; that of the matrices S will meet
        device : where S shall be

        Raises
        ------
        OptionError
            A shape or dtype that the kind cannot have.
        """
        if rows < 1 or n < 1:
            msg = f"got a sketch of shape ({rows}, {n}); rows >= 1 and n >= 1 are needed"
            raise OptionError(msg)
        if not dtype.is_floating_point:
            msg = f"got dtype {dtype}; a real floating point type is needed: dtype=torch.float64"
            raise OptionError(msg)
        return self._draw(rows, n, generator, dtype, torch.device(device))

    @abstractmethod
    def _draw(
        self, rows: int, n: int, generator: torch.Generator, dtype: torch.dtype, device: torch.device
    ) -> Drawn: ...


class Drawn(ABC):
    """A sketch S (rows, n): `S @ A` and `S.T @ y`, NumPy in, NumPy out, torch in, torch out.

    Attributes
    ----------
    shape : (rows, n)
    dtype, device : of S
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device):
        self.shape, self.dtype, self.device = shape, dtype, device

    def __matmul__(self, A: Any) -> Any:
        """Return S A for A (n,) or (n, k), dense, or SciPy sparse where the kind says so."""
        if sp.issparse(A):
            self._check(A.shape, self.shape[1], "S")
            return self._apply_sparse(A)
        return self._dense(A, self.shape[1], "S", self._apply)

    @property
    def T(self) -> Adjoint:
        """The adjoint S^T (n, rows), for `S.T @ y`."""
        return Adjoint(self)

    def to_dense(self) -> Tensor:
        """Return S as a tensor (rows, n)."""
        return self._adjoint(torch.eye(self.shape[0], dtype=self.dtype, device=self.device)).T

    @abstractmethod
    def _apply(self, A: Tensor) -> Tensor:
        """S A for A (n, k)."""

    @abstractmethod
    def _adjoint(self, Y: Tensor) -> Tensor:
        """S^T Y for Y (rows, k)."""

    def _apply_sparse(self, A: Any) -> Any:
        msg = "SRHT mixes all rows of a matrix and got a sparse one; S @ A.toarray(), or draw a CountSketch()"
        raise OptionError(msg)

    def _check(self, shape: tuple[int, ...], length: int, name: str) -> None:
        if len(shape) not in (1, 2) or shape[0] != length:
            width = self.shape[0] + self.shape[1] - length
            need = f"({length},) or ({length}, k) is needed"
            msg = f"{name} of shape {(width, length)} got a matrix of shape {tuple(shape)}; {need}"
            raise ShapeError(msg)

    def _dense(self, A: Any, length: int, name: str, product: Any) -> Any:
        X = A
        if not isinstance(X, Tensor):  # writable, or torch warns of what it might do
            X = torch.from_numpy(np.require(X, requirements=["C", "W"])).to(self.device)
        self._check(tuple(X.shape), length, name)
        if X.dtype != self.dtype:
            msg = f"the sketch is {self.dtype}, the matrix {X.dtype}; draw(dtype={X.dtype}) fits"
            raise OptionError(msg)
        Y = product(X) if X.ndim == 2 else product(X[:, None])[:, 0]
        return Y if isinstance(A, Tensor) else Y.cpu().numpy()


class Adjoint:
    """S^T (n, rows) of a sketch S."""

    def __init__(self, sketch: Drawn):
        self.T, self.shape = sketch, sketch.shape[::-1]

    def __matmul__(self, y: Any) -> Any:
        """Return S^T y for y (rows,) or (rows, k), dense."""
        return self.T._dense(y, self.shape[1], "S^T", self.T._adjoint)


@dataclass(frozen=True)
class Gaussian(Sketch):
    """Independent entries N(0, 1/rows).

    S @ A takes SciPy sparse A too, and returns it dense (NumPy). Martinsson & Tropp 2020, sec. 8: the
    singular values of S on a subspace of dimension k lie about 1 -+ sqrt(k/rows).

    Examples
    --------
    >>> S = Gaussian().draw(50, 1000, torch.Generator().manual_seed(7))
    >>> x = torch.ones(1000, dtype=torch.float64)
    >>> (S @ x).shape, (S.T @ (S @ x)).shape
    (torch.Size([50]), torch.Size([1000]))
    """

    def _draw(self, rows, n, generator, dtype, device):
        entries = torch.randn((rows, n), generator=generator, dtype=dtype, device=generator.device)
        return GaussianSketch(entries.to(device) / math.sqrt(rows))


class GaussianSketch(Drawn):
    """S as the dense matrix that it is."""

    def __init__(self, matrix: Tensor):
        super().__init__((matrix.shape[0], matrix.shape[1]), matrix.dtype, matrix.device)
        self.matrix = matrix

    def _apply(self, A: Tensor) -> Tensor:
        return self.matrix @ A

    def _adjoint(self, Y: Tensor) -> Tensor:
        return self.matrix.T @ Y

    def _apply_sparse(self, A: Any) -> np.ndarray:
        return (A.T @ self.matrix.cpu().numpy().T).T


@dataclass(frozen=True)
class SRHT(Sketch):
    """Subsampled randomised Hadamard transform S = sqrt(N/rows) R H D, in O(n log n) per column.

    D are random signs, H (N, N) the orthonormal Walsh-Hadamard matrix of the next power of two N >= n, which
    sees zeros in the places after n, and R picks `rows` <= N of its rows, without replacement. D and H spread
    a vector over all entries, so that some of them tell its length.

    Ailon & Chazelle, SIAM J. Comput. 39 (2009) 302-322; Tropp, Adv. Adapt. Data Anal. 3 (2011) 115-126.

    Examples
    --------
    >>> S = SRHT().draw(1024, 1000, torch.Generator().manual_seed(7))  # all rows: S^T S = I
    >>> x = torch.ones(1000, dtype=torch.float64)
    >>> torch.allclose(S.T @ (S @ x), x)
    True
    """

    def _draw(self, rows, n, generator, dtype, device):
        N = 1 << (n - 1).bit_length()
        if rows > N:
            msg = f"got rows={rows}, SRHT of {n} columns has {N} to choose from; rows <= {N} is needed"
            raise OptionError(msg)
        picked = torch.randperm(N, generator=generator, device=generator.device)[:rows]
        return HadamardSketch(picked.to(device), _signs((n,), generator, dtype, device), N)


class HadamardSketch(Drawn):
    """S = sqrt(N/rows) R H D by its picked rows (rows,) and signs (n,)."""

    def __init__(self, picked: Tensor, signs: Tensor, N: int):
        super().__init__((len(picked), len(signs)), signs.dtype, signs.device)
        self.picked, self.signs, self.N = picked, signs, N

    def _apply(self, A: Tensor) -> Tensor:
        padded = A.new_zeros((self.N, A.shape[1]))
        padded[: self.shape[1]] = self.signs[:, None] * A
        return walsh_hadamard(padded)[self.picked] / math.sqrt(self.shape[0])

    def _adjoint(self, Y: Tensor) -> Tensor:
        spread = Y.new_zeros((self.N, Y.shape[1]))
        spread[self.picked] = Y
        return self.signs[:, None] * walsh_hadamard(spread)[: self.shape[1]] / math.sqrt(self.shape[0])


def walsh_hadamard(A: Tensor) -> Tensor:
    """Return H A for A (N, k), N a power of two, where H has the entries +-1 and H H = N I; H is symmetric.

    H_2N = [[H, H], [H, -H]], so log2 N rounds of sums and differences: N k log2 N additions.

    >>> walsh_hadamard(torch.eye(2))
    tensor([[ 1.,  1.],
            [ 1., -1.]])
    """
    N, k = A.shape
    half = 1
    while half < N:
        upper, lower = A.reshape(N // (2 * half), 2, half * k).unbind(1)
        A = torch.stack([upper + lower, upper - lower], 1)
        half *= 2
    return A.reshape(N, k)


@dataclass(frozen=True)
class SparseSign(Sketch):
    """In each column `per_column` entries +-1/sqrt(per_column), in rows chosen without replacement.

    S @ A takes SciPy sparse A too, and returns it sparse (CSR). Cohen, SODA 2016, 278-287: about log k per
    column and k log k rows embed a subspace of dimension k; Martinsson & Tropp 2020, sec. 9.2: 8 do in
    practice.

    Parameters
    ----------
    per_column : nonzeros per column of S, at most its rows

    Examples
    --------
    >>> S = SparseSign(per_column=4).draw(50, 1000, torch.Generator().manual_seed(7))
    >>> int((S.to_dense() != 0).sum())
    4000
    """

    per_column: int = 8

    def __post_init__(self) -> None:
        if self.per_column < 1:
            msg = f"got per_column={self.per_column}; at least 1 is needed: SparseSign(per_column=8)"
            raise OptionError(msg)

    def _draw(self, rows, n, generator, dtype, device):
        if rows < self.per_column:
            msg = f"{self.per_column} nonzeros per column do not fit in rows={rows}; SparseSign({rows}) does"
            raise OptionError(msg)
        places = distinct(self.per_column, rows, n, generator).to(device)
        signs = _signs((self.per_column, n), generator, dtype, device) / math.sqrt(self.per_column)
        return SparseSketch(rows, places, signs)


@dataclass(frozen=True)
class CountSketch(Sketch):
    """In each column one entry +-1, in a random row: every row of A is added to one row of S A or subtracted.

    S @ A takes SciPy sparse A too, and returns it sparse (CSR). Clarkson & Woodruff, STOC 2013, 81-90:
    k^2/eps^2 rows, up to constants, embed a subspace of dimension k.

    Examples
    --------
    >>> S = CountSketch().draw(5, 1000, torch.Generator().manual_seed(7))
    >>> float((S @ torch.eye(1000, dtype=torch.float64)).abs().sum())
    1000.0
    """

    def _draw(self, rows, n, generator, dtype, device):
        return SparseSign(per_column=1)._draw(rows, n, generator, dtype, device)


class SparseSketch(Drawn):
    """S by the rows and the values of the nonzeros of its columns, both (per_column, n)."""

    def __init__(self, rows: int, places: Tensor, values: Tensor):
        super().__init__((rows, places.shape[1]), values.dtype, values.device)
        self.places, self.values = places, values

    def _apply(self, A: Tensor) -> Tensor:
        out = A.new_zeros((self.shape[0], A.shape[1]))
        for place, value in zip(self.places, self.values, strict=True):
            out.index_add_(0, place, value[:, None] * A)
        return out

    def _adjoint(self, Y: Tensor) -> Tensor:
        out = Y.new_zeros((self.shape[1], Y.shape[1]))
        for place, value in zip(self.places, self.values, strict=True):
            out.addcmul_(value[:, None], Y[place])
        return out

    def _apply_sparse(self, A: Any) -> Any:
        per_column, n = self.places.shape
        columns = np.arange(0, per_column * n + 1, per_column)
        places, values = (part.T.reshape(-1).cpu().numpy() for part in (self.places, self.values))
        return sp.csr_array(sp.csc_array((values, places, columns), shape=self.shape) @ sp.csr_array(A))


def _signs(
    shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, device: torch.device
) -> Tensor:
    heads = torch.randint(2, shape, generator=generator, device=generator.device)
    return (2 * heads - 1).to(device=device, dtype=dtype)


def distinct(count: int, rows: int, n: int, generator: torch.Generator) -> Tensor:
    """Return uniformly random subsets of range(rows), one a column: (count, n).

    Floyd's algorithm (Bentley, Comm. ACM 30 (1987) 754-757): O(count^2 n), whatever the number of rows.
    """
    chosen = torch.empty((count, n), dtype=torch.int64, device=generator.device)
    for k, last in enumerate(range(rows - count, rows)):
        drawn = torch.randint(last + 1, (n,), generator=generator, device=generator.device)
        taken = (chosen[:k] == drawn).any(0)
        chosen[k] = torch.where(taken, last, drawn)
    return chosen
