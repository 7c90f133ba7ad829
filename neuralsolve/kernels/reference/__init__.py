"""Every kernel in plain torch and Python: the definition that faster ones are tested against."""

from neuralsolve.kernels.reference.box import csr_box_difference
from neuralsolve.kernels.reference.csr import csr_coloring, csr_diagonal, csr_matvec, csr_matvec_dot
from neuralsolve.kernels.reference.spectral import (
    divide_by_eigenvalues,
    tridiagonal_factor,
    tridiagonal_solve,
)
from neuralsolve.kernels.reference.stencil import (
    faces_matvec,
    faces_matvec_dot,
    stencil_code,
    stencil_matvec,
    stencil_matvec_dot,
)
from neuralsolve.kernels.reference.vector import axpy, cg_update, dot, subtract_means, xpby

__all__ = [
    "axpy",
    "cg_update",
    "csr_box_difference",
    "csr_coloring",
    "csr_diagonal",
    "csr_matvec",
    "csr_matvec_dot",
    "divide_by_eigenvalues",
    "dot",
    "faces_matvec",
    "faces_matvec_dot",
    "stencil_code",
    "stencil_matvec",
    "stencil_matvec_dot",
    "subtract_means",
    "tridiagonal_factor",
    "tridiagonal_solve",
    "xpby",
]
