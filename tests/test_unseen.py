"""Steps that the host does not look at: the same answers, seen every few steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recipe_laws import box_2d, graph, masked_3d, pockets_2d

import neuralsolve as ns
from neuralsolve.errors import OptionError

METHODS = {
    "CG": (ns.CG(), None),
    "CG with Jacobi": (ns.CG(), ns.Jacobi()),
    "FlexibleCG": (ns.FlexibleCG(), ns.Jacobi(0.9)),
    "SingleReductionCG": (ns.SingleReductionCG(), None),
    "SingleReductionCG with Jacobi": (ns.SingleReductionCG(), ns.Jacobi()),
    "Richardson": (ns.Richardson(), ns.SSOR()),
}


def right_side(A: ns.LinearOperator, *columns: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(8)
    return A @ torch.randn(A.shape[0], *columns, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("scene", [box_2d, graph, masked_3d, pockets_2d], ids=lambda f: f.__name__)
@pytest.mark.parametrize("columns", [(), (3,)], ids=["n", "nk"])
@pytest.mark.parametrize("name", METHODS)
def test_unseen_steps_are_the_steps(name, columns, scene):
    A, (method, M) = scene(), METHODS[name]
    if isinstance(method, ns.Richardson):
        A = box_2d()
    b = right_side(A, *columns)
    seen, unseen = (ns.solve(A, b, method, M=M, rtol=1e-9, check_every=k) for k in (1, 7))
    assert unseen.converged
    assert unseen.iterations == seen.iterations
    np.testing.assert_allclose(unseen.residual_norms[:-1], seen.residual_norms[:-1], rtol=1e-9)
    torch.testing.assert_close(unseen.x, seen.x, rtol=1e-9, atol=1e-9 * float(seen.x.abs().max()))


def test_columns_that_have_converged_stand_still():
    A = masked_3d()
    b = right_side(A, 3)
    b[:, 1] = 0
    result = ns.solve(A, b, ns.CG(), rtol=1e-10, check_every=10)
    assert result.converged
    assert torch.equal(result.x[:, 1], torch.zeros_like(result.x[:, 1]))


def test_a_breakdown_is_told():
    A, b = np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([1.0, -1.0])
    seen, unseen = (ns.solve(A, b, ns.CG(), throw=False, check_every=k) for k in (1, 5))
    assert seen.status is unseen.status is ns.Status.NOT_POSITIVE_DEFINITE
    broken = ns.solve(box_2d(), np.ones(63), ns.CG(), M=lambda r: -r, throw=False, check_every=5)
    assert broken.status is ns.Status.INDEFINITE_PRECONDITIONER
    nothing = ns.solve(box_2d(), np.ones(63), ns.FlexibleCG(), M=lambda r: 0 * r, throw=False, check_every=5)
    assert nothing.status is ns.Status.BREAKDOWN
    nan = ns.solve(box_2d(), np.ones(63), ns.CG(), M=lambda r: r * np.nan, throw=False, check_every=5)
    assert nan.status is ns.Status.NON_FINITE


class Late:
    """An M that fails after some applications."""

    def __init__(self, factor: float, good: int):
        self.factor, self.left = factor, good

    def __call__(self, r: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return r * (self.factor if self.left < 0 else 1.0)


@pytest.mark.parametrize("method", [ns.CG(), ns.FlexibleCG(), ns.SingleReductionCG()], ids=repr)
@pytest.mark.parametrize("factor", [torch.nan, -1.0, 0.0])
@pytest.mark.parametrize("good", [0, 4, 5])
def test_a_late_breakdown_leaves_the_last_good_x(method, factor, good):
    A = box_2d()
    b = right_side(A)
    found = [
        ns.solve(A, b, method, M=Late(factor, good), throw=False, maxiter=9, check_every=k) for k in (1, 5)
    ]
    seen, unseen = found
    assert unseen.status is seen.status
    assert unseen.iterations == seen.iterations
    assert torch.isfinite(unseen.x).all()
    torch.testing.assert_close(unseen.x, seen.x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(unseen.residual_norms, seen.residual_norms, rtol=1e-9)


def test_limits_hold_between_looks():
    A = box_2d()
    b = right_side(A)
    capped = ns.solve(A, b, ns.CG(), rtol=1e-12, maxiter=6, throw=False, check_every=4)
    assert capped.iterations == 6
    assert capped.status is ns.Status.MAXITER
    told: list[int] = []
    stopped = ns.solve(
        A, b, ns.CG(), callback=lambda k, size, x: told.append(k) or k >= 8, throw=False, check_every=4
    )
    assert told == [4, 8]
    assert stopped.status is ns.Status.STOPPED


def test_answers_of_one_prepared_are_the_callers():
    A = box_2d()
    prepared = ns.prepare(A, ns.CG(), rtol=1e-10, check_every=6)
    first, b = right_side(A), right_side(A).flip(0)
    x = prepared.solve(first).x
    kept = x.clone()
    inner: list[bool] = []

    def callback(k, size, x):
        if not inner:
            inner.append(prepared.solve(first).converged)  # a solve within a solve

    assert prepared.solve(b, callback=callback).converged
    assert inner == [True]
    assert torch.equal(x, kept)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "often"])
def test_wrong_counts_are_refused(wrong):
    with pytest.raises(OptionError, match="check_every"):
        ns.solve(box_2d(), np.ones(63), check_every=wrong)
