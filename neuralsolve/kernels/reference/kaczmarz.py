"""Kaczmarz's row projections, plain torch: the definition.

One step takes equation i of A d = b and moves d to the nearest point on its hyperplane (Kaczmarz 1937;
Strohmer & Vershynin, J. Fourier Anal. Appl. 15 (2009) 262-278):

    t = r_i / ||A_i||^2,   d -= t A_i,   r = A d - b  becomes  r - t A A_i = r - t (A A^T)_i.

With A A^T at hand r is kept instead of formed anew: a step costs the entries of two rows. Equation i holds
after it, and for a consistent system ||d - d*||^2 falls by r_i^2/||A_i||^2.
"""

from __future__ import annotations

from torch import Tensor


def csr_kaczmarz(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    gram_indptr: Tensor,
    gram_indices: Tensor,
    gram_values: Tensor,
    rows: Tensor,
    d: Tensor,
    r: Tensor,
) -> None:
    """Project d (n,) on the equations `rows` of A (m, n), one after the other, in place; r (m,) follows.

    gram is A A^T (m, m), symmetric; its diagonal holds the ||A_i||^2, and rows where that is zero, or not
    stored, are passed over. rows (k,) int64 may repeat. k steps let r drift from A d - b by about
    k eps ||A|| max_j ||d_j|| at most, eps of the dtype of `values`.
    """
    for i in rows.tolist():
        entries = slice(int(indptr[i]), int(indptr[i + 1]))
        coupled = slice(int(gram_indptr[i]), int(gram_indptr[i + 1]))
        columns, gram = gram_indices[coupled].long(), gram_values[coupled]
        square = gram[columns == i].sum()
        if square != 0:
            t = r[i] / square
            d.index_add_(0, indices[entries].long(), -t * values[entries])
            r.index_add_(0, columns, -t * gram)
