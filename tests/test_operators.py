"""What operators are: products that agree with the matrix, with the definition, and with the PDE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from grids import grids, random_faces, stencils, written_out
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralsolve as ns
from neuralsolve.kernels import use
from neuralsolve.operators.nullspace import from_vectors

EPS = torch.finfo(torch.float64).eps


def random(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual, expected, scale, terms=16):
    """Whether two results agree to rounding: each is a sum of about `terms` products of size `scale`."""
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=4 * terms * EPS * max(float(scale), 1e-300))


def dense(A):
    return torch.from_numpy(A.to_scipy().toarray())


# the stencil


@given(stencils(), st.integers(7, 2**32), st.sampled_from(["reference", "cpu"]))
@settings(max_examples=60, deadline=None)
def test_a_stencil_is_what_its_words_mean(A, seed, room):
    S = torch.from_numpy(written_out(A.grid, A.coefficients))
    close(dense(A), S, S.abs().max())
    close(A.diagonal(), S.diagonal(), S.abs().max())
    x, y = random(seed, A.shape[0], 3), random(seed + 1, A.shape[0])
    with use(room):
        Ax = A @ x
        close(Ax, S @ x, S.abs().max() * x.abs().max())
        for j in range(3):  # (n, k) is k times (n,)
            close(A @ x[:, j].contiguous(), Ax[:, j], S.abs().max() * x.abs().max())
        out = torch.full_like(x, math.nan)
        inside = x if A.active is None else x * A.active[:, None]
        size = (inside.abs() * (S.abs() @ x.abs())).sum()
        close(A.matvec_dot(x, out), (inside * Ax).sum(0), size, A.shape[0])
        assert torch.equal(out, A.matvec(x))
        close(y @ (A @ x), A.rmatvec(y) @ x, (y.abs() @ (S.abs() @ x.abs())).max(), A.shape[0])


@given(stencils(), st.integers(7, 2**32), st.sampled_from(["reference", "cpu"]))
@settings(max_examples=30, deadline=None)
def test_what_lies_outside_the_fluid_does_not_matter(A, seed, room):
    if A.active is None:
        return
    x = random(seed, A.shape[0], 2)
    spoilt = x.clone()
    spoilt[~A.active] = math.nan
    before = spoilt.clone()
    with use(room):
        assert torch.equal(A @ spoilt, A @ x)
        assert torch.equal(A @ spoilt[:, 0].contiguous(), A @ x[:, 0].contiguous())
        assert bool(((A @ spoilt)[~A.active] == 0).all())
        out = torch.empty_like(x)
        assert torch.equal(A.matvec_dot(spoilt, out), A.matvec_dot(x * A.active[:, None], out))
    assert torch.equal(spoilt.nan_to_num(), before.nan_to_num())


@given(stencils(max_side=3))
@settings(max_examples=60, deadline=None)
def test_the_null_space_is_complete_and_a_is_definite_beside_it(A):
    S = written_out(A.grid, A.coefficients)
    fluid = np.ones(A.shape[0], bool) if A.active is None else A.active.numpy()
    eigenvalues, V = np.linalg.eigh(S[np.ix_(fluid, fluid)])
    tolerance = 64 * EPS * max(abs(S).max(), 1e-300) * max(fluid.sum(), 1)
    assert (eigenvalues >= -tolerance).all()
    nullity = int((eigenvalues <= tolerance).sum())
    assert (0 if A.null_space is None else A.null_space.dimension) == nullity
    if A.null_space is not None:
        Z = torch.zeros(A.shape[0], nullity, dtype=torch.float64)
        Z[torch.from_numpy(fluid)] = torch.from_numpy(V[:, eigenvalues <= tolerance])
        removed = A.null_space.project(Z.clone())
        torch.testing.assert_close(removed, torch.ones(nullity, dtype=torch.float64))
        for c in range(nullity):  # the constant on every declared component
            z = (A.null_space.labels == c).double()
            close(A @ z, torch.zeros_like(z), abs(S).max())
            assert int(z.sum()) == int(A.null_space.counts[c])


def test_regions_that_meet_across_a_seam_are_one():
    cells = np.full((3, 6), ns.SOLID)
    cells[1, :2] = cells[1, 4:] = ns.FLUID
    assert ns.PoissonStencil(ns.Grid(cells, walls="neumann")).null_space.dimension == 2
    assert ns.PoissonStencil(ns.Grid(cells, walls=("neumann", "periodic"))).null_space.dimension == 1


def test_a_closed_face_cuts_a_region_in_two():
    grid = ns.Grid((2, 4))
    faces = [torch.ones(3, 4), torch.ones(2, 5)]
    assert ns.PoissonStencil(grid, faces).null_space.dimension == 1
    faces[1][:, 2] = 0
    assert ns.PoissonStencil(grid, faces).null_space.dimension == 2


def modes(n, wall):
    """Eigenvalues and eigenvectors of tridiag(-1, 2, -1) with the ends of a wall (Strang 1999, sec. 3)."""
    j, k = np.arange(n)[:, None], np.arange(n)[None, :]
    if wall == "dirichlet":
        waves = np.sin(np.pi * (j + 1) * (k + 1) / (n + 1))
        return 4 * np.sin(np.pi * (k[0] + 1) / (2 * (n + 1))) ** 2, waves
    if wall == "neumann":
        return 4 * np.sin(np.pi * k[0] / (2 * n)) ** 2, np.cos(np.pi * (j + 0.5) * k / n)
    wave = np.where(2 * k <= n, np.cos(2 * np.pi * j * k / n), np.sin(2 * np.pi * j * k / n))
    return 4 * np.sin(np.pi * k[0] / n) ** 2, wave


@pytest.mark.parametrize(
    "walls",
    [*((wall,) * 3 for wall in ("neumann", "dirichlet", "periodic")), ("dirichlet", "periodic", "neumann")],
    ids="-".join,
)
def test_eigenpairs_of_the_box_are_known_exactly(walls):
    shape, spacing = (4, 5, 3), (1.0, 0.5, 0.25)
    A = ns.PoissonStencil(ns.Grid(shape, spacing, walls))
    parts = [modes(n, wall) for n, wall in zip(shape, walls, strict=True)]
    (lz, Z), (ly, Y), (lx, X) = [(values / h**2, V) for (values, V), h in zip(parts, spacing, strict=True)]
    V = np.einsum("ai,bj,ck->abcijk", Z, Y, X).reshape(60, 60)
    values = (lz[:, None, None] + ly[:, None] + lx).reshape(60)
    close(A @ torch.from_numpy(V), torch.from_numpy(V * values), 4 * (1 + 4 + 16))


def test_scaling_of_the_grid_and_of_the_coefficients():
    grid = ns.Grid((3, 4), spacing=0.25, walls=("dirichlet", "neumann"))
    unit = dense(ns.PoissonStencil(ns.Grid((3, 4), walls=("dirichlet", "neumann"))))
    assert torch.equal(dense(ns.PoissonStencil(grid)), 16 * unit)
    faces = [torch.full((4, 4), 3.0, dtype=torch.float64), torch.full((3, 5), 3.0, dtype=torch.float64)]
    assert torch.equal(dense(ns.PoissonStencil(grid, faces)), 48 * unit)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_stencil_is_second_order_accurate(ndim):
    """Of -div grad u for u = sin(2 pi z) sin(pi y) cos(2 pi x): periodic, zero in ghost cells, no flux."""

    def error(n):
        z = torch.arange(n, dtype=torch.float64) / n
        y = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        u = torch.sin(torch.pi * y)[:, None] * torch.cos(2 * torch.pi * x)
        if ndim == 3:
            u = torch.sin(2 * torch.pi * z)[:, None, None] * u
        spacing, walls = (1 / n, 1 / (n + 1), 1 / n), ("periodic", "dirichlet", "neumann")
        A = ns.PoissonStencil(ns.Grid(tuple(u.shape), spacing[-ndim:], walls[-ndim:]))
        u = u.reshape(-1)
        return float((A @ u - (5 if ndim == 2 else 9) * torch.pi**2 * u).abs().max())

    assert math.log2(error(16) / error(32)) == pytest.approx(2, abs=0.15)


def test_harmonic_face_coefficients_make_the_flux_through_a_jump_exact():
    # c = 1 | 4 in series: u is linear on each side, the flux is the same through every face
    n, c = 8, torch.cat([torch.ones(4), 4 * torch.ones(4)]).double()
    grid = ns.Grid((1, n), walls=("neumann", ("dirichlet", "dirichlet")))
    faces = ns.face_coefficients(c.reshape(1, n), grid)
    flux = torch.tensor([0.0, *(1 / faces[1][0, 1:-1]).tolist()], dtype=torch.float64).cumsum(0)
    interior = (ns.PoissonStencil(grid, faces) @ flux)[1:-1]
    close(interior, torch.zeros_like(interior), 4 * flux.max())


# operators made of others


def operators():
    U = random(811, 9, 2)
    cells = np.array([[0, 0, 1], [0, 2, 0], [0, 0, 0]])
    masked = ns.Grid(cells, (0.5, 2.0), ("periodic", ("neumann", "dirichlet")))
    faces = random_faces(masked, np.random.default_rng(812), 0.2)
    matrix = sp.random_array((9, 9), density=0.4, rng=np.random.default_rng(813))
    wide = ns.as_operator(sp.random_array((4, 9), density=0.6, rng=np.random.default_rng(814)))
    tall = ns.as_operator(wide.to_scipy().T.tocsr())
    square = ns.as_operator(matrix)
    return {
        "csr": square,
        "csr rectangular": wide,
        "dense": ns.DenseOperator(random(815, 9, 9)),
        "stencil": ns.PoissonStencil(masked),
        "stencil with coefficients": ns.PoissonStencil(masked, faces),
        "low rank": ns.DiagonalPlusLowRank(random(816, 9), U),
        "nonsymmetric low rank": ns.DiagonalPlusLowRank(random(817, 9), U, random(818, 9, 2)),
        "kkt": ns.Block([[square, tall], [wide, None]]),
        "function": ns.CallableOperator(
            square.matvec, (9, 9), transposed=square.transpose().matvec, diagonal=square.diagonal()
        ),
    }


@pytest.mark.parametrize("name", list(operators()))
def test_every_operator_is_the_linear_map_of_its_matrix(name):
    A = operators()[name]
    (m, n), S = A.shape, dense(A)
    x, y, u = random(821, n, 3), random(822, m, 3), random(823, n, 3)
    size = max(float(S.abs().max() * x.abs().max()), 1.0) * n
    close(A @ x, S @ x, size)
    close(A @ (2 * x - u), 2 * (A @ x) - A @ u, size)
    close(A @ x[:, 1].contiguous(), (S @ x)[:, 1], size)
    close(A.rmatvec(y), S.T @ y, size)
    close((y * (A @ x)).sum(0), (A.rmatvec(y) * x).sum(0), size * n)
    out = torch.full((m, 3), math.nan, dtype=torch.float64)
    assert A.matvec(x, out) is out
    close(out, S @ x, size)
    if m == n:
        close(A.diagonal(), S.diagonal(), S.abs().max())
        close(A.matvec_dot(x, out), (x * (S @ x)).sum(0), size * n)
    assert A.to(dtype=torch.float64) is A
    single = A.to(dtype=torch.float32)
    assert (single.dtype, single.shape, single.props) == (torch.float32, A.shape, A.props)
    relative = 32 * torch.finfo(torch.float32).eps * size
    torch.testing.assert_close(single.to_scipy().toarray(), S.float().numpy(), rtol=0, atol=relative)
    product = single @ x.float()
    torch.testing.assert_close(product.double(), S @ x, rtol=0, atol=relative)
    assert (single.null_space is None) == (A.null_space is None)
    with pytest.raises(ns.ShapeError, match="x must be"):
        A @ random(824, n + 1)


def test_woodbury_inverts_diagonal_plus_low_rank():
    A = ns.DiagonalPlusLowRank(random(831, 7).abs() + 1, random(832, 7, 3), random(833, 7, 3))
    x = random(834, 7, 2)
    accuracy = 1e3 * EPS * float(np.linalg.cond(dense(A)))
    torch.testing.assert_close(A.inverse() @ (A @ x), x, rtol=0, atol=accuracy)
    with pytest.raises(ns.StructureError, match="divides by d"):
        ns.DiagonalPlusLowRank(torch.zeros(3), torch.ones(3, 1)).inverse()
    assert "spd" in ns.DiagonalPlusLowRank(torch.ones(3), torch.ones(3, 1)).props
    assert "spd" not in ns.DiagonalPlusLowRank(-torch.ones(3), torch.ones(3, 1)).props


def test_blocks_of_several_precisions_take_the_widest():
    single, double = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.float64)
    K = ns.Block([[ns.DenseOperator(single), None], [None, ns.DenseOperator(double)]])
    assert (K @ torch.ones(4, dtype=torch.float64)).tolist() == [2, 2, 2, 2]


def test_a_null_space_stays_with_its_operator():
    A = ns.as_operator(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    for operator in (A, ns.as_operator(sp.csr_array(A.to_scipy())), ns.Block([[A, None], [None, A]])):
        operator.null_space = from_vectors(np.ones(operator.shape[0]), operator.shape[0])
        assert operator.to(dtype=torch.float32).null_space is operator.null_space


@given(st.integers(2, 9), st.integers(1, 3), st.integers(7, 2**32))
@settings(max_examples=20, deadline=None)
def test_projection_onto_the_complement_of_given_vectors(n, m, seed):
    if m >= n:
        return
    Z, v = random(seed, n, m), random(seed + 1, n, 2)
    w = v.clone()
    removed = from_vectors(Z.numpy(), n).project(w)
    accuracy = 1e3 * EPS * float(np.linalg.cond(Z)) * float(v.norm())
    assert float((Z.T @ w).abs().max()) <= accuracy * float(Z.norm())
    torch.testing.assert_close(removed**2 + (w**2).sum(0), (v**2).sum(0), rtol=1e-9, atol=accuracy)


@given(grids(full=True))
@settings(max_examples=20, deadline=None)
def test_projection_of_constants_is_the_mean_per_region(grid):
    null_space = ns.PoissonStencil(grid).null_space
    if null_space is None:
        return
    v = random(841, grid.size, 2)
    w = v.clone()
    removed = null_space.project(w)
    close(w, v - v.mean(0), v.abs().max())
    close(removed, v.mean(0).abs() * math.sqrt(grid.size), v.abs().max() * math.sqrt(grid.size))


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("f4"), "float64"])
def test_a_function_may_have_a_dtype_of_numpy(dtype):
    A = ns.CallableOperator(lambda x: 2 * x, (3, 3), dtype)
    assert np.allclose(ns.solve(A, np.ones(3), ns.GMRES()).x, 0.5)
