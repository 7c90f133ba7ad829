"""Methods and preconditioners from strings: ``cg``, ``gmres(restart=50)``, ``amg(kind=sa)``.

The text is parsed, never evaluated: a name, and keyword values that are numbers, words or strings.
"""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

import neuralsolve
from neuralsolve.errors import OptionError, nearest
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.solvers.method import Method
from neuralsolve.tuning.learner import Learner

ALIASES = {"neural": "neuralmultigrid", "ic": "incompletecholesky", "ilu": "incompletelu", "lu": "sparselu"}
LONGEST = 200


def method_from(text: str | None) -> Method | Recipe | None:
    """Return the method that `text` names; None and "auto" leave the choice to the solver.

    Raises
    ------
    OptionError
        An unknown name or option (the nearest is suggested), or a value that is not a plain one.

    Examples
    --------
    >>> method_from("gmres(restart=20)")
    GMRES(restart=20)
    """
    return (
        None if text is None or text.strip().lower() == "auto" else _named(text, (Method, Recipe), "method")
    )


def recipe_from(text: str | None) -> Recipe | None:
    """Return the preconditioner that `text` names; None and "none" mean none.

    Examples
    --------
    >>> recipe_from("ssor(omega=1.5)").omega
    1.5
    """
    return (
        None if text is None or text.strip().lower() == "none" else _named(text, (Recipe,), "preconditioner")
    )


def learner_from(text: str | None) -> Learner | None:
    """Return the online learner that `text` names; None and "auto" leave it to whether there is a context.

    Examples
    --------
    >>> learner_from("chebcb(degree=3)").degree
    3
    """
    return None if text is None or text.strip().lower() == "auto" else _named(text, (Learner,), "learner")


def known(kinds: tuple[type, ...]) -> dict[str, type]:
    """Return the public classes of the given kinds, by lower-case name."""
    named = {name.lower(): getattr(neuralsolve, name) for name in dir(neuralsolve) if name[0].isupper()}
    return {
        name: found for name, found in named.items() if isinstance(found, type) and issubclass(found, kinds)
    }


def _named(text: str, kinds: tuple[type, ...], role: str) -> Any:
    call = _parsed(text)
    name, arguments = (call.func, call.keywords) if isinstance(call, ast.Call) else (call, [])
    if not isinstance(name, ast.Name) or (isinstance(call, ast.Call) and call.args):
        msg = f"{text!r} names no {role}; write a name, or name(option=value), for example gmres(restart=50)"
        raise OptionError(msg)
    choices = known(kinds)
    plain = name.id.lower().replace("_", "")
    found = choices.get(ALIASES.get(plain, plain))
    if found is None:
        other = known((Method, Recipe)).get(plain)
        if other is not None:
            msg = f"{other.__name__} is a method, not a {role}; pass it as --method"
            raise OptionError(msg)
        msg = f"no {role} {name.id!r}{nearest(plain, [*choices, *ALIASES])}"
        raise OptionError(msg)
    return _built(found, {str(word.arg): _value(text, word.value) for word in arguments})


def _parsed(text: str) -> ast.expr:
    if len(text) > LONGEST:
        msg = f"a name of {len(text)} characters; at most {LONGEST}, for example gmres(restart=50)"
        raise OptionError(msg)
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        msg = f"cannot read {text!r}; write a name, or name(option=value), for example gmres(restart=50)"
        raise OptionError(msg) from None


def _value(text: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Name):  # a bare word, as in kind=sa
        return node.id
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        msg = (
            f"in {text!r} a value is no number, word or string; for example ssor(omega=1.5, order=multicolor)"
        )
        raise OptionError(msg) from None


def _built(found: type, options: dict[str, Any]) -> Any:
    fields = [each.name for each in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
    for option in options:
        if option not in fields:
            hint = nearest(option, fields) if fields else "; it has no options"
            msg = f"{found.__name__} has no option {option!r}{hint}"
            raise OptionError(msg)
    try:
        return found(**options)
    except TypeError as error:
        msg = f"{found.__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())}): {error}"
        raise OptionError(msg) from None
