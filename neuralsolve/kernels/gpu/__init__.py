"""Kernels in Triton for CUDA devices, under the names and signatures of `kernels.reference`.

Only what an iteration needs is here. Hierarchies, factors and colours are made on the CPU, once, and moved:
asking for one of those kernels is an error that says so. Sums that are few large products of matrices, and
the attention of patches, are plain torch here as in the reference: cuBLAS serves them.
"""

from __future__ import annotations

from typing import Any

from neuralsolve.errors import OptionError
from neuralsolve.kernels.gpu.components import subtract_means
from neuralsolve.kernels.gpu.conductors import conductor_correct
from neuralsolve.kernels.gpu.csr import csr_diagonal, csr_gram, csr_matvec, csr_matvec_dot
from neuralsolve.kernels.gpu.cycle import levels_cycle
from neuralsolve.kernels.gpu.faces import faces_direction_dot, faces_matvec, faces_matvec_dot
from neuralsolve.kernels.gpu.padded import (
    level_load,
    level_load_scaled,
    level_store,
    level_store_scaled,
    level_wrap,
)
from neuralsolve.kernels.gpu.scan import diagonal_scan, diagonal_scan_backward
from neuralsolve.kernels.gpu.smoothing import level_relax, level_residual, level_start
from neuralsolve.kernels.gpu.spectral import cyclic_solve, tridiagonal_solve
from neuralsolve.kernels.gpu.stencil import stencil_direction_dot, stencil_matvec, stencil_matvec_dot
from neuralsolve.kernels.gpu.sweeps import csr_color_sweep, faces_redblack_sweep
from neuralsolve.kernels.gpu.transfers import level_prolong, level_restrict
from neuralsolve.kernels.gpu.vector import (
    axpy,
    cg_update,
    columns_axpy,
    columns_dot,
    dot,
    largest,
    masked_copy,
    scaled_copy,
    transposed_copy,
    xpby,
)
from neuralsolve.kernels.reference.cauchy import cauchy, cauchy_adjoint
from neuralsolve.kernels.reference.tokens import (
    token_decode,
    token_decode_backward,
    token_encode,
    token_encode_backward,
    token_series,
    token_series_backward,
)
from neuralsolve.kernels.reference.vandermonde import vandermonde, vandermonde_adjoint

__all__ = [
    "axpy",
    "cauchy",
    "cauchy_adjoint",
    "cg_update",
    "columns_axpy",
    "columns_dot",
    "conductor_correct",
    "csr_color_sweep",
    "csr_diagonal",
    "csr_gram",
    "csr_matvec",
    "csr_matvec_dot",
    "cyclic_solve",
    "diagonal_scan",
    "diagonal_scan_backward",
    "dot",
    "faces_direction_dot",
    "faces_matvec",
    "faces_matvec_dot",
    "faces_redblack_sweep",
    "largest",
    "level_load",
    "level_load_scaled",
    "level_prolong",
    "level_relax",
    "level_residual",
    "level_restrict",
    "level_start",
    "level_store",
    "level_store_scaled",
    "level_wrap",
    "levels_cycle",
    "masked_copy",
    "scaled_copy",
    "stencil_direction_dot",
    "stencil_matvec",
    "stencil_matvec_dot",
    "subtract_means",
    "token_decode",
    "token_decode_backward",
    "token_encode",
    "token_encode_backward",
    "token_series",
    "token_series_backward",
    "transposed_copy",
    "tridiagonal_solve",
    "vandermonde",
    "vandermonde_adjoint",
    "xpby",
]


def __getattr__(name: str) -> Any:
    from neuralsolve.kernels import reference

    if name not in reference.__all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    msg = f"the kernel {name} runs on the CPU alone: make what needs it there, then move it with .to('cuda')"
    raise OptionError(msg)
