"""Benchmarks: rows, not prints.

`compare` times methods on a problem beside SciPy, PyAMG and PETSc; `take_measures` times the package's own
kernels against bars, `take_suite` holds multigrid and the learned solvers against theirs. All runs of a
comparison are interleaved in one process, on the same number of threads; set-up and solve are timed apart;
every true residual is formed here, in float64, from the assembled matrix.
"""

from neuralsolve.bench.bars import BarRow
from neuralsolve.bench.compare import Contender, Row, compare
from neuralsolve.bench.device_measures import take_measures_on
from neuralsolve.bench.measures import Measure, take_measures
from neuralsolve.bench.suites import take_suite
from neuralsolve.bench.tables import (
    bars_markdown,
    comparison_markdown,
    csv_text,
    environment,
    measures_markdown,
)

__all__ = [
    "BarRow",
    "Contender",
    "Measure",
    "Row",
    "bars_markdown",
    "compare",
    "comparison_markdown",
    "csv_text",
    "environment",
    "measures_markdown",
    "take_measures",
    "take_measures_on",
    "take_suite",
]
