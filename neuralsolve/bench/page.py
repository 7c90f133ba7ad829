"""The benchmark page: ``python -m neuralsolve.bench.page data/bench docs/benchmarks.md``."""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path
from typing import Any, TypeVar

from neuralsolve.bench.bars import BarRow
from neuralsolve.bench.compare import Row
from neuralsolve.bench.measures import Measure
from neuralsolve.bench.tables import bars_markdown, comparison_markdown, measures_markdown

INTRODUCTION = """# Benchmarks

Made by `make bench` from the rows in `data/bench`; do not edit. All runs of a table took place in one
process, interleaved, on the same number of threads; times are medians, in seconds. Every true residual is
recomputed by the harness in float64 from the assembled matrix. A ratio is the time of set-up and solve over
that of the fastest method that is not ours, in the same run: below 1 is faster. Rows that we lose stay.
"""

BARS = """Quantities against two bars that were set beforehand; a row that misses its bar stays. Medians are
over geometries (the seeds, none of which took part in tuning), each with the median of its own runs; the
worst geometry stands beside them. Totals of ours hold everything from the cells of the grid on: A,
`ns.prepare(A, ns.CG(), M=ns.Multigrid())` and the solve. PyAMG and PETSc start from the assembled matrix of
the fluid cells, the making of which is not charged to them; PyAMG runs at its defaults with its own CG,
PETSc on two ranks of one thread with the norm of the true residual. A rival that takes longer than five
seconds runs once per geometry, and ours before each of its runs. Every run waits a tenth of a second, until
the threads sleep that NumPy's BLAS leaves spinning. The right side is white noise, for Darcy's problem one.
Bytes that a kernel moves are those of its arguments, each read or written once, and twice where it is both;
the floor is these bytes over the bandwidth of the fastest copy, its reads and writes counted.

![What was measured over what must be reached](images/bench_multigrid.png)
"""

LEARNED = """Networks beside the classical methods. Scenes are of classes that no training has seen (turned
boxes, rings, channels, thin plates, closed pockets; seeds 1000 and on), white noise on the right, true
residual 1e-6, unless a row says otherwise. Times hold A, the set-up, what the networks make of the geometry
included, and the solve; training has rows of its own. A row that misses its bar stays.

![What was measured over what must be reached](images/bench_learned.png)

![Residuals of all methods on one scene](images/bench_learned_histories.png)
"""

TUNED = """Options left to online learners, beside what only hindsight knows: the one fixed choice that would
have been best. Costs are iterations, or seconds with the learner's own and the set-up. Learners meet the same
systems, one run for each seed; no setting was chosen on these seeds. The systems of `sor` and `heat` are
those of Khodak et al. (2024), 20 omegas from 1 to 1.95; the families took part in no design, and learners
find the range of contexts there on their own. Iterations are counted by compiled loops that agree with the
solves of this package; `heat` has one trajectory, from which every omega solves each step. A row that misses
its bar stays.

![What was measured over what must be reached](images/bench_tuned.png)
"""

FIELDS = """Models of fields. Trainings run on one thread each, for as many epochs as the same CPU seconds
hold, a step's being measured beforehand for all networks in turn; the epoch that did best on the
validation is what is tested, on samples that took part in no choice. Parameters, epochs and seconds are in
the notes. FNO is that of neuraloperator, on a CPU the dearest a step. The groups `prior` and `hybrid` say
what the package's own solver makes of the same problem. A row that misses its bar stays.

![What was measured over what must be reached](images/bench_fields.png)
"""

OPTIMIZE = """Constrained optimisation. A problem is solved where the KKT residual, with the multipliers of
least squares and by one judge for every solver, is at most the tolerance within 1000 values of f; an effort
is a number of values of f, not a time. The hidden half, by a hash of the names, took part in no choice.
IPOPT is that of casadi, with exact derivatives as for all but SLSQP. A row that misses its bar stays.

![What was measured over what must be reached](images/bench_optimize.png)

![Performance profiles](images/bench_optimize_profiles.png)
"""

SSM = """State-space layers. `starts`: what the shipped matrices of perturb-then-diagonalise are worth, on
frequencies that took no part in their making. `speed`: forward and backward, two threads, interleaved;
s5-pytorch holds the same weights. `robustness`: a sinusoid at the highest resonance of S4D's start sounds
inside every layer, at test time alone; seeds took part in no choice. `memory`: equal parameters, epochs and
schedules. A row that misses its bar stays.

![What was measured over what must be reached](images/bench_ssm.png)
"""

LOWRANK = """Low-rank methods. `svd`: each peer has the fastest of its options that reach our error. `optim`,
`adapters`, `compress`: small operators of the package's own equations; learning rates are picked on
validation samples, for every method on a grid, and the samples of the test are looked at once. States,
trained numbers and what is kept are counted, not estimated. A row that misses its bar stays.

![What was measured over what must be reached](images/bench_lowrank.png)
"""

GPU = """On one GPU. Speeds of kernels and of a step are parts of what a copy of as many bytes takes, measured
in the same run; kernels are started twenty at once as a CUDA graph, as solves start them. A later solve is
one of a `Prepared` that has solved before; its true residual is formed on the CPU. A row that misses its bar
stays.

![What was measured over what must be reached](images/bench_gpu.png)
"""

WORDS = {
    "learned": LEARNED,
    "tuned": TUNED,
    "fields": FIELDS,
    "optimize": OPTIMIZE,
    "ssm": SSM,
    "lowrank": LOWRANK,
    "gpu": GPU,
}

_Record = TypeVar("_Record", Row, Measure, BarRow)


def page(folder: Path) -> str:
    """Return the page for a folder of CSV files, measures or comparisons, and of simulations' tables."""
    parts = [INTRODUCTION]
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
        if not lines:
            continue
        where = lines[0]
        parts.append(f"## {path.stem.replace('_', ' ').capitalize()}\n")
        parts.append(
            f"{where['machine']}; {where['threads']} threads; Python {where['python']}; {where['versions']}\n"
        )
        if "must" in where:
            parts += [
                WORDS.get(path.stem, BARS),
                bars_markdown([_record(BarRow, line) for line in lines]),
            ]
        elif "measure" in where:
            parts.append(measures_markdown([_record(Measure, line) for line in lines]))
        else:
            parts.append(comparison_markdown([_record(Row, line) for line in lines]))
    for path in sorted(folder.glob("*/*.md")):
        parts.append(f"## Simulation: {path.stem.replace('_', ' ')}\n")
        parts.append(
            f"Every step's pressure system by each solver, in one process ([rows]({_link(path)})).\n"
        )
        parts.append(path.read_text(encoding="utf-8"))
    return "\n".join(parts).rstrip() + "\n"


def _link(path: Path) -> str:
    return f"../{path.with_suffix('.csv').as_posix()}"


def _record(kind: type[_Record], line: dict[str, str]) -> _Record:
    """Return a row as it was before it became text."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        text = line[field.name]
        words = str(field.type)
        if "float" in words:
            values[field.name] = None if text == "" else float(text)
        elif words == "int":
            values[field.name] = int(text)
        elif words == "bool":
            values[field.name] = text == "True"
        else:
            values[field.name] = text
    return kind(**values)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(Path(sys.argv[1])), encoding="utf-8")
