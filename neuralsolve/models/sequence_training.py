"""Training of a model of sequences to tell classes apart: what a step is; `training_loop` does the rest.

A step: a batch, cross-entropy, AdamW with the two learning rates of state-space layers
(`state_space.parameter_groups`). At the end of every epoch the validation sequences are looked at, and the
weights that got most of them right are kept. Orders and masks of dropout are functions of the seed and the
step alone, so a run that goes on from a checkpoint is the run that was never cut off, bit for bit. Where
lengths differ, a batch is of sequences of about one length, so that little of it is padding.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.data.sequences import Sequences
from neuralsolve.errors import OptionError, check_known
from neuralsolve.models.optimizers import Optimizing
from neuralsolve.models.rates import SCHEDULES, rate
from neuralsolve.models.sequence_model import SequenceModel
from neuralsolve.models.state_space import parameter_groups
from neuralsolve.models.surrogate import load_tensors, tensors_of
from neuralsolve.models.training_loop import Row, adam_moments, restore_moments

SORTED = 20  # batches among which sequences are sorted by their lengths


@dataclass(frozen=True)
class SequenceTraining:
    """How to train a model of sequences.

    Parameters
    ----------
    epochs, batch : passes, and sequences a step
    learning_rate : the highest
    slow_rate : the highest of eigenvalues, B and step sizes, which have no weight decay
    weight_decay : of all other weights
    optimizer, rank, refresh, scale : see `neuralsolve.models.optimizers`
    schedule, rise, period (epochs), factor : as of `rates.rate`
    clip : norm to which a longer gradient is cut; None never
    seed : of weights, order and dropout

    Raises
    ------
    OptionError
    """

    epochs: int = 20
    batch: int = 50
    learning_rate: float = 8e-3
    slow_rate: float = 1e-3
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    rank: int | float | None = None
    refresh: int | None = None
    scale: float | None = None
    schedule: str = "onecycle"
    rise: float = 0.1
    period: int = 10
    factor: float = 0.5
    clip: float | None = 1.0
    seed: int = 1905

    @property
    def optimizing(self) -> Optimizing:
        """Which optimizer it is."""
        return Optimizing(self.optimizer, self.rank, self.refresh, self.scale, self.seed)

    def __post_init__(self) -> None:
        _ = self.optimizing  # its checks
        check_known("schedule =", self.schedule, SCHEDULES)
        fits = {
            "at least 1": {name: getattr(self, name) >= 1 for name in ("epochs", "batch", "period")},
            "more than 0": {
                name: (value := getattr(self, name)) is None or value > 0
                for name in ("learning_rate", "slow_rate", "clip", "factor")
            },
            "at least 0": {name: getattr(self, name) >= 0 for name in ("weight_decay", "seed")},
            "from 0 to less than 1": {"rise": 0 <= self.rise < 1},
        }
        for needed, known in fits.items():
            for name, good in known.items():
                if not good:
                    msg = f"{name} = {getattr(self, name)}; {needed} is needed"
                    raise OptionError(msg)


class SequenceTrainer:
    """A model on its way; drives no loop itself, see `neuralsolve.models.training_loop.Trains`.

    Parameters
    ----------
    model : (sequences, lengths) -> (batch, classes); its weights are changed
    data, validation : to train on, and to choose by
    options : SequenceTraining
    about : what else the run depends on, as JSON holds it
    """

    def __init__(
        self,
        model: SequenceModel | nn.Module,
        data: Sequences,
        validation: Sequences,
        options: SequenceTraining,
        about: dict[str, Any] | None = None,
    ):
        self.model, self.data, self.validation, self.schedule = model, data, validation, options
        marks = [[*each.values.shape, zlib.crc32(each.values.tobytes())] for each in (data, validation)]
        self.options = json.loads(json.dumps({"about": about or {}, "data": marks} | asdict(options)))
        groups = parameter_groups(model, options.learning_rate, options.weight_decay, options.slow_rate)
        self.adam = options.optimizing.made(model, groups)
        self.highest = [group["lr"] for group in self.adam.param_groups]
        self.step, self.seconds, self.best = 0, 0.0, -1.0
        self._drawn: tuple[int, np.ndarray] | None = None  # an epoch and its order
        self.best_tensors = {name: value.clone() for name, value in tensors_of(model).items()}

    @property
    def every(self) -> int:
        """Steps of an epoch; what is left of a batch waits for the next epoch's order."""
        return max(1, len(self.data) // self.schedule.batch)

    @property
    def steps(self) -> int:
        """Of the training."""
        return self.schedule.epochs * self.every

    def advance(self) -> Row:
        """Take one step; return the row of the log."""
        started, s = time.perf_counter(), self.schedule
        epoch, place = divmod(self.step, self.every)
        which = self._order(epoch)[place * s.batch : (place + 1) * s.batch]
        part = rate(s.schedule, self.step, self.steps, s.rise, s.period * self.every, s.factor)
        for group, highest in zip(self.adam.param_groups, self.highest, strict=True):
            group["lr"] = highest * part
        self.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(s.seed + 104_729 * (self.step + 1))  # of dropout
            found = self.model(*tensors_in(self.data.take(which)))
        loss = nn.functional.cross_entropy(found, torch.from_numpy(self.data.labels[which]))
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), s.clip or math.inf)
        if bool(torch.isfinite(norm)):
            self.adam.step()
        self.step += 1
        row = {
            "step": self.step,
            "seconds": 0.0,
            "learning_rate": s.learning_rate * part,
            "loss": float(loss.detach()),
            "gradient_norm": float(norm),
        }
        if self.step % self.every == 0:
            row["validation"] = self._validate()
        self.seconds += time.perf_counter() - started
        return row | {"seconds": round(self.seconds, 2)}

    def _order(self, epoch: int) -> np.ndarray:
        """Return which sequences an epoch sees, batch after batch."""
        if self._drawn is None or self._drawn[0] != epoch:
            seed = self.schedule.seed + 7919 * (epoch + 1)
            order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(seed)).numpy()
            lengths, batch = self.data.lengths, self.schedule.batch
            self._drawn = epoch, order if lengths is None else by_length(order, lengths, batch, seed)
        return self._drawn[1]

    def _validate(self) -> float:
        """Return the part of the validation that is told wrong, and keep what did best."""
        right = accuracy(self.model, self.validation)
        if right > self.best:
            self.best = right
            self.best_tensors = {name: value.clone() for name, value in tensors_of(self.model).items()}
        return 1 - right

    def use_best(self) -> nn.Module:
        """Return the model with the weights that did best on the validation."""
        load_tensors(self.model, self.best_tensors)
        return self.model.eval()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next step depends on: tensors, and numbers as JSON holds them."""
        tensors = {f"net.{name}": value for name, value in tensors_of(self.model).items()}
        tensors |= adam_moments(self.model, self.adam)
        tensors |= {f"best.{name}": value for name, value in self.best_tensors.items()}
        return tensors, {"step": self.step, "seconds": self.seconds, "best": self.best}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take the place of the trainer whose `state` this is."""
        load_tensors(self.model, {k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        restore_moments(self.model, self.adam, tensors)
        self.best_tensors = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        self.step, self.seconds, self.best = int(facts["step"]), float(facts["seconds"]), float(facts["best"])


def by_length(order: np.ndarray, lengths: np.ndarray, batch: int, seed: int) -> np.ndarray:
    """Return an order in which batches are of about one length, and batches come in no order of lengths.

    Sorted are the parts of the order that hold `SORTED` batches each: batches of an epoch and of the next are
    not of the same sequences. What fills no batch comes last.

    >>> lengths = np.array([9, 1, 8, 2, 7, 3])
    >>> sorted(lengths[by_length(np.arange(6), lengths, 3, seed=1)][:3].tolist()) in ([1, 2, 3], [7, 8, 9])
    True
    """
    whole = len(order) // batch * batch
    parts = [
        part[np.argsort(lengths[part], kind="stable")]
        for part in np.split(order[:whole], range(SORTED * batch, whole, SORTED * batch))
    ]
    batches = np.concatenate(parts).reshape(-1, batch)
    return np.concatenate([np.random.default_rng(seed).permutation(batches).ravel(), order[whole:]])


def tensors_in(data: Sequences) -> tuple[Tensor, Tensor | None]:
    """Return sequences and their lengths as a model takes them."""
    lengths = None if data.lengths is None else torch.from_numpy(data.lengths)
    return torch.from_numpy(np.ascontiguousarray(data.values)), lengths


@torch.no_grad()
def accuracy(model: nn.Module, data: Sequences, batch: int = 200) -> float:
    """Return the part of the sequences whose class a model tells, in evaluation mode."""
    training = model.training
    model.eval()
    try:
        right = 0
        order = np.arange(len(data)) if data.lengths is None else np.argsort(data.lengths)
        for start in range(0, len(data), batch):
            part = data.take(order[start : start + batch])
            right += int((model(*tensors_in(part)).argmax(1).numpy() == part.labels).sum())
    finally:
        model.train(training)
    return right / len(data)
