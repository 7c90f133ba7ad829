"""From a gradient to the step of a parameter: one pass through the plugs, and the state that they keep.

State is a dictionary of plain tensors: `COUNTS`; the bases, "to." before their names; the moments of rule and
complement; "feedback". What a codec needs beside its codes stands under the same name with a suffix, ".high".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.optim.codecs import Codec, Full
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import Place, Projector
from neuralsolve.lowrank.optim.refresh import Every, Once

State = dict[str, Tensor]
COUNTS = ("step", "age", "gap", "due", "cosines")  # what counts steps, and holds no gradients
SUBSPACE, FEEDBACK = "to.", "feedback"


def dense_gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter that has one; raise OptionError of a sparse one."""
    gradient = parameter.grad
    assert gradient is not None
    if gradient.layout != torch.strided:
        msg = "got a sparse gradient; dense ones are needed: nn.Embedding(..., sparse=False), or SparseAdam"
        raise OptionError(msg)
    return gradient


def projected_step(
    A: Tensor, state: State, plan: Plan, projector: Projector, group: dict[str, Any], place: Place
) -> Tensor:
    """Return the step U for a gradient A, to be subtracted times the learning rate; the state moves on.

    Parameters
    ----------
    A : (..., m, n), rows the side that is projected, or what else the projector sees
    state : of the parameter; empty before its first step
    plan, projector : the plugs
    group : "rank", "update_proj_gap", "scale" and the options of the rule
    place : of this step
    """
    if not state:
        state.update(step=torch.tensor(0.0), age=torch.tensor(0.0))
        state.update(plan.refresh.start(group["update_proj_gap"]))
    if FEEDBACK in state:
        A = A + state[FEEDBACK]
    basis = _basis(A, state, plan, projector, group, place)
    state["step"] += 1
    state["age"] += 1
    g = projector.down(A, basis)
    u = _stepped(g, state, plan, group)
    U = projector.up(u, basis, A.shape)
    if group["scale"] != 1:
        U = U * group["scale"]
    if plan.complement is None and not plan.feedback:
        return U
    rest = A - projector.up(g, basis, A.shape)
    if plan.feedback:
        state[FEEDBACK] = rest
    return U if plan.complement is None else U + _completed(rest, g, u, state, plan, group)


def stackable(plan: Plan, projector: Projector) -> bool:
    """Say whether matrices of one shape can take their step as one batch, each as it would by itself.

    That is, up to roundings of products. Blocks of a codec, random numbers and the memory of a policy are
    those of one parameter.
    """
    plain = isinstance(plan.moments, Full) and isinstance(plan.bases, Full)
    return projector.stacked and plain and isinstance(plan.refresh, Every | Once)


def stacked_step(
    A: Tensor,
    states: Sequence[State],
    plan: Plan,
    projector: Projector,
    group: dict[str, Any],
    place: Place,
) -> Tensor:
    """Return the steps for gradients (k, ..., m, n) of one age; what each keeps is then a part of a stack."""
    together = {
        key: value.clone() if key in COUNTS else torch.stack([state[key] for state in states])
        for key, value in states[0].items()
    }
    steps = projected_step(A, together, plan, projector, group, place)
    for k, state in enumerate(states):
        state.clear()
        state.update({key: x.clone() if key in COUNTS else x[k] for key, x in together.items()})
    return steps


def _basis(
    A: Tensor, state: State, plan: Plan, projector: Projector, group: dict[str, Any], place: Place
) -> dict[str, Tensor]:
    """Return the basis for this step, chosen anew where the policy says so."""
    old = {
        key[len(SUBSPACE) :]: _read(_codec(state[key], plan.bases), state, key, A.dtype)
        for key in [key for key in state if key.startswith(SUBSPACE) and key.count(".") == 1]
    }
    if place.step and not plan.refresh.due(place.step, group["update_proj_gap"], state):
        return old
    rank = projector.fit(group["rank"], A.shape, f"a gradient {tuple(A.shape)}")
    seen = A if bool(torch.isfinite(A).all()) else torch.nan_to_num(A, 0.0, 0.0, 0.0)
    new = projector.refresh(seen, rank, old if place.step else None, place)
    for name, value in new.items():
        codec = plan.bases if value.is_floating_point() or value.is_complex() else Full()
        _write(codec, state, SUBSPACE + name, value)
        new[name] = _read(codec, state, SUBSPACE + name, A.dtype)
    plan.refresh.done(place.step, lambda: projector.alignment(new, old), state)
    if place.step:
        _transport(A, state, plan, projector, new, old)
    return new


def _transport(A: Tensor, state: State, plan: Plan, projector: Projector, new: Any, old: Any) -> None:
    """Carry the moments over to the new basis."""
    rule, codec = plan.rule, plan.moments
    names = [name for name in (*rule.linear, *rule.quadratic) if name in state]
    if plan.transport == "reset":
        state["age"] = torch.zeros_like(state["age"])
        for key in [key for name in names for key in _keys(state, name)]:
            del state[key]
    elif plan.transport == "rotate":
        for name in names:
            squares = name in rule.quadratic
            x = _read(codec, state, name, A.real.dtype if squares else A.dtype)
            _write(codec, state, name, projector.carry(x, new, old, squared=squares), not squares)


def _stepped(g: Tensor, state: State, plan: Plan, group: dict[str, Any]) -> Tensor:
    """Return the step of the rule, its moments read and written back."""
    rule, codec = plan.rule, plan.moments
    signed = dict.fromkeys(rule.linear, True) | dict.fromkeys(rule.quadratic, False)
    if all(name in state for name in signed):
        of = {True: g.dtype, False: g.real.dtype}
        moments = {name: _read(codec, state, name, of[sign]) for name, sign in signed.items()}
    else:
        moments = rule.start(g)
    u = rule.step(g, moments, int(state["age"]), group)
    for name, value in moments.items():
        _write(codec, state, name, value, signed[name])
    return u


def _completed(rest: Tensor, g: Tensor, u: Tensor, state: State, plan: Plan, group: dict[str, Any]) -> Tensor:
    complement = plan.complement
    assert complement is not None
    known = all(name in state for name in complement.names)
    moments = {name: state[name] for name in complement.names} if known else complement.start(rest)
    state.update(moments)
    return complement.step(rest, g, u, moments, int(state["step"]), group)


def elements(state: State, plan: Plan) -> int:
    """Return how many real numbers gradients have left in the state of a projected parameter."""
    moments = {*plan.rule.linear, *plan.rule.quadratic}
    total = 0
    for key, value in state.items():
        codec = plan.bases if key.startswith(SUBSPACE) else plan.moments if key in moments else Full()
        if key not in COUNTS and key.count(".") == key.startswith(SUBSPACE):
            total += _codec(value, codec).elements(_parts(state, key))
    return total


def _codec(value: Tensor, codec: Codec) -> Codec:
    """Return the codec of a part of the state: indices and switches are kept as they are."""
    return Full() if value.dtype in (torch.int32, torch.bool) else codec


def _keys(state: Iterable[str], name: str) -> list[str]:
    return [key for key in state if key == name or key.startswith(f"{name}.")]


def _parts(state: State, name: str) -> State:
    return {key[len(name) :]: state[key] for key in _keys(state, name)}


def _read(codec: Codec, state: State, name: str, dtype: torch.dtype) -> Tensor:
    return codec.decode(_parts(state, name), dtype)


def _write(codec: Codec, state: State, name: str, x: Tensor, signed: bool = True) -> None:
    state.update({name + suffix: part for suffix, part in codec.encode(x, signed).items()})
