"""Where the samples of a model of fields come from: the tables of its case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from neuralsolve.cases.files import referenced_file
from neuralsolve.cases.schema import Table
from neuralsolve.cases.training import Tell
from neuralsolve.data import make, read_data, read_header
from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError, nearest
from neuralsolve.pde.equation import equations


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
            self._made(path, tell)
        frames = None if self.frames is None else (self.frames[0], self.frames[1])
        found = read_data(path, frames=frames)
        return found if self.stride == 1 else found.every(self.stride)

    def _made(self, path: Path, tell: Tell) -> None:
        """Make the samples of the equation, unless they are there; refuse others in their place."""
        assert self.equation is not None
        assert self.count is not None
        try:
            equation = equations()[self.equation](**self.parameters)
        except TypeError as error:
            msg = f"parameters of {self.equation}: {error}"
            raise OptionError(msg) from None
        if not path.exists() or path.with_name(f"{path.name}.parts").exists():
            told = lambda done, note: tell(0, f"{done} samples, {note}")  # noqa: E731
            make(equation, self.count, path, self.seed, self.first, tell=told)
        layout = read_header(path).layout
        wanted = json.loads(json.dumps(equation.layout().equation, default=str))
        wanted |= {"seed": self.seed, "first": self.first, "count": self.count}
        held = {**layout.origin, **layout.equation}
        other = {name: held.get(name) for name, value in wanted.items() if held.get(name) != value}
        if other:
            msg = f"{path} holds samples made with {other}; delete it, or train into another --out-dir"
            raise OptionError(msg)


class Data(Source):
    """The samples of the training, the validation and a first test.

    They are taken one after the other, or each spread evenly over what the later ones leave: see
    `Samples.split` and `Samples.spread`.
    """

    train: PositiveInt
    validation: PositiveInt
    test: NonNegativeInt = 0
    split: Literal["consecutive", "spread"] = "consecutive"

    @model_validator(mode="after")
    def _enough(self) -> Data:
        wanted = self.train + self.validation + self.test
        if self.count is not None and self.count < wanted:
            msg = f"data.count = {self.count}; train, validation and test are {wanted} samples together"
            raise OptionError(msg)
        return self


class Test(Source):
    """Further samples that the trained model is measured on, of any resolution; `steps` of a roll-out."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    use: PositiveInt | None = None
    steps: PositiveInt | None = None
