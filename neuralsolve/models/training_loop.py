"""The one training loop: steps, a log, a checkpoint to go on from.

Tensors of a checkpoint are in safetensors, the rest in JSON, the options of the run among it: with others it
is refused.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from neuralsolve.errors import FormatError, OptionError
from neuralsolve.preconditioners.weights import read_tensors, write_tensors

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"
AS_THEY_STAND = ("step", "seconds", "learning_rate")  # columns of the log that are no means

Row = dict[str, float]


class Trains(Protocol):
    """What `train` drives; `options`, as JSON holds them, are all that a run depends on."""

    step: int
    seconds: float
    options: dict[str, Any]

    @property
    def steps(self) -> int:
        """How many there are to take."""
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
) -> list[Row]:
    """Train to the last step, or go on from the checkpoint in `folder`; return the log.

    Writes ``checkpoint.safetensors`` every `save_every` seconds, at the end and when interrupted, and
    ``log.csv``, one row per hundredth of the steps: means over them.
    """
    checkpoint, log = folder / CHECKPOINT, folder / LOG
    if checkpoint.exists():
        _restore(trainer, checkpoint)
    rows = [row for row in read_log(log) if row["step"] <= trainer.step]
    last = min(stop_at or trainer.steps, trainer.steps)

    def save() -> None:
        tensors, facts = trainer.state()
        write_checkpoint(checkpoint, tensors, facts, trainer.options)
        write_log(log, rows)

    try:
        for row in _averaged(trainer, last):
            rows.append(row)
            tell(trainer.step, f"loss {row['loss']:.3f}")
            if trainer.step >= last or _due(checkpoint, save_every):
                save()
    except KeyboardInterrupt:
        save()
        raise
    return rows


def _restore(trainer: Trains, checkpoint: Path) -> None:
    tensors, facts = read_checkpoint(checkpoint, trainer.options)
    try:
        trainer.restore(tensors, facts)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
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
        other = {k: given.get(k) for k in given | options if given.get(k) != options.get(k)}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _foreign(path, error) from None
    if other:
        msg = f"{path} was trained with {other}; use the same options, or --restart to begin anew"
        raise OptionError(msg)
    return tensors, facts


def _foreign(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} is no checkpoint of this training ({error}); --restart begins anew")


def _averaged(trainer: Trains, last: int) -> Iterator[Row]:
    """Yield a row of the log for every hundredth of the steps: means of them, and their last state."""
    every, gathered = max(1, trainer.steps // 100), []
    while trainer.step < last:
        gathered.append(trainer.advance())
        if not math.isfinite(gathered[-1]["loss"]):
            msg = f"the loss is {gathered[-1]['loss']} at step {trainer.step}: it diverged; lower the rates"
            raise OptionError(msg)
        if trainer.step % every == 0 or trainer.step == last:
            means = {
                name: _mean([row[name] for row in gathered])
                for name in gathered[-1]
                if name not in AS_THEY_STAND
            }
            yield gathered[-1] | means
            gathered = []


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _due(checkpoint: Path, save_every: float) -> bool:
    return not checkpoint.exists() or time.time() - checkpoint.stat().st_mtime > save_every


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows of a training as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else AS_THEY_STAND)
        writer.writeheader()
        writer.writerows(rows)


def read_log(path: Path) -> list[Row]:
    """Return the rows of a training log; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: int(text) if name == "step" else float(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def learned_state(net: nn.Module, adam: torch.optim.Adam) -> dict[str, Tensor]:
    """Return weights and Adam's moments by name."""
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for k, parameter in enumerate(net.parameters()):
        for name, value in adam.state.get(parameter, {}).items():
            tensors[f"adam.{k}.{name}"] = value
    return tensors


def restore_learned(net: nn.Module, adam: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Take weights and moments, in the memory format of the network at hand."""
    net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    for k, parameter in enumerate(net.parameters()):
        start = f"adam.{k}."
        moments = {name[len(start) :]: v.clone() for name, v in tensors.items() if name.startswith(start)}
        if moments:
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = torch.empty_like(parameter).copy_(moments[name])
            adam.state[parameter] = moments
