"""``kind = "train"`` with ``network = "cycle"``: what the learned multigrid cycle knows, by kind of grid."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from neuralsolve.cases.schema import CaseTable, Table
from neuralsolve.cases.training import Tell, Trained, provenance
from neuralsolve.errors import OptionError
from neuralsolve.models.cycle_search import search_steps, tensors_of
from neuralsolve.models.cycle_training import BANDS, CycleTrainer, CycleTraining
from neuralsolve.models.training_loop import (
    CHECKPOINT,
    LOG,
    Row,
    read_checkpoint,
    read_log,
    train,
    write_checkpoint,
    write_log,
)
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface, varied

Kind = Literal["2d", "3d", "2d-coefficients", "3d-coefficients"]


def _rising(seeds: list[int]) -> list[int]:
    if len(seeds) != 2 or not 0 <= seeds[0] <= seeds[1]:
        msg = "the first seed and the last are needed"
        raise ValueError(msg)
    return seeds


Seeds = Annotated[list[int], AfterValidator(_rising)]
Learned = tuple[dict[str, Tensor], dict[str, float], list[Row]]  # tensors, what was reached, log


class Grids(Table):
    """One kind of grid: the scenes that it is learned on, and how many steps of smoothing a level takes.

    `steps` are those of the levels, the finest first; the last one serves all below. Scenes take the shapes
    in turn, those of a training one shape a batch, and inclusions the `contrasts` too.
    """

    scenes: Literal["free_surface", "inclusions"]
    contrasts: list[PositiveFloat] = Field(default_factory=list)
    shapes: list[list[PositiveInt]] = Field(min_length=1)
    seeds: Seeds
    steps: list[Annotated[int, Field(ge=1, le=max(BANDS))]] = Field(min_length=1)
    iterations: PositiveInt
    seed: int = Field(default=1905, ge=0)

    @model_validator(mode="after")
    def _has_contrasts(self) -> Grids:
        if (self.scenes == "inclusions") != bool(self.contrasts):
            msg = f"contrasts = {self.contrasts} with scenes = {self.scenes!r}; inclusions alone need them"
            raise OptionError(msg)
        return self

    @property
    def about(self) -> dict[str, Any]:
        """All that a training depends on, as JSON holds it."""
        return self.model_dump(mode="json")

    @property
    def judged_on(self) -> list[int]:
        """The first and the last seed of the scenes on which the result is measured."""
        return self.seeds

    def scene(self, shape: tuple[int, ...], seed: int) -> PoissonStencil:
        """Return the operator of a seed."""
        generator = np.random.default_rng(seed)
        if self.scenes == "free_surface":
            return PoissonStencil(free_surface(shape, generator))
        return varied(shape, generator, self.contrasts[(seed - self.seeds[0]) % len(self.contrasts)])

    def learned(self, kind: str, folder: Path, tell: Tell) -> Learned:
        """Return what is learned: of a checkpoint that is complete, else by `learn`."""
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists():
            tensors, facts = read_checkpoint(checkpoint, self.about)
            if "reached" in facts:
                return tensors, facts["reached"], read_log(folder / LOG)
        tensors, reached, rows = self.learn(kind, folder, tell)
        write_checkpoint(checkpoint, tensors, {"reached": reached}, self.about)
        return tensors, reached, rows

    def learn(self, kind: str, folder: Path, tell: Tell) -> Learned:
        """Learn in a folder, which gets the log."""
        raise NotImplementedError


class Descent(Grids):
    """``how = "train"``: roots, gains and networks by Adam, see `neuralsolve.models.cycle_training`."""

    how: Literal["train"]
    validation: Seeds
    unrolled: PositiveInt = 5
    batch: PositiveInt = 6
    width: PositiveInt = 8
    rate: PositiveFloat = 0.02
    net_rate: PositiveFloat = 0.01

    @property
    def judged_on(self) -> list[int]:
        return self.validation

    @model_validator(mode="after")
    def _has_constant_coefficients(self) -> Descent:
        if self.scenes == "inclusions":
            msg = "how = 'train' takes scenes of constant coefficients; for inclusions write how = 'search'"
            raise OptionError(msg)
        return self

    def learn(self, kind: str, folder: Path, tell: Tell) -> Learned:
        options = CycleTraining(
            tuple(self.steps),
            self.width,
            self.iterations,
            self.unrolled,
            self.rate,
            self.net_rate,
            self.batch,
            self.seed,
        )
        shapes, seeds = [tuple(shape) for shape in self.shapes], (_range(self.seeds), _range(self.validation))
        trainer = CycleTrainer(self.scene, shapes, *seeds, options, self.about)
        rows = train(trainer, folder, tell)
        after, excess = trainer.validate(), float(trainer.model.excess().detach())
        reached = {"before": trainer.before, "after": after, "excess": excess, "seconds": trainer.seconds}
        return trainer.model.tensors(kind), reached, rows


class Search(Grids):
    """``how = "search"``: roots and gains alone, on the compiled cycle, in `iterations` of its loss.

    An interrupted one begins anew.
    """

    how: Literal["search"]

    def learn(self, kind: str, folder: Path, tell: Tell) -> Learned:
        shapes, seeds = [tuple(shape) for shape in self.shapes], _range(self.seeds)
        scenes = [self.scene(shapes[k % len(shapes)], seed) for k, seed in enumerate(seeds)]
        rows, losses, start = [], [], time.perf_counter()

        def report(loss: float) -> None:
            losses.append(loss)
            if len(losses) % max(1, self.iterations // 100) == 0:
                seconds = round(time.perf_counter() - start, 2)
                rows.append({"step": len(losses), "seconds": seconds, "loss": min(losses)})
                tell(len(losses), f"loss {min(losses):.3f}")

        known, reached = search_steps(scenes, self.steps, self.iterations, self.seed, report)
        write_log(folder / LOG, rows)
        return tensors_of(known, kind), reached, rows


class CycleCase(CaseTable):
    """``network = "cycle"``: one table ``[grids.KIND]`` for every kind of grid that is to be known."""

    command: ClassVar[str] = "train"

    network: Literal["cycle"]
    grids: dict[Kind, Annotated[Descent | Search, Field(discriminator="how")]] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> CycleCase:
        for kind, grids in self.grids.items():
            if any(len(shape) != int(kind[0]) for shape in grids.shapes):
                msg = f"grids.{kind}: shapes = {grids.shapes}; {kind[0]} sides each are needed"
                raise OptionError(msg)
            if ("coefficients" in kind) != (grids.scenes == "inclusions"):
                msg = f"grids.{kind}: scenes = {grids.scenes!r}; inclusions are for grids with coefficients"
                raise OptionError(msg)
        return self

    @property
    def steps(self) -> int:
        """Iterations of all kinds."""
        return sum(grids.iterations for grids in self.grids.values())

    def with_steps(self, steps: int) -> CycleCase:
        """Return the case with so many iterations of every kind."""
        grids = {k: each.model_copy(update={"iterations": steps}) for k, each in self.grids.items()}
        return self.model_copy(update={"grids": grids})

    def folders(self, folder: Path) -> list[Path]:
        """Return where logs and checkpoints go: every kind of grid has a folder of its own."""
        return [folder / kind for kind in self.grids]

    def train(self, folder: Path, tell: Tell) -> Trained:
        """Train or search one kind after the other; those that are done are not done again."""
        tensors: dict[str, Tensor] = {}
        results, curves, done = [], {}, 0
        with _one_thread():
            for kind, grids in self.grids.items():

                def told(steps: int, note: str, kind: str = kind, before: int = done) -> None:
                    tell(before + steps, f"{kind}: {note}")

                found, reached, rows = grids.learned(kind, folder / kind, told)
                tensors |= found
                done += grids.iterations
                results.append({"grid": kind, "how": grids.how, "seeds": grids.judged_on} | _rounded(reached))
                curves[kind] = [(row["step"], 10 ** row.get("validation", row["loss"])) for row in rows]
            total = sum(row["seconds"] for row in results)
            facts = {
                "architecture": json.dumps({"network": "cycle", "kinds": list(self.grids)}),
                "seed": json.dumps({kind: grids.seed for kind, grids in self.grids.items()}),
                "data": json.dumps({k: f"{g.scenes}, seeds {g.seeds}" for k, g in self.grids.items()}),
            }
            said = facts | provenance(self, self.steps, total, results)
        loss = "error and residual left by a step of CG"
        return Trained(tensors, said, self.steps, total, results, curves, loss)


def _range(seeds: list[int]) -> range:
    return range(seeds[0], seeds[1] + 1)


def _rounded(reached: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in reached.items()}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: the tensors of a training are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
