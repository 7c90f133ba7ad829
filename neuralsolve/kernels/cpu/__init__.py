"""Every kernel in numba, for tensors on the CPU; definitions are in `neuralsolve.kernels.reference`."""

from neuralsolve.kernels.cpu.box import csr_box_difference
from neuralsolve.kernels.cpu.csr import csr_coloring, csr_diagonal, csr_matvec, csr_matvec_dot
from neuralsolve.kernels.cpu.faces import faces_matvec, faces_matvec_dot
from neuralsolve.kernels.cpu.spectral import divide_by_eigenvalues, tridiagonal_factor, tridiagonal_solve
from neuralsolve.kernels.cpu.stencil import stencil_code, stencil_matvec, stencil_matvec_dot
from neuralsolve.kernels.cpu.vector import axpy, cg_update, dot, subtract_means, xpby

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
