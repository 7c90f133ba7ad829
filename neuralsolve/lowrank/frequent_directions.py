"""Frequent Directions: the covariance of rows that go by, in a few of them, with a guarantee.

Rows are gathered until there are twice as many as the sketch has; then an SVD of them, and from all squared
singular values the one after the last that is kept is subtracted. Deterministic: for the rows A (N, n) seen
and the sketch S (size, n), and every k <= size,

    0 <= A^H A - S^H S,    ||A^H A - S^H S||_2 <= ||A - A_k||_F^2 / (size + 1 - k)

Ghashami, Liberty, Phillips & Woodruff, SIAM J. Comput. 45 (2016) 1762-1792, thm. 1.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.decompositions import check_finite, dense_svd
from neuralsolve.lowrank.factors import canonical_signs, check_part, part_lost, smallest_rank
from neuralsolve.lowrank.products import as_tensor
from neuralsolve.lowrank.range_finder import check_count


class FrequentDirections:
    """A sketch of a stream of rows; O(n size) a row.

    Parameters
    ----------
    n : length of the rows
    size : rows of the sketch, 1 to n
    dtype, device : of the sketch; rows are converted

    Attributes
    ----------
    rows : how many rows have been seen
    error_bound : of ||A^H A - S^H S||_2, the sum of what was subtracted: never above the theorem's

    Examples
    --------
    >>> seen = FrequentDirections(n=3, size=2)
    >>> for row in torch.eye(3, dtype=torch.float64) * torch.tensor([9.0, 4.0, 0.5]):
    ...     seen.update(row)
    >>> seen.basis(rank=1).abs().flatten().tolist()
    [1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        n: int,
        size: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ):
        check_count("n", n)
        check_count("size", size, n)
        if dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            msg = f"got dtype={dtype}; float32, float64 or their complex kin are needed: dtype=torch.float32"
            raise OptionError(msg)
        self.n, self.size, self.rows, self.error_bound = n, size, 0, 0.0
        self._buffer = torch.zeros((2 * size, n), dtype=dtype, device=device)
        self._filled = 0

    def update(self, X: Any) -> None:
        """Take rows X (k, n), or one (n,), into account.

        Raises
        ------
        ShapeError, NonFiniteError, OptionError
            Rows of another length, NaN, integers; the sketch stays as it was.
        """
        given = as_tensor(X).detach()
        rows = given[None] if given.ndim == 1 else given
        if rows.ndim != 2 or rows.shape[1] != self.n:
            msg = f"got rows of shape {tuple(given.shape)}; (k, {self.n}) is needed"
            raise ShapeError(msg)
        check_finite(rows, "X")
        self.rows += len(rows)
        while len(rows):
            if self._filled == len(self._buffer):
                self._shrink()
            taken = rows[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]

    @property
    def sketch(self) -> Tensor:
        """S (size, n), rows orthogonal and of descending length once there were more than `size` rows."""
        if self._filled > self.size:
            self._shrink()
        return self._buffer[: self.size].clone()

    def basis(self, rank: int | None = None, *, energy: float | None = None) -> Tensor:
        """Return leading directions (n, k) of the rows: k = rank, or by the energy of the sketch."""
        check_part(rank, None, energy, none=False)
        U, s, Vh = dense_svd(self.sketch.mH)
        if rank is None:
            rank = smallest_rank(s, part_lost(None, energy))
        check_count("rank", rank, self.size)
        return canonical_signs(U, Vh)[0][:, :rank]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` goes on from."""
        return {"sketch": self.sketch, "rows": self.rows, "error_bound": self.error_bound}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of a sketch of the same n and size."""
        sketch = state["sketch"]
        if tuple(sketch.shape) != (self.size, self.n):
            msg = f"the state has a sketch {tuple(sketch.shape)}; ({self.size}, {self.n}) is needed"
            raise ShapeError(msg)
        self._buffer.zero_()
        self._buffer[: self.size] = sketch
        self._filled, self.rows, self.error_bound = self.size, state["rows"], state["error_bound"]

    def _shrink(self) -> None:
        s, Vh = dense_svd(self._buffer[: self._filled])[1:]
        least = s[self.size] ** 2 if len(s) > self.size else torch.zeros_like(s[0])
        self.error_bound += float(least)
        kept = (s[: self.size] ** 2 - least).clamp_min(0).sqrt()
        self._buffer.zero_()
        self._buffer[: len(kept)] = kept[:, None] * Vh[: len(kept)]
        self._filled = self.size
