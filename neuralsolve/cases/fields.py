"""``kind = "train"`` with a network of `neuralsolve.models.networks`: a model of fields."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from neuralsolve.cases.field_data import Data, Test
from neuralsolve.cases.files import referenced_file
from neuralsolve.cases.schema import CaseTable
from neuralsolve.cases.training import Shown, Tell, Trained, planned, provenance
from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters import make_adapter, save_adapter, without_adapter
from neuralsolve.lowrank.adapters.options import Adapter
from neuralsolve.models.evaluation import errors, evaluated
from neuralsolve.models.field_options import FieldTraining
from neuralsolve.models.field_training import FieldTrainer
from neuralsolve.models.fine_tuning import adapt, begun, check_fits, mark
from neuralsolve.models.frames import on_frames, seen_by
from neuralsolve.models.networks import parameters_of
from neuralsolve.models.optimizers import PLAIN
from neuralsolve.models.parallel import Parallel, processes
from neuralsolve.models.surrogate import Surrogate, tensors_of
from neuralsolve.models.training_loop import train
from neuralsolve.pde.equation import equation_of, with_prior

MADE, BEST, LAST = "data.h5", "best.safetensors", "last.safetensors"
ADAPTER = "adapter.safetensors"


class FieldCase(CaseTable):
    """A model of fields: its network and that one's `options`, the data, and how it is trained.

    `start` is a trained model to begin with; `adapter` what is trained on it, in the place of all weights.
    """

    command: ClassVar[str] = "train"
    shared: ClassVar[bool] = True
    page: ClassVar[str] = "docs/fields.md"

    network: str
    options: dict[str, Any] = Field(default_factory=dict)
    normaliser: Literal["pointwise", "channel", "none"] = "channel"
    prior: bool = False
    start: str | None = None
    adapter: dict[str, Any] | None = None
    data: Data
    tests: list[Test] = Field(default_factory=list)
    schedule: dict[str, Any] = Field(default_factory=dict)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    tensorboard: bool = False

    @model_validator(mode="after")
    def _complete(self) -> FieldCase:
        plan = self.plan()  # refuses values that cannot be
        if self.prior and plan.rollout:
            msg = "prior = true with a roll-out, which has no cheap solutions of later frames; leave one out"
            raise OptionError(msg)
        if self.adapter is not None:
            self.adapting()
        names = ["data", "test", *(each.name for each in self.tests)]
        if len(set(names)) < len(names):
            msg = f"tests are named {', '.join(names[2:])}; each needs its own, not 'data' or 'test'"
            raise OptionError(msg)
        return self

    @property
    def steps(self) -> int:
        """Of the training, before its data are known: epochs times whole batches."""
        plan = self.plan()
        return plan.epochs * self._per_epoch

    def with_steps(self, steps: int) -> FieldCase:
        """Return the case with as many epochs as these steps need."""
        epochs = -(-steps // self._per_epoch)
        return self.model_copy(update={"schedule": self.schedule | {"epochs": epochs}})

    @property
    def _per_epoch(self) -> int:
        return max(1, self.data.train // (self.plan().batch * processes()))

    def fine_tuned(
        self, start: Path | None = None, adapter: str | None = None, rank: int | None = None
    ) -> FieldCase:
        """Return the case with another model to begin with, or another adapter on it."""
        changes: dict[str, Any] = {} if start is None else {"start": str(start.absolute())}
        if adapter is not None:
            changes["adapter"] = {"name": adapter} | ({} if rank is None else {"rank": rank})
        case = self.model_copy(update=changes)
        if case.adapter is not None:
            case.adapting()
        return case

    def adapting(self) -> Adapter:
        """Return the adapter."""
        options = dict(self.adapter or {})
        name = options.pop("name", None)
        if self.start is None:
            msg = f"adapter {name!r} without a trained model to put it on: start = FILE, or --start FILE"
            raise OptionError(msg)
        if self.plan().optimizer not in PLAIN:
            msg = (
                f"adapter {name!r} with optimizer = {self.plan().optimizer!r}, which projects whole weights; "
            )
            msg += f"one of {', '.join(PLAIN)} is needed"
            raise OptionError(msg)
        if name == "gpm":
            msg = "adapter 'gpm' wants samples of an older task: attach it in Python, see docs/adapters.md"
            raise OptionError(msg)
        return make_adapter(str(name), **options)

    def folders(self, folder: Path) -> list[Path]:
        """Return where the log and the checkpoint go."""
        return [folder]

    def plan(self) -> FieldTraining:
        """Return the schedule of the training; the seed is the case's own unless the schedule has one."""
        return planned(FieldTraining, self.seed, self.schedule)

    def sets(
        self, folder: Path, tell: Tell
    ) -> tuple[Samples, Samples, dict[str, tuple[Samples, int | None]]]:
        """Return the samples to train on, to choose by, and by name those to measure on, with their steps."""
        data = self.data
        whole = self._seen(data.samples(self.path, folder, MADE, tell))
        counts = [count for count in (data.train, data.validation, data.test) if count]
        parts = whole.split(*counts) if data.split == "consecutive" else whole.spread(*counts)
        network = {"name": self.network} | self.options
        frames = whole.outputs.shape[1] if self.plan().rollout else None
        if on_frames(network):  # trained on whole trajectories, measured in roll-outs from the inputs
            frames = whole.outputs.shape[1] // int(self.options.get("fields", 1))
        tests: dict[str, tuple[Samples, int | None]] = {}
        if data.test:
            tests["test"] = parts[2], frames
        for each in self.tests:
            found = self._seen(each.samples(self.path, folder, f"{each.name}.h5", tell))
            tests[each.name] = (
                (found if each.use is None else found.take(slice(0, each.use))),
                each.steps or frames,
            )
        return seen_by(network, parts[0]), seen_by(network, parts[1]), tests

    def begun(self) -> Surrogate | None:
        """Return the model to begin with; None: one that is drawn at random."""
        if self.start is None:
            return None
        return begun(referenced_file(self.path, self.start), {"name": self.network} | self.options)

    def trainer(
        self,
        samples: Samples,
        validation: Samples,
        *,
        parallel: Parallel | None = None,
        model: Surrogate | None = None,
    ) -> FieldTrainer:
        """Return the model before its first step, with its data; `model` is what `begun` has found."""
        plan, parallel = self.plan(), parallel or Parallel(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            network = {"name": self.network} | self.options
            prior = len(self._equation(samples).prior_names) if self.prior else int(plan.rollout > 0)
            model = self.begun() if model is None else model
            if model is None:
                model = Surrogate.of(network, samples, self.normaliser, 1 if plan.rollout else None, prior)
            else:
                check_fits(str(self.start), model, prior, samples)
        about = self.model_dump(mode="json", include={"data", "normaliser"})
        if self.start is not None:
            about |= {"start": mark(*model.state_dict().values())}
        if self.adapter is not None:
            about |= {"adapter": self.adapter}
            adapt(model.to(parallel.device), self.adapting(), samples)
        about |= {"prior": True} if self.prior else {}
        residual = getattr(self._equation(samples), "residual_of", None)
        return FieldTrainer(model, samples, validation, plan, about, residual, parallel)

    def _seen(self, samples: Samples) -> Samples:
        """Return the samples as the network sees them."""
        return with_prior(samples) if self.prior else samples

    @staticmethod
    def _equation(samples: Samples) -> Any:
        return equation_of(samples.layout) if samples.layout.equation else None

    def train(self, folder: Path, tell: Tell) -> Trained:
        """Train, or go on from the checkpoint in a folder; measure what did best on the validation.

        Of several processes the first makes the data, writes and measures.
        """
        parallel = Parallel(self.device)
        first = parallel.rank == 0
        model = self.begun()  # what cannot be is refused before the data are made
        sets = self.sets(folder, tell) if first else None
        parallel.wait()
        samples, validation, tests = sets or self.sets(folder, tell)
        trainer = self.trainer(samples, validation, parallel=parallel, model=model)

        def saved() -> None:
            facts = self._facts(trainer) | {"steps": str(trainer.step)}
            facts["wall_seconds"] = f"{trainer.seconds:.0f}"
            trainer.best_model().save(folder / BEST, facts)
            trainer.average.save(folder / LAST, facts)
            if self.adapter is not None:
                save_adapter(trainer.best_model(), folder / ADAPTER)

        options = {"writes": first, "saved": saved, "tensorboard": self.tensorboard, "agreed": parallel.any}
        rows = train(trainer, folder, tell, **options)
        model = without_adapter(trainer.best_model())
        results = [self._row(model, name, *each) for name, each in tests.items()] if first else []
        facts = self._facts(trainer) | provenance(self, trainer.step, trainer.seconds, results)
        named = {"training": "loss", "validation": "validation"}
        return Trained(
            tensors_of(model),
            model.metadata() | facts,
            trainer.step,
            trainer.seconds,
            results,
            {
                label: [(row["step"], row[name]) for row in rows if name in row]
                for label, name in named.items()
            },
            "loss, relative",
            [_told(row) for row in results],
            _shown(model, *next(iter(tests.values()))) if first and tests else None,
            () if self.adapter is None else (folder / ADAPTER,),
        )

    def _facts(self, trainer: FieldTrainer) -> dict[str, str]:
        return {
            "schedule": json.dumps(dataclasses.asdict(trainer.schedule)),
            "seed": str(trainer.schedule.seed),
            "parameters": str(parameters_of(trainer.model)),
            "data": json.dumps(self.data.model_dump(mode="json")),
        } | ({} if self.adapter is None else {"adapter": json.dumps(self.adapter)})

    def _row(self, model: Surrogate, name: str, samples: Samples, steps: int | None) -> dict[str, Any]:
        row = {"test": name, "samples": len(samples), "shape": list(samples.shape)}
        return row | self._measured(model, samples, steps)

    def _measured(self, model: Surrogate, samples: Samples, steps: int | None) -> dict[str, float]:
        residual: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
        residual = getattr(self._equation(samples), "residual", None)
        found = evaluated(model, samples, steps, residual)
        return {name: round(value, 6) for name, value in found.items()}


def _shown(model: Surrogate, samples: Samples, steps: int | None) -> Shown:
    """Return the worst, the median and the best prediction of some samples."""
    made = model.predict(samples, steps=steps)
    order = np.argsort(errors(made, samples.outputs[:, : made.shape[1]])["l2"])
    which = {"worst": order[-1], "median": order[len(order) // 2], "best": order[0]}
    return Shown(samples.take(list(which.values())), made[list(which.values())], list(which))


def _told(row: dict[str, Any]) -> str:
    nodes = " x ".join(map(str, row["shape"]))
    residual = f", residual {row['residual']:.3g}" if "residual" in row else ""
    return (
        f"{row['test']}, {row['samples']} samples of {nodes}: relative L2 {row['l2']:.4f}, worst "
        f"{row['worst']:.4f}{residual}"
    )
