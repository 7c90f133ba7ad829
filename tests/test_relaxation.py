"""Jacobi, SOR and SSOR against their matrices, and their iterations against Young's and Axelsson's theory."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import recipe_laws as laws
import scipy.sparse as sp
import torch
from simulated_gpu import CUDA, gpu

import neuralsolve as ns

__all__ = ["gpu"]  # a fixture

RECIPES = [
    ns.Jacobi(),
    ns.Jacobi(omega=0.7),
    ns.SOR(),
    ns.SOR(1.4, sweeps=2, direction="backward"),
    ns.SOR(0.8, order="multicolor", sweeps=3),
    ns.SSOR(1.5),
    ns.SSOR(0.9, sweeps=2),
    ns.SSOR(1.2, order="multicolor"),
]
RED_BLACK = [ns.SOR(1.3, order="red-black"), ns.SSOR(1.1, order="red-black", sweeps=2)]


def split(A) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return D, L, U of a dense matrix, A = D + L + U."""
    return np.diag(np.diag(A)), np.tril(A, -1), np.triu(A, 1)


def model_problem(n: int) -> ns.PoissonStencil:
    return ns.PoissonStencil(ns.Grid((n, n), walls="dirichlet"))


# laws


@pytest.mark.parametrize("recipe", RECIPES, ids=repr)
@pytest.mark.parametrize("scene", [*laws.SCENES, laws.odd_periodic_2d])
def test_recipes_obey_the_laws(recipe, scene, generator):
    laws.check_laws(recipe, scene(), generator)


@pytest.mark.parametrize("recipe", RED_BLACK, ids=repr)
@pytest.mark.parametrize(
    "scene", [laws.box_2d, laws.masked_2d, laws.periodic_2d, laws.masked_3d, laws.convection]
)
def test_red_black_obeys_the_laws(recipe, scene, generator):
    laws.check_laws(recipe, scene(), generator)


@pytest.mark.parametrize("recipe", RECIPES, ids=repr)
def test_update_follows_the_values(recipe):
    A = laws.graph()
    laws.check_update(
        recipe, A, A.with_values(A.values * torch.linspace(1, 3, len(A.values), dtype=torch.float64))
    )


@pytest.mark.parametrize("recipe", [ns.Jacobi(), ns.SSOR(1.5), ns.SSOR(order="multicolor")], ids=repr)
def test_symmetric_recipes_are_declared_symmetric(recipe):
    assert recipe.build(laws.graph()).symmetric
    assert recipe.build(laws.masked_3d()).symmetric


def test_sor_is_never_declared_symmetric():
    assert not ns.SOR().build(laws.graph()).symmetric
    assert not ns.SSOR().build(laws.convection()).symmetric


@pytest.mark.parametrize(
    ("recipe", "scene"),
    [
        *itertools.product(
            [*RECIPES[:4], ns.SSOR(1.5)], [laws.box_2d, laws.periodic_2d, laws.masked_2d, laws.masked_3d]
        ),
        # the first fluid cell of these is red: a matrix calls its first row red, whatever it stands for
        *itertools.product(RED_BLACK, [laws.box_2d, laws.periodic_2d, laws.masked_2d]),
    ],
    ids=repr,
)
def test_a_grid_and_its_matrix_give_the_same_map(recipe, scene):
    A = scene()
    rows = ns.as_operator(A.to_scipy(), props={"spd"})
    on_grid, on_rows = (laws.dense(recipe.build(operator), A.shape[0]) for operator in (A, rows))
    torch.testing.assert_close(on_grid, on_rows, rtol=0.0, atol=1e-13 * float(on_rows.abs().max()))


# matrices


def test_jacobi_is_the_inverse_diagonal():
    A = laws.convection()
    M = laws.dense(ns.Jacobi(0.8).build(A), A.shape[0])
    torch.testing.assert_close(M, torch.diag(0.8 / A.diagonal()), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("scene", [laws.graph, laws.convection, laws.box_2d])
@pytest.mark.parametrize("omega", [0.7, 1.0, 1.6])
def test_sor_and_ssor_are_their_matrices(scene, omega):
    A = scene()
    D, L, U = split(A.to_scipy().toarray())
    forward, backward = np.linalg.inv(D / omega + L), np.linalg.inv(D / omega + U)
    symmetric = (2 - omega) / omega * backward @ D @ forward
    for recipe, matrix in (
        (ns.SOR(omega), forward),
        (ns.SOR(omega, direction="backward"), backward),
        (ns.SSOR(omega), symmetric),
    ):
        M = laws.dense(recipe.build(A), A.shape[0]).numpy()
        np.testing.assert_allclose(M, matrix, rtol=0, atol=1e-12 * abs(matrix).max())


@pytest.mark.parametrize("recipe", [ns.SOR(1.2, sweeps=3), ns.SSOR(1.2, sweeps=3)], ids=repr)
def test_sweeps_are_steps_of_richardson(recipe):
    A = laws.graph()
    once = type(recipe)(recipe.omega).build(A)
    r = torch.linspace(-1, 2, A.shape[0], dtype=torch.float64)
    x = torch.zeros_like(r)
    for _ in range(3):
        x += once.apply(r - A.matvec(x))
    torch.testing.assert_close(recipe.build(A).apply(r), x, rtol=1e-12, atol=1e-12)


def test_red_black_is_sor_in_the_order_of_the_colours():
    A = laws.box_2d()
    y, x = np.indices(A.grid.shape).reshape(2, -1)
    order = np.argsort((x + y) % 2, kind="stable")
    shuffled = A.to_scipy().toarray()[np.ix_(order, order)]
    D, L, _ = split(shuffled)
    expected = np.empty_like(shuffled)
    expected[np.ix_(order, order)] = np.linalg.inv(D / 1.3 + L)
    M = laws.dense(ns.SOR(1.3, order="red-black").build(A), A.shape[0]).numpy()
    np.testing.assert_allclose(M, expected, rtol=0, atol=1e-13 * abs(expected).max())


# theory


@pytest.mark.parametrize("order", ["lexicographic", "red-black"])
def test_the_best_omega_gives_youngs_radius(order):
    """rho(I - M A) = omega - 1 at omega* = 2 / (1 + sin pi h), for either consistent order (Young 1971)."""
    n = 9
    omega = 2 / (1 + math.sin(math.pi / (n + 1)))
    A = model_problem(n)
    M = laws.dense(ns.SOR(omega, order=order).build(A), n * n).numpy()
    radius = abs(np.linalg.eigvals(np.eye(n * n) - M @ A.to_scipy().toarray())).max()
    # at omega* the largest eigenvalue is double with one eigenvector: rounding moves it by about sqrt(eps)
    assert abs(radius - (omega - 1)) < 1e-5


def test_gauss_seidel_has_the_square_of_jacobis_radius():
    n = 9
    A = model_problem(n)
    S = A.to_scipy().toarray()
    jacobi, seidel = (
        abs(np.linalg.eigvals(np.eye(n * n) - laws.dense(recipe.build(A), n * n).numpy() @ S)).max()
        for recipe in (ns.Jacobi(), ns.SOR())
    )
    assert abs(jacobi - math.cos(math.pi / (n + 1))) < 1e-12
    assert abs(seidel - jacobi**2) < 1e-7  # eigenvalues of a nonsymmetric matrix, zero being multiple


def test_richardson_with_the_best_omega_beats_gauss_seidel_by_theory():
    """The radii say how many steps ten digits take; the double eigenvalue costs SOR up to twice as many."""
    n = 20
    A = model_problem(n)
    slowest = torch.sin(torch.arange(1, n + 1, dtype=torch.float64) * math.pi / (n + 1))
    b = torch.outer(slowest, slowest).reshape(-1)
    omega = 2 / (1 + math.sin(math.pi / (n + 1)))
    digits = 10 * math.log(10)
    best = ns.solve(A, b, ns.Richardson(), M=ns.SOR(omega), rtol=1e-10).iterations
    assert best < 2 * digits / -math.log(omega - 1)
    seidel = ns.solve(A, b, ns.Richardson(), M=ns.SOR(), rtol=1e-10).iterations
    expected = digits / -2 / math.log(math.cos(math.pi / (n + 1)))
    assert abs(seidel / expected - 1) < 0.05


def test_ssor_has_axelssons_condition_number():
    """kappa <= 1/2 + 1 / (2 sin(pi h / 2)) at omega = 2 / (1 + 2 sin(pi h / 2)) (Axelsson, Barker 1984)."""
    n = 14
    s = math.sin(math.pi / (2 * (n + 1)))
    A = model_problem(n)
    M = laws.dense(ns.SSOR(2 / (1 + 2 * s)).build(A), n * n).numpy()
    root = np.linalg.cholesky(M)
    values = np.linalg.eigvalsh(root.T @ A.to_scipy().toarray() @ root)
    assert values.max() <= 1 + 1e-12  # A <= M^-1: what SSOR adds is semi-definite
    assert values.max() / values.min() <= 0.5 + 0.5 / s


@pytest.mark.parametrize("omega", [0.3, 1.0, 1.9])
@pytest.mark.parametrize("order", ["lexicographic", "multicolor"])
def test_ssor_converges_in_cg_on_every_spd_scene(omega, order, generator):
    for scene in (laws.graph, laws.masked_3d, laws.pockets_2d):
        A = scene()
        b = A.matvec(torch.randn(A.shape[0], dtype=torch.float64, generator=generator))
        assert ns.solve(A, b, ns.CG(), M=ns.SSOR(omega, order=order), rtol=1e-10).converged


# kinds of A, and refusals


def test_explicit_matrices_of_every_kind_are_taken():
    A = laws.graph()
    dense = ns.DenseOperator(torch.from_numpy(A.to_scipy().toarray()), {"spd"})
    single = ns.CSROperator(A.indptr, A.indices, A.values.float(), A.shape, {"spd"})
    block = ns.Block([[A, None], [None, dense]], {"spd"})
    r = torch.linspace(1, 2, A.shape[0], dtype=torch.float64)
    for recipe in (ns.Jacobi(), ns.SSOR(1.3), ns.SOR(order="multicolor")):
        z = recipe.build(A).apply(r)
        torch.testing.assert_close(recipe.build(dense).apply(r), z, rtol=1e-13, atol=0.0)
        twice = recipe.build(block).apply(torch.cat([r, r]))
        torch.testing.assert_close(twice, torch.cat([z, z]), rtol=1e-13, atol=0.0)
        torch.testing.assert_close(recipe.build(single).apply(r), z, rtol=1e-5, atol=0.0)


def test_a_function_is_refused():
    A = ns.CallableOperator(
        lambda x: 2 * x, (5, 5), props={"spd"}, diagonal=torch.full((5,), 2.0, dtype=torch.float64)
    )
    assert float(ns.Jacobi().build(A).apply(torch.ones(5, dtype=torch.float64))[0]) == 0.5
    with pytest.raises(ns.StructureError, match=r"needs the entries of A.*pass a matrix"):
        ns.SSOR().build(A)


@pytest.mark.parametrize("scene", [laws.graph, laws.masked_2d, laws.convection], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "recipe",
    [ns.Jacobi(0.7), ns.SSOR(1.3, order="multicolor"), ns.SOR(1.2, order="multicolor", sweeps=2)],
    ids=repr,
)
def test_what_needs_no_order_moves_to_a_device(gpu, recipe, scene):
    A = scene()
    M, r = recipe.build(A), torch.sin(torch.arange(A.shape[0], dtype=torch.float64))
    moved = M.to(CUDA)
    assert moved.describe() == M.describe()
    for name in ("apply", "apply_transpose"):
        expected, z = getattr(M, name)(r), getattr(moved, name)(r.to(CUDA))
        assert z.device == CUDA
        assert (z.cpu() - expected).norm() <= 1e-14 * A.shape[0] * expected.norm()


def test_an_order_row_by_row_stays_on_the_cpu(gpu):
    A = laws.graph()
    M, r = ns.SSOR(1.3).build(A), torch.ones(A.shape[0], dtype=torch.float64)
    moved = M.to(CUDA)
    assert "applied on the CPU" in moved.describe()
    assert torch.equal(moved.apply(r.to(CUDA)).cpu(), M.apply(r))


@pytest.mark.parametrize("recipe", [ns.Jacobi(), ns.SOR(), ns.SSOR()], ids=repr)
def test_a_zero_diagonal_is_refused(recipe):
    A = ns.as_operator(np.array([[2.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(ns.StructureError, match=r"divides by the diagonal.*row 1.*ILU|row 1.*IncompleteLU"):
        recipe.build(A)


def test_a_negative_diagonal_is_not_positive_definite():
    A = ns.as_operator(sp.diags_array([1.0, -2.0, 3.0]), props={"symmetric"})
    assert not ns.Jacobi().build(A).symmetric
    assert not ns.SSOR().build(A).symmetric


def test_red_black_needs_two_colours():
    with pytest.raises(ns.StructureError, match=r"odd cycle.*multicolor"):
        ns.SSOR(order="red-black").build(laws.graph())
    with pytest.raises(ns.StructureError, match=r"odd periodic side.*multicolor.*lexicographic"):
        ns.SOR(order="red-black").build(laws.odd_periodic_2d())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ns.SOR(omega=2.0), r"omega=2.0.*\(0, 2\)"),
        (lambda: ns.SOR(omega=0), r"\(0, 2\)"),
        (lambda: ns.SSOR(omega=float("nan")), r"\(0, 2\)"),
        (lambda: ns.SSOR(omega="big"), "must be a number"),
        (lambda: ns.Jacobi(omega=-1.0), r"\(0, 2\)"),
        (lambda: ns.SOR(order="redblack"), "did you mean 'red-black'"),
        (lambda: ns.SSOR(sweeps=0), "integer of at least 1"),
        (lambda: ns.SSOR(sweeps=1.5), "integer of at least 1"),
        (lambda: ns.SOR(direction="backwards"), "did you mean 'backward'"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ns.OptionError, match=message):
        make()
