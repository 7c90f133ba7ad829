"""``kind = "control"``: optimal control of Poisson's equation, a minimisation under constraints."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from neuralsolve.cases.files import validated
from neuralsolve.cases.schema import CaseTable, Table
from neuralsolve.errors import OptionError
from neuralsolve.optimize.method import SKETCHED, SketchedNewton
from neuralsolve.pde.control import PoissonControl

MOST_DENSE = 32  # nodes a side of what is factorised densely: 75 MB a matrix


class MinimizeOptions(Table):
    """How it is minimised: options of `SketchedNewton`, those left out as there, and of `minimize`."""

    inner: str | None = None
    faithful: bool = False
    eta1: PositiveFloat | None = None
    eta2: PositiveFloat | None = None
    beta: PositiveFloat | None = None
    block: PositiveInt | None = None
    inner_cap: PositiveInt | None = None
    tol: PositiveFloat = 1e-8
    maxiter: PositiveInt = 1000

    @model_validator(mode="after")
    def _fits(self) -> MinimizeOptions:
        self.method(seed=0)
        if self.faithful and self.inner not in (None, "auto", *SKETCHED):
            msg = f"inner = {self.inner!r} with faithful = true, which sketches: take {', '.join(SKETCHED)}"
            raise OptionError(msg)
        return self

    def method(self, seed: int) -> SketchedNewton:
        """Return the method; `seed` is of its sketches."""
        return SketchedNewton(seed=seed, **self.model_dump(exclude={"tol", "maxiter"}, exclude_none=True))


class ControlCase(CaseTable):
    """``kind = "control"``: `PoissonControl`, and how it is minimised.

    `preconditioner` is what `PoissonControl` calls inner: what MINRES is preconditioned with.
    """

    command: ClassVar[str] = "minimize"

    n: int = Field(ge=2, le=10_000)
    alpha: PositiveFloat = 0.1
    preconditioner: Literal["multigrid", "transform"] = "multigrid"
    blocks: Literal["norms", "schur"] = "norms"
    minimize: MinimizeOptions = MinimizeOptions()

    @model_validator(mode="after")
    def _fits(self) -> ControlCase:
        if "solve" in self.model_fields_set:
            msg = "[solve] is of linear systems; write what it says under [minimize]"
            raise OptionError(msg)
        if self.minimize.faithful and self.n > MOST_DENSE:
            msg = f"n = {self.n} with faithful = true, which works on dense matrices: take n <= {MOST_DENSE}"
            raise OptionError(msg)
        return self

    def changed(self, **given: Any) -> ControlCase:
        """Return the case with other values of its keys or of those of [minimize]; None changes nothing.

        Raises
        ------
        OptionError
        """
        given = {key: value for key, value in given.items() if value is not None}
        below = {key: given.pop(key) for key in list(given) if key in MinimizeOptions.model_fields}
        keys = self.model_dump(exclude={"minimize"}, exclude_unset=True) | given
        table = self.minimize.model_dump(exclude_unset=True) | below
        return validated(self.path, ControlCase, keys | {"minimize": table, "path": self.path})

    def control(self) -> PoissonControl:
        """Return what is to be minimised."""
        return PoissonControl(self.n, self.alpha, self.preconditioner, self.blocks)

    def method(self) -> SketchedNewton:
        """Return how."""
        return self.minimize.method(self.seed)
