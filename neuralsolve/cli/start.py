"""Where the command line begins: Python may have to be started anew, so that threads behave."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from neuralsolve.cli.app import app

THREADS = 2
QUIET = (
    "simulate",
    "train",
    "tune",
    "minimize",
    "data",
    "evaluate",
    "predict",
    "compare",
    "compress",
)  # with threads that sleep


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the entry point of the package."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["bench"]:
        _with_two_threads(arguments)
    if arguments[:1] and arguments[0] in QUIET:
        _with_quiet_threads(arguments)
    app(arguments)


def _with_two_threads(arguments: list[str]) -> None:
    """Start Python anew where the environment does not hold every library to the same number of threads.

    OpenBLAS and OpenMP read it once, when they are loaded, which is before this line. Threads that wait
    sleep, unless the caller has said otherwise.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = os.environ.get("NEURALSOLVE_BENCH_THREADS", str(min(THREADS, os.cpu_count() or 1)))
    if all(os.environ.get(name) == threads for name in names):
        return
    policy = os.environ.get("OMP_WAIT_POLICY", "passive")
    _start_anew(arguments, dict.fromkeys(names, threads) | {"OMP_WAIT_POLICY": policy})


def _with_quiet_threads(arguments: list[str]) -> None:
    """Start Python anew so that waiting threads sleep: spinning, they slow a busy machine down tenfold.

    The short vectors of a baseline's CG gain nothing from a second thread of OpenBLAS either. What the caller
    has set stays.
    """
    quiet = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
    missing = {name: value for name, value in quiet.items() if name not in os.environ}
    if missing:
        _start_anew(arguments, missing)


def _start_anew(arguments: list[str], variables: dict[str, str]) -> None:
    os.environ.update(variables)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "neuralsolve", *arguments])
