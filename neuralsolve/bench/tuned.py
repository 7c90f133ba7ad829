"""The suite of tuned options: learners beside what hindsight knows, in counts and in seconds.

Seeds are paired: all learners meet the same systems. No setting was chosen on these seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from neuralsolve.bench.bars import BarRow, Settings
from neuralsolve.bench.tuned_counts import families, heat, sor
from neuralsolve.bench.tuned_times import overhead, peers, recipes

GROUPS: dict[str, Callable[[Settings], Iterable[BarRow]]] = {
    "sor": sor,
    "heat": heat,
    "families": families,
    "peers": peers,
    "recipes": recipes,
    "overhead": overhead,
}
