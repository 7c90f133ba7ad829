"""Training of the learned multigrid cycle: errors of unrolled conjugate gradients.

With y known, b = A y and x_K after K steps of CG from zero, the loss is the mean over scenes of

    log10(||y - x_K||_A ||b - A x_K|| / (||y||_A ||b||)) / (2 K),

minus the digits that a step gains, in the energy norm of the error, which CG makes small, and in the
residual, on which a solve stops. Two thirds of the y are A^-1 of white noise, the others white noise. What
must contract on (0, 2] is held there by a penalty on |q| above `ALLOWED`. All is initialised to be the
V-cycle with Chebyshev steps of `Multigrid(cycle="V")`: factors are one, gains are one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.kernels.reference.learned import INPUTS
from neuralsolve.models.cycle import (
    F64,
    TorchCycle,
    TorchLevel,
    adapted,
    cg_errors,
    levels_of,
    seen_by,
    volumes,
)
from neuralsolve.models.training_loop import Row, learned_state, restore_learned
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.multigrid import Multigrid

BANDS = {
    1: 3.0,
    2: 6.0,
    3: 10.0,
    4: 14.0,
    5: 18.0,
    6: 24.0,
    8: 34.0,
}  # of the Chebyshev steps that training begins from
ALLOWED, BEYOND = 0.85, 2.03  # of |q|, up to this eigenvalue of D^-1 A
PENALTY = 2.0
SOLVED = 1e-8  # relative residual of the y that are smooth: b is A y whatever they are
VALIDATED = 50  # steps of training from one look at the validation to the next
COARSEST = 12  # cells: small grids then have as many levels as larger ones in use


@dataclass(frozen=True)
class CycleTraining:
    """Options of `CycleTrainer`.

    Attributes
    ----------
    steps : of smoothing on the levels, the finest first; the last one serves all below
    width : of the networks; 0 for none: steps and gains alone are learned, as where coefficients vary
    iterations : steps of Adam
    unrolled : steps of CG in the loss
    rate, net_rate : learning rates of the scalars and of the networks, which fall along a cosine
    scenes : of one batch
    seed : of right sides, first weights and the order of batches
    """

    steps: tuple[int, ...] = (3, 3, 3)
    width: int = 8
    iterations: int = 400
    unrolled: int = 5
    rate: float = 0.02
    net_rate: float = 0.01
    scenes: int = 6
    seed: int = 7309


@dataclass
class Batch:
    """Scenes of one shape with their right sides, and what the networks see."""

    levels: list[TorchLevel]
    y: Tensor
    seen: list


class CycleModel(nn.Module):
    """The numbers that are learned: logarithms of roots and gains, and the networks of coarse levels."""

    def __init__(self, options: CycleTraining, generator: torch.Generator):
        super().__init__()
        h, depths = options.width, len(options.steps)
        nets = depths if h else 0
        self.roots = nn.ParameterList(
            [torch.tensor(chebyshev_roots(n), dtype=F64).log() for n in options.steps]
        )
        self.gains = nn.Parameter(torch.zeros(depths, dtype=F64))
        self.faces = nn.Parameter(_first_net(nets, max(h, 1), 1, generator))
        self.cells = nn.Parameter(_first_net(nets, max(h, 1), 2, generator))

    def cycle(self, batch: Batch) -> TorchCycle:
        """Return M of a batch."""
        levels = list(batch.levels)
        for k in range(1, len(levels) if len(self.faces) else 1):
            at = min(k, len(self.faces)) - 1
            levels[k] = adapted(levels[k], batch.seen[k], self.faces[at], self.cells[at])
        depths, last = range(len(levels)), len(self.gains) - 1
        roots = [self.roots[min(k, last)].exp() for k in depths]
        return TorchCycle(levels, roots, [self.gains[min(k, last)].exp() for k in depths])

    def loss(self, batch: Batch, unrolled: int) -> Tensor:
        """Return the digits per step that are left, negative: the lower the better."""
        errors = torch.stack(cg_errors(batch.levels[0], self.cycle(batch), batch.y, unrolled))
        return torch.log10(errors.clamp(min=1e-30)).mean() / (2 * unrolled)

    def excess(self) -> Tensor:
        """Return by how much the error polynomials exceed what is allowed on the spectrum."""
        t = torch.linspace(0.2, BEYOND, 120, dtype=F64)
        total = torch.zeros((), dtype=F64)
        for logs in self.roots:
            w = logs.exp()
            q = torch.prod(1 - t[:, None] * w, 1).abs()
            total = total + torch.relu(torch.where(t * w.max() > 1, q, 0.0) - ALLOWED).max()
        return total

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """Return what `neuralsolve.preconditioners.learned` reads, under the name of a kind of grid."""
        named = {f"{kind}.roots.{k}": logs.detach().exp().sort().values for k, logs in enumerate(self.roots)}
        named[f"{kind}.gains"] = self.gains.detach().exp()
        named |= {f"{kind}.faces": self.faces.detach().float(), f"{kind}.cells": self.cells.detach().float()}
        return {name: each.contiguous() for name, each in named.items()}


def chebyshev_roots(count: int) -> list[float]:
    """Return the steps' weights of the Chebyshev polynomial on [2/band, 2]."""
    low, high = 2 / BANDS[count], 2.0
    middle, half = (high + low) / 2, (high - low) / 2
    return [1 / (middle + half * math.cos(math.pi * (k + 0.5) / count)) for k in range(count)]


def _first_net(depths: int, h: int, outputs: int, generator: torch.Generator) -> Tensor:
    """Return networks whose outputs are zero."""

    def normal(rows: int, size: float) -> Tensor:
        return size * torch.randn((rows, h), dtype=F64, generator=generator)

    zeros = torch.zeros
    parts = normal(INPUTS, 0.4), normal(1, 0.1), normal(h, h**-0.5), zeros((1, h)), zeros((outputs, h))
    return torch.cat(parts).to(F64).repeat(depths, 1, 1)


def batch_of(operators: Sequence[PoissonStencil], generator: np.random.Generator) -> Batch:
    """Return scenes of one shape, with right sides of known solutions."""
    from scipy.sparse.linalg import cg

    levels, solutions = levels_of(operators, COARSEST), []
    for k, A in enumerate(operators):
        n = A.shape[0]
        y = generator.standard_normal(n)
        if A.active is not None:
            y = np.where(A.active.numpy(), y, 0.0)
        if k % 3 != 2:
            M = Multigrid().build(A).aslinearoperator(n)
            y, _ = cg(A.to_scipy(), y, rtol=SOLVED, M=M)
        solutions.append(y / np.abs(y).max())
    constant = operators[0].code is not None
    seen = [seen_by(*pair) for pair in zip(levels, volumes(levels), strict=True)] if constant else []
    return Batch(levels, torch.from_numpy(np.array(solutions)), seen)


class CycleTrainer:
    """A model of one kind of grid on its way: weights, Adam's moments, the order of batches.

    Parameters
    ----------
    scene : the operator of a shape and a seed: no periodic side, not singular
    shapes : of the scenes, one a batch, in turn
    seeds, validation : of the scenes
    about : all that the run depends on, as JSON holds it: a checkpoint of another kind is refused
    """

    def __init__(
        self,
        scene: Callable[[tuple[int, ...], int], PoissonStencil],
        shapes: Sequence[tuple[int, ...]],
        seeds: Sequence[int],
        validation: Sequence[int],
        options: CycleTraining,
        about: dict[str, Any] | None = None,
    ):
        start, self.rng = time.perf_counter(), np.random.default_rng(options.seed)
        self.training = options
        self.options = about or json.loads(json.dumps(asdict(options)))
        self.batches, self.held = (
            _batches(scene, shapes, some, options.scenes, self.rng) for some in (seeds, validation)
        )
        self.model = CycleModel(options, torch.Generator().manual_seed(options.seed))
        scalars = [*self.model.roots.parameters(), self.model.gains]
        networks = [self.model.faces, self.model.cells]
        self.adam = torch.optim.Adam([{"params": scalars}, {"params": networks}])
        self.before = self.validate()
        self.step, self.seconds = 0, time.perf_counter() - start

    @property
    def steps(self) -> int:
        """Of Adam."""
        return self.training.iterations

    def validate(self) -> float:
        """Return the loss on the scenes of the validation."""
        unrolled = self.training.unrolled
        with torch.no_grad():
            return float(np.mean([float(self.model.loss(each, unrolled)) for each in self.held]))

    @property
    def every(self) -> int:
        """Steps of one row of the log."""
        return max(1, self.steps // 100)

    def advance(self) -> Row:
        """Take one step of Adam; return the row of the log, now and then with the loss of the validation."""
        start, o, part = time.perf_counter(), self.training, _rate(self.step, self.steps)
        for group, rate in zip(self.adam.param_groups, (o.rate, o.net_rate), strict=True):
            group["lr"] = rate * part
        batch = self.batches[int(self.rng.integers(len(self.batches)))]
        self.adam.zero_grad()
        loss = self.model.loss(batch, o.unrolled)
        (loss + PENALTY * self.model.excess()).backward()
        nn.utils.clip_grad_norm_(list(self.model.parameters()), 0.5)
        self.adam.step()
        self.step += 1
        looked = self.step % VALIDATED == 0 or self.step == self.steps
        row = {"loss": float(loss.detach()), "validation": self.validate() if looked else math.nan}
        self.seconds += time.perf_counter() - start
        rate = round(o.rate * part, 6)
        return {"step": self.step, "seconds": round(self.seconds, 2), "learning_rate": rate} | row

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next step depends on: tensors, and numbers as JSON holds them."""
        order = self.rng.bit_generator.state
        return learned_state(self.model, self.adam), {
            "step": self.step,
            "seconds": self.seconds,
            "order": order,
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take the place of the trainer whose `state` this is."""
        restore_learned(self.model, self.adam, tensors)
        self.rng.bit_generator.state = facts["order"]
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])


def _batches(
    scene: Callable[[tuple[int, ...], int], PoissonStencil],
    shapes: Sequence[tuple[int, ...]],
    seeds: Sequence[int],
    count: int,
    rng: np.random.Generator,
) -> list[Batch]:
    parts = [seeds[k : k + count] for k in range(0, len(seeds), count)]
    return [batch_of([scene(shapes[k % len(shapes)], s) for s in part], rng) for k, part in enumerate(parts)]


def _rate(k: int, iterations: int) -> float:
    """Return the learning rate at a step, in parts of the largest: up in ten steps, then along a cosine."""
    return min(1.0, (k + 1) / 10) * (0.5 * (1 + math.cos(math.pi * min(k / iterations, 1))) + 0.01)
