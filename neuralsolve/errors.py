"""Every exception that the package raises on purpose.

Wrong input is a ``ValueError`` (`InputError` and its kinds): the message says what was given, what is needed
and the call that mends it. A solve that does not reach its tolerance is a `SolveError`, which carries the
result.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """What was passed in cannot be used."""


class ShapeError(InputError):
    """Sizes that do not fit together: a rectangular A, a b of the wrong length."""


class StructureError(InputError):
    """A lacks a property that was asked for: symmetry, definiteness, a grid, real numbers."""


class GridError(StructureError):
    """A preconditioner needs the grid of A, and A tells of none."""


class NonFiniteError(InputError):
    """NaN or infinity among the input."""


class FormatError(InputError):
    """A file that is truncated, of another format, or unsafe to read."""


class OptionError(InputError):
    """An option, method or case name that does not exist; the message suggests the nearest one."""


class SolveError(RuntimeError):
    """The stopping test was not met.

    Attributes
    ----------
    result : SolveResult
        What was reached: the last x, the residual history and the status.
    """

    def __init__(self, message: str, result: Any):
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.result)  # for worker processes


class Breakdown(Exception):
    """Raised by a method's `step` when it cannot go on; `status` says why."""

    def __init__(self, status: Any):
        super().__init__(str(status))
        self.status = status


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, else ``"; known: ..."``.

    >>> nearest("jacoby", ["jacobi", "sor"])
    "; did you mean 'jacobi'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def check_known(what: str, value: object, known: Iterable[str]) -> None:
    """Raise OptionError of a word that is none of the known ones; the message begins with `what`.

    >>> check_known("side =", "left", ("left", "right"))
    >>> check_known("side =", "rigth", ("left", "right"))
    Traceback (most recent call last):
    neuralsolve.errors.OptionError: side = 'rigth'; did you mean 'right'?
    """
    words = list(known)
    if value not in words:
        msg = f"{what} {value!r}{nearest(str(value), words)}"
        raise OptionError(msg)


def check_kind(value: object, kind: type, needed: str) -> None:
    """Raise OptionError of what is no object of a kind; the message ends with what is needed, and the call.

    >>> check_kind(2, str, "a name is needed: name='lsm'")
    Traceback (most recent call last):
    neuralsolve.errors.OptionError: got 2; a name is needed: name='lsm'
    """
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else f"{value!r:.60}"
        msg = f"got {given}; {needed}"
        raise OptionError(msg)
