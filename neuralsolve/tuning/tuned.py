"""`Tuned`: a parameter, or a choice, that is left to an online learner.

It stands where a number or an object would: `SSOR(omega=Tuned(0.8, 1.99))`,
`GMRES(restart=Tuned([20, 50]))`, `M=Tuned([AMG(), Multigrid()])`. `prepare` finds every one, asks its learner
before a solve, and tells it after the solve what that has cost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.tuning.learner import Learner

COSTS = ("iterations", "matvecs", "seconds")
ARMS = 20  # of a range
LARGEST = 1e300


class Tuned:
    """A parameter, or a choice, left to an online learner.

    Parameters
    ----------
    low, high : the ends of a range of numbers; or one sequence of choices: numbers, recipes, methods, None
    learner : `TsallisINF()`, `Thompson()`, `TsallisINFBins()`, `ChebCB()`, `ScalarFit()`, ...
        By default `ChebCB()` where solves are given a context, else `Thompson()` for seconds, `TsallisINF()`
        for what is counted.
    cost : what is made small, "iterations", "matvecs", or "seconds", set-up of the choice included
    arms : into how many values a range is split, for learners that choose among values
    log : space them evenly in the logarithm
    context_range : the least and the largest context; by default what has been seen
    seed : of the learner's draws

    Raises
    ------
    OptionError

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> A = ns.PoissonStencil(ns.Grid((24, 24), walls="dirichlet"))
    >>> prepared = ns.prepare(A, ns.CG(), M=ns.SSOR(omega=ns.Tuned(1.0, 1.9, arms=4)), rtol=1e-6)
    >>> steps = [prepared.solve(np.ones(576)).iterations for _ in range(60)]
    >>> int(prepared.report().tables[0].pulls.sum())
    60
    """

    def __new__(cls, *given: Any, **options: Any) -> Any:
        """Return a `Tuned` that type checkers let stand for any option."""
        return super().__new__(cls)

    def __init__(
        self,
        low: float | Sequence[Any],
        high: float | None = None,
        *,
        learner: Learner | None = None,
        cost: str = "iterations",
        arms: int = ARMS,
        log: bool = False,
        context_range: tuple[float, float] | None = None,
        seed: int = 0,
    ):
        self.choices: tuple[Any, ...] | None = None
        self.range: tuple[float, float] | None = None
        if high is None:
            self.choices = _choices(low)
        else:
            self.range = _range(low, high, log)
        if learner is not None and not isinstance(learner, Learner):
            name = getattr(learner, "__name__", repr(learner))
            msg = f"learner is {name}; an object such as ns.TsallisINF() or ns.ChebCB(degree=5) is needed"
            raise OptionError(msg)
        if learner is not None and learner.numeric and self.range is None:
            msg = (
                f"{type(learner).__name__} chooses a number of a range, and this Tuned has a list of "
                "choices; give Tuned(low, high), or a learner such as ns.TsallisINF()"
            )
            raise OptionError(msg)
        if cost not in COSTS:
            msg = f"Tuned(cost={cost!r}): cost must be one of {COSTS}"
            raise OptionError(msg)
        if isinstance(arms, bool) or not isinstance(arms, int) or arms < 2:
            msg = f"Tuned(arms={arms!r}): at least two values are needed, for example arms={ARMS}"
            raise OptionError(msg)
        if high is None and (log or arms != ARMS):
            msg = f"Tuned({low!r}): arms and log are of a range, Tuned(low, high); a list is taken as it is"
            raise OptionError(msg)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            msg = f"Tuned(seed={seed!r}): a whole number of at least 0 is needed"
            raise OptionError(msg)
        if context_range is not None:
            if not isinstance(context_range, tuple | list) or len(context_range) != 2:
                msg = f"Tuned(context_range={context_range!r}): a pair (least, largest) is needed"
                raise OptionError(msg)
            context_range = _range(*context_range, False)
        self.learner, self.cost, self.arms, self.log = learner, cost, arms, bool(log)
        self.context_range, self.seed = context_range, int(seed)

    def values(self, whole: bool = False) -> tuple[Any, ...]:
        """Return what is chosen from: the choices, or the arms of the range, `whole` numbers where asked."""
        if self.choices is not None:
            return self.choices
        assert self.range is not None
        space = np.geomspace if self.log else np.linspace
        arms = space(*self.range, self.arms)
        if whole:
            return tuple(int(v) for v in np.unique(np.rint(arms)))
        return tuple(arms.tolist())

    def __repr__(self) -> str:
        if self.range is not None:
            return f"Tuned({self.range[0]:g}, {self.range[1]:g})"
        return f"Tuned({list(self.choices or ())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tuned) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.range, self.cost, self.arms, self.seed))


def _choices(given: Any) -> tuple[Any, ...]:
    if isinstance(given, str | int | float) or not isinstance(given, Sequence | np.ndarray):
        msg = f"Tuned({given!r}): give a range, Tuned(low, high), or a list of choices, Tuned([a, b])"
        raise OptionError(msg)
    if len(given) == 0:
        msg = "Tuned([]): there is nothing to choose from; give at least one choice, such as [ns.AMG(), None]"
        raise OptionError(msg)
    return tuple(given.tolist() if isinstance(given, np.ndarray) else given)


def _range(low: Any, high: Any, log: bool) -> tuple[float, float]:
    numbers = all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in (low, high))
    if not numbers or not -LARGEST < low < high < LARGEST or (log and low <= 0):
        above = " above zero" if log else ""
        msg = f"a range from {low!r} to {high!r}: two finite numbers{above}, the lower one first, are needed"
        raise OptionError(msg)
    return float(low), float(high)


def tuned_fields(options: Any) -> dict[str, Tuned]:
    """Return the fields of a dataclass of options that are left to a learner."""
    if not is_dataclass(options):
        return {}
    return {f.name: v for f in fields(options) if isinstance(v := getattr(options, f.name), Tuned)}


def is_whole(options: Any, name: str) -> bool:
    """Whether a field takes whole numbers: its default is one."""
    default = next(f.default for f in fields(options) if f.name == name)
    return isinstance(default, int) and not isinstance(default, bool)


class Tunable:
    """Options any of which may be `Tuned`: what a class checks of one value is checked of all of them."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__post_init__" in vars(cls):
            cls.__post_init__ = _checking_all(cls.__post_init__)  # type: ignore[attr-defined]
        if "build" in vars(cls):
            cls.build = _refusing(cls.build)  # type: ignore[attr-defined]


def _checking_all(check: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(check)
    def checked(self: Any) -> None:
        tuned = tuned_fields(self)
        for name, value in vars(self).items():
            if isinstance(value, list | tuple | dict) and any(isinstance(v, Tuned) for v in _items(value)):
                msg = (
                    f"{type(self).__name__}({name}={value!r}): a Tuned inside of a {type(value).__name__} is "
                    f"not varied; let it choose the whole of it: {name}=Tuned([...])"
                )
                raise OptionError(msg)
        if not tuned:
            check(self)
            return
        first = {name: each.values(is_whole(self, name))[0] for name, each in tuned.items()}
        for name, each in tuned.items():
            for value in each.values(is_whole(self, name)):
                if not isinstance(value, Tuned):
                    replace(self, **first | {name: value})

    return checked


def _items(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value


def _refusing(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def built(self: Any, *arguments: Any, **options: Any) -> Any:
        tuned = tuned_fields(self)
        if tuned:
            name, value = next(iter(tuned.items()))
            msg = (
                f"{type(self).__name__}({name}={value!r}).build(A): a learner chooses before every solve; "
                "give it as M to ns.prepare, which asks it"
            )
            raise OptionError(msg)
        return build(self, *arguments, **options)

    return built
