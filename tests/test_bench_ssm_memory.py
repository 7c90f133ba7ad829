"""Roll-outs with and without a memory, compared: what is told of trainings, and equal terms for all."""

import numpy as np
import pytest

from neuralsolve.bench import ssm_memory
from neuralsolve.bench.bars import Bars, Settings
from neuralsolve.cases.files import load_case
from neuralsolve.models.memory_operator import MemoryOperator
from neuralsolve.models.networks import parameters_of


def result(level):
    taught = [level / 10] * 25
    return {"curve": [level] * 25, "taught": taught, "parameters": 7, "epochs": 3, "cpu_s": 1.0}


def test_the_error_of_a_frame_is_relative_to_that_frame():
    truth = np.ones((3, 2, 4, 4)) * np.array([1.0, 100.0]).reshape(1, 2, 1, 1)
    made = truth + np.array([0.5, 10.0]).reshape(1, 2, 1, 1)
    assert ssm_memory.curve(made, truth) == pytest.approx([0.5, 0.1])


def test_ratios_are_taken_seed_by_seed():
    levels = {("ptd", 1): 0.1, ("none", 1): 0.3, ("ptd", 2): 0.2, ("none", 2): 0.3}
    found = {key: result(level) for key, level in levels.items()}
    row = ssm_memory._ratio("memory", "p", found, "none", "ptd", Bars(2.0, at_least=True))
    assert (row.median, row.worst) == pytest.approx((2.25, 1.5))
    assert row.verdict() == "met, worst case **short**"
    told = list(ssm_memory._told("memory", "p", found))
    assert [each.quantity for each in told] == [
        "relative L2 with the start ptd",
        "relative L2 without a memory",
    ]
    assert told[0].median == pytest.approx(0.15)
    assert "0.150 at 25" in told[0].note


def test_all_are_trained_on_equal_terms():
    case = ssm_memory._case(Settings(), load_case("train_memory_ks"))
    each = [ssm_memory._of(case, case.path, name, 9001) for name in ssm_memory.MEMORIES]
    assert len({str(own.plan()) for own in each}) == 1
    counts = [parameters_of(MemoryOperator(1, 25, 25, **own.options)) for own in each]
    assert max(counts) / min(counts) < 1.02
