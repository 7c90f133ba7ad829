"""``kind = "train"`` with a state-space network: sequences and their classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from neuralsolve.cases.schema import CaseTable, Table
from neuralsolve.cases.training import Tell, Trained, planned, provenance
from neuralsolve.data.sequences import Sequences, digits, listops
from neuralsolve.errors import OptionError
from neuralsolve.models.networks import parameters_of
from neuralsolve.models.sequence_model import SequenceModel, check_options
from neuralsolve.models.sequence_training import SequenceTrainer, SequenceTraining, accuracy
from neuralsolve.models.surrogate import tensors_of
from neuralsolve.models.training_loop import train

NETWORKS = ("s4d", "s5", "s4")


class LabelData(Table):
    """Sequences: of digits, or nested lists made by rule; how many to train, to choose and to measure."""

    source: Literal["digits", "listops"]
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt
    seed: NonNegativeInt = 1905
    repeat: PositiveInt | None = None
    depth: PositiveInt | None = None
    length: PositiveInt | None = None

    @model_validator(mode="after")
    def _fits(self) -> LabelData:
        known = {"digits": ("repeat",), "listops": ("depth", "length")}[self.source]
        for name in ("repeat", "depth", "length"):
            if getattr(self, name) is not None and name not in known:
                msg = f"{name} with source = {self.source!r}, which has {', '.join(known)}"
                raise OptionError(msg)
        return self

    def sets(self) -> list[Sequences]:
        """Return the sequences to train on, to choose by, to measure on."""
        options = {name: getattr(self, name) for name in ("repeat", "depth", "length")}
        given = {name: value for name, value in options.items() if value is not None}
        counts = self.train, self.validation, self.test
        made = (
            digits(seed=self.seed, **given)
            if self.source == "digits"
            else listops(sum(counts), self.seed, **given)
        )
        return made.split(*counts)


class LabelCase(CaseTable):
    """A model of sequences: layers and their `options`, the data, and how it is trained."""

    command: ClassVar[str] = "train"
    page: ClassVar[str] = "docs/ssm.md"

    network: Literal["s4d", "s5", "s4"]
    options: dict[str, Any] = Field(default_factory=dict)
    data: LabelData
    schedule: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> LabelCase:
        self.plan()
        check_options(self.network, self.options)
        for key in ("inputs", "outputs", "layer", "vocabulary"):
            if key in self.options:
                msg = f"options: {key} is known from the network and the data; leave it out"
                raise OptionError(msg)
        if self.options.get("pool", "mean") == "none":
            msg = "options: pool = 'none' gives an answer for every sample; a class needs 'mean' or 'last'"
            raise OptionError(msg)
        return self

    def plan(self) -> SequenceTraining:
        """Return how it is trained; the seed is the case's own unless the schedule has one."""
        return planned(SequenceTraining, self.seed, self.schedule)

    @property
    def _per_epoch(self) -> int:
        return max(1, self.data.train // self.plan().batch)

    @property
    def steps(self) -> int:
        """Of the training."""
        return self.plan().epochs * self._per_epoch

    def with_steps(self, steps: int) -> LabelCase:
        """Return the case with as many epochs as these steps need."""
        return self.model_copy(update={"schedule": self.schedule | {"epochs": -(-steps // self._per_epoch)}})

    def folders(self, folder: Path) -> list[Path]:
        """Return where the log and the checkpoint go."""
        return [folder]

    def trainer(self, data: Sequences, validation: Sequences) -> SequenceTrainer:
        """Return the model before its first step, with its data."""
        plan, words = self.plan(), data.vocabulary
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            model = SequenceModel(
                None if words else data.values.shape[2],
                data.classes,
                layer=self.network,
                vocabulary=words,
                **self.options,
            )
        about = self.model_dump(mode="json", include={"network", "options", "data"})
        return SequenceTrainer(model, data, validation, plan, about)

    def train(self, folder: Path, tell: Tell) -> Trained:
        """Train, or go on from the checkpoint in a folder; measure what did best on the validation."""
        data, validation, test = self.data.sets()
        trainer = self.trainer(data, validation)
        rows = train(trainer, folder, tell)
        model = trainer.use_best()
        results = [{"test": "test", "sequences": len(test), "accuracy": round(accuracy(model, test), 4)}]
        facts = {
            "network": json.dumps({"layer": self.network} | self.options),
            "parameters": str(parameters_of(model)),
        }
        named = {"training": "loss", "validation, part told wrong": "validation"}
        return Trained(
            tensors_of(model),
            facts | provenance(self, trainer.step, trainer.seconds, results),
            trainer.step,
            trainer.seconds,
            results,
            {
                label: [(row["step"], row[name]) for row in rows if name in row]
                for label, name in named.items()
            },
            "cross-entropy",
            [f"test, {row['sequences']} sequences: {100 * row['accuracy']:.1f} % right" for row in results],
        )
