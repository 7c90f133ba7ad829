"""Labelled sequences: numbers or words along time, and the class of each sequence.

`digits`: scikit-learn's bundled 8 x 8 images of digits, pixel after pixel. `listops`: nested lists of digits
with MIN, MAX, MED (median, rounded down) and SM (sum modulo 10), whose value is the class; after Nangia and
Bowman (NAACL student workshop 2018, arXiv 1804.06028), with other depths and lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from neuralsolve.errors import InputError, OptionError, ShapeError

PAD, CLOSE, OPERATORS = 0, 15, {"MIN": 11, "MAX": 12, "MED": 13, "SM": 14}  # words; digit d is d + 1
VOCABULARY = 16
WORDS = {PAD: "", CLOSE: "]", **{code: f"[{name}" for name, code in OPERATORS.items()}}
WIDEST = 5  # arguments of an operator
NESTED = 0.4  # part of the arguments that are lists themselves, where depth is left
TRIES = 1000  # of a list that is short enough


@dataclass(frozen=True)
class Sequences:
    """Sequences and their classes.

    Attributes
    ----------
    values : (n, length, inputs) float32, or (n, length) int64 of words
    labels : (n,) int64, from 0
    classes : how many there are
    lengths : (n,) int64, samples before the padding; None: all of them
    vocabulary : words, where values are words

    Raises
    ------
    ShapeError
        Sizes that do not fit together.
    OptionError
        A label that is no class, a word that is not in the vocabulary.
    """

    values: np.ndarray
    labels: np.ndarray
    classes: int
    lengths: np.ndarray | None = None
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        n, words = len(self.values), self.vocabulary is not None
        if self.values.ndim != (2 if words else 3) or self.labels.shape != (n,) or not self.values.size:
            msg = (
                f"values {self.values.shape}, labels {self.labels.shape}; (n, length, inputs) or (n, length) "
                "of words, and (n,) are needed, one at least"
            )
            raise ShapeError(msg)
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            msg = (
                f"labels from {self.labels.min()} to {self.labels.max()}; 0 to {self.classes - 1} are needed"
            )
            raise OptionError(msg)
        if self.vocabulary is not None and not 0 <= self.values.min() <= self.values.max() < self.vocabulary:
            msg = f"words from {self.values.min()} to {self.values.max()}, of {self.vocabulary}"
            raise OptionError(msg)
        if self.lengths is not None and (
            self.lengths.shape != (n,) or self.lengths.min() < 1 or self.lengths.max() > self.values.shape[1]
        ):
            msg = f"lengths {self.lengths.shape} for {n} sequences of {self.values.shape[1]}; 1 at least each"
            raise ShapeError(msg)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, which: slice | np.ndarray) -> Sequences:
        """Return some of the sequences."""
        lengths = None if self.lengths is None else self.lengths[which]
        return replace(self, values=self.values[which], labels=self.labels[which], lengths=lengths)

    def split(self, *counts: int) -> list[Sequences]:
        """Return the first so many sequences, the next, ...

        Raises
        ------
        ShapeError
            More than there are.
        """
        if sum(counts) > len(self) or min(counts, default=0) < 1:
            msg = f"{' + '.join(map(str, counts))} of {len(self)} sequences; each part needs one at least"
            raise ShapeError(msg)
        ends = np.cumsum(counts)
        return [self.take(slice(end - count, end)) for end, count in zip(ends, counts, strict=True)]


def digits(repeat: int = 1, seed: int = 1905) -> Sequences:
    """Return the 1797 images of digits, in an order drawn from the seed, from -1 to 1.

    Parameters
    ----------
    repeat : samples of each pixel, one after the other: lengths are 64 times it

    Raises
    ------
    InputError
        scikit-learn is not installed.
    OptionError

    Examples
    --------
    >>> digits(repeat=4).values.shape
    (1797, 256, 1)
    """
    if repeat < 1:
        msg = f"repeat = {repeat}; at least 1 is needed"
        raise OptionError(msg)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        msg = "the digits come with scikit-learn: pip install 'neuralsolve[peers]'"
        raise InputError(msg) from None
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    values = (np.asarray(images, np.float32)[order] / 8 - 1).repeat(repeat, axis=1)
    return Sequences(values[..., None], np.asarray(labels, np.int64)[order], 10)


def listops(count: int, seed: int = 1905, depth: int = 4, length: int = 128, shortest: int = 8) -> Sequences:
    """Return lists and their values. Number k of a seed is the same whatever is made beside it.

    Parameters
    ----------
    count : how many
    depth : of nesting, at most
    length, shortest : words of a list, at most and at least

    Raises
    ------
    OptionError

    Examples
    --------
    >>> data = listops(2, seed=7, depth=2, length=16)
    >>> spoken(data.values[0]), int(data.labels[0])
    ('[SM 5 [SM 3 2 ] [SM 8 1 7 ] 8 ]', 4)
    """
    if count < 1 or depth < 1 or not 4 <= shortest <= length:
        msg = (
            f"count = {count}, depth = {depth}, shortest = {shortest}, length = {length}; at least 1, and "
            "4 <= shortest <= length, are needed"
        )
        raise OptionError(msg)
    values, lengths = np.zeros((count, length), np.int64), np.empty(count, np.int64)
    labels = np.empty(count, np.int64)
    for k in range(count):
        words, labels[k] = _fitting(np.random.default_rng([seed, k]), depth, shortest, length)
        values[k, : len(words)], lengths[k] = words, len(words)
    return Sequences(values, labels, 10, lengths, VOCABULARY)


def _fitting(rng: np.random.Generator, depth: int, shortest: int, longest: int) -> tuple[list[int], int]:
    for _ in range(TRIES):
        words, value = _list(rng, depth)
        if shortest <= len(words) <= longest:
            return words, value
    msg = f"no list of depth {depth} has {shortest} to {longest} words in {TRIES} tries; allow other lengths"
    raise OptionError(msg)


def _list(rng: np.random.Generator, depth: int) -> tuple[list[int], int]:
    """Return a list as words, and its value."""
    name = list(OPERATORS)[rng.integers(len(OPERATORS))]
    words, given = [OPERATORS[name]], []
    for _ in range(rng.integers(2, WIDEST + 1)):
        if depth > 1 and rng.random() < NESTED:
            inner, value = _list(rng, depth - 1)
            words += inner
        else:
            value = int(rng.integers(10))
            words.append(value + 1)
        given.append(value)
    return [*words, CLOSE], evaluated(name, given)


def evaluated(operator: str, given: list[int]) -> int:
    """Return the value of an operator.

    >>> [evaluated(name, [7, 2, 4, 9]) for name in OPERATORS]
    [2, 9, 5, 2]
    """
    if operator == "SM":
        return sum(given) % 10
    return int({"MIN": np.min, "MAX": np.max, "MED": np.median}[operator](given))


def spoken(words: np.ndarray) -> str:
    """Return a list in words."""
    return " ".join(WORDS.get(int(word), str(int(word) - 1)) for word in words if word != PAD)
