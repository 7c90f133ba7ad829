"""``kind = "train"``: a network, its data and schedule; what it is worth on right sides it has not seen.

`TrainCase` is of networks that propose directions, `neuralsolve.cases.cycle.CycleCase` of the learned cycle;
both end in what the command line takes: `Trained`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, TypeAdapter, ValidationError, model_validator
from torch import Tensor, nn

from neuralsolve.cases.schema import CaseTable, Table, Wall
from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError, nearest
from neuralsolve.models.fields import Ritz, System, smoothed
from neuralsolve.models.neural import NeuralDirection, make_network
from neuralsolve.models.training import Schedule, Trainer
from neuralsolve.models.training_loop import train
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface, noise, smooth_divergence
from neuralsolve.solvers.dcdm import DCDM
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.method import Method
from neuralsolve.solvers.solve import prepare

SIDES = {"noise": noise, "divergence": smooth_divergence}  # right sides, by name

GridShape = Annotated[list[Annotated[int, Field(ge=4)]], Field(min_length=2, max_length=3)]
Tell = Callable[[int, str], None]


@dataclass(frozen=True)
class Shown:
    """Predictions for a figure: samples, what a model makes of them, names of the samples."""

    samples: Samples
    made: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Trained:
    """What a training ends in.

    Attributes
    ----------
    tensors, provenance : of the file of weights
    steps, seconds : that were taken
    results : what it is worth, rows as JSON holds them
    curves : (step, loss) by name, for a figure
    loss : what these losses are
    told : of the results, a line each
    shown : predictions, of a model of fields
    files : further ones that were written
    """

    tensors: dict[str, Tensor]
    provenance: dict[str, str]
    steps: int
    seconds: float
    results: list[dict[str, Any]]
    curves: dict[str, list[tuple[float, float]]]
    loss: str
    told: list[str]
    shown: Shown | None = None
    files: tuple[Path, ...] = ()


class Data(Table):
    """Where errors y, and so right sides b = A y, come from: see `neuralsolve.models.fields`."""

    source: Literal["smoothed", "ritz"] = "smoothed"
    lanczos: PositiveInt = 800
    boosted: float = Field(default=0.55, ge=0, le=1)


class Validation(Table):
    """What the trained network is measured on: seeds from `first`, `count` of them, to `rtol`.

    On grids of `shapes`; None: of those that it was trained on.
    """

    shapes: list[GridShape] | None = Field(default=None, min_length=1)
    first: int = Field(default=200, ge=0)
    count: PositiveInt = 20
    rtol: float = Field(default=1e-4, gt=0)


class TrainCase(CaseTable):
    """``kind = "train"``: a network and how it is trained.

    The grids, of each of `shapes`, which steps take in turn: `geometry` "box", one box full of fluid with
    `walls`; or "free_surface", water below a wave with four solid balls, one geometry for every seed from 0
    to `geometries` - 1.
    """

    command: ClassVar[str] = "train"

    network: Literal["dcdm", "npsdo"]
    shapes: list[GridShape] = Field(min_length=1)
    depth: Literal["shallow", "deep"] = "shallow"
    own_levels: int = Field(default=3, ge=1, le=8)
    geometry: Literal["box", "free_surface"] = "box"
    walls: Wall = "dirichlet"
    geometries: PositiveInt = 200
    data: Data = Data()
    schedule: dict[str, Any] = Field(default_factory=dict)
    validation: Validation = Validation()

    @model_validator(mode="after")
    def _complete(self) -> TrainCase:
        self.plan()
        if len({len(shape) for shape in [*self.shapes, *self.measured]}) > 1:
            msg = f"shapes = {self.shapes}, of the validation {self.measured}; all 2D or all 3D are needed"
            raise OptionError(msg)
        if self.geometry == "free_surface" and "walls" in self.model_fields_set:
            msg = (
                f"walls = {self.walls!r} with geometry = 'free_surface', which has its own; 'box' takes walls"
            )
            raise OptionError(msg)
        if self.network == "npsdo" and self.walls == "periodic":
            msg = "walls = 'periodic' with network = 'npsdo', which knows no periodic axis; 'dcdm' does"
            raise OptionError(msg)
        if self.data.source == "ritz" and (self.geometry != "box" or len(self.shapes) > 1):
            msg = "data.source = 'ritz' takes the one matrix of geometry = 'box' of one shape; 'smoothed' any"
            raise OptionError(msg)
        return self

    @property
    def steps(self) -> int:
        """Of the schedule."""
        return self.plan().steps

    def with_steps(self, steps: int) -> TrainCase:
        """Return the case with another number of steps."""
        return self.model_copy(update={"schedule": self.schedule | {"steps": steps}})

    def folders(self, folder: Path) -> list[Path]:
        """Return where the log and the checkpoint go."""
        return [folder]

    @property
    def measured(self) -> list[list[int]]:
        """Shapes of the grids of the validation."""
        return self.shapes if self.validation.shapes is None else self.validation.shapes

    def plan(self) -> Schedule:
        """Return the schedule of the training; the seed is the case's own unless the schedule has one."""
        return planned(Schedule, self.seed, self.schedule)

    def architecture(self) -> dict[str, Any]:
        """Return what `make_network` makes the network of."""
        common = {"network": self.network, "dim": len(self.shapes[0])}
        if self.network == "dcdm":
            return common | {"depth": self.depth}
        return common | {"own_levels": self.own_levels}

    def stencil(self, shape: list[int], seed: int) -> PoissonStencil:
        """Return A of one geometry; of a box, always the same."""
        if self.geometry == "box":
            return PoissonStencil(Grid(tuple(shape), walls=self.walls))
        return PoissonStencil(free_surface(tuple(shape), np.random.default_rng(seed)))

    def trainer(self) -> Trainer:
        """Return the network before its first step, with its data."""
        schedule = self.plan()
        with torch.random.fork_rng():
            torch.manual_seed(schedule.seed)
            net = make_network(**self.architecture())
        multiple = getattr(net, "multiple", 1)
        if any(side % multiple for shape in self.shapes for side in shape):
            msg = f"shapes = {self.shapes}: this network is trained on sides that are multiples of {multiple}"
            raise OptionError(msg)
        count = 1 if self.geometry == "box" else self.geometries
        systems = [System([self.stencil(shape, seed) for seed in range(count)]) for shape in self.shapes]
        about = self.model_dump(mode="json", include={"shapes", "geometry", "walls", "geometries", "data"})
        return Trainer(net, systems, self._fresh(systems[0], schedule), schedule, about | self.architecture())

    def _fresh(self, system: System, schedule: Schedule) -> Callable[[System, int, torch.Generator], Tensor]:
        if self.data.source == "smoothed":
            return smoothed
        generator = torch.Generator().manual_seed(schedule.seed + 1)
        ritz = Ritz(system, self.data.lanczos, generator, self.data.boosted)
        return lambda _, count, generator: ritz(count, generator)

    def train(self, folder: Path, tell: Tell) -> Trained:
        """Train, or go on from the checkpoint in a folder; measure."""
        trainer = self.trainer()
        rows = train(trainer, folder, tell)
        results = self.results(trainer.net)
        facts = {
            "architecture": json.dumps(self.architecture()),
            "schedule": json.dumps(dataclasses.asdict(trainer.schedule)),
            "seed": str(trainer.schedule.seed),
            "data": f"{self.data.source} on {self.geometry} "
            + ", ".join("x".join(map(str, shape)) for shape in self.shapes),
        }
        named = {"fresh data": "fresh", "on-policy residuals": "on_policy"}
        return Trained(
            dict(trainer.net.state_dict()),
            facts | provenance(self, trainer.step, trainer.seconds, results),
            trainer.step,
            trainer.seconds,
            results,
            {label: [(row["step"], row[name]) for row in rows] for label, name in named.items()},
            "mean loss",
            [_beside_cg(row) for row in results],
        )

    def results(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return what the network is worth on the validation seeds, beside CG in the same run."""
        seeds = range(self.validation.first, self.validation.first + self.validation.count)
        return [self._compared(net, shape, name, seeds) for shape in self.measured for name in SIDES]

    def _compared(self, net: nn.Module, shape: list[int], side: str, seeds: range) -> dict[str, Any]:
        runs = [self._both(net, shape, side, seed) for seed in seeds]
        row: dict[str, Any] = {
            "shape": shape,
            "right_side": side,
            "rtol": self.validation.rtol,
            "seeds": [seeds[0], seeds[-1]],
        }
        for name in ("iterations", "cg_iterations", "seconds", "cg_seconds", "rejected", "ratio"):
            row[name] = round(median(run[name] for run in runs), 4)
        row["worst_ratio"] = round(min(run["ratio"] for run in runs), 4)
        return row | {"converged": all(run["converged"] for run in runs)}

    def _both(self, net: nn.Module, shape: list[int], side: str, seed: int) -> dict[str, Any]:
        A = self.stencil(shape, seed)
        b = SIDES[side](A, np.random.default_rng([seed, 1]))
        found: list[dict[str, Any]] = []
        methods: list[tuple[Method, Any]] = [(DCDM(history=2), NeuralDirection(net)), (CG(), None)]
        for method, M in methods:
            prepared = prepare(A, method, M=M, rtol=self.validation.rtol)
            result = prepared.solve(b, throw=False)
            seconds = prepared.setup_seconds + result.solve_seconds
            found.append({"result": result, "seconds": seconds})
        (ours, plain) = (each["result"] for each in found)
        return {
            "iterations": ours.iterations,
            "cg_iterations": plain.iterations,
            "ratio": plain.iterations / max(1, ours.iterations),
            "seconds": found[0]["seconds"],
            "cg_seconds": found[1]["seconds"],
            "rejected": _rejected(ours.explanation),
            "converged": ours.converged and plain.converged,
        }


def planned(kind: Any, seed: int, given: dict[str, Any]) -> Any:
    """Return the options of a schedule, a dataclass `kind`; the seed is the case's unless it has its own.

    Raises
    ------
    OptionError
        An unknown key or a value that cannot be; the message says which.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for key in given:
        if key not in known:
            msg = f"schedule: unknown key {key!r}{nearest(key, known)}"
            raise OptionError(msg)
    try:
        return TypeAdapter(kind).validate_python({"seed": seed} | given)
    except ValidationError as error:
        complaint = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("schedule", *complaint["loc"])))
        text = complaint.get("ctx", {}).get("error", f"{complaint['input']!r:.100}: {complaint['msg']}")
        msg = f"{where}: {text}"
        raise OptionError(msg) from None


def _rejected(explanation: str) -> int:
    """Return how many of the network's directions DCDM's explanation says were rejected."""
    found = re.search(r"(\d+) of the network's first", explanation)
    return int(found[1]) if found else 0


def _beside_cg(row: dict[str, Any]) -> str:
    return (
        f"{' x '.join(map(str, row['shape']))}, {row['right_side']}, "
        f"seeds {row['seeds'][0]} to {row['seeds'][1]}, to {row['rtol']:g}: "
        f"{row['iterations']:g} iterations, CG {row['cg_iterations']:g}, ratio {row['ratio']:.3g} (worst "
        f"{row['worst_ratio']:.3g}); {row['seconds']:.2g} s, CG {row['cg_seconds']:.2g} s"
    )


def provenance(
    case: CaseTable, steps: int, seconds: float, results: Sequence[dict[str, Any]]
) -> dict[str, str]:
    """Return the metadata that all weights have."""
    import neuralsolve

    return {
        "command": f"neuralsolve train {case.path.name}",
        "case": json.dumps(case.model_dump(mode="json")),
        "steps": str(steps),
        "wall_seconds": f"{seconds:.0f}",
        "threads": str(torch.get_num_threads()),
        "package": f"neuralsolve {neuralsolve.__version__}",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "results": json.dumps(results),
    }
