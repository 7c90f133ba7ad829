"""Which solves a fit remembers: the last ones, and a thinning sample of those before.

The last 128 tell how things are; alone they would forget a range of contexts that a slowly drifting
simulation has left, and a line fitted to a short range says little of the rest. A solve that leaves the
last ones enters the sample of 128 while there is room, later with probability 1/8, in place of one drawn at
random: it stays for some 1000 solves. Time and memory are O(1).
"""

from __future__ import annotations

import numpy as np

from neuralsolve.tuning.state import Stored

RECENT, SAMPLE = 128, 128
ENTRY = 1 / 8


class Memory(Stored):
    """Context, omega and ln cost of the solves that are remembered, the recent ones first."""

    stored = ("contexts", "omegas", "logs", "added", "sampled")

    def __init__(self):
        self.contexts, self.omegas, self.logs = (np.zeros(RECENT + SAMPLE) for _ in range(3))
        self.added = 0  # solves so far
        self.sampled = 0  # rows of the sample that are filled

    def add(self, context: float, omega: float, log_cost: float, random: np.random.Generator) -> None:
        """Remember a solve."""
        row = self.added % RECENT
        if self.added >= RECENT:
            self._keep(row, random)
        self.contexts[row], self.omegas[row], self.logs[row] = context, omega, log_cost
        self.added += 1

    def _keep(self, leaving: int, random: np.random.Generator) -> None:
        if self.sampled < SAMPLE:
            row = RECENT + self.sampled
            self.sampled += 1
        elif random.random() < ENTRY:
            row = RECENT + int(random.integers(SAMPLE))
        else:
            return
        for values in (self.contexts, self.omegas, self.logs):
            values[row] = values[leaving]

    def __len__(self) -> int:
        return min(self.added, RECENT) + self.sampled

    def last(self, values: np.ndarray, count: int) -> np.ndarray:
        """Return those of the last `count` solves, in order, out of one value for each solve remembered."""
        if self.added <= RECENT:
            return values[max(self.added - count, 0) : self.added]
        return values[(self.added - count + np.arange(count)) % RECENT]
