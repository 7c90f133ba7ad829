"""Every law over every kernel, operator, method and recipe.

The tables below name all of them: a new one that is not entered here fails `test_tables_are_complete`. Finer
theorems stand in the test file of each room; these are the laws that hold for all.
"""

from __future__ import annotations

import importlib.util
import inspect

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from conftest import implementation
from kernel_laws import csr, normal, spd
from level_laws import LEVEL_KERNELS
from recipe_laws import (
    SYMMETRIC,
    box_2d,
    check_laws,
    convection,
    graph,
    masked_2d,
    masked_3d,
    odd_periodic_2d,
    periodic_2d,
    pockets_2d,
)

import neuralsolve as ns
from neuralsolve import Status
from neuralsolve.kernels import cpu, reference, table, use
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.solvers.method import Method

# what the GPU has no kernel for is made on the CPU and moved
GPU = set(table("cuda").__all__) if importlib.util.find_spec("triton") else set()
F64, F32 = torch.float64, torch.float32
BOX = (2, 4, 5)
N = 40


def public(kind: type) -> set[str]:
    return {
        name
        for name, thing in vars(ns).items()
        if inspect.isclass(thing) and issubclass(thing, kind) and not inspect.isabstract(thing)
    }


# kernels: inputs in some dtype, outputs last; what comes back and what was written is compared


def vectors(g, dtype, count):
    return [normal(g, N, 2, dtype=dtype) for _ in range(count)]


def scalars(g, dtype):
    return normal(g, 2, dtype=dtype)


def matrix(g, dtype):
    return csr(spd(g, N).to(dtype))


def lower(g, dtype):
    return csr(torch.tril(spd(g, N)).to(dtype))


def faces(g, dtype):
    A = ns.PoissonStencil(ns.Grid(BOX, walls=("periodic", "neumann", "dirichlet")), dtype=dtype)
    return (*A.faces(), A.shape3)


def ordinary_faces(g, dtype):
    A = ns.PoissonStencil(ns.Grid(BOX, walls=("neumann", "neumann", "dirichlet")), dtype=dtype)
    return (*A.faces(), A.shape3)


def code(g, dtype):
    A = ns.PoissonStencil(ns.Grid(BOX, spacing=(1.0, 0.5, 0.25), walls=("periodic", "neumann", "dirichlet")))
    return A._code, A.scale, A.shape3


def colored(g, dtype):
    indptr, indices, values = matrix(g, dtype)
    colors = torch.empty(N, dtype=torch.int32)
    count = reference.csr_coloring(indptr, indices, colors)
    rows = torch.argsort(colors, stable=True).to(torch.int32)
    starts = torch.searchsorted(colors[rows].contiguous(), torch.arange(count + 1, dtype=torch.int32))
    return indptr, indices, values, 1.3, *vectors(g, dtype, 2), starts.to(torch.int32), rows, False


def ic0(g, dtype):
    indptr, indices, values = lower(g, dtype)
    return indptr, indices, values, 0.5, torch.zeros_like(values)


def factored(g, dtype):
    parts = lower(g, F64)
    out = torch.zeros_like(parts[2])
    reference.csr_ic0_factor(*parts, 0.0, out)
    return parts[0], parts[1], out.to(dtype), *vectors(g, dtype, 2)


def ilu0(g, dtype):
    indptr, indices, values = matrix(g, dtype)
    rows = torch.repeat_interleave(torch.arange(N), torch.diff(indptr))
    return (
        indptr,
        indices,
        values,
        torch.nonzero(rows == indices)[:, 0].to(indptr.dtype),
        torch.zeros_like(values),
    )


def ilu0_factors(g, dtype):
    parts = ilu0(g, F64)
    reference.csr_ilu0_factor(*parts)
    return parts[0], parts[1], parts[4].to(dtype), parts[3], *vectors(g, dtype, 2)


def faces_pivots(g, dtype):
    diagonal, couplings, shape = ordinary_faces(g, F64)
    pivots = torch.zeros_like(diagonal)
    reference.faces_ic0_factor(diagonal, couplings, shape, 0.0, pivots)
    return pivots.to(dtype), couplings.to(dtype), shape, *vectors(g, dtype, 2)


def faces_factor(g, dtype):
    diagonal, couplings, shape = ordinary_faces(g, dtype)
    return diagonal, couplings, shape, 0.5, torch.zeros_like(diagonal)


def blocks(g, dtype):
    """L, E, D and 1 / D of three blocks, filled with zeros as the faster kernels need it."""
    starts = torch.tensor([0, 13, 27, N])
    parts = cpu.csr_block_split(*matrix(g, F64), starts, 1.0, F64)
    return *(v.to(dtype) if v.is_floating_point() else v for v in parts), starts


def twice(x):
    return torch.cat([x, x])


def block_sweep(g, dtype, backward):
    *parts, inverse, starts = blocks(g, dtype)
    b, x = vectors(g, dtype, 2)
    return *(parts[:6] if backward else parts[:3]), inverse, starts, b, twice(x)


def block_residual(g, dtype):
    _, _, _, *rest, divisor, _, _ = blocks(g, dtype)
    return *rest, divisor, twice(vectors(g, dtype, 1)[0]), vectors(g, dtype, 1)[0]


def block_correction(g, dtype):
    indptr, indices, values = cpu.csr_padded(*matrix(g, F64), F64)
    e, x = vectors(g, dtype, 2)
    return indptr, indices, values.to(dtype), e, twice(x)


def directions(stencil, g, dtype):
    z, p, out_p, Ap = vectors(g, dtype, 4)
    return (*stencil(g, dtype), z, scalars(g, dtype), p, out_p, Ap)


KERNELS = {
    "axpy": lambda g, t: (scalars(g, t), *vectors(g, t, 2)),
    "cg_update": lambda g, t: (scalars(g, t), *vectors(g, t, 4)),
    "csr_block_backward": lambda g, t: block_sweep(g, t, True),
    "csr_block_correct": block_correction,
    "csr_block_forward": lambda g, t: block_sweep(g, t, False),
    "csr_block_residual": block_residual,
    "csr_color_sweep": colored,
    "csr_coloring": lambda g, t: (*matrix(g, t)[:2], torch.empty(N, dtype=torch.int32)),
    "csr_diagonal": lambda g, t: (*matrix(g, t), torch.empty(N, dtype=t)),
    "csr_ic0_factor": ic0,
    "csr_ilu0_factor": ilu0,
    "csr_ilu0_solve": ilu0_factors,
    "csr_lower_solve": factored,
    "csr_lower_transpose_solve": factored,
    "csr_matvec": lambda g, t: (*matrix(g, t), *vectors(g, t, 2)),
    "csr_matvec_dot": lambda g, t: (*matrix(g, t), *vectors(g, t, 2)),
    "csr_row_sizes": lambda g, t: (*matrix(g, t), torch.empty(N, dtype=t), torch.empty(N, dtype=t)),
    "csr_sor_sweep": lambda g, t: (*matrix(g, t), 1.3, *vectors(g, t, 2), True),
    "dot": lambda g, t: vectors(g, t, 2),
    "faces_direction_dot": lambda g, t: directions(faces, g, t),
    "faces_ic0_factor": faces_factor,
    "faces_ic0_solve": faces_pivots,
    "faces_matvec": lambda g, t: (*faces(g, t), *vectors(g, t, 2)),
    "faces_matvec_dot": lambda g, t: (*faces(g, t), *vectors(g, t, 2)),
    "faces_redblack_sweep": lambda g, t: (*faces(g, t), 1.3, *vectors(g, t, 2), False),
    "faces_sor_sweep": lambda g, t: (*faces(g, t), 1.3, *vectors(g, t, 2), True),
    "largest": lambda g, t: vectors(g, t, 1),
    "masked_copy": lambda g, t: (torch.arange(N) % 3 > 0, *vectors(g, t, 2)),
    "transposed_copy": lambda g, t: (normal(g, N, 3, dtype=t), normal(g, 3, N, dtype=t)),
    "scaled_copy": lambda g, t: (scalars(g, t), *vectors(g, t, 2)),
    "stencil_direction_dot": lambda g, t: directions(code, g, t),
    "stencil_matvec": lambda g, t: (*code(g, t), *vectors(g, t, 2)),
    "stencil_matvec_dot": lambda g, t: (*code(g, t), *vectors(g, t, 2)),
    "subtract_means": lambda g, t: (
        torch.arange(N, dtype=torch.int32) % 3 - 1,
        torch.tensor([13.0, 13.0], dtype=F64),
        vectors(g, t, 1)[0],
    ),
    "xpby": lambda g, t: (vectors(g, t, 1)[0], scalars(g, t), vectors(g, t, 1)[0]),
}
# Tested in files of their own: their inputs are made by the fast Poisson solver alone, or they make new
# matrices, or are no numbers.
KERNELS_ELSEWHERE = {
    "conductor_code": "test_conductors",
    "conductor_parts": "test_conductors",
    "csr_aggregate": "test_kernels_aggregation",
    "csr_block_split": "test_kernels_aggregation",
    "csr_galerkin": "test_kernels_aggregation",
    "csr_gram": "test_kernels_csr",
    "csr_padded": "test_kernels_aggregation",
    "csr_smoothed_aggregates": "test_kernels_aggregation",
    "csr_transpose": "test_kernels_aggregation",
    "code_changes": "test_kernels_spans",
    "faces_assemble": "test_kernels_regions",
    "faces_code": "test_kernels_regions",
    "faces_kinds": "test_kernels_regions",
    "faces_outlets": "test_kernels_regions",
    "level_faces": "test_kernels_spans",
    "spans_around": "test_kernels_spans",
    "spans_attached": "test_kernels_spans",
    "spans_below": "test_kernels_spans",
    "spans_join": "test_kernels_spans",
    "stencil_code": "test_kernels_stencil",
    "token_decode": "test_kernels_spectral",
    "token_decode_backward": "test_kernels_spectral",
    "token_encode": "test_kernels_spectral",
    "token_encode_backward": "test_kernels_spectral",
    "token_series": "test_kernels_spectral",
    "token_series_backward": "test_kernels_spectral",
    "stencil_regions": "test_kernels_regions",
    "csr_kaczmarz": "test_kernels_kaczmarz",
    "hadamard_sketch": "test_kernels_mixing",
    "hadamard_sketch_columns": "test_kernels_mixing",
    "cauchy": "test_kernels_ssm",
    "cauchy_adjoint": "test_kernels_ssm",
    "columns_axpy": "test_kernels_ssm",
    "columns_dot": "test_kernels_ssm",
    "diagonal_scan": "test_kernels_ssm",
    "diagonal_scan_backward": "test_kernels_ssm",
    "vandermonde": "test_kernels_ssm",
    "vandermonde_adjoint": "test_kernels_ssm",
    "csr_box_difference": "test_recognise",
    "csr_grid_rows": "test_grid_matrix",
    "cyclic_solve": "test_fast_poisson",
    "levels_cycle": "test_kernels_multigrid",
    "tridiagonal_factor": "test_fast_poisson",
    "tridiagonal_solve": "test_fast_poisson",
}

OPERATORS = {
    "CSROperator": graph,
    "PoissonStencil": masked_3d,
    "DenseOperator": lambda: ns.DenseOperator(torch.from_numpy(graph().to_scipy().toarray()), {"spd"}),
    "CallableOperator": lambda: ns.CallableOperator(
        masked_2d().matvec, (72, 72), props={"spd"}, diagonal=masked_2d().diagonal()
    ),
    "Block": lambda: ns.Block([[graph(), None], [None, box()]], {"spd"}),
    "DiagonalPlusLowRank": lambda: ns.DiagonalPlusLowRank(
        torch.linspace(1, 2, 30, dtype=F64), torch.sin(torch.arange(60, dtype=F64)).reshape(30, 2)
    ),
}


def box():
    return ns.PoissonStencil(ns.Grid((7, 9), spacing=0.3, walls="dirichlet"))


# a method, and the operators that it serves
METHODS = {
    "CG": (ns.CG(), [graph, box, masked_3d]),
    "FlexibleCG": (ns.FlexibleCG(), [graph, box, masked_3d]),
    "SingleReductionCG": (ns.SingleReductionCG(), [graph, box, masked_3d]),
    "DCDM": (ns.DCDM(), [graph, box, masked_3d]),
    "MINRES": (ns.MINRES(), [graph, box, masked_3d]),
    "GMRES": (ns.GMRES(), [graph, box, masked_3d, convection]),
    "BiCGStab": (ns.BiCGStab(), [graph, box, masked_3d, convection]),
    "Richardson": (ns.Richardson(), [box]),  # always with M = SSOR below
    "SparseLU": (ns.SparseLU(), [graph, box, masked_3d, convection]),
    "FastPoisson": (ns.FastPoisson(), [box]),
}
TUNED = {  # method and M, some of whose options are left to learners
    "SSOR": (ns.CG(), ns.SSOR(omega=ns.Tuned(0.9, 1.9, arms=4))),
    "choice": (ns.FlexibleCG(), ns.Tuned([ns.Jacobi(), ns.AMG("aggregation"), None], seed=2)),
    "method": (ns.Tuned([ns.CG(), ns.MINRES()], seed=1), ns.Jacobi(omega=ns.Tuned(0.5, 1.5))),
    "stationary": (ns.Richardson(omega=ns.Tuned([0.9, 1.0])), ns.SSOR(omega=ns.Tuned(1.0, 1.6))),
}
METHOD_CASES = [
    pytest.param(method, scene, id=f"{name}-{scene.__name__}")
    for name, (method, scenes) in METHODS.items()
    for scene in scenes
] + [
    pytest.param(name, scene, id=f"tuned {name}-{scene.__name__}")
    for name in TUNED
    for scene in (graph, box, masked_3d)
]

GRIDS = [box_2d, masked_2d, periodic_2d, odd_periodic_2d, masked_3d, pockets_2d]
RECIPES = {
    "Jacobi": (ns.Jacobi(0.8), SYMMETRIC),
    "SOR": (ns.SOR(1.3), [graph, masked_2d, convection]),
    "SSOR": (ns.SSOR(1.2, order="multicolor"), SYMMETRIC),
    "IncompleteCholesky": (ns.IncompleteCholesky(0.9), SYMMETRIC),
    "IncompleteLU": (ns.IncompleteLU(), [graph, convection]),
    "AMG": (ns.AMG(), [graph, masked_2d, masked_3d]),
    "AMG aggregation": (ns.AMG("aggregation", max_coarse=4), SYMMETRIC),
    "SparseLU": (ns.SparseLU(), [graph, box]),
    "FastPoisson": (ns.FastPoisson(), [box]),
    "EmbeddedBox": (ns.EmbeddedBox(), [box]),
    "Multigrid": (ns.Multigrid(coarsest=4), GRIDS),
    "Multigrid red-black": (ns.Multigrid("V", "red-black", coarsest=4), GRIDS),
    "Multigrid jacobi": (ns.Multigrid("W", "jacobi", 1, coarsest=4), GRIDS),
    "Multigrid dense": (ns.Multigrid(), [masked_2d]),  # one level
    "NeuralDirection": (ns.NeuralDirection("npsdo2d"), [box, masked_2d]),  # the linear one
    "NeuralMultigrid": (ns.NeuralMultigrid(coarsest=4), GRIDS),
}


def test_tables_are_complete():
    assert {*KERNELS, *LEVEL_KERNELS, *KERNELS_ELSEWHERE} == set(reference.__all__) == set(cpu.__all__)
    assert set(reference.__all__) >= GPU
    assert {*OPERATORS, "BatchedStencil"} == public(LinearOperator)  # its vectors have a shape of their own
    assert {name.split()[0] for name in RECIPES} == public(Recipe)
    assert set(METHODS) == public(Method) | {"SparseLU", "FastPoisson"}


@pytest.mark.parametrize(
    ("name", "dtype", "room"),
    [
        (name, dtype, room)
        for room in ("cpu", "gpu")
        for name in [*KERNELS, *LEVEL_KERNELS]
        for dtype in (F64, F32)
        if (name in KERNELS or dtype == F32) and (room == "cpu" or name in GPU)
    ],
    ids=lambda v: {F64: "f64", F32: "f32"}.get(v, v),
)
def test_kernel_errs_at_most_twice_as_much_as_plain_torch(name, dtype, room, generator, monkeypatch):
    def run(table, dtype_in, dtype_run):
        # with vectors of the caller's dtype
        kept = name == "subtract_means" or name.startswith(("level_load", "level_store"))
        with use("cpu"):  # what makes the inputs is set-up
            made = (KERNELS | LEVEL_KERNELS)[name](
                torch.Generator().manual_seed(generator.initial_seed()), dtype_in
            )
        given = [
            v.to(dtype_run) if isinstance(v, torch.Tensor) and v.is_floating_point() and not kept else v
            for v in made
        ]
        back = getattr(table, name)(*given)
        written = [v for v in given if isinstance(v, torch.Tensor) and v.is_floating_point()]
        bytes_ = [v.to(F64) for v in given if isinstance(v, torch.Tensor) and v.dtype == torch.uint8]
        return [torch.as_tensor(v).to(F64) for v in [*written, *([] if back is None else [back])]], bytes_

    (exact, whole), (plain, _) = run(reference, dtype, F64), run(reference, dtype, dtype)
    with implementation(room, monkeypatch) as table:
        got, bytes_ = run(table, dtype, dtype)
    for e, p, g in zip(exact, plain, got, strict=True):
        rounding = 4 * torch.finfo(dtype).eps * float(e.norm())  # where plain torch happens to be exact
        assert float((g - e).norm()) <= max(2 * float((p - e).norm()), rounding)
    for e, g in zip(whole, bytes_, strict=True):
        assert (abs(g - e) <= (name == "level_weights")).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_laws(name, generator):
    A = OPERATORS[name]()
    n = A.shape[0]
    S = torch.from_numpy(A.to_scipy().toarray())
    close = {"rtol": 0.0, "atol": 64 * n * torch.finfo(F64).eps * float(S.abs().max())}
    u, v = normal(generator, n, 3), normal(generator, n, 3)
    if A.active is not None:
        u, v = u * A.active[:, None], v * A.active[:, None]
    torch.testing.assert_close(A @ u, S @ u, **close)
    torch.testing.assert_close(A @ (2 * u - v), 2 * (A @ u) - A @ v, **close)  # linearity
    torch.testing.assert_close(A.rmatvec(u), S.T @ u, **close)
    torch.testing.assert_close(
        (v * (A @ u)).sum(), (A.rmatvec(v) * u).sum(), rtol=1e-10, atol=1e-10
    )  # adjoint
    torch.testing.assert_close(A.diagonal(), S.diagonal(), **close)
    out = torch.empty_like(u)
    torch.testing.assert_close(A.matvec_dot(u, out), (u * (S @ u)).sum(0), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(out, S @ u, **close)
    single = A.to(dtype=F32)
    assert single.dtype == F32
    torch.testing.assert_close(
        single @ u.float(), (S @ u).float(), rtol=1e-4, atol=1e-4 * float(S.abs().max())
    )
    assert A.to(dtype=F64) is A
    if A.null_space is not None:
        Z = torch.eye(n, dtype=F64)
        A.null_space.project(Z)
        torch.testing.assert_close(S @ (torch.eye(n, dtype=F64) - Z), torch.zeros(n, n, dtype=F64), **close)


@pytest.mark.parametrize(
    ("recipe", "scene"),
    [pytest.param(r, s, id=f"{name}-{s.__name__}") for name, (r, scenes) in RECIPES.items() for s in scenes],
)
def test_recipe_laws(recipe, scene, generator):
    check_laws(recipe, scene(), generator)


def solve(A, b, method, **options):
    """Solve with a method of `METHODS`, or with a row of `TUNED`."""
    M = ns.SSOR() if isinstance(method, ns.Richardson) else None
    method, M = TUNED.get(method, (method, M)) if isinstance(method, str) else (method, M)
    return ns.solve(A, b, method, M=M, **options)


def consistent(A, *shape):
    """A random x without entries outside the fluid or a part in the null space, as NumPy."""
    x = normal(torch.Generator().manual_seed(1729), A.shape[0], *shape)
    if A.active is not None:
        x[~A.active] = 0
    if A.null_space is not None:
        A.null_space.project(x)
    return x.numpy()


@pytest.mark.parametrize(("method", "scene"), METHOD_CASES)
def test_the_truth_is_found_and_inputs_stay(method, scene):
    A = scene()
    S = A.to_scipy()
    truth = consistent(A, 3)
    b = S @ truth
    before = b.copy()
    result = solve(A, b, method, rtol=1e-11)
    bound = 1e-11 * np.linalg.cond(S.toarray()[S.diagonal() != 0][:, S.diagonal() != 0])  # of b to x
    assert result.converged
    assert (np.linalg.norm(b - S @ result.x, axis=0) <= 1.0001e-11 * np.linalg.norm(b, axis=0)).all()
    if A.null_space is None:
        assert (np.linalg.norm(result.x - truth, axis=0) <= 2 * bound * np.linalg.norm(truth, axis=0)).all()
    assert (b == before).all()
    assert result.residual_norms[0] == pytest.approx(np.linalg.norm(b, axis=0).max())
    assert len(result.residual_norms) == result.iterations + 1 or isinstance(method, ns.GMRES | ns.BiCGStab)


@pytest.mark.parametrize(("method", "scene"), METHOD_CASES)
def test_one_column_is_one_vector(method, scene):
    A = scene()
    b = A.to_scipy() @ consistent(A)
    vector = solve(A, b, method, rtol=1e-9).x
    column = solve(A, b[:, None], method, rtol=1e-9).x
    assert column.shape == (len(b), 1)
    assert np.allclose(vector, column[:, 0], rtol=0, atol=1e-6 * np.abs(vector).max())


@pytest.mark.parametrize(("method", "scene"), METHOD_CASES)
def test_status_is_honest_after_one_step(method, scene):
    A = scene()
    S = A.to_scipy()
    b = S @ consistent(A)
    result = solve(A, b, method, rtol=1e-11, maxiter=1, throw=False)
    left = np.linalg.norm(b - S @ result.x)
    assert result.converged == (left <= 1e-11 * np.linalg.norm(b) * (1 + 1e-3))
    assert (result.status is Status.CONVERGED) == result.converged
    assert result.iterations <= 1 or isinstance(method, str)  # which the automatic choice finishes


@pytest.mark.parametrize(("method", "scene"), METHOD_CASES)
def test_zero_right_side_and_bad_right_sides(method, scene):
    A = scene()
    n = A.shape[0]
    result = solve(A, np.zeros(n), method)
    assert result.converged
    assert not result.x.any()
    inside = int(np.flatnonzero(A.to_scipy().diagonal())[0])
    for bad in (np.nan, np.inf):
        b = np.ones(n)
        b[inside] = bad
        with pytest.raises(ns.NonFiniteError, match="b has 1"):
            solve(A, b, method)
    with pytest.raises(ns.ShapeError):
        solve(A, np.ones(n + 1), method)


@pytest.mark.parametrize("name", METHODS)
def test_an_indefinite_matrix_is_solved_or_told(name):
    method = METHODS[name][0]
    A = sp.csr_array(graph().to_scipy() - 2.0 * sp.eye_array(61))
    b = np.random.default_rng(6174).standard_normal(61)
    needs_spd = {"CG", "FlexibleCG", "SingleReductionCG", "DCDM"}
    if name == "FastPoisson":
        with pytest.raises(ns.StructureError, match=r"ns\."):  # the call that mends it
            solve(A, b, method)
        return
    result = solve(A, b, method, throw=False, maxiter=2000)
    left = np.linalg.norm(b - A @ result.x)
    assert result.converged == (left <= 1.0001e-8 * np.linalg.norm(b))
    assert result.converged or name in needs_spd | {"Richardson", "BiCGStab"}


@pytest.mark.parametrize("name", METHODS)
def test_a_symmetric_problem_has_a_symmetric_answer(name):
    method = METHODS[name][0]
    A = ns.PoissonStencil(ns.Grid((8, 8), walls="dirichlet"))
    g = torch.Generator().manual_seed(2503)
    half = torch.randn(8, 4, dtype=F64, generator=g)
    b = torch.cat([half, half.flip(1)], 1).reshape(-1)
    x = solve(A, b, method, rtol=1e-12).x.reshape(8, 8)
    assert float((x - x.flip(1)).abs().max()) <= 1e-9 * float(x.abs().max())
