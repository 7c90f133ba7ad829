"""Bases of the projected optimizer: how they are chosen, refreshed, and how moments go with them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from lowrank_optim_models import EPS, one
from torch import nn

from neuralsolve.lowrank.optim import Plan, ProjectedOptimizer
from neuralsolve.lowrank.optim.complements import Factored, Scaled
from neuralsolve.lowrank.optim.projectors import SVDProjector
from neuralsolve.lowrank.optim.refresh import Lazy
from neuralsolve.lowrank.optim.selections import BasisSelect
from neuralsolve.lowrank.optim.tucker import TuckerProjector
from neuralsolve.lowrank.views import MatrixView


def test_the_projection_of_complex_gradients_is_that_of_their_real_form(generator):
    # z -> [[Re, -Im], [Im, Re]] is multiplicative, and takes adjoints to transposes: projections stay such
    A = torch.randn(10, 14, generator=generator, dtype=torch.complex128)
    A = A * 0.5 ** torch.arange(14)  # a gap after every singular value
    projector = SVDProjector("exact")
    basis = projector.refresh(A, 3, None, place())
    found = projector.up(projector.down(A, basis), basis, A.shape)
    real = torch.cat([torch.cat([A.real, -A.imag], 1), torch.cat([A.imag, A.real], 1)])
    basis = projector.refresh(real, 6, None, place())
    there = projector.up(projector.down(real, basis), basis, real.shape)
    assert torch.allclose(torch.complex(there[:10, :14], there[10:, :14]), found, atol=1e-12)
    s = torch.linalg.svdvals(A)
    assert abs(float((A - found).norm() - s[3:].norm())) < 1e-12


def place(step=0):
    from neuralsolve.lowrank.optim.projectors import Place

    return Place(seed=71, step=step)


def test_pairs_of_reals_go_as_the_complex_numbers_they_are(generator):
    z = torch.randn(5, 12, 12, generator=generator, dtype=torch.complex128)
    pairs, whole = nn.Parameter(torch.view_as_real(z).clone()), nn.Parameter(z.clone())
    view = MatrixView((2,), (1, 0), pairs=True)
    one_of, other = (
        ProjectedOptimizer([{"params": [p], "rank": 4, "views": [v], "update_proj_gap": 2}], 0.1)
        for p, v in ((pairs, view), (whole, MatrixView((2,), (1, 0))))
    )
    for _ in range(5):
        G = torch.randn(z.shape, generator=generator, dtype=torch.complex128)
        pairs.grad, whole.grad = torch.view_as_real(G).clone(), G.clone()
        one_of.step()
        other.step()
    assert torch.allclose(torch.view_as_complex(pairs.detach()), whole.detach(), atol=1e-10)


@pytest.mark.parametrize("transport", ["keep", "rotate", "reset"])
def test_moments_are_carried_over(transport, generator):
    W = nn.Parameter(torch.randn(8, 20, generator=generator, dtype=torch.float64))
    optimizer = one(W, Plan(SVDProjector("exact"), transport=transport), 3, update_proj_gap=2, lr=0.0)
    for k in range(3):
        W.grad = torch.randn(8, 20, generator=generator, dtype=torch.float64)
        if k == 2:
            before = {key: value.clone() for key, value in optimizer.state[W].items()}
        optimizer.step()
    state, P, Q = optimizer.state[W], before["to.basis"], optimizer.state[W]["to.basis"]
    C = Q.mT @ P
    matrices = {"keep": (torch.eye(3).double(),) * 2, "rotate": (C, C**2), "reset": (0 * C, 0 * C)}[transport]
    g = Q.mT @ W.grad
    assert torch.allclose(state["exp_avg"], 0.9 * matrices[0] @ before["exp_avg"] + 0.1 * g, atol=1e-13)
    assert torch.allclose(state["exp_avg_sq"], 0.999 * matrices[1] @ before["exp_avg_sq"] + 0.001 * g**2)
    assert int(state["age"]) == (1 if transport == "reset" else 3)


def test_the_first_moment_that_is_rotated_keeps_what_both_subspaces_hold(generator):
    P = torch.linalg.qr(torch.randn(12, 4, generator=generator, dtype=torch.float64)).Q
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    m = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    there = SVDProjector().carry(m, {"basis": P @ turn}, {"basis": P}, squared=False)
    assert torch.allclose(P @ turn @ there, P @ m, atol=1e-13)
    v = SVDProjector().carry(m.square(), {"basis": P @ turn}, {"basis": P}, squared=True)
    assert v.min() >= 0
    assert torch.allclose(v.sum(), m.square().sum())  # |C|^2 is doubly stochastic


def test_a_warm_basis_follows_the_gradients(generator):
    U = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64)).Q
    A = U @ torch.diag(0.6 ** torch.arange(30.0).double()) @ torch.linalg.qr(U + 1).Q
    exact, warm = SVDProjector("exact"), SVDProjector("warm")
    best = exact.refresh(A, 5, None, place())
    basis = {"basis": torch.linalg.qr(best["basis"] + 0.1 * U[:, 7:12]).Q}
    assert exact.alignment(best, basis) < 0.995
    for _ in range(12):  # angles shrink by (s_6/s_5)^2 = 0.36 a step
        basis = warm.refresh(A, 5, basis, place())
    assert 1 - exact.alignment(best, basis) < 1e-9
    assert (basis["basis"].mT @ basis["basis"] - torch.eye(5)).abs().max() < 30 * EPS


def test_a_subspace_that_stays_is_refreshed_ever_more_rarely(generator):
    A = torch.randn(10, 2, generator=generator) @ torch.randn(2, 15, generator=generator)
    W = nn.Parameter(torch.zeros(10, 15))
    optimizer = one(W, Plan(SVDProjector("exact"), refresh=Lazy(0.4, window=2)), 2, update_proj_gap=2)
    due = []
    for _ in range(60):
        W.grad = A * torch.rand(1, generator=generator)
        before = optimizer.state[W].get("due")
        optimizer.step()
        due += [before] * (before is None or int(before) != int(optimizer.state[W]["due"]))
    assert len(due) < 60 / 2 / 2
    changing = one(W, Plan(SVDProjector("exact"), refresh=Lazy(0.9, window=2)), 2, update_proj_gap=2)
    for _ in range(12):
        W.grad = torch.randn(10, 15, generator=generator)
        changing.step()
    assert int(changing.state[W]["gap"]) == 2


@pytest.mark.parametrize(
    "plan",
    [
        Plan(complement=Scaled()),
        Plan(SVDProjector("exact"), transport="keep"),
        Plan(BasisSelect(), feedback=True),
        Plan(complement=Factored(), transport="reset"),
    ],
)
def test_matrices_of_one_shape_step_together_as_each_by_itself(plan, generator):
    def made():
        return [nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in [(8, 20)] * 3 + [(20, 8)]]

    together, alone = made(), made()
    one_for_all = ProjectedOptimizer([{"params": together, "rank": 3, "update_proj_gap": 2}], 0.1, plan=plan)
    each = [one(W, plan, 3, update_proj_gap=2) for W in alone]
    for k in range(5):
        for which, (p, q) in enumerate(zip(together, alone, strict=True)):
            G = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            late = which == 1 and k < 2  # one that joins later is of another age
            p.grad, q.grad = (None, None) if late else (G, G.clone())
        one_for_all.step()
        for optimizer in each:
            optimizer.step()
    for p, q in zip(together, alone, strict=True):
        assert torch.allclose(p, q, atol=1e-11)
        assert one_for_all.state[p].keys() == each[0].state[alone[0]].keys()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_tucker_of_full_ranks_is_adam_in_a_rotated_basis(dtype, generator):
    A, projector = torch.randn(4, 5, 6, generator=generator, dtype=dtype), TuckerProjector()
    basis = projector.refresh(A, (4, 5, 6), None, place())
    for Q in basis.values():
        assert torch.allclose(Q.mH @ Q, torch.eye(len(Q), dtype=dtype), atol=1e-13)
    assert torch.allclose(projector.up(projector.down(A, basis), basis, A.shape), A, atol=1e-12)
    W = nn.Parameter(torch.zeros(4, 5, 6, dtype=dtype))
    optimizer = one(W, Plan(projector), (4, 5, 6))
    W.grad = A.clone()
    optimizer.step()  # the first step of Adam: every entry of the core by its phase
    core = projector.down(W.detach(), basis) if dtype == torch.float64 else None
    if core is not None:
        assert torch.allclose(core.abs(), torch.full_like(core, 0.1), atol=1e-5)


def test_tucker_factors_are_refreshed_and_counted(generator):
    W = nn.Parameter(torch.zeros(8, 9, 10))
    optimizer = one(W, Plan(TuckerProjector()), (2, 3, 4), update_proj_gap=2)
    seen = []
    for _ in range(5):
        W.grad = torch.randn(W.shape, generator=generator)
        optimizer.step()
        seen.append(optimizer.state[W]["to.factor0"].clone())
    changes = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changes == [False, True, False, True]
    assert optimizer.state_elements() == 8 * 2 + 9 * 3 + 10 * 4 + 2 * 24
