"""Learners: distributions, regret, fits and states."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from neuralsolve.bench import sor_counts
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.tuning import (
    AdaptiveSOR,
    ChebCB,
    Fixed,
    Learner,
    Learning,
    Observation,
    ScalarFit,
    Thompson,
    TsallisINF,
    TsallisINFBins,
    replay,
)

ALL = [
    Thompson(),
    TsallisINF(),
    TsallisINF(variance_reduced=False),
    TsallisINFBins(bins=3),
    ChebCB(),
    ChebCB(paper_compat=True),
    ScalarFit(),
    AdaptiveSOR(),
    Fixed(1.5),
]
CONTEXTUAL = [TsallisINFBins(), ChebCB(), ScalarFit(), AdaptiveSOR()]
OMEGAS = np.linspace(1.05, 1.95, 7)


def named(learner: Learner) -> str:
    return repr(learner)


def sweeps(omega: float, beta: float, scale: float = 18.0) -> float:
    """Young's asymptotic count, some first sweeps added; below omega* the slow mode alone is left."""
    under = omega**2 * beta**2 - 4 * (omega - 1)
    if under > 0:
        return 0.9 * scale / (-2 * math.log((omega * beta + math.sqrt(under)) / 2)) + 0.2 * scale
    return scale / -math.log(omega - 1) + 0.2 * scale


def norms(omega: float, beta: float) -> list[float]:
    """Residual norms that fall by rho from the first sweep."""
    under = omega**2 * beta**2 - 4 * (omega - 1)
    rho = ((omega * beta + math.sqrt(under)) / 2) ** 2 if under > 0 else omega - 1
    return (rho ** np.arange(40.0)).tolist()


def young(beta: float) -> float:
    return 2 / (1 + math.sqrt(1 - beta**2))


def solve(omega: float, context: float) -> Observation:
    """SOR with 1/beta = 1.05 + context / 4, residuals included."""
    beta = 1 / (1.05 + context / 4)
    return Observation(sweeps(omega, beta), residual_norms=norms(omega, beta))


def drive(run: Learning, random: np.random.Generator, rounds: int) -> list[float]:
    """Let a run choose for SOR with random contexts in [0, 1]; return the choices."""
    made = []
    for _ in range(rounds):
        context = float(random.random())
        omega = run.choose(context)
        made.append(omega)
        run.learn(solve(omega, context), context)
    return made


# -- Tsallis-INF -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [4.0, 0.3, 1e-4])
@pytest.mark.parametrize("largest", [0.0, 1.0, 1e4, 1e8])
def test_newton_finds_a_distribution_of_the_stated_form(eta, largest):
    from neuralsolve.tuning.newton import tsallis_distribution

    scores = largest * np.random.default_rng(97).random(20)
    p = np.empty(20)
    tsallis_distribution(scores, 1.0, eta, p)
    assert (p >= 0).all()
    assert abs(p.sum() - 1) <= 1e-10
    x = scores - 2 / (eta * np.sqrt(p))  # p_i = 4 / (eta (S_i - x))^2 with the same x for all
    assert np.ptp(x) <= 1e-9 * max(largest, 2 / eta)


def test_newton_knows_gaps_alone():
    from neuralsolve.tuning.newton import tsallis_distribution

    scores = np.array([0.0, 1.0, 4.0, 2.0])
    p, shifted, scaled = np.empty(4), np.empty(4), np.empty(4)
    tsallis_distribution(scores, 1.0, 0.5, p)
    tsallis_distribution(scores + 2.0**26, 1.0, 0.5, shifted)
    tsallis_distribution(1024 * scores, 1024.0, 0.5, scaled)
    np.testing.assert_array_equal(p, shifted)
    np.testing.assert_array_equal(p, scaled)
    assert (np.argsort(-p) == np.argsort(scores)).all()


@pytest.mark.parametrize("learner", [TsallisINF(), TsallisINF(False), TsallisINFBins(), ChebCB()], ids=named)
def test_every_draw_is_from_a_distribution_and_no_unit_matters(learner):
    random = np.random.default_rng(331)
    costs = 20 + 100 * random.random((300, 6))
    seconds, sweep = (learner.start(range(6), 11, (0.0, 1.0)) for _ in range(2))
    for t, row in enumerate(costs):
        i = int(sweep.choose(t % 7 / 7))
        assert int(seconds.choose(t % 7 / 7)) == i
        p = sweep.probabilities
        assert p is not None
        assert (p >= 0).all()
        assert abs(p.sum() - 1) <= 1e-10
        sweep.learn(Observation(row[i]))
        seconds.learn(Observation(row[i] / 1024))  # exact in binary
        if isinstance(
            learner, ChebCB
        ):  # its ridge is absolute in the features, the costs cancel up to rounding
            np.testing.assert_allclose(p, seconds.probabilities, rtol=1e-6)
    assert sweep.pulls.sum() == 300


@pytest.mark.parametrize("reduced", [True, False])
def test_the_share_of_the_better_arm_tends_to_one(reduced):
    random = np.random.default_rng(53)
    costs = np.where([[True, False]], 40.0, 60.0) * random.uniform(0.7, 1.3, (8000, 2))
    choices = replay(TsallisINF(reduced), costs, seeds=[3, 5, 8]).choices
    shares = [float((choices[:, a:b] == 0).mean()) for a, b in ((0, 500), (1000, 3000), (6000, 8000))]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.95


@pytest.mark.parametrize("reduced", [True, False])
def test_regret_is_of_order_root_d_t(reduced):
    # Zimmert & Seldin 2021, thm. 1: at most 4 sqrt(d T) + 1 for losses in [0, 1], whatever they are; the unit
    # here is the mean cost, which the losses stay below twice of
    random = np.random.default_rng(211)
    T, d = 3000, 10
    costs = random.uniform(0.2, 0.8, d) + random.uniform(0.0, 0.2, (T, d))
    found = replay(TsallisINF(reduced), costs, seeds=range(20, 26))
    assert found.regret.mean() <= 4 * math.sqrt(d * T) + 1
    assert found.regret.mean() >= 0


def test_costs_may_turn():
    # the arm that was better turns worse: what was learned of means must not outlive it
    costs = np.full((6000, 2), 60.0)
    costs[:1000, 0], costs[1000:, 1] = 40, 30
    costs *= np.random.default_rng(7).uniform(0.9, 1.1, costs.shape)
    found = replay(TsallisINF(), costs, seeds=range(4))
    assert (found.choices[:, -500:] == 1).mean() > 0.9
    assert found.ratios.max() < 1.25


def test_bins_learn_apart():
    learner = TsallisINFBins(bins=2)
    random = np.random.default_rng(5)
    contexts = random.random(4000)
    costs = np.where(contexts[:, None] < 0.5, [[30.0, 60.0]], [[60.0, 30.0]])
    found = replay(learner, costs, contexts, seeds=range(3), context_range=(0, 1))
    late = found.choices[:, 2000:] == (contexts[2000:] >= 0.5)
    assert late.mean() > 0.95


# -- ChebCB ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [(-1.0, 3.0), None], ids=["range given", "range grows"])
def test_cheb_recovers_polynomial_costs(given):
    random = np.random.default_rng(17)
    polynomials = [
        np.polynomial.Polynomial(c) for c in ([9, 1, 0.5], [8, -1, 0, 0.2], [12, 0, 0, 0, 0, 0.01])
    ]
    run = ChebCB(exploitation=1e-9).start(range(3), 29, given)  # explores for ever
    for _ in range(2500):
        c = float(random.uniform(-1, 3))
        i = int(run.choose(c))
        run.learn(Observation(float(polynomials[i](c))))
    for c in (-0.9, 0.3, 2.8):
        exact = [p(c) for p in polynomials]
        np.testing.assert_allclose(
            run.predict(c), exact, rtol=1e-3
        )  # the ridge, 1e-3 j^2 against some 800 costs


def test_the_box_fit_satisfies_kkt():
    from neuralsolve.tuning.cheb_fit import box_fit

    random = np.random.default_rng(71)
    active = 0
    for _ in range(200):
        rows = random.standard_normal((9, 6)) * 10.0 ** random.uniform(-1, 1, 6)
        gram, right = rows.T @ rows, rows.T @ random.standard_normal(9)
        bounds, x = random.uniform(0.01, 1, 6), random.standard_normal(6)
        box_fit(gram, right, bounds, x)
        assert (np.abs(x) <= bounds).all()
        gradient = gram @ x - right
        at = np.abs(x) == bounds
        slack = 1e-10 * np.abs(right).max() * np.linalg.cond(gram) ** 0.5
        assert (np.abs(gradient[~at]) <= slack).all()
        assert (gradient[at] * np.sign(x[at]) <= slack).all()  # minus a multiplier that is not negative
        active += at.sum()
    assert active > 100


def test_cheb_comes_near_the_best_arm_of_each_context():
    random = np.random.default_rng(19)
    contexts = random.random(3000)
    costs = 50 + 300 * (OMEGAS - 1.2 - 0.5 * contexts[:, None]) ** 2
    costs *= random.uniform(0.95, 1.05, costs.shape)
    found = replay(ChebCB(), costs, contexts, seeds=range(3), context_range=(0, 1))
    assert found.oracle < 0.94 * found.best_fixed
    assert found.totals.max() <= 1.03 * found.oracle


# -- ScalarFit, AdaptiveSOR --------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.6, 0.9594929736, 0.999])
def test_scalar_fit_finds_beta_without_contexts(beta):
    run = ScalarFit().start(np.linspace(1.0, 1.98, 20), 41)
    for _ in range(200):
        run.learn(Observation(sweeps(run.choose(), beta)))
    assert not run.handed_over
    assert abs(run.beta() - beta) <= 1e-3
    assert abs(run.best() - young(beta)) <= 0.01


@pytest.mark.parametrize("given", [(0.0, 1.0), None], ids=["range given", "range grows"])
def test_scalar_fit_finds_beta_of_every_context_and_the_unit_of_cost(given):
    run = ScalarFit().start(np.linspace(1.0, 1.95, 20), 43, given)
    random = np.random.default_rng(47)
    for _ in range(300):
        c = float(random.random())
        run.learn(Observation(1e-4 * solve(run.choose(c), c).cost))  # seconds
    for c in (0.1, 0.5, 0.9):
        assert abs(run.beta(c) - 1 / (1.05 + c / 4)) <= 1e-3


def test_scalar_fit_follows_young_on_real_sweeps():
    systems = sor_counts.draw_systems("high", 977, 500)
    run = ScalarFit().start(sor_counts.ARMS.tolist(), 977, sor_counts.RANGE)
    none, total = np.zeros(0), 0.0
    for c, b in zip(systems.c.tolist(), systems.b, strict=True):
        cost = sor_counts.count_sweeps(b, 4 + c, run.choose(c), 1e-8, 10_000, none)
        run.learn(Observation(float(cost)))
        total += cost
    best = sor_counts.count_each(systems, sor_counts.best_omega(systems.c)).sum()
    assert not run.handed_over
    assert total <= 1.05 * best
    assert abs(run.beta(0.0) - math.cos(math.pi / 11)) <= 5e-3


def test_scalar_fit_remembers_contexts_that_a_drift_has_left():
    run = ScalarFit().start(sor_counts.ARMS.tolist(), 149)
    random, none, total, best = np.random.default_rng(151), np.zeros(0), 0, 0
    for t in range(1000):
        c, b = 0.15 + 0.3 * math.sin(4 * math.pi * t / 1000), random.standard_normal(100)
        omegas = run.choose(c), float(sor_counts.best_omega(c))
        took, least = (sor_counts.count_sweeps(b, 4 + c, w, 1e-8, 10_000, none) for w in omegas)
        run.learn(Observation(float(took)))
        total, best = total + took, best + least
    assert total <= 1.1 * best


def test_the_memory_holds_the_last_solves_in_order_and_some_of_all():
    from neuralsolve.tuning.memory import RECENT, SAMPLE, Memory

    memory, random = Memory(), np.random.default_rng(157)
    for t in range(3000):
        memory.add(float(t), 1.5, 0.0, random)
    assert len(memory) == RECENT + SAMPLE
    last = memory.last(memory.contexts, 64)
    np.testing.assert_array_equal(last, np.arange(2936, 3000))
    sample = memory.contexts[RECENT:]
    assert (sample < 3000 - RECENT).all()
    assert len(set(sample)) == SAMPLE
    assert sample.min() < 1500


FOREIGN = {
    "flat, as of SSOR": lambda w, c: (40 + 30 * abs(w - 1.55) ** 1.5) * (1 + c),
    "falls": lambda w, c: 200 - 80 * w + 0 * c,
    "moves with the context": lambda w, c: 60 + 300 * (w - 1.2 - 0.5 * c) ** 2,
}


@pytest.mark.parametrize("known", [True, False], ids=["context", "no context"])
@pytest.mark.parametrize("name", FOREIGN)
def test_scalar_fit_hands_over_where_young_does_not_hold(name, known):
    random = np.random.default_rng(59)
    contexts = random.random(1500)
    arms = np.linspace(1.0, 1.95, 20)
    costs = FOREIGN[name](arms, contexts[:, None]) * random.uniform(0.95, 1.05, (1500, 20))
    run = ScalarFit().start(arms, 61, (0, 1) if known else None)
    total = 0.0
    for c, row in zip(contexts.tolist(), costs, strict=True):
        cost = row[np.abs(arms - run.choose(c if known else None)).argmin()]
        run.learn(Observation(cost))
        total += cost
    assert run.handed_over or name == "moves with the context"  # there the model may do
    assert total <= 1.15 * costs.sum(axis=0).min()


@pytest.mark.parametrize("given", [(0.0, 1.0), None], ids=["range given", "range grows"])
def test_adaptive_sor_reads_beta_off_the_residuals(given):
    run = AdaptiveSOR().start([1.0, 1.95], 67, given)
    drive(run, np.random.default_rng(71), 300)
    for c in (0.1, 0.9):
        assert abs(run.beta(c) - 1 / (1.05 + c / 4)) <= 2e-3


def test_adaptive_sor_comes_down_from_above():
    run = AdaptiveSOR().start([1.0, 1.95], 73)
    for _ in range(200):  # beta = 0.5 has omega* = 1.07, far below where it starts
        omega = run.choose()
        run.learn(Observation(sweeps(omega, 0.5), residual_norms=norms(omega, 0.5)))
    assert abs(run.beta() - 0.5) <= 1e-6


# -- what all share ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [(0.0, 1.0), None], ids=["range given", "range grows"])
@pytest.mark.parametrize("learner", ALL, ids=named)
def test_a_saved_run_goes_on_bit_for_bit(learner, given):
    run = learner.start(OMEGAS, 83, given)
    drive(run, np.random.default_rng(89), 75)
    run.choose(0.5)  # saved between choose and learn
    text = json.dumps(run.state_dict(), allow_nan=False)
    other = learner.start(OMEGAS, 84, given)
    other.load_state_dict(json.loads(text))
    assert json.dumps(other.state_dict()) == text
    for each in (run, other):
        each.learn(solve(1.5, 0.5))
    assert drive(run, np.random.default_rng(97), 150) == drive(other, np.random.default_rng(97), 150)
    assert run.state_dict() == other.state_dict()
    np.testing.assert_array_equal(run.totals, other.totals)


@pytest.mark.parametrize("learner", ALL, ids=named)
def test_numpy_numbers_and_integers_are_saved_as_any(learner):
    run, other = (learner.start(OMEGAS, 83) for _ in range(2))
    for t in range(20):
        run.choose(np.float64(t / 7))
        run.learn(Observation(np.int64(40 + t), residual_norms=np.exp(-np.arange(9.0))))
    other.load_state_dict(json.loads(json.dumps(run.state_dict())))
    assert run.choose(1) == other.choose(1)


def test_a_run_that_was_handed_over_is_saved_too():
    run, other = (ScalarFit().start(OMEGAS, 101) for _ in range(2))
    for _ in range(40):
        run.learn(Observation(200 - 80 * run.choose()))
    assert run.handed_over
    other.load_state_dict(json.loads(json.dumps(run.state_dict())))
    for _ in range(50):
        assert run.choose() == other.choose()
        for each in (run, other):
            each.learn(Observation(50.0))


@pytest.mark.parametrize("learner", ALL, ids=named)
def test_same_seed_same_choices_within_the_arms_and_counted(learner):
    a, b = (learner.start(OMEGAS, 103, (0.0, 1.0)) for _ in range(2))
    made = drive(a, np.random.default_rng(107), 120)
    assert made == drive(b, np.random.default_rng(107), 120)
    assert a.pulls.sum() == 120
    assert (a.totals[a.pulls == 0] == 0).all()
    assert all(OMEGAS[0] <= w <= OMEGAS[-1] for w in made)
    assert learner.numeric or set(made) <= set(OMEGAS.tolist())


@pytest.mark.parametrize("learner", ALL, ids=named)
def test_a_choice_without_its_cost_is_forgotten(learner):
    run = learner.start(OMEGAS, 109, (0.0, 1.0))
    drive(run, np.random.default_rng(113), 20)
    run.choose(0.2)
    omega = run.choose(0.7)
    run.learn(solve(omega, 0.7))
    assert run.pulls.sum() == 21
    with pytest.raises(OptionError, match="choose"):
        run.learn(solve(omega, 0.7))


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1.0])
def test_costs_must_be_numbers(cost):
    with pytest.raises(OptionError, match="finite"):
        Observation(cost)


@pytest.mark.parametrize("learner", ALL, ids=named)
def test_arms_must_be_there(learner):
    with pytest.raises(OptionError, match="one arm"):
        learner.start([], 3)
    with pytest.raises(OptionError, match="finite"):
        learner.start([1.5, float("nan")], 3)


@pytest.mark.parametrize("learner", [TsallisINF(), TsallisINFBins(), ChebCB(), ScalarFit()], ids=named)
def test_one_arm_and_equal_costs_are_no_trouble(learner):
    one = learner.start([1.5], 5, (0.0, 1.0))
    many = learner.start(OMEGAS, 5, (0.0, 1.0))
    for cost in [0.0, 0.0, 7.0, *[7.0] * 60]:
        for run in (one, many):
            run.choose(0.5)
            run.learn(Observation(cost))
    assert one.choose(0.5) == 1.5


@pytest.mark.parametrize("learner", CONTEXTUAL, ids=named)
def test_contexts_outside_their_range(learner):
    run = learner.start(OMEGAS, 5, (0.0, 1.0))
    with pytest.warns(UserWarning, match=r"context 1\.5 .*\(0, 1\)"):
        run.choose(1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.choose(-3.0)  # told once
    strict = type(learner)(strict=True).start(OMEGAS, 5, (0.0, 1.0))
    with pytest.raises(OptionError, match="wider range"):
        strict.choose(1.5)
    with pytest.raises(OptionError, match="finite context"):
        run.choose(float("nan"))
    with pytest.raises(OptionError, match="low < high"):
        learner.start(OMEGAS, 5, (1.0, 1.0))


@pytest.mark.parametrize("learner", [TsallisINFBins(), ChebCB()], ids=named)
def test_a_missing_context_is_named(learner):
    assert learner.needs_context
    with pytest.raises(OptionError, match="context"):
        learner.start(OMEGAS, 5).choose()
    with pytest.raises(OptionError, match="contexts="):
        replay(learner, np.ones((3, 2)))


def test_scalar_fit_takes_contexts_always_or_never():
    run = ScalarFit().start(OMEGAS, 5)
    run.choose()
    with pytest.raises(OptionError, match="without contexts"):
        run.choose(0.3)


@pytest.mark.parametrize("learner", [ScalarFit(), AdaptiveSOR()], ids=named)
@pytest.mark.parametrize("arms", [[0.0, 1.0], [1.0, 2.0], [1.9, 1.0]])
def test_relaxation_factors_are_checked(learner, arms):
    with pytest.raises(OptionError):
        learner.start(arms, 5)


def test_states_of_others_and_broken_ones_are_refused():
    run = TsallisINF().start(OMEGAS, 5)
    drive(run, np.random.default_rng(7), 10)
    good = run.state_dict()
    before = json.dumps(good)
    values = good["values"]
    broken = [
        {},
        ChebCB().start(OMEGAS, 5).state_dict(),
        TsallisINF().start(OMEGAS[:-1], 5).state_dict(),
        {**good, "random": {"bit_generator": "PCG64"}},
        {**good, "values": {**values, "pulls": [1, 2]}},
        {**good, "values": {**values, "totals": ["a"] * 7}},
        {**good, "values": {**values, "totals": [float("nan")] * 7}},
        {**good, "values": {**values, "scores": {}}},
        {**good, "values": {}},
        {**good, "probabilities": [1.0]},
    ]
    for state in broken:
        with pytest.raises(OptionError):
            run.load_state_dict(state)
        assert json.dumps(run.state_dict()) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: TsallisINFBins(bins=0),
        lambda: ChebCB(degree=-1),
        lambda: ChebCB(exploitation=0.0),
        lambda: AdaptiveSOR(below=1.0),
        lambda: Fixed(float("nan")),
        lambda: Fixed(1.3).start(OMEGAS, 5),
    ],
)
def test_options_are_checked(make):
    with pytest.raises(OptionError):
        make()


def test_replay_reports_hindsight():
    costs = np.array([[1.0, 5.0], [9.0, 2.0], [1.0, 2.0]])
    found = replay(Fixed(1), costs, seeds=[3, 4])
    assert found.best_arm == 1
    assert (found.best_fixed, found.oracle) == (9.0, 4.0)
    np.testing.assert_array_equal(found.totals, [9.0, 9.0])
    np.testing.assert_array_equal(found.choices, 1)
    nearest = replay(ScalarFit(), costs, seeds=[3], arms=[1.2, 1.7])
    assert nearest.totals[0] == costs[np.arange(3), nearest.choices[0]].sum()


@pytest.mark.parametrize(
    ("costs", "options", "error"),
    [
        (np.ones(3), {}, ShapeError),
        (np.array([[np.inf]]), {}, OptionError),
        (np.ones((3, 2)), {"arms": [1.0]}, ShapeError),
        (np.ones((3, 2)), {"contexts": [1.0]}, ShapeError),
    ],
)
def test_replay_refuses_what_is_no_table(costs, options, error):
    with pytest.raises(error):
        replay(TsallisINF(), costs, **options)
    with pytest.raises(OptionError, match="arms="):
        replay(ScalarFit(), np.ones((3, 2)))


# -- the systems of the comparison -------------------------------------------------------------------------


def test_sweeps_are_counted_as_by_dense_algebra():
    systems = sor_counts.draw_systems("low", 127, 10)
    m = sor_counts.SIDE
    laplacian = 2 * np.eye(m) - np.eye(m, k=1) - np.eye(m, k=-1)
    A0 = np.kron(laplacian, np.eye(m)) + np.kron(np.eye(m), laplacian)
    for c, b, omega in zip(systems.c, systems.b, np.linspace(0.9, 1.9, 10), strict=True):
        A = A0 + c * np.eye(m * m)
        M = np.diag(np.diag(A)) / omega + np.tril(A, -1)
        x, k, norms = np.zeros(m * m), 0, [np.linalg.norm(b)]
        while norms[-1] >= 1e-8 * norms[0]:
            x += np.linalg.solve(M, b - A @ x)
            norms.append(np.linalg.norm(b - A @ x))
            k += 1
        seen = np.zeros(5)
        assert sor_counts.count_sweeps(b, 4 + c, omega, 1e-8, 10_000, seen) == k
        np.testing.assert_allclose(seen, norms[:5], rtol=1e-10)
        assert (b**2).sum() <= m * m


def test_thompson_gives_bad_arms_up_and_returns_when_costs_turn():
    """Ten times the cost of the best is tried a few times; what has become the best is found again."""
    rng, run = np.random.default_rng(3581), Thompson().start(range(3), 5)
    for _ in range(300):
        run.learn(Observation([1.0, 1.5, 10.0][int(run.choose())] * rng.lognormal(0, 0.1)))
    assert run.pulls[0] > 280
    assert run.pulls[2] <= 3
    before = run.pulls.copy()
    for _ in range(400):
        run.learn(Observation([3.0, 1.5, 10.0][int(run.choose())] * rng.lognormal(0, 0.1)))
    assert (run.pulls - before)[1] > 250
