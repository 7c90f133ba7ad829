"""Colours of the rows of a matrix: rows of one colour are not coupled, so a sweep takes them at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.csr import CSROperator, from_scipy


class Colors:
    """The rows of a matrix by colour: `members[starts[c]:starts[c + 1]]` are not coupled to each other."""

    def __init__(self, A: CSROperator, order: str, recipe: str):
        self.indptr, self.indices = A.indptr, A.indices
        graph = A if A.symmetric else _symmetric_pattern(A)
        color = _two_colors(graph, recipe) if order == "red-black" else _greedy_colors(graph)
        self.members = torch.argsort(color, stable=True).to(torch.int32)
        counts = torch.bincount(color)
        self.starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)

    def fits(self, A: CSROperator) -> bool:
        return torch.equal(A.indptr, self.indptr) and torch.equal(A.indices, self.indices)


def _greedy_colors(graph: CSROperator) -> Tensor:
    color = torch.empty(graph.shape[0], dtype=torch.int32)
    table(graph.device).csr_coloring(graph.indptr, graph.indices, color)
    return color


def _two_colors(graph: CSROperator, recipe: str) -> Tensor:
    """Colour a bipartite graph, the first row of every component red.

    In the double cover, where (i, 0) joins (j, 1) and (i, 1) joins (j, 0), the copies of a row meet exactly
    where its component has an odd cycle; otherwise each component splits into two, by colour.
    """
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components

    n = graph.shape[0]
    rows, columns = graph.rows().numpy(), graph.indices.numpy()
    off = rows != columns
    i, j = rows[off], columns[off]
    edges = np.concatenate([i, i + n]), np.concatenate([j + n, j])
    cover = scipy.sparse.coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(2 * n, 2 * n))
    _, side = connected_components(cover, directed=False)
    meeting = np.flatnonzero(side[:n] == side[n:])
    if len(meeting):
        msg = (
            f"{recipe}(order='red-black') on a matrix whose graph does not take two colours (an odd cycle "
            f"through row {meeting[0]}); use order='multicolor' or order='lexicographic'"
        )
        raise StructureError(msg)
    _, first, component = np.unique(np.minimum(side[:n], side[n:]), return_index=True, return_inverse=True)
    return torch.from_numpy((side[:n] != side[first][component]).astype(np.int32))


def _symmetric_pattern(A: CSROperator) -> CSROperator:
    S = abs(A.to_scipy())
    S.data[:] = 1.0
    return from_scipy((S + S.T).tocsr())
