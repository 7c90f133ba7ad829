"""The suite of state-space layers: shipped starts, speed, learning, resonances, roll-outs with memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuralsolve.bench.bars import BarRow, Bars, Settings, row
from neuralsolve.bench.ssm_learning import delay, learning, lists
from neuralsolve.bench.ssm_memory import memory
from neuralsolve.bench.ssm_parity import parity
from neuralsolve.bench.ssm_robustness import robustness
from neuralsolve.bench.ssm_speed import ssm_speed
from neuralsolve.ssm.hippo import legs, normal_eigenvectors, normal_frequencies, resolvent_norm
from neuralsolve.ssm.ptd_legs import ptd_legs
from neuralsolve.ssm.resonances import legs_error, worst_gain

CONDITIONS = {16: Bars(8.0, 6.0), 32: Bars(9.0, 8.5), 64: Bars(10.0, 10.0), 128: Bars(12.0, 12.0)}
ERRORS = {16: Bars(0.06, 0.03), 32: Bars(0.08, 0.02), 64: Bars(0.25, 0.05), 128: Bars(0.4, 0.1)}
STABLE = Bars(0.4, at_least=True)
GAIN = Bars(0.04)


def starts(settings: Settings) -> Iterator[BarRow]:
    """Measure the matrices that ship: conditions, errors over all frequencies, real parts, gains."""
    for n in (16,) if settings.quick else CONDITIONS:
        near, problem = ptd_legs(n), f"PTD of HiPPO-LegS, n = {n}"
        at, error = legs_error(near.eigenvalues, near.V, near.B)
        conditions = [float(np.linalg.cond(near.V))]
        yield row("starts", problem, "condition of the eigenvectors", "", CONDITIONS[n], conditions)
        words = "largest error of the transfer function, C of length one"
        yield row("starts", problem, words, "", ERRORS[n], [error], note=f"at t = {at:.4g}")
        yield row("starts", problem, "least decay, -Re of an eigenvalue", "", STABLE, [-near.abscissa])
        gain = worst_gain(near.eigenvalues, near.B, near.V, length=n)[1]
        bar = GAIN if n == 32 else None
        yield row("starts", problem, "largest gain over the length of B", "", bar, [gain])
        eigenvalues, V = normal_eigenvectors(n)
        at, error = legs_error(eigenvalues, V, V.conj().T @ legs(n)[1] / 2)
        yield row("starts", f"S4D-LegS, n = {n}", words, "", None, [error], note=f"at t = {at:.4g}")


def gains(n: int = 32) -> tuple[np.ndarray, dict[str, np.ndarray], list[tuple[float, float]]]:
    """Return frequencies, ||(it - A)^-1 B|| of HiPPO, S4D and PTD, and the spikes of S4D, for a figure."""
    frequencies = np.union1d(np.geomspace(1, 10 * n**2, 4000), _around(normal_frequencies(n)))
    systems = {"HiPPO": resolvent_norm(n, frequencies)}
    eigenvalues, V = normal_eigenvectors(n)
    half = V.conj().T @ legs(n)[1] / 2
    near = ptd_legs(n)
    for name, (poles, vectors, B) in {
        "S4D": (eigenvalues, V, half),
        "PTD": (near.eigenvalues, near.V, near.B),
    }.items():
        states = B[:, None] / (1j * frequencies - poles[:, None])
        systems[name] = np.linalg.norm(vectors @ states, axis=0)
    marked = normal_frequencies(n)
    heights = np.interp(marked, frequencies, systems["S4D"])
    return frequencies, systems, list(zip(marked, heights, strict=True))


def _around(places: np.ndarray) -> np.ndarray:
    """Return frequencies near resonances, which are one wide."""
    return (places[:, None] + np.linspace(-5, 5, 41)).clip(1).ravel()


GROUPS = {
    "starts": starts,
    "speed": ssm_speed,
    "delay": delay,
    "learning": learning,
    "parity": parity,
    "lists": lists,
    "robustness": robustness,
    "memory": memory,
}
