"""``kind = "train"`` with ``network = "cycle"``: what the learned multigrid cycle knows, by kind of grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from neuralsolve.cases.schema import CaseTable, Table
from neuralsolve.cases.training import Tell, Trained, provenance
from neuralsolve.errors import OptionError
from neuralsolve.kernels.cpu.threads import torch_on_one_thread
from neuralsolve.models.cycle_training import BANDS, CycleTrainer, CycleTraining
from neuralsolve.models.training_loop import (
    CHECKPOINT,
    LOG,
    Row,
    read_checkpoint,
    read_log,
    train,
    write_checkpoint,
)
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface, layered, varied

Kind = Literal["2d", "3d", "2d-coefficients", "3d-coefficients", "2d-anisotropic", "3d-anisotropic"]
SCENES = {"": "free_surface", "coefficients": "inclusions", "anisotropic": "layers"}  # by kind of grid


def _rising(seeds: list[int]) -> list[int]:
    if len(seeds) != 2 or not 0 <= seeds[0] <= seeds[1]:
        msg = "the first seed and the last are needed"
        raise ValueError(msg)
    return seeds


Seeds = Annotated[list[int], AfterValidator(_rising)]
Learned = tuple[dict[str, Tensor], dict[str, float], list[Row]]  # tensors, what was reached, log


class Grids(Table):
    """One kind of grid: the scenes that it is learned on, and how, see `neuralsolve.models.cycle_training`.

    `steps` of smoothing are those of the levels, the finest first; the last one serves all below. Scenes take
    the shapes in turn, one shape a batch, and inclusions the `contrasts` too.
    """

    scenes: Literal["free_surface", "inclusions", "layers"]
    contrasts: list[PositiveFloat] = Field(default_factory=list)
    shapes: list[list[Annotated[int, Field(ge=8)]]] = Field(min_length=1)
    seeds: Seeds
    validation: Seeds
    steps: list[Annotated[int, Field(ge=1, le=max(BANDS))]] = Field(min_length=1)
    iterations: PositiveInt
    seed: int = Field(default=1905, ge=0)
    unrolled: PositiveInt = 5
    batch: PositiveInt = 6
    width: NonNegativeInt = 8
    rate: PositiveFloat = 0.02
    net_rate: PositiveFloat = 0.01

    @model_validator(mode="after")
    def _fits(self) -> Grids:
        if (self.scenes == "inclusions") != bool(self.contrasts):
            mend = "give contrasts" if self.scenes == "inclusions" else "drop contrasts"
            given = f"contrasts = {self.contrasts} with scenes = {self.scenes!r}"
            msg = f"{given}; inclusions alone need them: {mend}"
            raise OptionError(msg)
        if self.seeds[0] <= self.validation[1] and self.validation[0] <= self.seeds[1]:
            msg = (
                f"validation = {self.validation} has seeds of the training, seeds = {self.seeds}; take others"
            )
            raise OptionError(msg)
        if self.scenes != "free_surface" and self.width:
            msg = f"width = {self.width}: networks see masks alone; with {self.scenes!r} write width = 0"
            raise OptionError(msg)
        return self

    def scene(self, shape: tuple[int, ...], seed: int) -> PoissonStencil:
        """Return the operator of a seed."""
        generator = np.random.default_rng(seed)
        if self.scenes == "free_surface":
            return PoissonStencil(free_surface(shape, generator))
        if self.scenes == "layers":
            return layered(shape, generator)
        return varied(shape, generator, self.contrasts[(seed - self.seeds[0]) % len(self.contrasts)])

    def learned(self, kind: str, folder: Path, tell: Tell) -> Learned:
        """Return what is learned: of a checkpoint that is complete, else by training in a folder."""
        checkpoint, about = folder / CHECKPOINT, self.model_dump(mode="json")
        if checkpoint.exists():
            tensors, facts = read_checkpoint(checkpoint, about)
            if "reached" in facts:
                return tensors, facts["reached"], read_log(folder / LOG)
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
        trainer = CycleTrainer(self.scene, shapes, *seeds, options, about)
        rows = train(trainer, folder, tell)
        after, excess = trainer.validate(), float(trainer.model.excess().detach())
        reached = {"before": trainer.before, "after": after, "excess": excess, "seconds": trainer.seconds}
        tensors = trainer.model.tensors(kind)
        write_checkpoint(checkpoint, tensors, {"reached": reached}, about)
        return tensors, reached, rows


class CycleCase(CaseTable):
    """``network = "cycle"``: one table ``[grids.KIND]`` for every kind of grid that is to be known."""

    command: ClassVar[str] = "train"

    network: Literal["cycle"]
    grids: dict[Kind, Grids] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> CycleCase:
        for kind, grids in self.grids.items():
            if any(len(shape) != int(kind[0]) for shape in grids.shapes):
                msg = f"grids.{kind}: shapes = {grids.shapes}; {kind[0]} sides each are needed"
                raise OptionError(msg)
            wanted = SCENES[kind[3:]]
            if grids.scenes != wanted:
                msg = f"grids.{kind}: scenes = {grids.scenes!r}; {wanted!r} are needed"
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
        """Train one kind after the other; those that are done are not done again."""
        tensors: dict[str, Tensor] = {}
        results, curves, done = [], {}, 0
        with torch_on_one_thread():
            for kind, grids in self.grids.items():

                def told(steps: int, note: str, kind: str = kind, before: int = done) -> None:
                    tell(before + steps, f"{kind}: {note}")

                found, reached, rows = grids.learned(kind, folder / kind, told)
                tensors |= found
                done += grids.iterations
                results.append({"grid": kind, "seeds": grids.validation} | _rounded(reached))
                curves[kind] = [(row["step"], 10 ** row.get("validation", row["loss"])) for row in rows]
            total = sum(row["seconds"] for row in results)
            facts = {
                "architecture": json.dumps({"network": "cycle", "kinds": list(self.grids)}),
                "seed": json.dumps({kind: grids.seed for kind, grids in self.grids.items()}),
                "data": json.dumps({k: f"{g.scenes}, seeds {g.seeds}" for k, g in self.grids.items()}),
            }
            said = facts | provenance(self, self.steps, total, results)
        loss = "error and residual left by a step of CG"
        return Trained(
            tensors, said, self.steps, total, results, curves, loss, [_told(row) for row in results]
        )


def _range(seeds: list[int]) -> range:
    return range(seeds[0], seeds[1] + 1)


def _rounded(reached: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in reached.items()}


def _told(row: dict[str, Any]) -> str:
    return (
        f"{row['grid']}: loss {row['after']:.3f}, before {row['before']:.3f}, in {row['seconds']:.0f} s; "
        f"on scenes not trained on, seeds {row['seeds'][0]} to {row['seeds'][1]}"
    )
