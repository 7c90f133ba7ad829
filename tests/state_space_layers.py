"""State-space layers, and the dense simulation that they are held against."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from neuralsolve.models.s4 import S4
from neuralsolve.models.s4d import S4D
from neuralsolve.models.s5 import S5
from neuralsolve.models.state_space import StateSpaceLayer, joined

LAYERS = {"s4d": S4D, "s5": S5, "s4": S4}
ALL = pytest.mark.parametrize("name", list(LAYERS))
DIAGONAL = pytest.mark.parametrize("name", ["s4d", "s5"])
METHODS = pytest.mark.parametrize("method", ["zoh", "bilinear"])


def made(name: str, channels: int = 3, state: int = 8, seed: int = 5, **more) -> StateSpaceLayer:
    if name != "s4":
        more = {"init": "legs", **more}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LAYERS[name](channels, state=state, **more)


def sequence(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def real_system(s: Tensor, B: Tensor, C: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x' = s x + B u, y = Re(C x) of complex numbers as a real system of twice the size."""
    re, im = torch.diag(s.real), torch.diag(s.imag)
    A = torch.cat([torch.cat([re, -im], 1), torch.cat([im, re], 1)])
    return A.numpy(), torch.cat([B.real, B.imag]).numpy(), torch.cat([C.real, -C.imag], -1).numpy()


def held(A: np.ndarray, B: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The step of length 1 of x' = A x + B u, by the matrix exponential or the bilinear transform."""
    n, one = len(A), np.eye(len(A))
    if method == "bilinear":
        return np.linalg.solve(one - A / 2, one + A / 2), np.linalg.solve(one - A / 2, B)
    whole = expm(np.block([[A, B], [np.zeros((B.shape[1], n + B.shape[1]))]]))
    return whole[:n, :n], whole[:n, n:]


def simulated(layer: StateSpaceLayer, u: Tensor, method: str) -> Tensor:
    """One sequence (L, H) through the layer, by dense matrices in float64."""
    step = torch.exp(layer.log_step.detach())
    s, B, C = (
        layer.eigenvalues.detach(),
        joined(layer.B.detach()),
        joined(layer.C.detach())[0] * layer.weights,
    )
    if isinstance(layer, S5):
        systems = [(step * s, step[:, None] * B, C)]
    else:
        systems = [(step[h] * s[h], step[h] * B[h, :, None], C[h : h + 1]) for h in range(layer.channels)]
    found = []
    for h, system in enumerate(systems):
        A, inputs, outputs = real_system(*system)
        A, inputs = held(A, inputs, method)
        given = u.numpy() if isinstance(layer, S5) else u.numpy()[:, h : h + 1]
        x, y = np.zeros(len(A)), []
        for row in given:
            x = A @ x + inputs @ row
            y.append(outputs @ x)
        found.append(np.stack(y))
    return torch.from_numpy(np.concatenate(found, 1)) + layer.D.detach() * u


def by_steps(layer: StateSpaceLayer, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    state, found = layer.initial_state(len(u)) if state is None else state, []
    for k in range(u.shape[1]):
        y, state = layer.step(u[:, k], state)
        found.append(y)
    return torch.stack(found, 1), state


def apart(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach().to(expected.dtype), expected.detach()
    return float((got - expected).norm() / expected.norm())
