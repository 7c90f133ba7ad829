"""States that are saved as plain JSON and continue bit for bit.

`json` writes a float in the shortest digits that give the same float again, so nothing is lost. Pickle is not
used: a file of states may come from elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralsolve.errors import OptionError


class Stored:
    """Something whose state is some of its attributes: numbers, arrays, and other `Stored` things."""

    stored: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return the state in numbers, strings, lists and dicts."""
        return {name: _plain(getattr(self, name)) for name in self.stored}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state over; a broken one is an `OptionError` and changes nothing."""
        if not isinstance(state, Mapping) or set(state) != set(self.stored):
            msg = f"a state needs {sorted(self.stored)}; take it from state_dict() of the same version"
            raise OptionError(msg)
        fresh = {name: restored(name, getattr(self, name), state[name]) for name in self.stored}
        for name, value in fresh.items():
            setattr(self, name, value)


def restored(name: str, current: Any, given: Any) -> Any:
    """Return `given` in the kind and shape of `current`.

    Raises
    ------
    OptionError
        It has another shape, is not a number, or not finite.
    """
    if isinstance(current, Stored):
        fresh = copy.deepcopy(current)
        fresh.load_state_dict(given)
        return fresh
    values = numbers(name, given)
    if isinstance(current, np.ndarray):
        whole = current.dtype.kind != "i" or bool((values == np.rint(values)).all())
        if values.shape == current.shape and whole:
            return values.astype(current.dtype)
    elif values.shape == () and type(given) is type(current):
        return given
    raise OptionError(_broken(name))


def numbers(name: str, given: Any) -> np.ndarray:
    """Return finite float64 numbers from plain lists, or raise an `OptionError`."""
    try:
        values = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OptionError(_broken(name)) from error
    if not np.isfinite(values).all():
        raise OptionError(_broken(name))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Stored):
        return value.state_dict()
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _broken(name: str) -> str:
    return f"state: {name!r} is broken; take it from state_dict() of a run with the same options"
