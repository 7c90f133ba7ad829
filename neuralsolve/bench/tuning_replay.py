"""The comparison of "Learning to Relax" on SOR: learners, the best fixed omega in hindsight, Young's omega*.

`python -m neuralsolve.bench.tuning_replay` draws the sequences "high" and "low" of `bench.sor_counts`, T =
5000 solves each, counts the sweeps of 20 omegas on every system, and runs each learner on the same systems.
Seeds are paired: the same systems for all, ten sequences. Every setting of the learners was chosen on other
seeds. Ratios are mean (least - largest) over the sequences. ScalarFit and AdaptiveSOR choose between the
arms too, so their solves are done, not looked up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neuralsolve.bench import sor_counts
from neuralsolve.bench.sor_counts import ARMS, CAP, RANGE, Systems
from neuralsolve.tuning import (
    AdaptiveSOR,
    ChebCB,
    Learner,
    Observation,
    ScalarFit,
    TsallisINF,
    TsallisINFBins,
)

SEEDS = range(5501, 5511)
EARLY = 500  # solves of the second bar
LEARNERS: dict[str, Learner] = {
    "Tsallis-INF, plain": TsallisINF(variance_reduced=False),
    "Tsallis-INF": TsallisINF(),
    "Tsallis-INF, 5 bins": TsallisINFBins(),
    "ChebCB, released code": ChebCB(paper_compat=True, exploitation=1.0),
    "ChebCB": ChebCB(),
    "AdaptiveSOR": AdaptiveSOR(),
    "ScalarFit": ScalarFit(),
}


@dataclass(frozen=True)
class Run:
    """Sweeps of each solve (T,), and microseconds of `choose` and `learn` together, the mean of a solve."""

    costs: np.ndarray
    microseconds: float


def run(learner: Learner, systems: Systems, table: np.ndarray, seed: int) -> Run:
    """Let a learner choose for a sequence; (T, d) `table` holds the costs of the arms."""
    learning = learner.start(ARMS.tolist(), seed, RANGE)
    costs, times = np.empty(len(table)), np.empty(len(table))
    norms = np.zeros(CAP + 1) if isinstance(learner, AdaptiveSOR) else np.zeros(0)
    for t, c in enumerate(systems.c.tolist()):
        start = time.perf_counter()
        omega = learning.choose(c)
        chosen = time.perf_counter()
        cost = _cost(systems, table, t, omega, norms, numeric=learner.numeric)
        seen = Observation(cost, capped=cost >= CAP, residual_norms=norms[: int(cost) + 1].tolist())
        back = time.perf_counter()
        learning.learn(seen)
        times[t] = chosen - start + time.perf_counter() - back
        costs[t] = cost
    return Run(costs, 1e6 * float(times[1:].mean()))  # the first loads what is compiled


def _cost(
    systems: Systems, table: np.ndarray, t: int, omega: float, norms: np.ndarray, *, numeric: bool
) -> float:
    if not numeric:
        return float(table[t, np.abs(ARMS - omega).argmin()])
    diagonal = sor_counts.DIAGONAL + systems.c[t]
    return float(sor_counts.count_sweeps(systems.b[t], diagonal, omega, sor_counts.TOLERANCE, CAP, norms))


def compare(kind: str, seeds: Sequence[int] = SEEDS, count: int = 5000) -> Iterator[str]:
    """Yield a line for each method on a kind of sequence."""
    fixed, young, oracle, gauss_seidel = [], [], [], []
    runs: dict[str, list[Run]] = {name: [] for name in LEARNERS}
    for seed in seeds:
        systems = sor_counts.draw_systems(kind, seed, count)
        table = sor_counts.count_table(systems)
        fixed.append(table[:, table.sum(axis=0).argmin()])
        young.append(sor_counts.count_each(systems, np.asarray(sor_counts.best_omega(systems.c))))
        oracle.append(table.min(axis=1))
        gauss_seidel.append(table[:, 0])
        for name, learner in LEARNERS.items():
            runs[name].append(run(learner, systems, table, seed))
    sweeps = np.mean([f.sum() for f in fixed])
    yield f"{kind}: {len(fixed)} sequences of {count} solves; the best fixed omega takes {sweeps:.0f} sweeps"
    yield f"{'':24}{'/ best fixed':>24}{'/ Young':>24}{f'/ Young, first {EARLY}':>26}{'us':>8}"
    yield _line("omega = 1", gauss_seidel, fixed, young)
    yield _line("best arm of each solve", oracle, fixed, young)
    yield _line("Young's omega*", young, fixed, young)
    for name, done in runs.items():
        microseconds = float(np.median([r.microseconds for r in done]))
        yield _line(name, [r.costs for r in done], fixed, young) + f"{microseconds:8.1f}"


def _line(name: str, costs: list[np.ndarray], fixed: list[np.ndarray], young: list[np.ndarray]) -> str:
    to_fixed = [c.sum() / f.sum() for c, f in zip(costs, fixed, strict=True)]
    to_young = [c.sum() / y.sum() for c, y in zip(costs, young, strict=True)]
    early = [c[:EARLY].sum() / y[:EARLY].sum() for c, y in zip(costs, young, strict=True)]
    return f"{name:24}{_range(to_fixed):>24}{_range(to_young):>24}{_range(early):>26}"


def _range(ratios: list[float]) -> str:
    return f"{np.mean(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})"


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=len(SEEDS), help="how many of each kind")
    parser.add_argument("--solves", type=int, default=5000, help="solves of a sequence")
    given = parser.parse_args()
    for kind in sor_counts.BETA:
        for line in compare(kind, list(SEEDS)[: given.sequences], given.solves):
            print(line, flush=True)


if __name__ == "__main__":
    main()
