"""A problem as the baselines take it: assembled, active unknowns only, b without its null-space part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuralsolve.errors import ShapeError
from neuralsolve.operators.convert import as_operator
from neuralsolve.solvers.structure import Structure, probe

if TYPE_CHECKING:
    import scipy.sparse

    from neuralsolve.cases import Problem


@dataclass(frozen=True)
class System:
    """A x = b for everyone.

    Attributes
    ----------
    problem : Problem
        What our methods get: A as it came, b on all unknowns.
    matrix : scipy.sparse.csr_array (m, m)
        A on the active unknowns, its sign flipped where A was negative definite.
    rhs : ndarray (m,)
        b on them, less its part in the null space.
    active : ndarray (m,), their numbers
    structure : Structure
    """

    problem: Problem
    matrix: scipy.sparse.csr_array
    rhs: np.ndarray
    active: np.ndarray
    structure: Structure

    @property
    def singular(self) -> bool:
        """Whether A has a null space that is known."""
        return self.structure.A.null_space is not None

    def residual(self, x: Any) -> float:
        """Return ||b - A x|| / ||b|| in float64 for x on the active or on all unknowns; 0 where b is 0.

        Formed on the CPU; x may be an array of NumPy or CuPy, or a tensor of any device.
        """
        x = np.asarray(on_host(x), dtype=np.float64)
        if len(x) != len(self.rhs):
            x = x[self.active]
        size = float(np.linalg.norm(self.rhs))
        return float(np.linalg.norm(self.rhs - self.matrix @ x)) / size if size else 0.0


def on_host(x: Any) -> np.ndarray:
    """Return the numbers of an array or a tensor as NumPy has them."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().numpy()
    return x.get() if hasattr(x, "get") else np.asarray(x)  # CuPy's arrays are copied when asked to


def assembled(problem: Problem) -> System:
    """Return the system of a problem.

    Raises
    ------
    ShapeError
        b has several columns: the benchmark takes one.
    StructureError
        A complex A.
    """
    if problem.b.ndim != 1:
        msg = f"b has shape {problem.b.shape}; a benchmark takes one right side (n,)"
        raise ShapeError(msg)
    structure = probe(as_operator(problem.A))
    A: Any = structure.A
    active = np.arange(structure.n) if A.active is None else np.flatnonzero(A.active.numpy())
    b = torch.from_numpy(problem.b.astype(np.float64))
    b = b * structure.signs if structure.signs is not None else b.clone()
    if A.active is not None:
        b[~A.active] = 0.0
    if A.null_space is not None:
        A.null_space.project(b)
    matrix = A.to_scipy()
    if len(active) < structure.n:
        matrix = matrix[active][:, active]
    return System(problem, matrix.tocsr(), b.numpy()[active], active, structure)
