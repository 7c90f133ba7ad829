"""Tuned options: the right answer whatever is chosen, honest costs, a state that goes on."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import neuralsolve as ns
from neuralsolve.errors import OptionError, StructureError
from neuralsolve.plot import tuning_figure
from neuralsolve.tuning.tuned import Tuned

GRID = ns.Grid((18, 15), walls="dirichlet")
A = ns.PoissonStencil(GRID)
N = 18 * 15
MATRIX = A.to_scipy().tocsr()

RECIPES = {
    "ssor": ns.SSOR(omega=ns.Tuned(0.8, 1.95, arms=5)),
    "ssor twice": ns.SSOR(omega=ns.Tuned(0.8, 1.9, arms=3), sweeps=ns.Tuned([1, 2])),
    "jacobi": ns.Jacobi(omega=ns.Tuned(0.2, 1.9)),
    "multigrid": ns.Multigrid(
        cycle="V", correction=ns.Tuned(0.8, 1.4, arms=4), sweeps=ns.Tuned([1, 2, (2, 2)])
    ),
    "band": ns.Multigrid(band=ns.Tuned(3.0, 30.0, log=True, arms=4)),
    "amg": ns.AMG(strength=ns.Tuned(0.1, 0.5, arms=3)),
    "choice": ns.Tuned([ns.IncompleteCholesky(), ns.Multigrid(), ns.Jacobi(), None]),
    "nested": ns.Tuned([ns.SSOR(omega=ns.Tuned(1.0, 1.9, arms=3)), ns.Multigrid()]),
}
LOPSIDED = sp.csr_array(MATRIX + sp.diags_array([30.0, -30.0], offsets=[1, -1], shape=(N, N)))


def side(seed=0, columns=None):
    return np.random.default_rng(seed).standard_normal(N if columns is None else (N, columns))


@pytest.mark.parametrize("M", RECIPES.values(), ids=RECIPES)
def test_every_choice_gives_the_solution(M):
    prepared = ns.prepare(A, ns.CG(), M=M, rtol=1e-9)
    for k in range(12):
        b = side(k)
        result = prepared.solve(b)
        assert result.converged
        assert np.linalg.norm(MATRIX @ result.x - b) <= 1.01e-9 * np.linalg.norm(b)
    for table in prepared.report().tables:
        assert table.pulls.sum() == len(table.history) <= 12
        assert table.name in str(prepared.report())


@pytest.mark.parametrize("cost", ["iterations", "matvecs", "seconds"])
def test_the_better_choice_is_found(cost):
    prepared = ns.prepare(
        A,
        ns.CG(),
        M=ns.Tuned([ns.Jacobi(), ns.Multigrid()], cost="iterations" if cost == "seconds" else cost),
    )
    for k in range(150):
        prepared.solve(side(k))
    pulls = prepared.report().tables[0].pulls
    assert pulls[1] > 2 * pulls[0]


def test_methods_are_tuned_too():
    C = sp.csr_array(MATRIX + sp.diags_array(np.ones(N - 1), offsets=1, shape=(N, N)))
    prepared = ns.prepare(C, ns.GMRES(restart=ns.Tuned([5, 40])))
    for k in range(60):
        assert prepared.solve(side(k)).converged
    assert "GMRES.restart" in str(prepared.report())
    chosen = ns.prepare(C, ns.Tuned([ns.GMRES(), ns.BiCGStab()]))
    assert all(chosen.solve(side(k)).converged for k in range(5))


def test_costs_are_what_results_say():
    prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9, arms=3)))
    steps = [prepared.solve(side(k)).iterations for k in range(9)]
    assert [pull.cost for pull in prepared.report().tables[0].history] == steps
    prepared.solve(np.zeros(N))  # nothing to do, nothing to learn
    assert len(prepared.report().tables[0].history) == 9


def test_a_context_may_come_with_the_update():
    def run(with_update):
        M = ns.SSOR(omega=ns.Tuned(0.5, 1.9, arms=5, context_range=(0.0, 1.0)))
        prepared, rng = ns.prepare(MATRIX, ns.CG(), M=M), np.random.default_rng(5)
        for k in range(20):
            c = rng.random()
            prepared.update(MATRIX + 50 * c * sp.eye_array(N), context=c if with_update else None)
            prepared.solve(side(k), context=None if with_update else c)
        return prepared.report().tables[0].history

    assert run(True) == run(False)
    prepared = ns.prepare(MATRIX, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.5, 1.9)))
    with pytest.raises(OptionError, match="one finite number"):
        prepared.update(MATRIX, context=[1, 2])
    assert ns.prepare(MATRIX, ns.CG()).update(MATRIX, context=0.5).solve(side()).converged


def test_regret_is_what_hindsight_saves():
    omegas, sides = (1.0, 1.5, 1.9), [side(k) for k in range(30)]
    costs = np.array([[ns.solve(A, b, ns.CG(), M=ns.SSOR(w)).iterations for w in omegas] for b in sides])
    prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(list(omegas))))
    for b in sides:
        prepared.solve(b)
    table = prepared.report().tables[0]
    chosen = [omegas.index(float(pull.choice)) for pull in table.history]
    assert [pull.cost for pull in table.history] == [row[k] for row, k in zip(costs, chosen, strict=True)]
    regret = table.regret(costs)
    assert regret[-1] == sum(pull.cost for pull in table.history) - costs.sum(0).min()
    with pytest.raises(ns.ShapeError, match="one row for each"):
        table.regret(costs[:-1])
    lines = tuning_figure(prepared.report(), costs=costs).axes[2].lines
    assert np.array_equal(lines[0].get_ydata(), regret)


def test_a_choice_that_cannot_converge_is_finished_and_charged():
    bad, b = (lambda r: r * 0 + np.nan), side(3)
    prepared = ns.prepare(A, ns.CG(), M=ns.Tuned([bad, ns.Multigrid()]), rtol=1e-8)
    results = [prepared.solve(b) for _ in range(40)]
    assert all(np.linalg.norm(MATRIX @ r.x - b) <= 1.01e-8 * np.linalg.norm(b) for r in results)
    table = prepared.report().tables[0]
    rescued = [r for r in results if "given up" in r.explanation]
    assert table.capped == len(rescued) > 0
    assert table.pulls[1] > table.pulls[0]
    assert "finished by" in rescued[0].explanation


def test_a_choice_that_cannot_be_built_is_finished_and_charged():
    prepared = ns.prepare(
        MATRIX + sp.diags_array(np.linspace(0, 1, N)), ns.CG(), M=ns.Tuned([ns.Multigrid(), ns.Jacobi()])
    )
    results = [prepared.solve(side(k)) for k in range(20)]
    assert all(r.converged for r in results)
    assert any("given up" in r.explanation for r in results)
    with pytest.raises(StructureError):  # what no choice can mend is told
        ns.prepare(lambda r: r, ns.CG(), M=ns.SSOR(omega=ns.Tuned(1.0, 1.5)))


UNSUITABLE = {
    "option of M": (MATRIX @ MATRIX, ns.CG(), ns.SSOR(order=ns.Tuned(["red-black", "lexicographic"]))),
    "direct method": (MATRIX @ MATRIX, ns.Tuned([ns.FastPoisson(), ns.CG()]), None),
    "method": (LOPSIDED, ns.Tuned([ns.CG(), ns.GMRES()]), None),
}


@pytest.mark.parametrize(("matrix", "method", "M"), UNSUITABLE.values(), ids=UNSUITABLE)
def test_what_does_not_suit_A_is_charged_and_left(matrix, method, M):
    prepared = ns.prepare(matrix, method, M=M)
    results = [prepared.solve(side(k)) for k in range(30)]
    assert all(r.converged for r in results)
    assert any("given up" in r.explanation for r in results)
    table = prepared.report().tables[0]
    assert table.pulls[1] > table.pulls[0] > 0


def test_an_update_to_another_kind_is_followed():
    prepared = ns.prepare(MATRIX, ns.Tuned([ns.CG(), ns.GMRES()]))
    assert prepared.solve(side()).converged
    prepared.update(LOPSIDED)
    for k in range(8):
        b = side(k)
        assert np.linalg.norm(LOPSIDED @ prepared.solve(b).x - b) <= 1.01e-8 * np.linalg.norm(b)


def test_the_callback_sees_the_steps_of_the_automatic_choice_too():
    seen = []
    prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9)), maxiter=3)
    result = prepared.solve(side(), callback=lambda k, size, x: seen.append(k))
    assert seen == list(range(1, result.iterations + 1))


def test_a_solve_inside_of_a_callback():
    prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9)))
    inner = []
    prepared.solve(
        side(), callback=lambda k, size, x: inner.append(prepared.solve(side(1)).converged) and None
    )
    assert all(inner)
    assert len(prepared.report().tables[0].history) == 1


def test_fixed_names_a_thing():
    prepared = ns.prepare(A, ns.CG(), M=ns.Tuned([ns.Jacobi(), ns.SSOR()], learner=ns.Fixed(ns.SSOR())))
    assert "SSOR" in prepared.solve(side()).explanation
    with pytest.raises(OptionError, match="none of the choices"):
        ns.prepare(A, ns.CG(), M=ns.Tuned([ns.Jacobi()], learner=ns.Fixed(ns.AMG()))).solve(side())


def test_nothing_tuned_has_an_empty_state():
    plain = ns.prepare(A, ns.CG())
    plain.load_state_dict(json.loads(json.dumps(plain.state_dict())))
    assert plain.report().tables == ()
    with pytest.raises(OptionError, match="nothing is Tuned"):
        plain.load_state_dict({"places": {"M": 1}})


def test_the_cap_is_charged():
    prepared = ns.prepare(A, ns.Richardson(), M=ns.SOR(omega=ns.Tuned([0.01, 1.7])), maxiter=300)
    assert all(prepared.solve(side(k)).converged for k in range(20))
    costs = {pull.choice: pull.cost for pull in prepared.report().tables[0].history}
    assert costs["0.01"] == 300


def test_updates_follow_lazily():
    prepared = ns.prepare(A, ns.CG(), M=ns.Tuned([ns.SSOR(), ns.IncompleteCholesky(), ns.Multigrid()]))
    for k in range(15):
        c = 1 + 0.3 * k
        grid_A = ns.PoissonStencil(GRID, ns.face_coefficients(np.full(GRID.shape, c), GRID))
        prepared.update(grid_A)
        b = side(k)
        assert np.linalg.norm(c * MATRIX @ prepared.solve(b).x - b) <= 1e-7 * np.linalg.norm(b)


def test_contexts_are_gone_by():
    prepared = ns.prepare(
        MATRIX, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.5, 1.9, arms=5, context_range=(0.0, 1.0)))
    )
    rng = np.random.default_rng(5)
    for k in range(30):
        c = rng.random()
        prepared.update(sp.csr_array(MATRIX + 50 * c * sp.eye_array(N)))
        assert prepared.solve(side(k), context=c).converged
    assert "ChebCB" in str(prepared.report())
    with pytest.raises(OptionError, match="goes by a context"):
        prepared.solve(side())
    for wrong in ("low", [1.0, 2.0], np.nan):
        with pytest.raises(OptionError, match="one finite number"):
            prepared.solve(side(), context=wrong)
    assert ns.prepare(A, ns.CG()).solve(side(), context=3.0).converged
    late = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9)))
    late.solve(side())
    with pytest.raises(OptionError, match="from the first solve on"):
        late.solve(side(), context=1.0)


@pytest.mark.parametrize("context", [None, 0.4])
def test_same_seed_same_choices_and_a_state_goes_on(context):
    def fresh():
        M = ns.SSOR(omega=ns.Tuned(0.8, 1.95, arms=6, seed=11, context_range=(0.0, 1.0)))
        return ns.prepare(A, ns.CG(), M=M)

    def run(prepared, numbers):
        return [prepared.solve(side(k), context=context).iterations for k in numbers]

    one, other = fresh(), fresh()
    assert run(one, range(20)) == run(other, range(20))
    again = fresh()
    again.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert run(again, range(20, 40)) == run(other, range(20, 40))
    assert again.report().tables[0].history == other.report().tables[0].history
    moved = pickle.loads(pickle.dumps(one))
    assert len(moved.report().tables[0].history) == 20


def test_foreign_states_are_refused():
    prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9)))
    other = ns.prepare(A, ns.CG(), M=ns.Jacobi(omega=ns.Tuned(0.8, 1.9)))
    arms = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9, arms=3)))
    counted = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9, cost="matvecs")))
    for state in (other.state_dict(), arms.state_dict(), counted.state_dict(), {}, {"places": 3}, None):
        with pytest.raises(OptionError, match=r"same options|no state"):
            prepared.load_state_dict(state)
    assert prepared.solve(side()).converged


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tuned([]), "nothing to choose from"),
        (lambda: Tuned(1.0), "a list of choices"),
        (lambda: Tuned(2.0, 1.0), "the lower one first"),
        (lambda: Tuned(0.0, np.nan), "two finite numbers"),
        (lambda: Tuned(0.0, 1.0, log=True), "above zero"),
        (lambda: Tuned(0.0, 1.0, cost="money"), "cost must be one of"),
        (lambda: Tuned(0.0, 1.0, arms=1), "at least two"),
        (lambda: Tuned(0.0, 1.0, learner=ns.TsallisINF), "an object such as"),
        (lambda: Tuned([1, 2], learner=ns.ScalarFit()), "a number of a range"),
        (lambda: ns.SSOR(omega=Tuned(0.8, 2.5)), r"\(0, 2\)"),
        (lambda: ns.SSOR(sweeps=Tuned([1, 0])), "at least 1"),
        (lambda: ns.SSOR(omega=Tuned(0.8, 1.5)).build(A), "ns.prepare"),
        (lambda: ns.Multigrid(sweeps=(Tuned([1, 2]), 1)), "is not varied"),
        (lambda: ns.prepare(A, ns.CG(), rtol=Tuned(1e-8, 1e-6)), "rtol"),
        (lambda: ns.prepare(A, ns.CG(), M=ns.Tuned([ns.AMG(), "amg"])), "a recipe such as"),
        (
            lambda: ns.prepare(A, ns.CG(), M=RECIPES["ssor"], null_space=Tuned([None, False])),
            "give null_space",
        ),
        (lambda: Tuned([1, 2], arms=4), "of a range"),
        (lambda: Tuned(1, 2, seed=1.5), "a whole number"),
        (lambda: Tuned(1, 2, context_range=3), "a pair"),
        (lambda: Tuned(10**400, 10**401), "two finite numbers"),
    ],
)
def test_wrong_input_is_told(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_whole_numbers_stay_whole():
    prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(sweeps=ns.Tuned(1, 3)))
    assert prepared.report().tables[0].choices == ("1", "2", "3")
    assert all(prepared.solve(side(k)).converged for k in range(6))


def test_several_right_sides_and_gradients():
    prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(0.8, 1.9)), rtol=1e-10)
    B = side(columns=3)
    assert np.linalg.norm(MATRIX @ prepared.solve(B).x - B) <= 1e-8
    b = torch.from_numpy(side()).requires_grad_()
    prepared.solve(b).x.sum().backward()
    prepared.solve(side(1))
    exact = sp.linalg.spsolve(MATRIX.tocsc(), np.ones(N))
    assert np.allclose(b.grad.numpy(), exact, atol=1e-6)


def test_retuned_is_built_anew():
    """M that takes other options is the M that they build."""
    pairs = [
        (ns.SSOR(1.1), ns.SSOR(1.7, sweeps=2)),
        (ns.SSOR(1.1), ns.SOR(1.4, direction="backward")),
        (ns.Jacobi(), ns.Jacobi(0.4)),
        (ns.Multigrid("V"), ns.Multigrid("W", sweeps=3, correction=1.2)),
        (ns.Multigrid("W"), ns.Multigrid("V", smoother="jacobi", omega=0.7)),
    ]
    r = torch.from_numpy(side())
    for before, after in pairs:
        M = before.build(A)
        assert M.retune(after)
        fresh = after.build(A)
        assert torch.equal(M.apply(r), fresh.apply(r))
        assert (M.symmetric, M.describe()) == (fresh.symmetric, fresh.describe())
    assert not ns.SSOR().build(A).retune(ns.SSOR(order="red-black"))
    assert not ns.Jacobi().build(A).retune(ns.SSOR())
    assert not ns.Multigrid().build(A).retune(ns.Multigrid(coarsest=10))


def test_sweeps_are_those_of_the_definition():
    """SOR by `Richardson` takes the sweeps of x += (D/omega + L)^-1 r, on random SPD systems."""
    for seed in range(50):
        rng = np.random.default_rng(7000 + seed)
        n, omega = int(rng.integers(5, 30)), rng.uniform(0.6, 1.9)
        half = rng.standard_normal((n, n))
        S, b = half @ half.T + n * np.eye(n), rng.standard_normal(n)
        lower, x, count = np.tril(S, -1) + np.diag(np.diag(S)) / omega, np.zeros(n), 0
        while np.linalg.norm(b - S @ x) > 1e-8 * np.linalg.norm(b):
            x, count = x + np.linalg.solve(lower, b - S @ x), count + 1
        result = ns.solve(S, b, ns.Richardson(), M=ns.SOR(omega), rtol=1e-8)
        assert result.iterations == count
