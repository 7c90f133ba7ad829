"""The one training loop: steps, a log, a checkpoint to go on from.

Tensors of a checkpoint are in safetensors, the rest in JSON, the options of the run among it: with others it
is refused.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from neuralsolve.errors import FormatError, OptionError
from neuralsolve.models.interrupts import held_interrupts
from neuralsolve.preconditioners.weights import not_written, read_tensors, write_tensors

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"
NAMED, LONGEST = 5, 40  # differing options that a message names, and characters of their values
AS_THEY_STAND = ("step", "seconds", "learning_rate")  # columns of the log that are no means

Row = dict[str, float]


class Trains(Protocol):
    """What `train` drives; `options`, as JSON holds them, are all that a run depends on."""

    step: int
    seconds: float
    options: dict[str, Any]

    @property
    def steps(self) -> int:
        """How many there are to take; fewer, once there is nothing more to win."""
        ...

    @property
    def every(self) -> int:
        """Steps of one row of the log."""
        ...

    def advance(self) -> Row:
        """Take one step; return the row of the log: `AS_THEY_STAND`, loss, and what else there is to tell."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next step depends on: tensors, and numbers as JSON holds them."""
        ...

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take the place of the trainer whose `state` this is."""
        ...


def train(
    trainer: Trains,
    folder: Path,
    tell: Callable[[int, str], None] = lambda done, note: None,
    save_every: float = 60.0,
    stop_at: int | None = None,
    writes: bool = True,
    saved: Callable[[], None] = lambda: None,
    tensorboard: bool = False,
    agreed: Callable[[bool], bool] = bool,
) -> list[Row]:
    """Train to the last step, or go on from the checkpoint in `folder`; return the log.

    Writes ``checkpoint.safetensors`` every `save_every` seconds, at the end and when interrupted, and
    ``log.csv``, a row for every `Trains.every` steps: means over them. Ctrl-C ends the run after the step
    that it meets; what is saved is always the state between two steps.

    Parameters
    ----------
    writes : False in all processes but the first, where several share a training
    saved : called after every checkpoint
    tensorboard : write the rows as TensorBoard's events into ``folder/tensorboard`` too
    agreed : whether any of the processes is to stop, of whether this one is

    Raises
    ------
    OptionError
        The loss is no number any more; the last checkpoint stays as it is.
    FormatError
        A checkpoint or log of something else.
    OSError
        A checkpoint that cannot be written; the one before stays as it is.
    """
    checkpoint, log = folder / CHECKPOINT, folder / LOG
    gathered = _restore(trainer, checkpoint) if checkpoint.exists() else []
    rows = [row for row in read_log(log) if row["step"] <= trainer.step]
    last = min(stop_at or trainer.steps, trainer.steps)

    def save() -> None:
        if writes:
            tensors, facts = trainer.state()
            write_log(log, rows)  # before the checkpoint: rows beyond it are left out, missing ones are lost
            write_checkpoint(checkpoint, tensors, facts | {"gathered": gathered}, trainer.options)
            saved()

    with _events(folder, tensorboard and writes, trainer.step) as event, held_interrupts() as asked:
        while trainer.step < min(last, trainer.steps):
            gathered.append(trainer.advance())
            _finite(gathered[-1], trainer.step)
            stop = asked()
            if trainer.step % trainer.every == 0 or trainer.step == last:
                rows.append(_averaged(gathered))
                gathered.clear()
                event(rows[-1])
                try:
                    tell(trainer.step, _told(rows[-1]))
                except KeyboardInterrupt:
                    stop = True
            done = trainer.step >= min(last, trainer.steps)
            stop = agreed(stop)
            if done or stop or _due(checkpoint, save_every):
                save()
            if stop and not done:
                raise KeyboardInterrupt
    return rows


@contextmanager
def _events(folder: Path, wanted: bool, step: int) -> Iterator[Callable[[Row], None]]:
    """Give what writes a row for TensorBoard; what an older run wrote beyond `step` is left out there."""
    if not wanted:
        yield lambda row: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        msg = "events for TensorBoard need it: pip install 'neuralsolve[train]'"
        raise OptionError(msg) from None
    with SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) as writer:

        def event(row: Row) -> None:
            for name, value in row.items():
                if name != "step" and not math.isnan(value):
                    writer.add_scalar(name, value, int(row["step"]))

        yield event


def _restore(trainer: Trains, checkpoint: Path) -> list[Row]:
    """Give the trainer its state; return what of the log's next row there is."""
    tensors, facts = read_checkpoint(checkpoint, trainer.options)
    try:
        trainer.restore(tensors, facts)
        return [{str(name): float(value) for name, value in row.items()} for row in facts.get("gathered", [])]
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise _foreign(checkpoint, error) from None


def write_checkpoint(
    path: Path, tensors: dict[str, Tensor], facts: dict[str, Any], options: dict[str, Any]
) -> None:
    """Write the state of a training beside the options that it depends on."""
    write_tensors(path, tensors, {"state": json.dumps(facts | {"options": options})})


def read_checkpoint(path: Path, options: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of a training.

    Raises
    ------
    OptionError
        Of one with other options.
    FormatError
        The file is no checkpoint.
    """
    tensors, metadata = read_tensors(path)
    try:
        facts = json.loads(metadata["state"])
        given = facts["options"]
        other = list(_differences(given, options))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _foreign(path, error) from None
    if other:
        more = f", and {len(other) - NAMED} more" if len(other) > NAMED else ""
        msg = (
            f"{path} is of a training with other options: {', '.join(other[:NAMED])}{more}; use the same "
            "ones, or --restart to begin anew"
        )
        raise OptionError(msg)
    return tensors, facts


def _differences(there: dict[str, Any], asked: dict[str, Any], where: str = "") -> Iterator[str]:
    """Yield a line for each option that differs, nested ones by their path."""
    for name in dict.fromkeys((*there, *asked)):
        old, new, path = there.get(name), asked.get(name), f"{where}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{path}.")
        elif old != new:
            both = [f"{value!r}" for value in (old, new)]
            short = max(map(len, both)) <= LONGEST
            yield f"{path} = {both[0]} there, {both[1]} asked for" if short else f"{path} is not the same"


def _foreign(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} is no checkpoint of this training ({error!s:.200}); --restart begins anew")


def _finite(row: Row, step: int) -> None:
    if not math.isfinite(row["loss"]):
        msg = f"the loss is {row['loss']} at step {step}: it diverged; lower the rates"
        raise OptionError(msg)


def _averaged(gathered: Sequence[Row]) -> Row:
    """Return a row of the log: means of many, and their last state."""
    means = {
        name: _mean([row.get(name, math.nan) for row in gathered])
        for name in dict.fromkeys(name for row in gathered for name in row)
        if name not in AS_THEY_STAND
    }
    return gathered[-1] | means


def _told(row: Row) -> str:
    better = f", validation {row['validation']:.4g}" if "validation" in row else ""
    return f"loss {row['loss']:.3g}{better}"


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _due(checkpoint: Path, save_every: float) -> bool:
    return not checkpoint.exists() or time.time() - checkpoint.stat().st_mtime > save_every


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows of a training as CSV, in one step."""
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            names = list(dict.fromkeys(name for row in rows for name in row)) or AS_THEY_STAND
            writer = csv.DictWriter(file, names, restval="nan")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def read_log(path: Path) -> list[Row]:
    """Return the rows of a training log; none where there is no file.

    Raises
    ------
    FormatError
        A file of something else.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: int(text) if name == "step" else float(text) for name, text in row.items()}
                for row in csv.DictReader(file)
                if row["step"]
            ]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise _foreign(path, error) from None


def learned_state(net: nn.Module, adam: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return weights and Adam's moments by name."""
    return {f"net.{name}": value for name, value in net.state_dict().items()} | adam_moments(net, adam)


def adam_moments(net: nn.Module, adam: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return Adam's moments, or another optimizer's state of plain tensors, by number of the parameter."""
    return {
        f"adam.{k}.{name}": value
        for k, parameter in enumerate(net.parameters())
        for name, value in adam.state.get(parameter, {}).items()
    }


def restore_learned(net: nn.Module, adam: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Take weights and moments."""
    net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    restore_moments(net, adam, tensors)


def restore_moments(net: nn.Module, adam: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Take the state of an optimizer; what has a parameter's shape in that one's memory format."""
    for k, parameter in enumerate(net.parameters()):
        start = f"adam.{k}."
        moments = {name[len(start) :]: v.clone() for name, v in tensors.items() if name.startswith(start)}
        if moments:
            for name, value in moments.items():
                if value.shape == parameter.shape and value.dtype == parameter.dtype:
                    moments[name] = torch.empty_like(parameter).copy_(value)
                elif value.ndim:  # counts of steps stay with the processor
                    moments[name] = value.to(parameter.device)
            adam.state[parameter] = moments
