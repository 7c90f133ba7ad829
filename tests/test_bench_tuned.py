"""The suite of tuned options: all of it runs, and what it counts is what the package's solves take."""

from __future__ import annotations

import math

import numpy as np
import pytest

import neuralsolve as ns
from neuralsolve.bench import bars_markdown, csv_text, sor_counts, take_suite
from neuralsolve.bench.grid_counts import FivePoint, sor_count, sor_table
from neuralsolve.bench.page import page
from neuralsolve.bench.tuned import GROUPS
from neuralsolve.bench.tuned_counts import FAMILIES, family_systems, heat_table
from neuralsolve.bench.tuned_play import costs_of
from neuralsolve.pde.sequences import HeatEquation, ShiftedLaplacian, laplacian

OMEGAS = np.array([1.0, 1.4, 1.75, 1.9])


def test_all_groups_run_at_toy_sizes(tmp_path):
    rows = take_suite("tuned", 1, quick=True)
    assert {row.group for row in rows} == set(GROUPS)
    assert "the rest of the group" not in {row.quantity for row in rows}
    for row in rows:
        assert math.isfinite(row.median)
        assert row.median > 0
        assert row.residual is None or row.residual <= 1.01e-6
    (tmp_path / "tuned.csv").write_text(csv_text(rows))
    text = page(tmp_path)
    assert bars_markdown(rows) in text
    assert "hindsight" in text


def sweeps(A, b, omega):
    prepared = ns.prepare(A, ns.Richardson(), M=ns.SOR(float(omega)), rtol=1e-8, maxiter=10_000)
    return prepared.solve(b).iterations


def test_sweeps_on_the_shifted_laplacian_are_those_of_the_package():
    systems = sor_counts.draw_systems("high", 71, 3)
    table = sor_counts.count_table(systems, OMEGAS)
    for c, b, counts in zip(systems.c, systems.b, table, strict=True):
        A = laplacian(10) + c * np.eye(100)
        assert [sweeps(A, b, omega) for omega in OMEGAS] == counts.tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_sweeps_on_the_families_are_those_of_the_package(name):
    systems = family_systems(name, 83, 2)
    table = sor_table(systems.A, systems.c, systems.b, OMEGAS)
    dense = systems.A.dense()
    assert np.array_equal(dense, dense.T)
    for c, b, counts in zip(systems.c, systems.b, table, strict=True):
        A = dense + c * np.eye(len(dense))
        assert np.linalg.eigvalsh(A)[0] > 0
        assert [sweeps(A, b, omega) for omega in OMEGAS[1:3]] == counts[1:3].tolist()
        norms = np.zeros(400)
        count = sor_count(systems.A, c, b, 1.75, norms)
        assert norms[0] == pytest.approx(np.linalg.norm(b))
        assert norms[count] <= 1e-8 * norms[0] < norms[count - 1]


def test_iterations_on_the_heat_equation_are_those_of_the_package():
    heat = HeatEquation(cells=12, dt=0.07, steps=5)
    table = heat_table(heat, OMEGAS)
    assert np.array_equal(table.contexts, heat.contexts)
    prepared = [ns.prepare(heat.system(0, None).A, ns.CG(), M=ns.SSOR(float(w)), rtol=1e-8) for w in OMEGAS]
    u = None
    for t in range(heat.steps):
        step = heat.system(t, u)
        found = [each.update(step.A).solve(step.b, x0=step.x0) for each in prepared]
        assert [result.iterations for result in found] == table.counts[t].tolist()
        u = np.asarray(found[-1].x)


def test_a_case_and_its_table_agree():
    """The systems of `neuralsolve tune` take as many sweeps as the loops count."""
    sequence = ShiftedLaplacian(cells=6, steps=3, seed=64)
    table = sor_table(FivePoint.laplacian(6), sequence.contexts, sequence.sides, OMEGAS)
    for t in range(3):
        step = sequence.system(t, None)
        assert [sweeps(step.A, step.b, omega) for omega in OMEGAS] == table[t].tolist()


def test_a_learner_pays_what_its_choices_cost():
    table = np.tile([9.0, 4.0, 7.0], (40, 1))
    arms, contexts = np.array([1.0, 1.5, 1.9]), np.linspace(0, 1, 40)
    assert costs_of(ns.Fixed(1.9), arms, table, contexts, 7).tolist() == [7.0] * 40
    assert table.min() <= costs_of(ns.ChebCB(degree=1), arms, table, contexts, 7).min()
    seen = []

    def solve(t, omega, norms):
        seen.append(omega)
        return 100 * abs(omega - 1.3) + 5

    costs = costs_of(ns.ScalarFit(), arms, table, contexts, 7, None, solve)
    assert costs.tolist() == [100 * abs(omega - 1.3) + 5 for omega in seen]
