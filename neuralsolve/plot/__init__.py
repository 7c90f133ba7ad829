"""Pictures of solutions, minima, convergence, benchmarks, smoke, predictions: matplotlib is known here alone.

Figures are made without pyplot, so nothing global changes and no window opens.
"""

from neuralsolve.plot.charts import (
    bars_figure,
    bench_figure,
    history_figure,
    measures_figure,
    smoke_figure,
    training_figure,
)
from neuralsolve.plot.errors import errors_figure, relative_errors, rollout_figure, spectra_figure
from neuralsolve.plot.fields import comparison_figure, fields_figure
from neuralsolve.plot.lowrank import compression_figure
from neuralsolve.plot.optimum import control_figure
from neuralsolve.plot.profiles import profiles_figure
from neuralsolve.plot.solution import solution_figure
from neuralsolve.plot.ssm import pseudospectrum_figure, robustness_figure, transfer_function_figure
from neuralsolve.plot.style import save
from neuralsolve.plot.tuning import tuning_figure

__all__ = [
    "bars_figure",
    "bench_figure",
    "comparison_figure",
    "compression_figure",
    "control_figure",
    "errors_figure",
    "fields_figure",
    "history_figure",
    "measures_figure",
    "profiles_figure",
    "pseudospectrum_figure",
    "relative_errors",
    "robustness_figure",
    "rollout_figure",
    "save",
    "smoke_figure",
    "solution_figure",
    "spectra_figure",
    "training_figure",
    "transfer_function_figure",
    "tuning_figure",
]
