"""A CSR matrix from a masked grid is solved as the stencil that it is, in the caller's rows, or as ever."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from grids import box, random_faces, stencils
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import neuralsolve as ns
from neuralsolve import Status
from neuralsolve.kernels import cpu, reference
from neuralsolve.operators.base import LinearOperator
from neuralsolve.solvers.grid_matrix import read_on_grid

F64 = torch.float64
FORMS = ["identity rows", "multiple of the identity", "empty rows", "compressed"]


def as_given(A, form, order="C", seed=23):
    """Return the matrix of a stencil as a script hands it over, and the cell of each of its rows."""
    fluid = A.grid.fluid.numpy().ravel()
    place = np.arange(A.shape[0]).reshape(A.grid.shape).ravel(order=order)
    S = A.to_scipy()
    if form == "compressed":
        place = place[fluid[place]]
    elif form != "empty rows":
        pivots = np.random.default_rng(seed).uniform(-2, 3, len(fluid)) if form.startswith("m") else 1.0
        S = S + sp.diags_array(np.where(fluid, 0.0, pivots))
    return sp.csr_array(S[place][:, place]), place


def answer(S, b):
    """The least-squares solution of least norm: zero mean on every singular component."""
    return np.linalg.lstsq(S.toarray(), b, rcond=1e-12)[0]


def cells_couple(A):
    return A.to_scipy().nnz > np.count_nonzero(A.diagonal())


def product(found, x):
    stencil, sign, numbering = found
    v = numbering.to_grid(x)
    return sign * numbering.to_rows(stencil @ v, None)


def read(S, grid):
    found = read_on_grid(ns.as_operator(S), grid)
    assert not isinstance(found, str), found
    return found


@given(
    stencils(),
    st.sampled_from(FORMS),
    st.sampled_from(["C", "F"]),
    st.sampled_from([1.0, -1.0, -3e-7, 2.5e9]),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_what_is_read_is_the_matrix(A, form, order, multiple, told):
    assume(A.grid.fluid.any())
    S, place = as_given(A, form, order)
    S = multiple * S
    grid = A.grid if told else A.grid.cells.numpy()
    found = read(S, grid)
    x = torch.from_numpy(np.random.default_rng(29).standard_normal(len(place)))
    x[found[2].alone] = 0
    y = product(found, x).numpy()
    expected = S @ x.numpy()
    expected[found[2].alone] = 0
    assert np.allclose(y, expected, rtol=0, atol=1e-13 * abs(S).max() * abs(x).max())
    assert bool(found[0].grid.fluid.sum() == A.grid.fluid.sum())
    if told and order == "C" and A.coefficients is None and cells_couple(A):
        assert found[0].coefficients is None


@given(stencils(), st.sampled_from(FORMS), st.sampled_from([1.0, -1.0]), st.booleans(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_answer_is_that_of_a_dense_solve(A, form, multiple, column, seed):
    assume(A.grid.fluid.any())
    S, _ = as_given(A, form)
    S = multiple * S
    rng = np.random.default_rng(seed + 31)
    b = rng.standard_normal((S.shape[0], 2) if column else S.shape[0])
    result = ns.solve(S, b, grid=A.grid, rtol=1e-12)
    assert "read as cells" in result.explanation
    assert result.x.shape == b.shape
    expected = answer(S, b)
    scale = np.linalg.norm(b) * np.linalg.norm(np.linalg.pinv(S.toarray(), rcond=1e-12), 2)
    assert np.allclose(result.x, expected, rtol=0, atol=1e-10 * scale)
    left = np.linalg.norm(np.atleast_2d((b - S @ expected).T), axis=1).max()  # out of reach of any x
    assert result.removed == pytest.approx(left, abs=1e-9 * np.linalg.norm(b))


def lake(h=0.25, walls=(("neumann", "dirichlet"), "neumann")):
    """A small grid with an island and some air."""
    cells = np.zeros((7, 9), int)
    cells[2:4, 3:6] = ns.SOLID
    cells[5, 0:2] = ns.AIR
    return ns.PoissonStencil(ns.Grid(cells, h, walls))


def random(n, *shape, seed=37):
    return np.random.default_rng(seed).standard_normal((n, *shape))


def torch_csr(S, values=None):
    indptr, indices, data = (torch.from_numpy(v) for v in (S.indptr, S.indices, S.data))
    data = data if values is None else values
    return torch.sparse_csr_tensor(indptr, indices, data, S.shape, check_invariants=True)


@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support:UserWarning")
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kinds_of_matrices(index, dtype):
    A = lake()
    S, _ = as_given(A, "compressed")
    coo = S.tocoo()
    order = np.random.default_rng(41).permutation(2 * coo.nnz)  # every entry in two halves, in any order
    rows, columns = (np.tile(i, 2)[order].astype(index) for i in coo.coords)
    starts = np.argsort(rows, kind="stable")
    indptr = np.r_[0, np.cumsum(np.bincount(rows, minlength=S.shape[0]))].astype(index)
    data = (np.tile(coo.data, 2)[order] / 2).astype(dtype)
    mixed = sp.csr_array((data[starts], columns[starts], indptr), shape=S.shape)
    b = random(S.shape[0])
    result = ns.solve(mixed, b, grid=A.grid, rtol=1e-11)
    assert "read as cells" in result.explanation
    assert np.allclose(result.x, np.linalg.solve(S.toarray(), b), rtol=1e-8)
    assert mixed.nnz == 2 * S.nnz  # the caller's matrix is left alone
    x = ns.solve(torch_csr(S), torch.from_numpy(b), grid=A.grid, rtol=1e-11).x
    assert np.allclose(x.numpy(), result.x, rtol=1e-8)


def test_the_residual_is_that_of_the_matrix_also_in_single_precision():
    grid = ns.Grid(lake().grid.cells, 0.3, "dirichlet")  # 1/h^2 has no end in binary: sums are rounded
    A = ns.PoissonStencil(grid, random_faces(grid, np.random.default_rng(43)))
    S = as_given(A, "identity rows")[0].astype(np.float32)
    b = random(63)
    result = ns.solve(S, b, ns.CG(), grid=grid, rtol=1e-12)
    assert np.linalg.norm(b - S.astype(float) @ result.x) <= 1.001e-12 * np.linalg.norm(b)
    assert result.residual_norms[-1] == pytest.approx(
        np.linalg.norm(b - S.astype(float) @ result.x), rel=1e-2
    )
    b32 = b.astype(np.float32)
    result = ns.solve(S, b32, grid=grid)
    assert result.x.dtype == np.float32
    assert np.linalg.norm(b32 - S @ result.x) <= 1e-4 * np.linalg.norm(b32)


def test_air_walls_and_constants_are_read_off_a_bare_mask():
    for walls in ("dirichlet", "neumann", "periodic", (("neumann", "dirichlet"), "periodic")):
        A = lake(h=1.0, walls=walls)
        for order in ("C", "F"):
            stencil = read(as_given(A, "compressed", order)[0] * -16.0, A.grid.cells.numpy())[0]
            assert stencil.coefficients is None
            assert stencil.grid.walls == A.grid.walls
            assert stencil.grid.spacing == (0.25, 0.25)
            assert torch.equal(stencil.grid.cells, A.grid.cells)
    only = np.where(A.grid.cells.numpy() == ns.FLUID, ns.FLUID, ns.SOLID)
    stencil = read(as_given(A, "identity rows")[0], only)[0]  # what is AIR shows in the matrix
    assert stencil.coefficients is None
    assert (stencil.grid.cells[5, :2] == ns.AIR).all()


def test_a_closed_face_between_equal_ones_is_a_coefficient():
    grid = lake().grid
    faces = [torch.ones(8, 9, dtype=F64), torch.ones(7, 10, dtype=F64)]
    faces[0][1, 4] = faces[1][0, 1] = 0
    S = as_given(ns.PoissonStencil(grid, faces), "compressed")[0]
    stencil = read(S, grid)[0]
    assert float(stencil.coefficients[0][1, 4]) == 0
    b = random(S.shape[0])
    assert np.allclose(ns.solve(S, b, grid=grid, rtol=1e-12).x, np.linalg.solve(S.toarray(), b), rtol=1e-9)


@pytest.mark.parametrize("kinds", [[(2, 2), (2, 2)], [(0, 2), "periodic"], [(2, 0), (1, 2), (0, 0)]])
def test_the_wall_in_the_face_is_a_box_for_fast_poisson(kinds):
    A = box((5, 6, 4)[: len(kinds)], kinds)
    result = ns.solve(A.to_scipy(), random(A.shape[0]), ns.FastPoisson(), grid=A.grid.shape)
    assert result.iterations <= 2


def test_a_shift_in_two_dimensions_is_a_third_axis_and_in_three_a_reason():
    A = lake()
    shift = np.where(A.grid.fluid.numpy().ravel(), 0.7, 0.0)
    for shifts in (shift, shift * np.linspace(1, 2, 63)):
        S = sp.csr_array(A.to_scipy() + sp.diags_array(shifts))
        stencil = read(S, A.grid)[0]
        assert stencil.grid.shape == (1, 7, 9)
        b = random(63) * (shift > 0)
        assert np.allclose(ns.solve(S, b, grid=A.grid, rtol=1e-12).x, answer(S, b), rtol=0, atol=1e-10)
    closed = ns.PoissonStencil(ns.Grid((4, 5)))
    S = sp.csr_array(closed.to_scipy() + 0.5 * sp.eye_array(20))
    assert read(S, closed.grid)[0].coefficients is None
    cube = ns.PoissonStencil(ns.Grid((4, 4, 4)))
    S = sp.csr_array(cube.to_scipy() + 0.5 * sp.eye_array(64))
    result = ns.solve(S, random(64), grid=cube.grid)
    assert result.converged
    assert "grid= not used: the row of cell (1, 1, 1) sums to 0.5" in result.explanation


def test_recipes_get_the_stencil_and_functions_the_callers_rows():
    A = lake()
    S, place = as_given(A, "compressed")
    b = random(S.shape[0])
    given: list[LinearOperator] = []

    class Seen(ns.Jacobi):
        def build(self, A):
            given.append(A)
            return super().build(A)

    for M in (Seen(), ns.EmbeddedBox(), ns.IncompleteCholesky(0.97), ns.AMG()):
        assert ns.solve(S, b, ns.CG(), M=M, grid=A.grid).converged
    assert isinstance(given[0], ns.PoissonStencil)
    inverse = np.linalg.inv(S.toarray())
    for M in (inverse, sp.csr_array(inverse), lambda r: inverse @ r):
        assert ns.solve(S, b, ns.CG(), M=M, grid=A.grid).iterations <= 2
    assert ns.solve(-S, b, grid=A.grid.cells).converged  # no method: one is chosen for the stencil
    assert len(place) == len(b)


def test_guess_callback_and_tolerances_are_in_the_callers_rows():
    A = lake()
    S, _ = as_given(A, "multiple of the identity")
    b = random(63, 2)
    before = S.data.copy(), b.copy()
    prepared = ns.prepare(-S, ns.CG(), M=ns.SSOR(), grid=A.grid, rtol=1e-10)
    seen = []

    def watch(iteration, residual_norm, x):
        seen.append((iteration, residual_norm, np.linalg.norm(b + S @ x, axis=0).max()))

    first = prepared.solve(b, callback=watch)
    assert [s[0] for s in seen] == list(range(1, first.iterations + 1))
    assert all(said == pytest.approx(true, rel=1e-6) for _, said, true in seen[:-1])
    assert prepared.solve(b, x0=first.x).iterations == 0
    with pytest.raises(ns.ShapeError, match="x0 has shape"):
        prepared.solve(b, x0=first.x[:40])
    again = pickle.loads(pickle.dumps(prepared))
    assert again.explanation == prepared.explanation
    assert prepared.solve(b, maxiter=1, throw=False).status is Status.MAXITER
    huge = prepared.solve(b * [1e-200, 1e200])
    assert np.allclose(huge.x / [1e-200, 1e200], first.x, rtol=1e-6)
    assert np.array_equal(before[0], S.data)
    assert np.array_equal(before[1], b)


def test_known_values_reach_the_fluid():
    """Rows of the identity hold boundary values; the fluid's rows still couple to them."""
    A = ns.PoissonStencil(ns.Grid((6, 8)))
    known = np.zeros((6, 8), bool)
    known[0], known[:, -1], known[3, 3] = True, True, True
    S = A.to_scipy().tolil()
    S[np.flatnonzero(known)] = 0
    S = sp.csr_array(S) + sp.diags_array(np.where(known.ravel(), 5.0, 0.0))
    cells = np.where(known, ns.AIR, ns.FLUID)
    b = random(48, 2)
    result = ns.solve(S, b, grid=cells, rtol=1e-12)
    assert "read as cells" in result.explanation
    assert np.allclose(result.x, np.linalg.solve(S.toarray(), b), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support:UserWarning")
@pytest.mark.parametrize("form", [*FORMS, "known values"])
def test_gradients_are_those_of_the_matrix(form):
    A = lake()
    S, _ = as_given(A, FORMS[0] if form == "known values" else form)
    if form == "known values":
        S = sp.csr_array(S + sp.coo_array(([-0.5, -0.25], ([7, 8], [45, 20])), shape=S.shape))
        assert not A.grid.fluid.ravel()[[45, 20]].all()
    values = torch.from_numpy(S.data).requires_grad_()
    b = torch.from_numpy(random(S.shape[0])).requires_grad_()
    weights = torch.from_numpy(random(S.shape[0], seed=47))
    result = ns.solve(torch_csr(S, values), b, grid=A.grid, rtol=1e-13)
    got = torch.autograd.grad(weights @ result.x, [values, b])
    dense = torch.zeros(S.shape, dtype=F64)
    rows = torch.repeat_interleave(torch.arange(S.shape[0]), torch.diff(torch.from_numpy(S.indptr)))
    full = dense.index_put((rows, torch.from_numpy(S.indices).long()), values)
    inside = torch.from_numpy(S.diagonal() != 0)
    x = torch.linalg.solve(full[inside][:, inside], b[inside])
    expected = torch.autograd.grad(weights[inside] @ x, [values, b])
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))


@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support:UserWarning")
def test_gradients_of_a_singular_system_are_those_without_a_grid():
    A = lake(walls="neumann")
    grid = ns.Grid(np.where(A.grid.cells == ns.AIR, ns.SOLID, A.grid.cells.numpy()))
    S = -as_given(ns.PoissonStencil(grid), "identity rows")[0]
    values, b = torch.from_numpy(S.data).requires_grad_(), torch.from_numpy(random(63)).requires_grad_()
    weights = torch.from_numpy(random(63, seed=61))
    given, plain = (
        torch.autograd.grad(weights @ ns.solve(torch_csr(S, values), b, rtol=1e-13, grid=g).x, [values, b])
        for g in (grid, None)
    )
    for ours, theirs in zip(given, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))


def test_update_reads_the_next_matrix():
    A = lake()
    grid, rng = A.grid, np.random.default_rng(53)
    prepared = ns.prepare(as_given(A, "compressed")[0], ns.CG(), M=ns.AMG(), grid=grid, rtol=1e-11)
    for _ in range(3):
        S, _ = as_given(ns.PoissonStencil(grid, random_faces(grid, rng)), "compressed")
        b = rng.standard_normal(S.shape[0])
        assert np.allclose(prepared.update(S).solve(b).x, np.linalg.solve(S.toarray(), b), rtol=0, atol=1e-8)
    stray = sp.csr_array(S + sp.coo_array(([-0.1, -0.1], ([3, 30], [30, 3])), shape=S.shape))
    x = prepared.update(stray).solve(b).x
    assert "grid= not used" in prepared.explanation
    assert np.allclose(x, np.linalg.solve(stray.toarray(), b), rtol=0, atol=1e-8)
    assert "read as cells" in prepared.update(S).explanation


@given(stencils(), st.sampled_from(FORMS), st.data())
@settings(max_examples=30, deadline=None)
def test_one_changed_entry_is_noticed(A, form, data):
    S, place = as_given(A, form)
    assume(A.grid.fluid.any() and S.nnz)
    i = data.draw(st.integers(0, S.nnz - 1))
    S.data[i] *= 1 + data.draw(st.sampled_from([1e-11, -1e-6, 0.5, -3.0]))
    found = read_on_grid(ns.as_operator(S), A.grid)
    if isinstance(found, str):
        return
    x = torch.from_numpy(np.random.default_rng(59).standard_normal(len(place)))  # else it has the change
    alone = found[2].alone
    x[alone] = 0
    error = product(found, x).numpy() - S @ x.numpy()
    error[alone] = 0
    stencil = found[0]  # verified to 64 eps |A||v| with |v| from 0.5 to 1.5: one entry is off by 384 eps d
    d = float(stencil.diagonal().max()) if stencil.coefficients else 2 * sum(stencil.scale)
    assert abs(error).max() <= 500 * np.finfo(float).eps * d * float(abs(x).max())
    assert np.array_equal(found[2].pivots.numpy(), S.diagonal()[alone])


def with_entry(S, i, j, value):
    return sp.csr_array(S + sp.coo_array(([value], ([i], [j])), shape=S.shape))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda S: with_entry(S, 17, 40, -0.3), "row 17 couples to a cell that is no neighbour"),
        (lambda S: with_entry(S, 1, 2, 0.3), "not the same in both directions"),
        (lambda S: with_entry(with_entry(S, 1, 2, 40.0), 2, 1, 40.0), "couplings are of both signs"),
        (lambda S: with_entry(S, 9, 9, -1.0), "the diagonal of row 9 is smaller than its couplings by 1"),
        (lambda S: with_entry(S, 21, 3, -1.0), "row 21 belongs to a cell that is SOLID"),
    ],
)
def test_a_matrix_that_is_no_stencil_is_solved_as_ever_and_told_why(change, reason):
    A = lake()
    S = change(as_given(A, "identity rows")[0])
    b = random(63)
    result = ns.solve(S, b, grid=A.grid, rtol=1e-11)
    assert result.explanation.startswith("grid= not used: ")
    assert reason in result.explanation
    assert np.allclose(result.x, np.linalg.solve(S.toarray(), b), rtol=0, atol=1e-8)


def test_isolated_rows_beside_a_negative_singular_block():
    """PhiFlow's pressure system: +1 in the solids, a negative semi-definite Laplacian in the fluid."""
    cells = np.zeros((30, 40), int)
    cells[8:14, 10:30] = ns.SOLID
    A = ns.PoissonStencil(ns.Grid(cells))
    S = sp.csr_array(sp.diags_array((cells.ravel() != 0).astype(float)) - A.to_scipy())
    b = random(1200)
    result = ns.solve(S, b, ns.CG(), M=ns.EmbeddedBox(), grid=cells, rtol=1e-10)
    fluid = cells.ravel() == 0
    mean = b[fluid].mean()
    assert result.status is Status.PROJECTED
    assert result.removed == pytest.approx(abs(mean) * np.sqrt(fluid.sum()))
    assert np.linalg.norm(b - S @ result.x - mean * fluid) <= 1e-10 * np.linalg.norm(b)
    assert np.array_equal(result.x[~fluid], b[~fluid])
    assert abs(result.x[fluid].mean()) <= 1e-12
    declared = ns.solve(S, b, null_space=np.ones(1200) * fluid, grid=cells, rtol=1e-10)
    assert np.allclose(declared.x, result.x, rtol=0, atol=1e-6)
    plain = ns.solve(S, b, rtol=1e-10)
    assert np.allclose(plain.x, result.x, rtol=0, atol=1e-6)


def test_empty_rows_are_out_of_reach_unless_told_otherwise():
    A = lake()
    S, _ = as_given(A, "empty rows")
    b, fluid = random(63), A.grid.fluid.numpy().ravel()
    result = ns.solve(S, b, grid=A.grid)
    assert result.status is Status.PROJECTED
    assert result.removed == pytest.approx(np.linalg.norm(b[~fluid]))
    assert not result.x[~fluid].any()
    result = ns.solve(S, b, grid=A.grid, null_space=False, throw=False)
    assert not result.converged
    assert "empty rows" in result.explanation


def test_wrong_grids_are_refused():
    A = lake()
    S, b = A.to_scipy(), np.ones(63)
    for grid, error, words in [
        (np.zeros((7, 8), int), ns.ShapeError, "has 56 cells, 56 of them FLUID"),
        (np.ones((7, 9), int), ns.StructureError, "no FLUID cell"),
        (np.zeros((7, 9), bool), ns.StructureError, r"np\.where"),
        (np.full((7, 9), 7), ns.StructureError, "only FLUID 0"),
        ("lake", ns.InputError, "cells must be"),
        (3, ns.InputError, "cells must be"),
    ]:
        with pytest.raises(error, match=words):
            ns.solve(S, b, grid=grid)
    with pytest.raises(ns.OptionError, match="leave grid"):
        ns.solve(S.toarray(), b, grid=A.grid)
    with pytest.raises(ns.OptionError, match="grid of its own"):
        ns.solve(A, b, grid=ns.Grid((7, 9)))
    assert ns.solve(A, b, grid=A.grid).converged
    with pytest.raises(ns.ShapeError, match="null_space is"):
        ns.solve(S, b, grid=A.grid, null_space=np.ones(20))


@given(stencils(), st.sampled_from(FORMS), st.booleans(), st.integers(7, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_kernel_does_what_its_definition_says(A, form, stray, seed):
    S, place = as_given(A, form)
    assume(S.shape[0] > 0)
    rng = np.random.default_rng(seed)
    if stray:
        i, j = rng.integers(0, S.shape[0], 2)
        S = with_entry(S, i, j, 1.0)
    m = ns.as_operator(S)
    periodic = torch.tensor([False] * (3 - len(A.grid.shape)) + list(A.grid.periodic))
    rule = (torch.from_numpy(place.astype(np.int32)), A.grid.cells.reshape(-1), A.shape3, periodic, 1e-14)
    written = []
    for room in (reference, cpu):
        out = (
            torch.zeros(3, A.shape[0], dtype=F64),
            torch.zeros(A.shape[0], dtype=F64),
            torch.empty(3, 2).double(),
        )
        row, outside = room.csr_grid_rows(m.indptr, m.indices, m.values, *rule, *out)
        written.append((row, outside, *out))
    assert (written[0][0] < 0) == (written[1][0] < 0)
    if written[0][0] < 0:
        assert written[0][1] == written[1][1]
        for ours, theirs in zip(written[1][2:], written[0][2:], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13 * float(abs(S).max()))


def test_the_kernel_in_ranges(all_kernels):
    A = lake()
    m, n = ns.as_operator(as_given(A, "identity rows")[0]), 63
    place, periodic = torch.arange(n, dtype=torch.int32), torch.tensor([False] * 3)
    out = torch.zeros(3, n, dtype=F64), torch.zeros(n, dtype=F64), torch.empty(3, 2, dtype=F64)
    rule = (place, A.grid.cells.reshape(-1), A.shape3, periodic, 1e-14)
    assert all_kernels.csr_grid_rows(m.indptr, m.indices, m.values, *rule, *out) == (-1, 0)
    diagonal, lower = A.faces()
    torch.testing.assert_close(out[0], lower)
    sums = diagonal - sum(c + c.reshape(A.shape3).roll(-1, a).reshape(-1) for a, c in enumerate(lower))
    torch.testing.assert_close(out[1], torch.where(A.grid.fluid.reshape(-1), sums, 1.0))
    assert out[2].tolist() == [[np.inf, -np.inf], [16, 16], [16, 16]]
