"""The schema of case files, except ``kind = "smoke"``, whose fields are those of `SmokeCase`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from neuralsolve.errors import OptionError

MAX_CELLS = 2**29  # 4 GiB a vector: beyond it a shape is a slip of the pen

Point = list[float]
Wall = Literal["neumann", "dirichlet", "periodic"]
Source = str | float


class Table(BaseModel):
    """A table of a case file: known keys only, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SolveOptions(Table):
    """What ``neuralsolve solve`` uses where the command line says nothing."""

    method: str | None = None
    M: str | None = None
    rtol: float | None = Field(default=None, ge=0)
    atol: float = Field(default=0.0, ge=0)
    maxiter: PositiveInt | None = None


class Ball(Table):
    """A disc or ball."""

    shape: Literal["ball"]
    center: Point
    radius: PositiveFloat


class Box(Table):
    """A rectangle or box between two corners."""

    shape: Literal["box"]
    low: Point
    high: Point


class Bunny(Table):
    """The bunny of the smoke cases: `center` of its bounding box and its height, in box widths."""

    shape: Literal["bunny"]
    center: Point
    height: PositiveFloat
    origin: Literal["auto", "data", "analytic"] = "auto"


class Mask(Table):
    """A voxel file, resampled to the grid: non-zero is inside. `packed` is the shape of bit-packed voxels."""

    shape: Literal["mask"]
    file: str
    key: str | None = None
    packed: list[PositiveInt] | None = None


Shape = Annotated[Ball | Box | Bunny | Mask, Field(discriminator="shape")]


class BallInclusion(Ball):
    """A ball of another coefficient."""

    coefficient: PositiveFloat


class BoxInclusion(Box):
    """A box of another coefficient."""

    coefficient: PositiveFloat


class MaskInclusion(Mask):
    """Voxels of another coefficient."""

    coefficient: PositiveFloat


Inclusion = Annotated[BallInclusion | BoxInclusion | MaskInclusion, Field(discriminator="shape")]


class FreeSurface(Table):
    """AIR above ``height + amplitude sin(2 pi (waves s + phase))`` on the first axis, s on the last."""

    height: float
    amplitude: float = 0.0
    waves: float = 1.0
    phase: float = 0.0


class CaseTable(Table):
    """What every kind has; `shared`: several processes may train it; `page` has its keys."""

    shared: ClassVar[bool] = False
    page: ClassVar[str] = "docs/cases.md"

    title: str = ""
    solve: SolveOptions = SolveOptions()
    seed: int = Field(default=1905, ge=0)
    path: Path = Field(exclude=True)


class PoissonCase(CaseTable):
    """``kind = "poisson"``: -div(c grad u) = f on a box grid."""

    shape: list[PositiveInt] = Field(min_length=2, max_length=3)
    spacing: PositiveFloat | list[PositiveFloat] | None = None
    walls: Wall | list[Wall | list[Wall]] = "dirichlet"
    obstacles: list[Shape] = []
    surface: FreeSurface | None = None
    inclusions: list[Inclusion] = []
    source: Source = "ones"
    solution: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> PoissonCase:
        if math.prod(self.shape) > MAX_CELLS:
            msg = f"shape = {self.shape} has {math.prod(self.shape)} cells, more than {MAX_CELLS}"
            raise OptionError(msg)
        for name in ("obstacles", "inclusions"):
            for table in getattr(self, name):
                for corner in ("center", "low", "high"):
                    if len(getattr(table, corner, self.shape)) != len(self.shape):
                        msg = (
                            f"{name}: {corner} = {getattr(table, corner)} on a grid of {len(self.shape)} axes"
                        )
                        raise OptionError(msg)
        return self

    def problem(self) -> Any:
        """Return A, b and what is known of x."""
        from neuralsolve.cases.poisson import poisson_problem

        return poisson_problem(self)


class MatrixCase(CaseTable):
    """``kind = "matrix"``: a matrix from a file."""

    file: str
    key: str = "A"
    source: Source = "ones"
    solution: str | None = None

    def problem(self) -> Any:
        """Return A, b and what is known of x."""
        from neuralsolve.cases.problem import matrix_problem

        return matrix_problem(self)


class MeshCase(CaseTable):
    """``kind = "mesh"``: -div(c grad u) + s u = f on a mesh, by linear finite elements."""

    file: str
    dirichlet: dict[str, float] | None = None
    coefficient: PositiveFloat = 1.0
    shift: float = Field(default=0.0, ge=0)
    source: Source = 1.0

    def problem(self) -> Any:
        """Return A, b and what brings x back to the mesh."""
        from neuralsolve.cases.problem import mesh_problem

        return mesh_problem(self)


KINDS: dict[str, type[CaseTable]] = {"poisson": PoissonCase, "matrix": MatrixCase, "mesh": MeshCase}


def known_keys(model: Any, where: Iterable[int | str]) -> list[str]:
    """Return the keys of the table at `where`, pydantic's path of names, numbers and shape tags."""
    return [name for m in _walk(model, where)[0] for name in m.model_fields if name != "path"]


def toml_path(model: Any, where: Iterable[int | str]) -> list[str]:
    """Return pydantic's path without what the file does not say: shape tags and types tried in turn."""
    return _walk(model, where)[1]


def _walk(model: Any, where: Iterable[int | str]) -> tuple[list[Any], list[str]]:
    """Follow a path; return the models that it may have come to, and its parts that are keys or numbers."""
    choices, parts, free = [model] if model is not None else [], [], False
    for part in where:
        fields = [m.model_fields[part].annotation for m in choices if part in m.model_fields]
        if fields:
            choices = [found for annotation in fields for found in _models(annotation)]
            free = any(_has_free_keys(annotation) for annotation in fields)
        elif isinstance(part, str) and model is not None and not free:
            choices = [m for m in choices if part in _tags(m)] or choices
            continue
        else:
            free = False
        parts.append(str(part))
    return choices, parts


def _tags(model: Any) -> tuple[Any, ...]:
    """Return the tags by which a table is told from others in its place."""
    fields = (model.model_fields.get(name) for name in ("shape", "how"))
    return tuple(tag for field in fields if field is not None for tag in get_args(field.annotation))


def _has_free_keys(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_has_free_keys(inner) for inner in get_args(annotation))


def _models(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models(inner)]
