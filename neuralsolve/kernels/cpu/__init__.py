"""Every kernel in numba, for tensors on the CPU; definitions are in `neuralsolve.kernels.reference`."""

from neuralsolve.kernels.cpu.aggregation import (
    csr_aggregate,
    csr_galerkin,
    csr_row_sizes,
    csr_smoothed_aggregates,
    csr_transpose,
)
from neuralsolve.kernels.cpu.assemble import faces_assemble, faces_code, faces_kinds, faces_outlets
from neuralsolve.kernels.cpu.attach import coarse_attached, level_attach
from neuralsolve.kernels.cpu.blocks import (
    csr_block_backward,
    csr_block_correct,
    csr_block_forward,
    csr_block_residual,
)
from neuralsolve.kernels.cpu.blocks_split import csr_block_split, csr_padded
from neuralsolve.kernels.cpu.box import csr_box_difference
from neuralsolve.kernels.cpu.cauchy import cauchy, cauchy_adjoint
from neuralsolve.kernels.cpu.coarsen import (
    coarse_couplings,
    coarsest_matrix,
    level_diagonal,
)
from neuralsolve.kernels.cpu.codes import code_level
from neuralsolve.kernels.cpu.columns import columns_axpy, columns_dot
from neuralsolve.kernels.cpu.conductors import conductor_code, conductor_correct, conductor_parts
from neuralsolve.kernels.cpu.csr import csr_coloring, csr_diagonal, csr_gram, csr_matvec, csr_matvec_dot
from neuralsolve.kernels.cpu.cycle import levels_cycle
from neuralsolve.kernels.cpu.direction import faces_direction_dot, stencil_direction_dot
from neuralsolve.kernels.cpu.faces import faces_matvec, faces_matvec_dot
from neuralsolve.kernels.cpu.faces_factor import faces_ic0_factor, faces_ic0_solve
from neuralsolve.kernels.cpu.faces_sweeps import faces_redblack_sweep, faces_sor_sweep
from neuralsolve.kernels.cpu.factor import (
    csr_ic0_factor,
    csr_ilu0_factor,
    csr_ilu0_solve,
    csr_lower_solve,
    csr_lower_transpose_solve,
)
from neuralsolve.kernels.cpu.grid import csr_grid_rows
from neuralsolve.kernels.cpu.kaczmarz import csr_kaczmarz
from neuralsolve.kernels.cpu.learned import level_adapt, level_inverse, level_volume
from neuralsolve.kernels.cpu.level_faces import level_faces
from neuralsolve.kernels.cpu.mixing import hadamard_sketch, hadamard_sketch_columns
from neuralsolve.kernels.cpu.padded import (
    level_load,
    level_relax,
    level_residual,
    level_start,
    level_store,
    level_wrap,
)
from neuralsolve.kernels.cpu.regions import stencil_regions
from neuralsolve.kernels.cpu.scan import diagonal_scan, diagonal_scan_backward
from neuralsolve.kernels.cpu.spans import code_changes, spans_around, spans_attached, spans_below, spans_join
from neuralsolve.kernels.cpu.spectral import cyclic_solve, tridiagonal_factor, tridiagonal_solve
from neuralsolve.kernels.cpu.stencil import stencil_code, stencil_matvec, stencil_matvec_dot
from neuralsolve.kernels.cpu.sweeps import csr_color_sweep, csr_sor_sweep
from neuralsolve.kernels.cpu.tokens import (
    token_decode,
    token_decode_backward,
    token_encode,
    token_encode_backward,
    token_series,
    token_series_backward,
)
from neuralsolve.kernels.cpu.transfers import level_prolong, level_restrict
from neuralsolve.kernels.cpu.vandermonde import vandermonde, vandermonde_adjoint
from neuralsolve.kernels.cpu.vector import (
    axpy,
    cg_update,
    dot,
    largest,
    masked_copy,
    scaled_copy,
    subtract_means,
    transposed_copy,
    xpby,
)
from neuralsolve.kernels.cpu.weights import level_weights

# for other devices, whose numbers the host does not read; here it does
from neuralsolve.kernels.reference.padded import level_load_scaled, level_store_scaled

__all__ = [
    "axpy",
    "cauchy",
    "cauchy_adjoint",
    "cg_update",
    "coarse_attached",
    "coarse_couplings",
    "coarsest_matrix",
    "code_changes",
    "code_level",
    "columns_axpy",
    "columns_dot",
    "conductor_code",
    "conductor_correct",
    "conductor_parts",
    "csr_aggregate",
    "csr_block_backward",
    "csr_block_correct",
    "csr_block_forward",
    "csr_block_residual",
    "csr_block_split",
    "csr_box_difference",
    "csr_color_sweep",
    "csr_coloring",
    "csr_diagonal",
    "csr_galerkin",
    "csr_gram",
    "csr_grid_rows",
    "csr_ic0_factor",
    "csr_ilu0_factor",
    "csr_ilu0_solve",
    "csr_kaczmarz",
    "csr_lower_solve",
    "csr_lower_transpose_solve",
    "csr_matvec",
    "csr_matvec_dot",
    "csr_padded",
    "csr_row_sizes",
    "csr_smoothed_aggregates",
    "csr_sor_sweep",
    "csr_transpose",
    "cyclic_solve",
    "diagonal_scan",
    "diagonal_scan_backward",
    "dot",
    "faces_assemble",
    "faces_code",
    "faces_direction_dot",
    "faces_ic0_factor",
    "faces_ic0_solve",
    "faces_kinds",
    "faces_matvec",
    "faces_matvec_dot",
    "faces_outlets",
    "faces_redblack_sweep",
    "faces_sor_sweep",
    "hadamard_sketch",
    "hadamard_sketch_columns",
    "largest",
    "level_adapt",
    "level_attach",
    "level_diagonal",
    "level_faces",
    "level_inverse",
    "level_load",
    "level_load_scaled",
    "level_prolong",
    "level_relax",
    "level_residual",
    "level_restrict",
    "level_start",
    "level_store",
    "level_store_scaled",
    "level_volume",
    "level_weights",
    "level_wrap",
    "levels_cycle",
    "masked_copy",
    "scaled_copy",
    "spans_around",
    "spans_attached",
    "spans_below",
    "spans_join",
    "stencil_code",
    "stencil_direction_dot",
    "stencil_matvec",
    "stencil_matvec_dot",
    "stencil_regions",
    "subtract_means",
    "token_decode",
    "token_decode_backward",
    "token_encode",
    "token_encode_backward",
    "token_series",
    "token_series_backward",
    "transposed_copy",
    "tridiagonal_factor",
    "tridiagonal_solve",
    "vandermonde",
    "vandermonde_adjoint",
    "xpby",
]
