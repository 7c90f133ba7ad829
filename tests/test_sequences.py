"""Labelled sequences: what they are, and that nested lists have the values that they are labelled with."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from neuralsolve.data.sequences import OPERATORS, VOCABULARY, Sequences, digits, listops, spoken
from neuralsolve.errors import OptionError, ShapeError


def value(text: str) -> int:
    """Read a list from its words alone, by a stack."""
    stack: list[list] = [[]]
    for word in text.split():
        if word.startswith("["):
            stack.append([word[1:]])
        elif word == "]":
            name, *given = stack.pop()
            rule = {
                "MIN": min,
                "MAX": max,
                "MED": lambda x: int(statistics.median(x)),
                "SM": lambda x: sum(x) % 10,
            }[name]
            stack[-1].append(rule(given))
        else:
            stack[-1].append(int(word))
    assert len(stack) == 1
    return stack[0][0]


def test_lists_have_the_values_that_they_are_labelled_with():
    data = listops(200, seed=3, depth=4, length=100)
    assert [value(spoken(words)) for words in data.values] == data.labels.tolist()
    assert set(data.labels) == set(range(10))
    assert {code for code in OPERATORS.values()} <= set(np.unique(data.values))


def test_lists_do_not_depend_on_how_many_are_made_and_keep_to_their_lengths():
    few, many = (
        listops(5, seed=3, depth=3, length=40, shortest=10),
        listops(9, seed=3, depth=3, length=40, shortest=10),
    )
    assert np.array_equal(few.values, many.values[:5])
    assert few.lengths is not None
    assert few.lengths.min() >= 10
    assert all((words > 0).sum() == n for words, n in zip(few.values, few.lengths, strict=True))


def test_digits_are_images_pixel_after_pixel():
    pytest.importorskip("sklearn")
    data, long = digits(), digits(repeat=4)
    assert data.values.shape == (1797, 64, 1)
    assert np.array_equal(long.values[:, ::4], data.values)
    assert np.array_equal(long.values[:, 3::4], data.values)
    assert (data.values.min(), data.values.max()) == (-1, 1)


def test_parts_follow_one_another():
    data = listops(10, seed=1)
    one, two = data.split(6, 3)
    assert np.array_equal(two.values, data.values[6:9])
    assert len(one) == 6
    with pytest.raises(ShapeError, match="8 \\+ 3 of 10"):
        data.split(8, 3)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"values": np.zeros((2, 5, 1), np.float32), "labels": np.zeros(3, np.int64)}, ShapeError, "needed"),
        ({"values": np.zeros((2, 5), np.float32), "labels": np.zeros(2, np.int64)}, ShapeError, "inputs"),
        ({"values": np.zeros((2, 5, 1), np.float32), "labels": np.array([0, 9])}, OptionError, "0 to 2"),
        (
            {"values": np.full((2, 5), 40), "labels": np.zeros(2, np.int64), "vocabulary": VOCABULARY},
            OptionError,
            "of 16",
        ),
        (
            {"values": np.zeros((2, 5, 1)), "labels": np.zeros(2, np.int64), "lengths": np.array([5, 6])},
            ShapeError,
            "lengths",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        Sequences(**given, classes=3)


@pytest.mark.parametrize(
    "given", [{"count": 0}, {"depth": 0}, {"shortest": 50, "length": 20}, {"shortest": 120, "depth": 1}]
)
def test_lists_that_cannot_be_made_are_refused(given):
    with pytest.raises(OptionError):
        listops(**({"count": 2} | given))
