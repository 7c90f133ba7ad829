"""Gradients through `solve`, against finite differences (torch.autograd.gradcheck)."""

from __future__ import annotations

import pytest
import scipy.sparse as sp
import torch
from torch.autograd import gradcheck

import neuralsolve as ns

TIGHT = 1e-13


def random_faces(grid, generator):
    cells = 0.5 + torch.rand(grid.shape, dtype=torch.float64, generator=generator)
    return [face.clone() for face in ns.face_coefficients(cells, grid)]


def interior(grid, faces):
    """Tie the end faces of a periodic axis, so that a finite difference moves one face, not half of it."""
    tied = []
    for axis, face in enumerate(faces):
        if grid.periodic[axis]:
            face = torch.cat([face, face.narrow(axis, 0, 1)], axis)
        tied.append(face)
    return tied


@pytest.mark.parametrize("method", [None, ns.CG(), ns.SparseLU()])
@pytest.mark.parametrize("columns", [(), (2,)])
def test_gradient_of_the_right_side_and_of_csr_values(method, columns, generator):
    S = sp.csr_array(ns.PoissonStencil(ns.Grid((3, 4), walls="dirichlet")).to_scipy())
    indptr, indices = torch.from_numpy(S.indptr), torch.from_numpy(S.indices)
    upper = torch.rand(len(S.data), dtype=torch.float64, generator=generator)
    b = torch.randn(12, *columns, dtype=torch.float64, generator=generator, requires_grad=True)
    transposed = torch.from_numpy(
        sp.csr_array((range(len(S.data)), S.indices, S.indptr)).T.tocsr().data
    ).long()

    def symmetric(upper, b):
        values = torch.from_numpy(S.data) + 0.1 * (upper + upper[transposed])  # A stays symmetric
        return ns.solve(ns.CSROperator(indptr, indices, values, (12, 12)), b, method, rtol=TIGHT).x

    assert gradcheck(symmetric, (upper.requires_grad_(), b))


def test_gradient_of_a_nonsymmetric_matrix(generator):
    A = torch.eye(6, dtype=torch.float64) * 4 + torch.rand(6, 6, dtype=torch.float64, generator=generator)
    b = torch.randn(6, dtype=torch.float64, generator=generator)
    for method in (None, ns.GMRES(), ns.BiCGStab()):
        assert gradcheck(
            lambda A, b, method=method: ns.solve(A, b, method, rtol=TIGHT).x,
            (A.requires_grad_(), b.requires_grad_()),
        )


def test_gradient_through_torch_sparse_tensors(generator):
    i = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 0, 1, 2]])
    values = torch.tensor([4.0, -1.0, -1.0, 3.0, 2.0], dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, generator=generator)

    def coo(values):
        return ns.solve(
            torch.sparse_coo_tensor(i, values, (3, 3), check_invariants=True), b, ns.GMRES(), rtol=TIGHT
        ).x

    assert gradcheck(coo, (values,))


@pytest.mark.parametrize(
    ("shape", "walls"),
    [
        ((3, 4), "dirichlet"),
        ((3, 4), "neumann"),
        ((3, 4), ("periodic", ("dirichlet", "neumann"))),
        ((3, 3), "periodic"),
        ((2, 3, 3), "neumann"),
    ],
)
def test_gradient_of_face_coefficients_singular_neumann_included(shape, walls, generator):
    cells = torch.zeros(shape, dtype=torch.int64)
    cells.view(-1)[4] = ns.SOLID
    grid = ns.Grid(cells, spacing=0.5, walls=walls)
    faces = random_faces(grid, generator)
    free = [
        f.narrow(a, 0, f.shape[a] - grid.periodic[a]).contiguous().requires_grad_()
        for a, f in enumerate(faces)
    ]
    b = torch.randn(grid.size, dtype=torch.float64, generator=generator, requires_grad=True)

    def through(b, *free):
        return ns.solve(ns.PoissonStencil(grid, interior(grid, free)), b, ns.CG(), rtol=TIGHT).x

    assert gradcheck(through, (b, *free))


def test_gradient_of_the_right_side_of_a_singular_stencil(generator):
    A = ns.PoissonStencil(ns.Grid((4, 5)))
    b = torch.randn(20, dtype=torch.float64, generator=generator, requires_grad=True)
    for method in (None, ns.CG(), ns.SparseLU(), ns.MINRES()):
        assert gradcheck(lambda b, method=method: ns.solve(A, b, method, rtol=TIGHT).x, (b,))


def test_no_graph_is_kept_where_none_is_asked_for(generator):
    A = ns.PoissonStencil(ns.Grid((4, 5)))
    b = torch.randn(20, dtype=torch.float64, generator=generator, requires_grad=True)
    with torch.no_grad():
        assert not ns.solve(A, b).x.requires_grad
    assert ns.solve(A, b).x.requires_grad


def test_gradient_of_structured_operators(generator):
    d = 2 + torch.rand(7, dtype=torch.float64, generator=generator)
    U, V = (torch.randn(7, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    b = torch.randn(7, dtype=torch.float64, generator=generator)
    for tensor in (d, U, V, b):
        tensor.requires_grad_()
    assert gradcheck(lambda d, U, b: ns.solve(ns.DiagonalPlusLowRank(d, U), b, rtol=TIGHT).x, (d, U, b))
    assert gradcheck(
        lambda d, U, V: ns.solve(ns.DiagonalPlusLowRank(d, U, V), b, ns.GMRES(), rtol=TIGHT).x, (d, U, V)
    )
    A = 4 * torch.eye(4, dtype=torch.float64) + torch.rand(4, 4, dtype=torch.float64, generator=generator)
    C = torch.rand(3, 4, dtype=torch.float64, generator=generator)

    def saddle(A, C):
        A = (A + A.T) / 2
        kkt = ns.Block([[ns.DenseOperator(A), ns.DenseOperator(C.T)], [ns.DenseOperator(C), None]])
        return ns.solve(kkt, b, rtol=TIGHT).x

    assert gradcheck(saddle, (A.requires_grad_(), C.requires_grad_()))


@pytest.mark.parametrize("method", [None, ns.CG(), ns.GMRES()])
def test_a_gradient_belongs_to_its_own_matrix_whatever_update_brings_before_it(method):
    values = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    b = torch.ones(2, dtype=torch.float64, requires_grad=True)
    prepared = ns.prepare(
        ns.DenseOperator(torch.diag(values)), method, M=ns.Jacobi() if method else None, rtol=1e-12
    )
    x = prepared.solve(b).x
    prepared.update(ns.DenseOperator(torch.diag(values.detach() * 10)))
    x.sum().backward()
    assert torch.allclose(b.grad, torch.tensor([1 / 2, 1 / 3], dtype=torch.float64))
    assert torch.allclose(values.grad, torch.tensor([-1 / 4, -1 / 9], dtype=torch.float64))


def test_the_adjoint_has_its_own_tolerance_and_limit():
    A = torch.eye(3, dtype=torch.float64) * 2
    b = torch.ones(3, dtype=torch.float64, requires_grad=True)
    x = ns.solve(A, b, ns.CG(), atol=1e-2, maxiter=1).x
    (1e-3 * x).sum().backward()  # far below the forward's atol
    assert torch.allclose(b.grad, torch.full((3,), 0.5e-3, dtype=torch.float64))


def test_coefficients_changed_in_place_are_seen():
    faces = [torch.ones(5, 4, dtype=torch.float64), torch.ones(4, 5, dtype=torch.float64)]
    faces[0][2, 2] = 2.0
    A = ns.PoissonStencil(ns.Grid((4, 4), walls="dirichlet"), faces)
    b = torch.ones(16, dtype=torch.float64)
    before = ns.solve(A, b).x
    for face in faces:
        face.mul_(10)
    assert torch.allclose(ns.solve(A, b).x * 10, before)


def test_a_second_derivative_is_refused():
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = w * ns.solve(torch.eye(3, dtype=torch.float64), w * torch.ones(3, dtype=torch.float64)).x.sum()
    (gradient,) = torch.autograd.grad(y, w, create_graph=True)
    assert float(gradient.detach()) == pytest.approx(12.0)
    with pytest.raises(ns.StructureError, match="once"):
        torch.autograd.grad(gradient, w)
