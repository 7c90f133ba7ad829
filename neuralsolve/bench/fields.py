"""The suite of models of fields: what is learned, against what, at equal parameters and equal time.

Trainings run on one thread each, two side by side, for as many epochs as a budget of CPU seconds holds; the
seconds of a step are measured beforehand, all networks in turn. They go on from their checkpoints in
``out/bench/fields``, so an interrupted suite is not lost. Test samples take part in no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from neuralsolve.bench.bars import BarRow, Settings
from neuralsolve.bench.fields_data import darcy
from neuralsolve.bench.fields_hybrid import hybrid
from neuralsolve.bench.fields_speed import speed
from neuralsolve.bench.fields_training import headline, mesh, prior, rollout, small

GROUPS: dict[str, Callable[[Settings], Iterable[BarRow]]] = {
    "data": darcy,
    "speed": speed,
    "small": small,
    "headline": headline,
    "prior": prior,
    "rollout": rollout,
    "mesh": mesh,
    "hybrid": hybrid,
}
