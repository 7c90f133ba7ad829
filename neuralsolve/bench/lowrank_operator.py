"""A small operator problem to try low-rank methods on: a rod, its conductivity and load to its temperature.

    -(a u')' = f on (0, 1),   u(0) = u(1) = 0

Family A has smooth log-normal a, family B an a of two values with jumps at random places; f is smooth and
random in both. Solved by finite volumes on `FINE` times as many cells, all samples at once. The network is a
Fourier neural operator of four layers; a training on it takes a few seconds on one thread of a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.errors import check_known
from neuralsolve.models.fourier_layer import FourierLayer

NODES, FINE = 48, 4
WIDTH, MODES, LAYERS = 32, 12, 4
FAMILIES = ("A", "B")
Field = Callable[[np.ndarray], np.ndarray]
CLIP = 5.0  # norm of a gradient: none of a healthy training is cut


@dataclass(frozen=True)
class Pairs:
    """Samples: inputs (count, 2, nodes), log a and f; outputs (count, 1, nodes), u of mean square about 1."""

    inputs: Tensor
    outputs: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, which: Tensor | slice) -> Pairs:
        """Return some of them."""
        return Pairs(self.inputs[which], self.outputs[which])


def tridiagonal_solve(
    lower: np.ndarray, diagonal: np.ndarray, upper: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Return x of many tridiagonal systems (count, n), by elimination without pivoting.

    For diagonally dominant ones. Row i is ``lower[i] x[i-1] + diagonal[i] x[i] + upper[i] x[i+1] = b[i]``.

    >>> one, two = np.ones((1, 3)), np.full((1, 3), 2.0)
    >>> tridiagonal_solve(-one, two, -one, one)
    array([[1.5, 2. , 1.5]])
    """
    n = b.shape[1]
    ratio, x = np.empty_like(b), np.empty_like(b)
    ratio[:, 0], x[:, 0] = upper[:, 0] / diagonal[:, 0], b[:, 0] / diagonal[:, 0]
    for i in range(1, n):
        pivot = diagonal[:, i] - lower[:, i] * ratio[:, i - 1]
        ratio[:, i] = upper[:, i] / pivot
        x[:, i] = (b[:, i] - lower[:, i] * x[:, i - 1]) / pivot
    for i in range(n - 2, -1, -1):
        x[:, i] -= ratio[:, i] * x[:, i + 1]
    return x


def family(name: str, count: int, seed: int, nodes: int = NODES) -> Pairs:
    """Make samples.

    Parameters
    ----------
    name : "A", smooth conductivities, or "B", of two values
    count, seed : of the samples; another seed, other samples
    nodes : of the grid, at the middles of equal cells

    Raises
    ------
    OptionError

    Examples
    --------
    >>> family("B", 3, seed=7).outputs.shape
    torch.Size([3, 1, 48])
    """
    check_known("family", name, FAMILIES)
    random = np.random.default_rng([seed, FAMILIES.index(name)])
    h = 1 / (nodes * FINE)
    faces, middles = np.arange(nodes * FINE + 1) * h, (np.arange(nodes * FINE) + 0.5) * h
    log_a = _smooth(random, count, 3.0, 0.7) if name == "A" else _steps(random, count)
    f = 1 + _smooth(random, count, 2.0, 1.0)(middles)
    a = np.exp(log_a(faces))
    diagonal = (a[:, :-1] + a[:, 1:]) / h**2
    diagonal[:, 0] += a[:, 0] / h**2  # the wall is half a cell away
    diagonal[:, -1] += a[:, -1] / h**2
    u = tridiagonal_solve(-a[:, :-1] / h**2, diagonal, -a[:, 1:] / h**2, f)
    seen = middles.reshape(nodes, FINE).mean(1)
    means = [field.reshape(count, nodes, FINE).mean(2) for field in (f, u)]
    inputs = np.stack([log_a(seen), means[0]], 1)
    return Pairs(torch.from_numpy(inputs).float(), torch.from_numpy(10 * means[1][:, None]).float())


def _smooth(random: np.random.Generator, count: int, decay: float, size: float) -> Field:
    """Return random functions of x: eight cosines, their coefficients falling from k = `decay` on."""
    k = np.arange(1, 9)
    weights = size * random.standard_normal((count, 8)) / (1 + (k / decay) ** 2)
    return lambda x: weights @ np.cos(math.pi * k[:, None] * x)


def _steps(random: np.random.Generator, count: int) -> Field:
    """Return random functions of x that jump between two values at four random places."""
    places, values = np.sort(random.random((count, 4)), 1), 0.9 * random.choice([-1.0, 1.0], (count, 1))
    return lambda x: values * (1 - 2 * ((x[None, None] > places[..., None]).sum(1) % 2))


class Operator(nn.Module):
    """Fields (batch, 2, nodes) to (batch, 1, nodes) by Fourier layers; the place is a third input."""

    def __init__(self, width: int = WIDTH, modes: int = MODES, layers: int = LAYERS):
        super().__init__()
        self.lift = nn.Linear(3, width)
        self.layers = nn.Sequential(*(FourierLayer(1, width, modes) for _ in range(layers)))
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        place = torch.linspace(-1, 1, x.shape[-1]).expand(len(x), 1, -1)
        return self.head(self.layers(self.lift(torch.cat([x, place], 1).mT))).mT


def network(seed: int) -> Operator:
    """Return the network with weights drawn from a seed; the global generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Operator()


def loss(model: nn.Module, data: Pairs) -> Tensor:
    """Return the mean relative L2 error, differentiable."""
    error = (model(data.inputs) - data.outputs).flatten(1).norm(dim=1)
    return (error / data.outputs.flatten(1).norm(dim=1)).mean()


@torch.no_grad()
def relative_error(model: nn.Module, data: Pairs) -> float:
    """Return the mean relative L2 error in evaluation mode; NaN of a network that diverged."""
    training = model.training
    model.eval()
    try:
        return float(loss(model, data))
    finally:
        model.train(training)


def fit(
    model: nn.Module,
    data: Pairs,
    optimizer_factory: Callable[[nn.Module], torch.optim.Optimizer],
    steps: int = 400,
    batch: int = 25,
    seed: int = 1905,
    after_step: Callable[[], object] | None = None,
) -> float:
    """Train in place with rates that fall as a cosine after a short rise; return the seconds of the CPU.

    Parameters
    ----------
    optimizer_factory : makes the optimizer of the model; its rates are the highest
    steps, batch, seed : how many, samples each, and of their order
    after_step : called after every step
    """
    optimizer = optimizer_factory(model)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    model.train()
    began = time.process_time()
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(data), generator=generator)
        which, order = order[:batch], order[batch:]
        optimizer.zero_grad(set_to_none=True)
        loss(model, data.take(which)).backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], CLIP)
        optimizer.step()
        rates.step()
        if after_step is not None:
            after_step()
    return time.process_time() - began


def _rate(step: int, steps: int) -> float:
    rise = max(1, steps // 20)
    return min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * step / steps)))
