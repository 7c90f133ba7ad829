"""Every kernel in plain torch and Python: the definition that faster ones are tested against."""

from neuralsolve.kernels.reference.aggregation import (
    csr_aggregate,
    csr_galerkin,
    csr_row_sizes,
    csr_smoothed_aggregates,
    csr_transpose,
)
from neuralsolve.kernels.reference.assemble import faces_assemble, faces_code, faces_kinds, faces_outlets
from neuralsolve.kernels.reference.blocks import (
    csr_block_backward,
    csr_block_correct,
    csr_block_forward,
    csr_block_residual,
    csr_block_split,
    csr_padded,
)
from neuralsolve.kernels.reference.box import csr_box_difference
from neuralsolve.kernels.reference.cauchy import cauchy, cauchy_adjoint
from neuralsolve.kernels.reference.coarsen import (
    coarse_attached,
    coarse_couplings,
    coarsest_matrix,
    code_level,
    level_attach,
    level_diagonal,
    level_weights,
)
from neuralsolve.kernels.reference.columns import columns_axpy, columns_dot
from neuralsolve.kernels.reference.conductors import conductor_code, conductor_correct, conductor_parts
from neuralsolve.kernels.reference.csr import csr_coloring, csr_diagonal, csr_gram, csr_matvec, csr_matvec_dot
from neuralsolve.kernels.reference.cycle import levels_cycle
from neuralsolve.kernels.reference.factor import (
    csr_ic0_factor,
    csr_ilu0_factor,
    csr_ilu0_solve,
    csr_lower_solve,
    csr_lower_transpose_solve,
    faces_ic0_factor,
    faces_ic0_solve,
)
from neuralsolve.kernels.reference.grid import csr_grid_rows
from neuralsolve.kernels.reference.kaczmarz import csr_kaczmarz
from neuralsolve.kernels.reference.learned import level_adapt, level_inverse, level_volume
from neuralsolve.kernels.reference.mixing import hadamard_sketch, hadamard_sketch_columns
from neuralsolve.kernels.reference.padded import (
    level_load,
    level_prolong,
    level_relax,
    level_residual,
    level_restrict,
    level_start,
    level_store,
    level_wrap,
)
from neuralsolve.kernels.reference.regions import stencil_regions
from neuralsolve.kernels.reference.scan import diagonal_scan, diagonal_scan_backward
from neuralsolve.kernels.reference.spans import (
    code_changes,
    level_faces,
    spans_around,
    spans_attached,
    spans_below,
    spans_join,
)
from neuralsolve.kernels.reference.spectral import (
    cyclic_solve,
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
from neuralsolve.kernels.reference.sweeps import (
    csr_color_sweep,
    csr_sor_sweep,
    faces_redblack_sweep,
    faces_sor_sweep,
)
from neuralsolve.kernels.reference.tokens import (
    token_decode,
    token_decode_backward,
    token_encode,
    token_encode_backward,
    token_series,
    token_series_backward,
)
from neuralsolve.kernels.reference.vandermonde import vandermonde, vandermonde_adjoint
from neuralsolve.kernels.reference.vector import (
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
    "level_prolong",
    "level_relax",
    "level_residual",
    "level_restrict",
    "level_start",
    "level_store",
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
