"""The real matrices of $NEURALSOLVE_DATA: every one ends solved, or in a clear and true status."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import neuralsolve as ns
from neuralsolve import Status

SPD = [
    "bcsstk13.mtx",
    "bcsstk16.mtx",
    "gr_30_30.mtx",
    "lap2D_5pt_n100.mtx",
    "lap3D_7pt_n20.mtx",
    "pyamg_airfoil.mat",
    "pyamg_bar.mat",
    "pyamg_knot.mat",
    "pyamg_local_disc_galerkin_diffusion.mat",
    "pyamg_unit_cube.mat",
]
NONSYMMETRIC = ["olm1000.mtx", "pyamg_recirc_flow.mat"]


def load(path) -> sp.csr_array:
    if path.suffix == ".mat":
        return sp.csr_array(scipy.io.loadmat(path)["A"])
    if path.suffix == ".npz":
        return sp.csr_array(sp.load_npz(path))
    return sp.csr_array(scipy.io.mmread(path))


def right_side(A) -> np.ndarray:
    return np.random.default_rng(4711).standard_normal(A.shape[0])


def check(A, b, result, rtol=1e-8) -> None:
    assert result.converged, result
    assert np.linalg.norm(b - A @ result.x) <= rtol * np.linalg.norm(b)


@pytest.mark.parametrize("name", SPD)
def test_spd_matrices_reach_the_tolerance_by_the_default_choice(name, data):
    A = load(data / "matrices" / name)
    b = right_side(A)
    check(A, b, ns.solve(A, b))


@pytest.mark.parametrize("name", ["bcsstk16.mtx", "lap3D_7pt_n20.mtx", "gr_30_30.mtx", "pyamg_bar.mat"])
@pytest.mark.parametrize("M", [ns.Jacobi(), ns.SSOR(), ns.IncompleteCholesky(), ns.AMG(kind="sa")], ids=str)
def test_cg_with_every_recipe(name, M, data):
    A = load(data / "matrices" / name)
    b = right_side(A)
    check(A, b, ns.solve(A, b, ns.CG(), M=M))


@pytest.mark.parametrize("name", NONSYMMETRIC)
def test_nonsymmetric_matrices_are_solved(name, data):
    A = load(data / "matrices" / name)
    b = right_side(A)
    check(A, b, ns.solve(A, b))


def test_numerically_singular_matrix_ends_at_once_with_the_reason(data):
    A = load(data / "matrices" / "cryg2500.mtx")  # condition number 4e16: no x in float64 leaves 1e-3 of b
    b = right_side(A)
    result = ns.solve(A, b, throw=False)
    assert result.status is Status.STAGNATED
    assert not result.converged
    assert np.linalg.norm(b - A @ result.x) <= 1e-14 * np.linalg.norm(A.data) * np.linalg.norm(result.x)


def test_badly_scaled_stiffness_without_a_factorisation(data):
    A = load(data / "matrices" / "bcsstk13.mtx")
    b = right_side(A)
    for M in (ns.Jacobi(), ns.AMG(kind="sa")):
        check(A, b, ns.solve(A, b, ns.CG(), M=M))


def test_bunny_laplacian_is_singular_with_couplings_of_both_signs(data):
    A = load(data / "matrices" / "bunny35k_cotan_laplacian.npz")
    assert ((A - sp.diags_array(A.diagonal())).data > 0).sum() > 4000
    b = right_side(A)
    b -= b.mean()
    result = ns.solve(A, b)
    check(A, b, result)
    assert result.status is Status.CONVERGED
    assert abs(result.x.mean()) <= 1e-12 * np.abs(result.x).max()
    assert "null space" in result.explanation


def test_singular_finite_element_matrix(data):
    A = load(data / "matrices" / "pyamg_unit_square.mat")
    b = right_side(A)
    result = ns.solve(A, b - b.mean())
    check(A, b - b.mean(), result)
    assert "null space" in result.explanation


def test_pattern_as_a_graph_laplacian(data):
    pattern = load(data / "matrices" / "jagmesh7.mtx")
    pattern = sp.csr_array(abs(pattern.astype(float)) + abs(pattern.T.astype(float)))
    pattern.setdiag(0)
    A = sp.csr_array(sp.diags_array(pattern.sum(1)) - pattern + 0.01 * sp.eye_array(pattern.shape[0]))
    b = right_side(A)
    check(A, b, ns.solve(A, b))


def test_degenerate_matrix_ends_in_a_true_status(data):
    A = load(data / "matrices" / "zenios.mtx")
    b = right_side(A)
    result = ns.solve(A, b, throw=False)
    assert result.iterations <= 3000  # it is given up, not run to the general limit
    left = np.linalg.norm(b - A @ result.x)
    if result.status is Status.CONVERGED:
        assert left <= 1e-8 * np.linalg.norm(b)
    else:
        assert result.status is not Status.CONVERGED
        if result.converged:  # the consistent part: the rest is exactly what was reported as removed
            assert left**2 <= result.removed**2 + (1e-8 * np.linalg.norm(b)) ** 2 * (1 + 1e-6)


def test_complex_matrix_is_refused_with_the_way_out(data):
    A = load(data / "matrices" / "pyamg_helmholtz_2D.mat")
    with pytest.raises(ns.StructureError, match="block_array"):
        ns.solve(A, right_side(A))
    b = right_side(A) + 1j * right_side(A)[::-1]
    real = sp.block_array([[A.real, -A.imag], [A.imag, A.real]], format="csr")
    stacked = np.concatenate([b.real, b.imag])
    x = ns.solve(real, stacked).x
    x = x[: len(b)] + 1j * x[len(b) :]
    assert np.linalg.norm(A @ x - b) <= 1e-8 * np.linalg.norm(b)
