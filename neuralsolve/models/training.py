"""Training of networks that propose directions: Adam with a cosine schedule, on-policy residuals.

A step: the pool's errors e give residuals r = A e, the network proposes f = net(r / ||r||), f is made
A-orthogonal to the last directions as in the solver, the loss is what a step along it leaves, Adam follows
its gradient, and the pool takes that step. From `on_policy_from` on, a share of the pool keeps its errors for
up to `oldest` steps, so the network sees the residuals that it leaves itself (as in FCG-NO, Rudikov et al.
2024).

A run is a function of its options alone, and `training_loop.train` drives it: the random state, the pool and
Adam's moments are in its checkpoints, so one that was cut off goes on bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError
from neuralsolve.models.direction import memory_format
from neuralsolve.models.fields import Pool, System
from neuralsolve.models.losses import LOSSES
from neuralsolve.models.training_loop import Row, learned_state, restore_learned

WARM_UP = 100  # steps in which the learning rate grows to its full size


@dataclass(frozen=True)
class Schedule:
    """How to train; the data and the network come beside it.

    Parameters
    ----------
    steps : Adam steps
    batch : fields a step
    learning_rate : at its highest; falls along a cosine
    horizon : step at which that cosine would be zero; None: the last
    cool_down : part of the steps, the last, over which the rate falls to zero in a line as well
    loss : "energy", "residual" (of the DCDM paper) or "scaled" (of the NPSDO paper)
    clip : norm to which a longer gradient is cut
    on_policy_from : part of the steps after which the pool keeps errors
    on_policy : share of the pool that does
    oldest : steps of the solver after which an error is replaced
    mixed_until : part of the steps whose convolutions run in bfloat16, the rest in float32
    seed : of the weights and of the data
    """

    steps: int = 8000
    batch: int = 16
    learning_rate: float = 1e-3
    horizon: int | None = None
    cool_down: float = 0.0
    loss: str = "energy"
    clip: float = 1.0
    on_policy_from: float = 1 / 3
    on_policy: float = 0.5
    oldest: int = 15
    mixed_until: float = 0.0
    seed: int = 1905

    def __post_init__(self) -> None:
        whole = self.steps >= 1 and self.batch >= 1 and self.oldest >= 0 and self.seed >= 0
        whole = whole and (self.horizon is None or self.horizon >= self.steps)
        parts = (self.on_policy_from, self.on_policy, self.mixed_until, self.cool_down)
        parts = all(0 <= part <= 1 for part in parts)
        if not (whole and parts and self.learning_rate > 0 and self.clip > 0 and self.loss in LOSSES):
            msg = (
                f"got {self}; steps, batch >= 1, oldest, seed >= 0, parts in [0, 1], horizon >= steps, "
                f"positive rates and clip, and a loss among {', '.join(LOSSES)} are needed"
            )
            raise OptionError(msg)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, 0-based."""
        rise = min(1.0, (step + 1) / WARM_UP)
        fall = min(1.0, (self.steps - step) / max(1.0, self.cool_down * self.steps))
        cosine = 0.5 * (1 + math.cos(math.pi * step / (self.horizon or self.steps)))
        return self.learning_rate * rise * cosine * fall


class Trainer:
    """A network on its way: weights, Adam's moments, the pool, the random state.

    Parameters
    ----------
    net : module (r, cells) -> direction, fields of ``(batch, 1, *shape)``; its weights are changed
    systems : the grids to train on, one system a shape: steps take them in turn, and every field of a
        system's pool belongs to one of its grids
    fresh : (system, count, generator) -> errors y
    about : what else the run depends on, as JSON holds it: a checkpoint of another kind is refused
    """

    def __init__(
        self,
        net: nn.Module,
        systems: Sequence[System],
        fresh: Callable[[System, int, torch.Generator], Tensor],
        schedule: Schedule,
        about: dict[str, Any] | None = None,
    ):
        self.net, self.systems, self.fresh, self.schedule = net, systems, fresh, schedule
        self.options = json.loads(json.dumps((about or {}) | dataclasses.asdict(schedule)))
        self.generator = torch.Generator().manual_seed(schedule.seed)
        net.to(memory_format=memory_format(systems[0].dim))  # type: ignore[call-overload]
        self.adam = torch.optim.Adam(net.parameters(), lr=schedule.learning_rate)
        self.pools = [Pool(schedule.batch, system.shape) for system in systems]
        self.step, self.seconds = 0, 0.0

    @property
    def steps(self) -> int:
        """Of the schedule."""
        return self.schedule.steps

    @property
    def every(self) -> int:
        """Steps of one row of the log."""
        return max(1, self.steps // 100)

    def advance(self) -> Row:
        """Take one step of training; return the row of the log."""
        started, s = time.perf_counter(), self.schedule
        grids, pool = self._refilled()
        system, e = grids.take(pool.grid), pool.error
        b = system.matvec(e)
        size = torch.linalg.vector_norm(b.flatten(1), dim=1).reshape(-1, *[1] * (b.ndim - 1))
        r = (b / size).to(memory_format=memory_format(system.dim))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.step < s.mixed_until * s.steps):
            f = self.net(r, system.cells)
        f = torch.where(system.fluid, f.float(), 0.0)
        d = f if s.loss == "scaled" else pool.conjugate(f)
        losses = LOSSES[s.loss](d, system.matvec(d), b / size, e / size)
        for group in self.adam.param_groups:
            group["lr"] = s.rate(self.step)
        self.adam.zero_grad(set_to_none=True)
        losses.mean().backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), s.clip)
        if bool(torch.isfinite(norm)):
            self.adam.step()
        losses, young = losses.detach(), pool.age == 0
        with torch.no_grad():
            pool.advance(system, pool.conjugate(f.detach()))
        self.step += 1
        self.seconds += time.perf_counter() - started
        return {
            "step": self.step,
            "seconds": round(self.seconds, 2),
            "learning_rate": s.rate(self.step - 1),
            "loss": float(losses.mean()),
            "fresh": float(losses[young].mean()),
            "on_policy": float(losses[~young].mean()),
            "gradient_norm": float(norm),
        }

    def _refilled(self) -> tuple[System, Pool]:
        """Return the grids and the pool of this step, its errors renewed where too old, or not wanted."""
        s, turn = self.schedule, self.step % len(self.systems)
        system, pool = self.systems[turn], self.pools[turn]
        oldest = torch.zeros(s.batch, dtype=torch.int64)
        if self.step >= s.on_policy_from * s.steps:
            kept = round(s.on_policy * s.batch)
            # at first limits differ from field to field, so that ages stay spread over 0 .. oldest
            spread = self.step < int(s.on_policy_from * s.steps) + 2 * s.oldest
            oldest[:kept] = torch.arange(kept) * s.oldest // max(1, kept - 1) if spread else s.oldest
        old = pool.old(oldest)
        if bool(old.any()):
            count = int(old.sum())
            pool.grid[old] = torch.randint(len(system), (count,), generator=self.generator)
            pool.put(old, self.fresh(system.take(pool.grid[old]), count, self.generator))
        return system, pool

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next step depends on: tensors, and numbers as JSON holds them."""
        tensors = learned_state(self.net, self.adam)
        for k, pool in enumerate(self.pools):
            tensors |= {f"pool.{k}.{name}": value for name, value in vars(pool).items()}
        tensors["generator"] = self.generator.get_state()
        return tensors, {"step": self.step, "seconds": self.seconds}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take the place of the trainer whose `state` this is."""
        restore_learned(self.net, self.adam, tensors)
        for k, pool in enumerate(self.pools):
            for name in vars(pool):
                setattr(pool, name, tensors[f"pool.{k}.{name}"].clone())
        self.generator.set_state(tensors["generator"])
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
