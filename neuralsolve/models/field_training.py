"""Training of networks on pairs of fields: what a step is; `training_loop.train` does the rest.

A step: a batch of samples, moved by a symmetry of the equation where one is named; the loss of what the model
makes of it, in physical units; Adam. At the end of every epoch the validation samples are looked at, and the
weights that did best on them are kept; where the weights are averaged (EMA), it is the average that is looked
at.

Everything drawn at random is a function of the seed and the step alone, so a run that goes on from a
checkpoint is the run that was never cut off, bit for bit. Under `torchrun` every process takes its part of a
batch of `batch` samples each: two processes are one with twice the batch, but for batch normalisation, whose
means are those of a process.
"""

from __future__ import annotations

import copy
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models import symmetry
from neuralsolve.models.field_losses import FIELD_LOSSES, l2
from neuralsolve.models.field_options import PASSES_FROM, RESIDUAL, FieldTraining
from neuralsolve.models.frames import on_frames, own_frames
from neuralsolve.models.parallel import Parallel
from neuralsolve.models.rates import rate
from neuralsolve.models.state_space import parameter_groups
from neuralsolve.models.surrogate import Surrogate, load_tensors, mesh_of, tensors_of
from neuralsolve.models.training_loop import Row, adam_moments, restore_moments

Residual = Callable[[Tensor, Tensor], Tensor]
SLOW = 1e-3  # the highest rate of eigenvalues, inputs and steps of state-space layers


class FieldTrainer:
    """A model on its way; drives no loop itself, see `neuralsolve.models.training_loop.Trains`.

    Parameters
    ----------
    model : its weights are changed
    samples, validation : to train on, and to choose by
    options : FieldTraining
    about : what else the run depends on, as JSON holds it
    residual : (inputs, outputs) -> (n,), differentiable; where the loss has a weight for it
    parallel : the processes that share the batch
    teacher : whose outputs count as much as those of the samples; of the same inputs and outputs

    Raises
    ------
    ShapeError
        Samples and validation of different sizes, other channels than the model's, or a symmetry that the
        grid does not have.
    OptionError
        A loss that the data cannot have, or fewer samples than processes.
    """

    def __init__(
        self,
        model: Surrogate,
        samples: Samples,
        validation: Samples,
        options: FieldTraining,
        about: dict[str, Any] | None = None,
        residual: Residual | None = None,
        parallel: Parallel | None = None,
        teacher: Surrogate | None = None,
    ):
        if samples.inputs.shape[1:] != validation.inputs.shape[1:]:
            msg = (
                f"samples are {samples.inputs.shape[1:]} and the validation {validation.inputs.shape[1:]}; "
                "the same channels and nodes are needed"
            )
            raise ShapeError(msg)
        self.model, self.samples, self.validation, self.schedule = model, samples, validation, options
        self.residual, self.parallel = residual, parallel or Parallel()
        told: dict[str, Any] = {"about": about or {}, "network": model.network} | asdict(options)
        told["processes"], told["data"] = self.parallel.count, _mark(samples, validation)
        self.options = json.loads(json.dumps(told))
        self.device = self.parallel.device
        self.spacing = [float(axis[1] - axis[0]) if len(axis) > 1 else 1.0 for axis in samples.layout.axes]
        self._check()
        model.to(self.device)
        self.teacher = None if teacher is None else copy.deepcopy(teacher).to(self.device).eval()
        groups = parameter_groups(model, options.learning_rate, options.weight_decay, SLOW)
        self.adam = options.optimizing.made(model, groups)
        for group in self.adam.param_groups:
            group["highest"] = group["lr"]
        self.forward = self.parallel.shared(model)
        self.average = copy.deepcopy(model) if options.ema else model
        self.inputs, self.outputs = (self._tensor(v) for v in (samples.inputs, samples.outputs))
        self.step, self.seconds = 0, 0.0
        self.best, self.best_epoch = math.inf, 0
        self.best_tensors = {name: value.clone() for name, value in tensors_of(model).items()}

    def _check(self) -> None:
        options, samples, network = self.schedule, self.samples, self.model.network
        symmetry.fits(options.symmetry, samples.layout, samples.shape)
        needs = [name for name in options.loss if name != "l2"] + ["symmetry"] * (options.symmetry != "none")
        needs += ["rollout"] * (options.rollout > 0)
        if needs and samples.points is not None:
            msg = f"{', '.join(needs)} on a mesh; the loss 'l2' alone is known there"
            raise OptionError(msg)
        if RESIDUAL in options.loss and self.residual is None:
            msg = (
                "the loss 'residual' needs data whose equation is known and tells its residual; in Python "
                "pass residual=equation_of(samples.layout).residual_of, with equation_of of "
                "neuralsolve.pde.equation"
            )
            raise OptionError(msg)
        if options.windows and (not options.rollout or network["inputs"] % network["outputs"]):
            msg = (
                "windows = true begins roll-outs at any frame: rollout >= 1 is needed, and inputs that are "
                f"whole frames of {network['outputs']} channels"
            )
            raise OptionError(msg)
        if options.passes and not on_frames(network):
            msg = f"passes = {options.passes} with the network {network['name']!r}, which takes no frames"
            raise OptionError(msg)
        if len(samples) < self.parallel.count:
            msg = f"{len(samples)} samples for {self.parallel.count} processes; each needs one at least"
            raise OptionError(msg)
        inputs, outputs = samples.inputs.shape[1], samples.outputs.shape[1]
        wanted = f"at least {max(1, options.rollout) * network['outputs']}" if options.rollout else "as many"
        enough = outputs >= options.rollout * network["outputs"]
        if inputs != network["inputs"] or not (enough if options.rollout else outputs == network["outputs"]):
            msg = (
                f"{inputs} channels of inputs and {outputs} of outputs; the model has {network['inputs']} "
                f"and {network['outputs']}: {wanted} of outputs are needed"
                + (f" by a roll-out of {options.rollout} steps" if options.rollout else "")
            )
            raise ShapeError(msg)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; what is left of a batch waits for the next epoch's order."""
        return max(1, len(self.samples) // (self.schedule.batch * self.parallel.count))

    @property
    def every(self) -> int:
        """Steps of one row of the log: an epoch."""
        return self.per_epoch

    @property
    def steps(self) -> int:
        """Of the training; those taken, once patience is at an end."""
        patience, epoch = self.schedule.patience, self.step // self.per_epoch
        if patience is not None and epoch - self.best_epoch >= patience and self.step % self.per_epoch == 0:
            return self.step
        return self.schedule.epochs * self.per_epoch

    def advance(self) -> Row:
        """Take one step; return the row of the log."""
        started, s = time.perf_counter(), self.schedule
        epoch, place = divmod(self.step, self.per_epoch)
        which = self._batch(epoch, place)
        part = rate(
            s.schedule, self.step, s.epochs * self.per_epoch, s.rise, s.period * self.per_epoch, s.factor
        )
        for group in self.adam.param_groups:
            group["lr"] = group["highest"] * part
        self.model.train()
        loss = self._loss(which)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), s.clip or math.inf)
        if bool(torch.isfinite(norm)):
            self.adam.step()
        self._follow()
        self.step += 1
        row = {
            "step": self.step,
            "seconds": 0.0,
            "learning_rate": s.learning_rate * part,
            "loss": self.parallel.mean(loss.detach()),
            "gradient_norm": float(norm),
        }
        if self.step % self.per_epoch == 0:
            row["validation"] = self._validate()
        self.seconds += time.perf_counter() - started
        return row | {"seconds": round(self.seconds, 2)}

    def _batch(self, epoch: int, place: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.schedule.seed + 7919 * (epoch + 1))
        order = torch.randperm(len(self.samples), generator=generator)
        size = self.schedule.batch * self.parallel.count
        return order[place * size : (place + 1) * size][self.parallel.rank :: self.parallel.count]

    def _loss(self, which: Tensor) -> Tensor:
        s = self.schedule
        generator = torch.Generator().manual_seed(s.seed + 104_729 * (self.step + 1))
        x, y = self.inputs[which], self.outputs[which]
        if s.symmetry != "none":
            motion = symmetry.drawn(s.symmetry, x.shape[2:], generator)
            x, y = motion(x), motion(y)
        x, y = x.to(self.device), y.to(self.device)
        mesh = () if self.samples.points is None else mesh_of(self.samples, which.numpy(), self.device)
        if s.passes and self.step >= PASSES_FROM * s.epochs * self.per_epoch:
            x = own_frames(self.model, x, int(torch.randint(s.passes + 1, (), generator=generator)))
        if not s.rollout:
            return self._taught((x, *mesh), self._seen(x, *mesh), y).mean()
        total, channels = x.new_zeros(()), self.model.network["outputs"]
        if s.windows:
            x, y = self._window(torch.cat([x, y], 1), channels, generator)
        for k in range(s.rollout):
            made = self._seen(x)
            total = total + self._taught((x,), made, y[:, k * channels : (k + 1) * channels]).mean()
            x = torch.cat([x[:, channels:], made], 1)
        return total / s.rollout

    def _window(self, frames: Tensor, channels: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return inputs and outputs of a roll-out from frames ``(n, channels in all, *shape)``."""
        seen, wanted = self.model.network["inputs"], self.schedule.rollout * channels
        places = (frames.shape[1] - seen - wanted) // channels + 1
        start = channels * int(torch.randint(places, (), generator=generator))
        return frames[:, start : start + seen], frames[:, start + seen : start + seen + wanted]

    def _seen(self, *fields: Tensor | None) -> Tensor:
        half = self.schedule.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return self.forward(*fields).float()

    def _taught(self, given: tuple[Any, ...], made: Tensor, truth: Tensor) -> Tensor:
        """Return the losses (n,) by the samples; with a teacher half by what that one makes."""
        loss = self._weighed(given[0], made, truth)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            shown = self.teacher(*given)
        return (loss + self._weighed(given[0], made, shown)) / 2

    def _weighed(self, x: Tensor, made: Tensor, truth: Tensor) -> Tensor:
        total = made.new_zeros(len(made))
        for name, weight in self.schedule.loss.items():
            if name == RESIDUAL:
                assert self.residual is not None
                total = total + weight * self.residual(x, made)
            else:
                total = total + weight * FIELD_LOSSES[name](made, truth, self.spacing)
        return total

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the average follow the weights; its whole numbers are theirs."""
        decay = self.schedule.ema
        if not decay:
            return
        warm = min(decay, (self.step + 1) / (self.step + 10))
        for mean, value in zip(
            self.average.state_dict().values(), self.model.state_dict().values(), strict=True
        ):
            if isinstance(mean, Tensor):
                if mean.is_floating_point() or mean.is_complex():
                    mean.lerp_(value, 1 - warm)
                else:
                    mean.copy_(value)

    def _validate(self) -> float:
        """Return the error on the validation, of the first process, and keep what did best."""
        error = self.parallel.of_first(self._error() if self.parallel.rank == 0 else math.nan)
        if error < self.best:
            self.best, self.best_epoch = error, self.step // self.per_epoch
            self.best_tensors = {name: value.clone() for name, value in tensors_of(self.average).items()}
        return error

    def _error(self) -> float:
        outputs = self.validation.outputs
        steps = outputs.shape[1] // self.model.network["outputs"] if self.schedule.rollout else None
        made = self.average.predict(self.validation, steps=steps)
        return float(l2(torch.from_numpy(made), self._tensor(outputs[:, : made.shape[1]])).mean())

    def best_model(self) -> Surrogate:
        """Return the model that did best on the validation."""
        best = copy.deepcopy(self.average)
        load_tensors(best, self.best_tensors)
        return best.eval()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next step depends on: tensors, and numbers as JSON holds them."""
        tensors = {f"net.{name}": value for name, value in tensors_of(self.model).items()}
        tensors |= adam_moments(self.model, self.adam)
        tensors |= {f"best.{name}": value for name, value in self.best_tensors.items()}
        if self.schedule.ema:
            tensors |= {f"average.{name}": value for name, value in tensors_of(self.average).items()}
        facts = {"step": self.step, "seconds": self.seconds, "best_epoch": self.best_epoch}
        return tensors, facts | ({"best": self.best} if math.isfinite(self.best) else {})

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take the place of the trainer whose `state` this is."""
        load_tensors(self.model, _under(tensors, "net."))
        restore_moments(self.model, self.adam, tensors)
        if self.schedule.ema:
            load_tensors(self.average, _under(tensors, "average."))
        self.best_tensors = _under(tensors, "best.")
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
        self.best, self.best_epoch = float(facts.get("best", math.inf)), int(facts["best_epoch"])


def _under(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def _mark(*sets: Samples) -> list[Any]:
    """Return what tells these samples from others: sizes and sums of bytes."""
    fields = [values for each in sets for values in (each.inputs, each.outputs)]
    return [[*values.shape, zlib.crc32(np.ascontiguousarray(values).data)] for values in fields]
