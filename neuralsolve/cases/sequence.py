"""``kind = "sequence"``: related systems, one after another, and which option is left to a learner."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from neuralsolve.cases.schema import CaseTable, Table
from neuralsolve.errors import OptionError
from neuralsolve.pde.sequences import HeatEquation, ShiftedLaplacian


class Shift(Table):
    """The shift c = low + width Beta(alpha, beta) of ``systems = "shifted"``."""

    low: float = -0.15
    width: PositiveFloat = 0.6
    alpha: PositiveFloat = 0.5
    beta: PositiveFloat = 1.5


class Tune(Table):
    """What is tuned: `parameter` is "M" or "method", or an option of either, such as "M.omega".

    Chosen from the range `low` to `high`, or from `choices`. The rest is as for `Tuned`; without `learner` it
    depends on whether solves have a context, and `context = false` gives them none.
    """

    parameter: str
    low: float | None = None
    high: float | None = None
    choices: list[float | int | str] | None = Field(default=None, min_length=1)
    learner: str | None = None
    cost: Literal["iterations", "matvecs", "seconds"] = "iterations"
    arms: int = Field(default=20, ge=2)
    log: bool = False
    context: bool = True
    context_range: list[float] | None = Field(default=None, min_length=2, max_length=2)

    @model_validator(mode="after")
    def _one_of_two(self) -> Tune:
        ends = self.low is not None and self.high is not None
        if ends == (self.choices is not None) or (self.low is None) != (self.high is None):
            msg = "tune: give low and high, or choices"
            raise OptionError(msg)
        return self


class SequenceCase(CaseTable):
    """``kind = "sequence"``: systems of `neuralsolve.pde.sequences`, and what is tuned over them.

    `cells`: points a side for "shifted"; cells a side of the unit square for "heat", one more than points.
    `dt` is of "heat", `shift` of "shifted".
    """

    command: ClassVar[str] = "tune"

    systems: Literal["shifted", "heat"]
    cells: int = Field(ge=3, le=10_000)
    steps: PositiveInt = 5000
    dt: PositiveFloat | None = None
    shift: Shift | None = None
    tune: Tune

    @model_validator(mode="after")
    def _fits(self) -> SequenceCase:
        for key, systems in (("dt", "heat"), ("shift", "shifted")):
            if getattr(self, key) is not None and self.systems != systems:
                msg = f'{key} is of systems = "{systems}"; leave it out of "{self.systems}"'
                raise OptionError(msg)
        return self

    def sequence(self) -> ShiftedLaplacian | HeatEquation:
        """Return the systems."""
        if self.systems == "heat":
            return HeatEquation(self.cells, 1e-3 if self.dt is None else self.dt, self.steps)
        shift = self.shift or Shift()
        return ShiftedLaplacian(self.cells, **shift.model_dump(), steps=self.steps, seed=self.seed)
