"""Every kernel in numba, for tensors on the CPU; definitions are in `neuralsolve.kernels.reference`."""

from neuralsolve.kernels.cpu.csr import csr_coloring, csr_diagonal, csr_matvec, csr_matvec_dot
from neuralsolve.kernels.cpu.faces import faces_matvec, faces_matvec_dot
from neuralsolve.kernels.cpu.stencil import stencil_code, stencil_matvec, stencil_matvec_dot
from neuralsolve.kernels.cpu.vector import axpy, cg_update, dot, subtract_means, xpby

__all__ = [
    "axpy",
    "cg_update",
    "csr_coloring",
    "csr_diagonal",
    "csr_matvec",
    "csr_matvec_dot",
    "dot",
    "faces_matvec",
    "faces_matvec_dot",
    "stencil_code",
    "stencil_matvec",
    "stencil_matvec_dot",
    "subtract_means",
    "xpby",
]
