"""The suite of learned solvers: all of it runs, at toy sizes, and every row holds what it says."""

from __future__ import annotations

import math

import pytest

from neuralsolve.bench import bars_markdown, take_suite
from neuralsolve.bench.learned import GROUPS, histories
from neuralsolve.errors import OptionError


def test_all_groups_run_at_toy_sizes():
    rows = take_suite("learned", 1, quick=True)
    assert {row.group for row in rows} == set(GROUPS)
    assert "the rest of the group" not in {row.quantity for row in rows}
    for row in rows:
        assert math.isfinite(row.median)
        if row.residual is not None:
            assert row.residual <= (1.01e-4 if "1e-4" in row.problem else 1.01e-6)
    text = bars_markdown(rows)
    assert all(row.problem in text for row in rows)


def test_an_unknown_suite_or_group_is_named():
    with pytest.raises(OptionError, match="learned"):
        take_suite("learnt")
    with pytest.raises(OptionError, match="transfer"):
        take_suite("learned", only=["transfr"])


def test_histories_end_below_the_tolerance():
    found = histories((24, 24))
    assert len(found) == 6
    for norms in found.values():
        assert norms[-1] <= 1.01e-6 * norms[0]
