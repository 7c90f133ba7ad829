"""``kind = "train"`` with a network of `neuralsolve.models.networks`: a model of fields."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, model_validator

from neuralsolve.cases.files import referenced_file
from neuralsolve.cases.schema import CaseTable, Table
from neuralsolve.cases.training import Tell, Trained, provenance
from neuralsolve.data import make, read_data
from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError, nearest
from neuralsolve.models.evaluation import evaluated
from neuralsolve.models.field_training import FieldTrainer, FieldTraining
from neuralsolve.models.networks import parameters_of
from neuralsolve.models.parallel import Parallel
from neuralsolve.models.surrogate import Surrogate, tensors_of
from neuralsolve.models.training_loop import train
from neuralsolve.pde.equation import equation_of, equations

MADE, BEST, LAST = "data.h5", "best.safetensors", "last.safetensors"


class Source(Table):
    """Where samples come from: a file, or an equation that makes `count` of them, beside the training."""

    file: str | None = None
    equation: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    count: PositiveInt | None = None
    first: NonNegativeInt = 0
    seed: NonNegativeInt = 1905
    stride: PositiveInt = 1
    frames: list[PositiveInt] | None = Field(default=None, min_length=2, max_length=2)

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.file is None) == (self.equation is None) or (self.equation is not None) != (
            self.count is not None
        ):
            msg = "file = FILE, or equation = NAME with count = N, is needed"
            raise OptionError(msg)
        if self.equation is not None and self.equation not in equations():
            msg = f"equation = {self.equation!r}{nearest(self.equation, equations())}"
            raise OptionError(msg)
        return self

    def samples(self, case: Path, folder: Path, name: str, tell: Tell) -> Samples:
        """Return the samples; those of an equation are made once, into `folder` / `name`."""
        if self.file is not None:
            path = referenced_file(case, self.file)
        else:
            path = folder / name
            if not path.exists():
                assert self.equation is not None
                assert self.count is not None
                try:
                    equation = equations()[self.equation](**self.parameters)
                except TypeError as error:
                    msg = f"parameters of {self.equation}: {error}"
                    raise OptionError(msg) from None
                told = lambda done, note: tell(0, f"{done} samples, {note}")  # noqa: E731
                make(equation, self.count, path, self.seed, self.first, tell=told)
        found = read_data(path, frames=None if self.frames is None else (self.frames[0], self.frames[1]))
        return found if self.stride == 1 else found.every(self.stride)


class Data(Source):
    """The samples of the training, the validation and a first test.

    They are taken one after the other, or each spread evenly over what the later ones leave: see
    `Samples.split` and `Samples.spread`.
    """

    train: PositiveInt
    validation: PositiveInt
    test: NonNegativeInt = 0
    split: Literal["consecutive", "spread"] = "consecutive"


class Test(Source):
    """Further samples that the trained model is measured on, of any resolution; `steps` of a roll-out."""

    name: str
    use: PositiveInt | None = None
    steps: PositiveInt | None = None


class FieldCase(CaseTable):
    """A model of fields: its network and that one's `options`, the data, and how it is trained."""

    command: ClassVar[str] = "train"

    network: str
    options: dict[str, Any] = Field(default_factory=dict)
    normaliser: Literal["pointwise", "channel", "none"] = "channel"
    data: Data
    tests: list[Test] = Field(default_factory=list)
    schedule: dict[str, Any] = Field(default_factory=dict)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    tensorboard: bool = False

    @model_validator(mode="after")
    def _complete(self) -> FieldCase:
        known = [field.name for field in dataclasses.fields(FieldTraining)]
        for key in self.schedule:
            if key not in known:
                msg = f"schedule: unknown key {key!r}{nearest(key, known)}"
                raise OptionError(msg)
        self.plan()
        return self

    @property
    def steps(self) -> int:
        """Of the training, before its data are known: epochs times whole batches."""
        plan = self.plan()
        return plan.epochs * max(1, self.data.train // plan.batch)

    def with_steps(self, steps: int) -> FieldCase:
        """Return the case with as many epochs as these steps need."""
        per_epoch = max(1, self.data.train // self.plan().batch)
        return self.model_copy(update={"schedule": self.schedule | {"epochs": -(-steps // per_epoch)}})

    def folders(self, folder: Path) -> list[Path]:
        """Return where the log and the checkpoint go."""
        return [folder]

    def plan(self) -> FieldTraining:
        """Return the schedule of the training; the seed is the case's own unless the schedule has one."""
        return TypeAdapter(FieldTraining).validate_python({"seed": self.seed} | self.schedule)

    def sets(
        self, folder: Path, tell: Tell
    ) -> tuple[Samples, Samples, dict[str, tuple[Samples, int | None]]]:
        """Return the samples to train on, to choose by, and by name those to measure on, with their steps."""
        data = self.data
        whole = data.samples(self.path, folder, MADE, tell)
        counts = [count for count in (data.train, data.validation, data.test) if count]
        parts = whole.split(*counts) if data.split == "consecutive" else whole.spread(*counts)
        frames = whole.outputs.shape[1] if self.plan().rollout else None
        tests: dict[str, tuple[Samples, int | None]] = {}
        if data.test:
            tests["test"] = parts[2], frames
        for each in self.tests:
            found = each.samples(self.path, folder, f"{each.name}.h5", tell)
            tests[each.name] = (
                (found if each.use is None else found.take(slice(0, each.use))),
                each.steps or frames,
            )
        return parts[0], parts[1], tests

    def trainer(self, samples: Samples, validation: Samples) -> FieldTrainer:
        """Return the model before its first step, with its data."""
        plan, parallel = self.plan(), Parallel(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            network = {"name": self.network} | self.options
            model = Surrogate.of(network, samples, self.normaliser, 1 if plan.rollout else None)
        about = self.model_dump(mode="json", include={"data", "normaliser"})
        residual = getattr(self._equation(samples), "residual_of", None)
        return FieldTrainer(model, samples, validation, plan, about, residual, parallel)

    @staticmethod
    def _equation(samples: Samples) -> Any:
        return equation_of(samples.layout) if samples.layout.equation else None

    def train(self, folder: Path, tell: Tell) -> Trained:
        """Train, or go on from the checkpoint in a folder; measure what did best on the validation."""
        samples, validation, tests = self.sets(folder, tell)
        trainer = self.trainer(samples, validation)
        first = trainer.parallel.rank == 0

        def saved() -> None:
            trainer.best_model().save(folder / BEST)
            trainer.average.save(folder / LAST)

        rows = train(trainer, folder, tell, writes=first, saved=saved, tensorboard=self.tensorboard)
        model, results = trainer.best_model(), []
        for name, (each, steps) in tests.items():
            row = {"test": name, "samples": len(each), "shape": list(each.shape)}
            results.append(row | self._measured(model, each, steps))
        facts = {
            "schedule": json.dumps(dataclasses.asdict(trainer.schedule)),
            "seed": str(trainer.schedule.seed),
            "parameters": str(parameters_of(model)),
            "data": json.dumps(self.data.model_dump(mode="json")),
        }
        facts |= provenance(self, trainer.step, trainer.seconds, results)
        if first:
            model.save(folder / BEST, facts)
        named = {"training": "loss", "validation": "validation"}
        return Trained(
            tensors_of(model),
            facts,
            trainer.step,
            trainer.seconds,
            results,
            {
                label: [(row["step"], row[name]) for row in rows if name in row]
                for label, name in named.items()
            },
            "loss, relative",
            [_told(row) for row in results],
        )

    def _measured(self, model: Surrogate, samples: Samples, steps: int | None) -> dict[str, float]:
        residual: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
        residual = getattr(self._equation(samples), "residual", None)
        found = evaluated(model, samples, steps, residual)
        return {name: round(value, 6) for name, value in found.items()}


def _told(row: dict[str, Any]) -> str:
    nodes = " x ".join(map(str, row["shape"]))
    residual = f", residual {row['residual']:.3g}" if "residual" in row else ""
    return (
        f"{row['test']}, {row['samples']} samples of {nodes}: relative L2 {row['l2']:.4f}, worst "
        f"{row['worst']:.4f}{residual}"
    )
