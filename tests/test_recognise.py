"""A matrix that is a box stencil is recognised as one, and no other is."""

from __future__ import annotations

import math

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import torch
from grids import box, boxes
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import neuralsolve as ns
from neuralsolve.kernels import use
from neuralsolve.solvers.recognise import box_stencil

MULTIPLES = st.sampled_from([1.0, -1.0, 3.7, -2e-9, 5e12])


def recognised(A):
    """Return what box_stencil finds, as a matrix; it must be the matrix that went in."""
    operator = A if isinstance(A, ns.CSROperator) else ns.as_operator(A)
    values = operator.values.clone()
    found = box_stencil(operator)
    assert torch.equal(operator.values, values)
    if found is None:
        return None
    stencil, multiple = found
    S, given_matrix = multiple * stencil.to_scipy(), operator.to_scipy()
    rounding = 128 * torch.finfo(operator.dtype).eps
    assert stencil.dtype == operator.dtype
    assert abs(S - given_matrix).max() <= rounding * abs(given_matrix).max()
    x = torch.randn(S.shape[0], dtype=operator.dtype, generator=torch.Generator().manual_seed(91))
    torch.testing.assert_close(
        multiple * (stencil @ x), operator @ x, rtol=0, atol=rounding * float(abs(S).max()) * 40
    )
    return stencil


def cells_couple(A):
    return A.to_scipy().nnz > np.count_nonzero(A.diagonal())


@given(boxes(max_side=6), MULTIPLES, st.sampled_from(["reference", "cpu"]))
@settings(max_examples=100, deadline=None)
def test_every_box_is_recognised(A, multiple, room):
    assume(cells_couple(A))
    with use(room):
        stencil = recognised(multiple * A.to_scipy())
        assert stencil is not None
        x = torch.randn(A.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(92))
        ours, theirs = ns.FastPoisson().build(stencil).apply(A @ x), ns.FastPoisson().build(A).apply(A @ x)
    scale = float(theirs.abs().max())
    first = box_stencil(ns.as_operator(A.to_scipy()))
    torch.testing.assert_close(ours / first[1], theirs, rtol=0, atol=1e-9 * scale)


@given(boxes(max_side=6), st.data())
@settings(max_examples=100, deadline=None)
def test_one_changed_entry_is_noticed(A, data):
    assume(cells_couple(A))
    operator = ns.as_operator(A.to_scipy())
    values = operator.values.clone()
    i = data.draw(st.integers(0, len(values) - 1))
    values[i] *= 1 + data.draw(st.sampled_from([1e-11, -1e-6, 0.5, -2.0]))
    recognised(operator.with_values(values))  # which asserts that what is found, if anything, has the change


def test_one_changed_entry_of_a_large_box_is_noticed(kernels):
    A = ns.as_operator(pyamg.gallery.poisson((12, 13, 14), format="csr"))
    rng = np.random.default_rng(93)
    for i in rng.choice(len(A.values), 40, replace=False):
        values = A.values.clone()
        values[i] += 1e-12
        assert box_stencil(A.with_values(values)) is None


@given(boxes(max_side=4, min_side=2), st.integers(7, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_permutation_is_a_box_only_where_it_is_a_symmetry(A, seed):
    order = np.random.default_rng(seed).permutation(A.shape[0])
    permuted = sp.csr_array(A.to_scipy()[order][:, order])
    recognised(permuted)  # whatever is found, it is that matrix
    if A.shape[0] >= 27 and len(set(A.diagonal().tolist())) > 1:  # symmetries are then a vanishing part
        assert recognised(permuted) is None


@pytest.mark.parametrize("shape", [(7,), (5, 9), (1, 6), (2, 2), (3, 1, 4), (4, 3, 6), (2, 2, 2)])
def test_the_gallery_of_pyamg(shape):
    A = pyamg.gallery.poisson(shape, format="csr")
    stencil = recognised(A)
    assert all(
        wall == "dirichlet"
        for pair, n in zip(stencil.grid.walls, stencil.grid.shape, strict=True)
        if n > 1
        for wall in pair
    )
    assert math.prod(stencil.grid.shape) == A.shape[0]


def test_walls_and_spacing_are_named():
    kinds, couplings = [(1, 0), "periodic", (2, 2)], (1.0, 16.0, 0.25)
    stencil = recognised(-3 * box((3, 4, 5), kinds, couplings).to_scipy())
    assert stencil.grid.shape == (3, 4, 5)
    assert stencil.grid.walls == (("dirichlet", "neumann"), ("periodic",) * 2, ("dirichlet",) * 2)
    assert stencil.grid.spacing == (0.5, 0.125, 1.0)  # couplings over that of the last axis, 1 / spacing^2


def test_fortran_order_is_a_box_with_its_axes_reversed():
    A = ns.PoissonStencil(ns.Grid((3, 5), walls=("neumann", "dirichlet"))).to_scipy()
    order = np.arange(15).reshape(3, 5).ravel(order="F")
    stencil = recognised(sp.csr_array(A[order][:, order]))
    assert stencil.grid.shape == (5, 3)
    assert stencil.grid.walls[0] == ("dirichlet", "dirichlet")


@pytest.mark.parametrize("shape", [(6,), (4, 5)])
def test_a_positive_shift_is_a_further_axis_of_one_cell(shape):
    A = pyamg.gallery.poisson(shape, format="csr") + 0.7 * sp.eye_array(math.prod(shape))
    stencil = recognised(A)
    assert stencil.grid.shape[0] == 1
    assert stencil.grid.walls[0] == ("dirichlet", "dirichlet")
    x = np.arange(1.0, A.shape[0] + 1)
    np.testing.assert_allclose(ns.solve(A, A @ x, ns.FastPoisson()).x, x, rtol=1e-12)


def test_single_precision_explicit_zeros_and_rounded_values():
    A = sp.csr_array(pyamg.gallery.poisson((6, 7), format="csr") / 0.3**2)
    assert recognised(A.astype(np.float32)).dtype == torch.float32
    noisy = A.copy()
    noisy.data *= 1 + 4 * np.finfo(float).eps * np.random.default_rng(94).uniform(-1, 1, A.nnz)
    assert recognised(noisy) is not None
    rows, columns = A.nonzero()
    extra = sp.coo_array(
        (np.r_[A.data, 0.0, 0.0], (np.r_[rows, 0, 17], np.r_[columns, 40, 3])), shape=A.shape
    )
    assert ns.as_operator(extra).to_scipy().nnz == A.nnz + 2
    assert recognised(extra) is not None


def cut(A):
    """Close one face between two cells: still a graph Laplacian, no box."""
    A = sp.lil_array(A)
    A[3, 4] = A[4, 3] = 0
    A[3, 3] -= 1
    A[4, 4] -= 1
    return A.tocsr()


POISSON = pyamg.gallery.poisson((5, 8), format="csr")
OTHERS = {
    "identity": sp.eye_array(12),
    "a number": sp.csr_array([[2.0]]),
    "empty rows": sp.csr_array((6, 6)),
    "rectangular": sp.csr_array(np.eye(3, 4)),
    "dense": sp.csr_array(np.random.default_rng(95).normal(size=(9, 9))),
    "random sparse": sp.random_array((60, 60), density=0.08, rng=np.random.default_rng(96)),
    "negative shift": POISSON - 0.7 * sp.eye_array(40),
    "3-D with a shift": pyamg.gallery.poisson((3, 4, 5), format="csr") + sp.eye_array(60),
    "nine-point": pyamg.gallery.stencil_grid(
        np.array([[-1, -4, -1], [-4, 20, -4], [-1, -4, -1]]), (5, 8), format="csr"
    ),
    "anisotropic and rotated": pyamg.gallery.stencil_grid(
        pyamg.gallery.diffusion_stencil_2d(0.1, 0.6), (5, 8), format="csr"
    ),
    "convection": sp.diags_array([-1.5, 2.0, -0.5], offsets=[-1, 0, 1], shape=(20, 20)),
    "positive couplings on one axis": sp.kron(sp.eye_array(4), POISSON[:8, :8])
    - sp.diags_array([-1.0, -1.0], offsets=[-8, 8], shape=(32, 32)),
    "elasticity": pyamg.gallery.linear_elasticity((5, 5))[0],
    "bars": pyamg.gallery.load_example("bar")["A"],
    "airfoil": pyamg.gallery.load_example("airfoil")["A"],
    "a closed face": cut(POISSON),
    "masked": ns.PoissonStencil(ns.Grid(np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]))).to_scipy(),
    "varying coefficients": ns.PoissonStencil(
        ns.Grid((4, 4)), [1 + torch.arange(20).reshape(5, 4), torch.ones(4, 5)]
    ).to_scipy(),
    "thick wall": ns.PoissonStencil(
        ns.Grid((1, 5), walls=("neumann", "dirichlet")),
        [torch.ones(2, 5), torch.tensor([[1.5, 1, 1, 1, 1, 1.5]])],
    ).to_scipy(),
    "boundary rows set to the identity": sp.csr_array(sp.block_diag([np.eye(1), POISSON])),
    "two boxes": sp.csr_array(sp.block_diag([POISSON, POISSON])),
    "huge and tiny": sp.csr_array(np.array([[1e300, -1e-300], [-1e-300, 1e300]])),
    "a coupling below rounding": sp.kron(sp.eye_array(4), POISSON[:8, :8])
    + 1e-17 * sp.kron(POISSON[:4, :4], sp.eye_array(8)),
    "a diagonal above rounding": POISSON + 1e18 * sp.eye_array(40),
    "diagonal that overflows": sp.csr_array(
        np.array([[1.7e308, -1e308, 0], [-1e308, 1.7e308, -1e308], [0, -1e308, 1.7e308]])
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_matrices_are_left_alone(name):
    assert box_stencil(ns.as_operator(OTHERS[name])) is None


def test_the_kernel_counts_no_zero_and_reports_a_row_that_differs(all_kernels):
    S = ns.PoissonStencil(ns.Grid((3, 2, 4), walls=("periodic", "neumann", "dirichlet")))
    A = ns.as_operator(S.to_scipy())
    rule = (
        (3, 2, 4),
        torch.ones(3, dtype=torch.float64),
        torch.tensor([[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]], dtype=torch.float64),
        torch.tensor([True, False, False]),
        6.0,
        1e-14,
    )
    assert all_kernels.csr_box_difference(A.indptr, A.indices, A.values, *rule) == -1
    for entry in (0, 17, len(A.values) - 1):
        for value in (A.values[entry] + 1e-3, math.nan):
            values = A.values.clone()
            values[entry] = value
            row = all_kernels.csr_box_difference(A.indptr, A.indices, values, *rule)
            assert int(A.indptr[row]) <= entry < int(A.indptr[row + 1])
