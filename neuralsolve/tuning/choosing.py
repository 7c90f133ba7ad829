"""The `Tuned` places of a method and its M: found, filled with what learners choose, told the cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.tuning.cheb_cb import ChebCB
from neuralsolve.tuning.fixed import Fixed
from neuralsolve.tuning.learner import Learner, Learning, Observation
from neuralsolve.tuning.report import Pull, TuningReport, TuningTable, in_words
from neuralsolve.tuning.thompson import Thompson
from neuralsolve.tuning.tsallis import TsallisINF
from neuralsolve.tuning.tuned import Tunable, Tuned, is_whole

METHOD, PRECONDITIONER = "method", "M"
MOST, LATELY = (
    10.0,
    32,
)  # seconds count at most so many times the median of so many costs: a computer has hiccups


class Place:
    """One `Tuned` where it stands.

    Attributes
    ----------
    name : such as "SSOR.omega", "M", or "M[1].threshold" inside of a choice
    values : what is chosen from
    chosen : the value of the present choice; `drawn` says whether the present choice has a part for it
    """

    def __init__(self, name: str, tuned: Tuned, whole: bool):
        self.name, self.tuned, self.whole = name, tuned, whole
        self.values = tuned.values(whole)
        self.labels = [in_words(value) for value in self.values] if tuned.range is None else []
        self.learning: Learning | None = None
        self.learner: Learner | None = tuned.learner
        self.chosen: Any = None
        self.at: float = math.nan  # what the learner said
        self.drawn = False
        self.pulls: list[Pull] = []
        self.warm: set[int] = set()  # choices that have been made in this process

    @property
    def pulls_with_context(self) -> bool:
        """Whether the last solve had a context, or there was none yet."""
        return not self.pulls or self.pulls[-1].context is not None

    @property
    def label(self) -> str:
        """The present choice in words."""
        if self.tuned.range is not None:
            return in_words(self.chosen)
        return self.labels[self.values.index(self.chosen)]

    def first(self) -> Any:
        """Return what stands here before a learner was asked: the middle of a range, the first choice."""
        return self.values[len(self.values) // 2 if self.tuned.range is not None else 0]

    def choose(self, context: float | None) -> Any:
        """Ask the learner."""
        if self.learning is None:
            self.start(context is not None)
        elif self.tuned.learner is None and context is not None and not self.pulls_with_context:
            msg = (
                f"{self.name} was learned without a context, now there is one, {context:g}; give it from the "
                "first solve on"
            )
            raise OptionError(msg)
        assert self.learning is not None
        assert self.learner is not None
        if self.learner.needs_context and context is None:
            msg = (
                f"{self.name} is chosen by {type(self.learner).__name__}, which goes by a context, and there "
                "is none; give a number known before the solve, solve(b, context=dt), or "
                "learner=ns.TsallisINF()"
            )
            raise OptionError(msg)
        self.at = float(self.learning.choose(context))
        if self.tuned.range is None:
            return self.values[int(self.at)]
        return round(self.at) if self.whole else self.at

    def learn(self, seen: Observation, context: float | None) -> None:
        """Tell the learner what the present choice has cost.

        In seconds the first solve with a choice tells nothing of the next ones: it compiles, allocates and
        builds. It is in the report; the learner is not told. What an update of A costs, it is.
        """
        assert self.learning is not None
        first, charged = False, seen.cost
        if self.tuned.cost == "seconds":
            at = 0 if self.tuned.range is not None else int(self.at)
            first = at not in self.warm
            self.warm.add(at)
            lately = [pull.cost for pull in self.pulls[-LATELY:] if not pull.first]
            charged = min(charged, MOST * sorted(lately)[len(lately) // 2]) if lately else charged
        if not first:
            self.learning.learn(seen if charged == seen.cost else replace(seen, cost=charged), context)
        self.pulls.append(Pull(self.label, seen.cost, context, seen.capped, first))

    def start(self, with_context: bool) -> None:
        """Begin to learn."""
        usual = Thompson() if self.tuned.cost == "seconds" else TsallisINF()
        self.learner = self.learner or (ChebCB() if with_context else usual)
        arms = self.values if self.tuned.range is not None else range(len(self.values))
        given = self.learner
        if isinstance(given, Fixed) and self.tuned.range is None and given.value is not None:
            given = Fixed(self.values.index(given.value) if given.value in self.values else given.value)
        self.learning = given.start([float(v) for v in arms], self.tuned.seed, self.tuned.context_range)


class Choosing:
    """All places of a method and an M."""

    def __init__(self, method: Any, M: Any):
        self.given = method, M
        self.places: dict[str, Place] = {}
        for thing, name in ((method, METHOD), (M, PRECONDITIONER)):
            for place in _places(thing, name, False):
                self._add(place)
        # choices that hold places of their own
        self._nested = {name[: k + 1] for name in self.places for k, c in enumerate(name) if c == "]"}
        self.context: float | None = None
        self.present: tuple[Any, Any] = (None, None)

    def _add(self, place: Place) -> None:
        self.places[place.name] = place

    def first(self) -> tuple[Any, Any]:
        """Return method and M as they are before any learner was asked."""
        return self._filled(lambda place: place.first())

    def choose(self, context: Any) -> tuple[Any, Any]:
        """Return method and M as the learners want them."""
        self.context = as_context(context)
        return self._filled(lambda place: place.choose(self.context))

    def _filled(self, ask: Any) -> tuple[Any, Any]:
        for place in self.places.values():
            place.drawn = False

        def fill(thing: Any, name: str) -> Any:
            if isinstance(thing, Tuned):
                place = self.places[name]
                place.chosen, place.drawn = ask(place), True
                if place.tuned.choices is None:
                    return place.chosen
                inner = f"{name}[{place.values.index(place.chosen)}]"
                return fill(place.chosen, inner) if inner in self._nested else place.chosen
            changes = {field: fill(value, _inside(thing, name, field)) for field, value in _parts(thing)}
            return replace(thing, **changes) if changes else thing

        method, M = self.given
        self.present = fill(method, METHOD), fill(M, PRECONDITIONER)
        return self.present

    @property
    def among_things(self) -> bool:
        """Whether the present choice picks one of a list, another of which may suit A better."""
        return any(place.drawn and place.tuned.choices is not None for place in self.places.values())

    def key(self) -> tuple[Any, ...]:
        """Return what tells the present M from others."""
        drawn = (p for p in self.places.values() if p.drawn and not p.name.startswith(METHOD))
        return tuple((p.name, p.at if p.tuned.range is not None else p.values.index(p.chosen)) for p in drawn)

    def words(self) -> str:
        """Return the present choices in words, those inside of a choice with it."""
        whole = {
            name: in_words(thing) for name, thing in zip((METHOD, PRECONDITIONER), self.present, strict=True)
        }
        outer = [place for place in self.places.values() if place.drawn and "[" not in place.name]
        return ", ".join(f"{place.name} = {whole.get(place.name, place.label)}" for place in outer)

    def learn(self, costs: dict[str, float], capped: bool, residual_norms: list[float]) -> None:
        """Tell the learners of the present choice what it has cost."""
        for place in self.places.values():
            if place.drawn and place.learning is not None:
                seen = Observation(costs[place.tuned.cost], capped, tuple(residual_norms))
                place.learn(seen, self.context)

    def report(self) -> TuningReport:
        """Return the tables of all places."""
        tables = []
        for place in self.places.values():
            labels = [in_words(value) for value in place.values]
            tables.append(TuningTable.of(place.name, place.tuned.cost, place.learner, labels, place.pulls))
        return TuningReport(tuple(tables))

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON holds it."""
        return {"places": {place.name: _state(place) for place in self.places.values()}}

    def load_state_dict(self, state: Any) -> None:
        """Take up what a `state_dict` of the same options tells."""
        try:
            given = dict(state["places"])
            if set(given) != set(self.places):
                own = sorted(self.places)
                msg = f"the state is of {sorted(given)}, here {own} are tuned; give the same options"
                raise OptionError(msg)
            for name, place in self.places.items():
                _restore(place, given[name])
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            if isinstance(error, OptionError):
                raise
            msg = (
                f"no state of Tuned options ({error!r}); give what `state_dict()` of a Prepared has returned"
            )
            raise OptionError(msg) from None


def is_tuned(thing: Any) -> bool:
    """Whether options hold anything that is left to a learner."""
    return next(_places(thing, "", False), None) is not None


def _state(place: Place) -> dict[str, Any]:
    return {
        "values": [in_words(value) for value in place.values],
        "cost": place.tuned.cost,
        "learner": None if place.learning is None else repr(place.learner),
        "learning": None if place.learning is None else place.learning.state_dict(),
        "pulls": [list(pull) for pull in place.pulls],
    }


def _restore(place: Place, state: dict[str, Any]) -> None:
    labels = [in_words(value) for value in place.values]
    if state["values"] != labels:
        msg = (
            f"{place.name} chooses from {labels}, in the state from {state['values']}; give the same options"
        )
        raise OptionError(msg)
    if state["cost"] != place.tuned.cost:
        msg = f"{place.name} counts {place.tuned.cost}, in the state {state['cost']}; give the same options"
        raise OptionError(msg)
    if state["learning"] is not None:
        place.start(state["learner"] == repr(ChebCB()))
        if repr(place.learner) != state["learner"]:
            given = state["learner"]
            msg = f"{place.name} is by {place.learner}, in the state by {given}; give the same options"
            raise OptionError(msg)
        assert place.learning is not None
        place.learning.load_state_dict(state["learning"])
    place.pulls = [
        Pull(str(choice), float(cost), as_context(context), bool(capped), bool(first))
        for choice, cost, context, capped, first in state["pulls"]
    ]


def _places(thing: Any, name: str, whole: bool) -> Iterator[Place]:
    if isinstance(thing, Tuned):
        yield Place(name, thing, whole)
        for k, choice in enumerate(thing.choices or ()):
            yield from _places(choice, f"{name}[{k}]", whole)
        return
    for field, value in _parts(thing):
        yield from _places(value, _inside(thing, name, field), is_whole(thing, field))


def _parts(thing: Any) -> list[tuple[str, Any]]:
    """Return the fields of options that hold something tuned, or other options."""
    if not isinstance(thing, Tunable) or not is_dataclass(thing):
        return []
    pairs = [(f.name, getattr(thing, f.name)) for f in fields(thing)]
    return [(name, v) for name, v in pairs if isinstance(v, Tuned | Tunable)]


def _inside(thing: Any, name: str, field: str) -> str:
    return f"{name}.{field}" if "[" in name or "." in name else f"{type(thing).__name__}.{field}"


def as_context(context: Any) -> float | None:
    """Return a context as a number, or refuse it."""
    if context is None or (isinstance(context, float) and math.isfinite(context)):
        return context
    array = np.asarray(context)
    if array.size != 1 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        msg = f"context is {context!r}; one finite number is needed, such as the time step or the shift of A"
        raise OptionError(msg)
    return float(array.reshape(()))
