"""An optimizer that keeps its state in a subspace of the gradients, put together from plugs.

Per parameter, with A its gradient as a matrix (`neuralsolve.lowrank.views`) and P the basis of the subspace,

    A  = constraint(G) + feedback
    P  = projector.refresh(A)              where the policy says so; moments are carried over
    u  = rule(P^H A)                       Adam by default: moments of r x n numbers, not of m x n
    W -= lr (scale P u + complement(A - P P^H A)),   weight decay before, decoupled

A step costs two products of m n r more than Adam, and a refresh two (warm), or an SVD. What is won is memory:
see `ProjectedOptimizer.state_elements`. Parameters that are no matrices take torch's AdamW.

Source: GaLore (Zhao et al., ICML 2024, arXiv 2403.03507), alg. 2; other sources stand with the plugs.
Differences: adjoints are conjugate; state is of plain tensors; weight decay comes before the step, as in
torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.utils.hooks import RemovableHandle

from neuralsolve.errors import OptionError, nearest
from neuralsolve.lowrank.optim.codecs import Codec, Full, real_numbers
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import SIDES, Place, Projector, TwoSided
from neuralsolve.lowrank.views import MatrixView, plain_view

PROJECTED = {"update_proj_gap": 200, "scale": 1.0, "proj_type": "std"}
COUNTS = ("step", "age", "gap", "due", "cosines")  # what of a state counts steps, and holds no gradients
SUBSPACE, FEEDBACK = "to.", "feedback"


class ProjectedOptimizer(torch.optim.Optimizer):
    """An optimizer of torch's kind; groups that have a "rank" are projected, all others take AdamW.

    Parameters
    ----------
    params : parameters, or groups of them; keys of a projected group, beside those of AdamW:
        rank : columns of the basis, or a part of the shorter side
        update_proj_gap : steps between refreshes, 200
        scale : of the projected step, 1.0
        proj_type : "std" projects the shorter side, "reverse_std" the longer, "left" rows, "right" columns,
            "full" both
        views : a `MatrixView` for each parameter, None for those that are no matrix; by default rows are
            the first axis, of complex parameters of three and more axes the second
    lr, betas, eps, weight_decay : as of AdamW
    plan : what it is put together from

    Raises
    ------
    OptionError
        Options that cannot be, such as a rank above the shorter side; at a step, of sparse gradients.

    Warns
    -----
    UserWarning
        Once, where parameters of a projected group are no matrices: they take AdamW.

    Examples
    --------
    >>> net = torch.nn.Linear(64, 32)
    >>> groups = [{"params": [net.weight], "rank": 4}, {"params": [net.bias]}]
    >>> optimizer = ProjectedOptimizer(groups, lr=1e-3)
    >>> net(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state_elements()  # 4 (32 + 2 * 64) + 2 * 32
    704

    A gradient that is not finite goes into moments and weights, as in torch; the basis alone is chosen
    without it. State is of plain tensors, so that `torch.load(..., weights_only=True)` takes it, and a
    training that goes on from it is the training that was never cut off, bit for bit.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        plan: Plan | None = None,
    ):
        fits = {
            "lr >= 0": lr >= 0,
            "betas from 0 to less than 1": all(0 <= beta < 1 for beta in betas),
            "eps >= 0": eps >= 0,
            "weight_decay >= 0": weight_decay >= 0,
        }
        for needed, good in fits.items():
            if not good:
                given = f"lr = {lr}, betas = {betas}, eps = {eps}, weight_decay = {weight_decay}"
                msg = f"{given}; {needed} is needed"
                raise OptionError(msg)
        self.plan = plan or Plan()
        self._views: dict[Tensor, MatrixView | None] = {}  # of those that are projected
        self._places: dict[Tensor, int] = {}
        self._sizes: tuple[int, ...] = ()
        self._warned = False
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; see the class for keys."""
        views = param_group.pop("views", None)
        if "rank" in param_group:
            for name, value in PROJECTED.items():
                param_group.setdefault(name, value)
        super().add_param_group(param_group)
        if "rank" in param_group:
            try:
                self._look_at(self.param_groups[-1], views)
            except OptionError:
                self.param_groups.pop()
                raise

    def _look_at(self, group: dict[str, Any], views: list[MatrixView | None] | None) -> None:
        """Note how parameters of a projected group are seen; check options, and warn of what is no matrix."""
        side, gap, parameters = group["proj_type"], group["update_proj_gap"], group["params"]
        if side not in SIDES:
            msg = f"proj_type = {side!r}{nearest(str(side), SIDES)}"
            raise OptionError(msg)
        if isinstance(gap, bool) or not isinstance(gap, int) or gap < 1:
            msg = f"update_proj_gap = {gap!r}; steps between refreshes, at least 1, are needed"
            raise OptionError(msg)
        if views is not None and len(views) != len(parameters):
            msg = f"{len(views)} views of {len(parameters)} parameters; one for each is needed, or None"
            raise OptionError(msg)
        names = group.get("param_names", [f"a parameter {tuple(p.shape)}" for p in parameters])
        found, others = {}, []
        for k, (parameter, name) in enumerate(zip(parameters, names, strict=True)):
            view = plain_view(parameter) if views is None else views[k]
            projector = self._projector(group)
            if not projector.takes(parameter, view):
                others.append(name)
                continue
            A = projector.seen(parameter.detach(), view, self._turned(group, parameter, view))
            projector.fit(group["rank"], A.shape, name)
            found[parameter] = view
        self._views |= found
        self._places = {p: k for k, p in enumerate(self._views)}
        self._sizes = tuple(map(real_numbers, self._views))
        if others and not self._warned:
            self._warned = True
            what = f"{', '.join(others[:5])}{' and more' if len(others) > 5 else ''}"
            msg = f"no matrix, hence not projected: {what}; these take AdamW"
            warnings.warn(msg, UserWarning, stacklevel=2)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; return what the closure, called with gradients enabled, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            having = [p for p in group["params"] if p.grad is not None]
            self._plain([p for p in having if p not in self._views], group)
            for parameter in having:
                if parameter in self._views:
                    self._advance(parameter, group)
        return loss

    def step_in_backward(self) -> list[RemovableHandle]:
        """Let each parameter take its step within `backward`, as soon as its gradient is there, and free it.

        The gradients of a model are then never in memory at once. The numbers are those of `step`, which from
        now on finds no gradients; they cannot be clipped together. Each returned handle has `remove()`.
        """
        return [
            parameter.register_post_accumulate_grad_hook(partial(self._at_once, number))
            for number, group in enumerate(self.param_groups)
            for parameter in group["params"]
        ]

    @torch.no_grad()
    def _at_once(self, number: int, parameter: Tensor) -> None:
        group = self.param_groups[number]
        if parameter in self._views:
            self._advance(parameter, group)
        else:
            self._plain([parameter], group)
        parameter.grad = None

    def _plain(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """AdamW of torch."""
        for p in parameters:
            _dense(p)
            if not self.state[p]:
                zeros = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                self.state[p] = {"step": torch.tensor(0.0), **zeros}
        if not parameters:
            return
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            has_complex=any(p.is_complex() for p in parameters),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _advance(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """One step of a projected parameter."""
        plan, projector, state = self.plan, self._projector(group), self.state[parameter]
        view, turned = self._views[parameter], self._turned(group, parameter, self._views[parameter])
        A = _working(projector.seen(_dense(parameter), view, turned))
        A = self._constrained(A, parameter, turned)
        if not state:
            state.update(step=torch.tensor(0.0), age=torch.tensor(0.0))
            state.update(plan.refresh.start(group["update_proj_gap"]))
        if FEEDBACK in state:
            A = A + state[FEEDBACK]
        basis = self._basis(parameter, A, group, projector)
        state["step"] += 1
        state["age"] += 1
        g = projector.down(A, basis)
        u = self._stepped(g, state, group)
        U = projector.up(u, basis, A.shape)
        if group["scale"] != 1:
            U = U * group["scale"]
        if plan.complement is not None or plan.feedback:
            rest = A - projector.up(g, basis, A.shape)
            if plan.feedback:
                state[FEEDBACK] = rest
            if plan.complement is not None:
                U = U + self._completed(rest, g, u, state, group)
        U = self._constrained(U, parameter, turned)
        lr = float(group["lr"])
        if group["weight_decay"]:
            parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(projector.unseen(U, view, turned, parameter.shape).to(parameter.dtype), alpha=-lr)
        if plan.weights is not None:
            generator = self._place(parameter, int(state["step"])).generator()
            parameter.copy_(plan.weights.rounded(parameter, generator))

    def _basis(
        self, parameter: Tensor, A: Tensor, group: dict[str, Any], projector: Projector
    ) -> dict[str, Tensor]:
        """Return the basis for this step, chosen anew where the policy says so."""
        plan, state, step = self.plan, self.state[parameter], int(self.state[parameter]["step"])
        names = [key for key in state if key.startswith(SUBSPACE) and key.count(".") == 1]
        old = {key[len(SUBSPACE) :]: _read(_of(state[key], plan.bases), state, key, A.dtype) for key in names}
        if step and not plan.refresh.due(step, group["update_proj_gap"], state):
            return old
        rank = projector.fit(group["rank"], A.shape, f"a parameter {tuple(parameter.shape)}")
        seen = A if bool(torch.isfinite(A).all()) else torch.nan_to_num(A, 0.0, 0.0, 0.0)
        new = projector.refresh(seen, rank, old if step else None, self._place(parameter, step))
        for name, value in new.items():
            codec = plan.bases if value.is_floating_point() or value.is_complex() else Full()
            _write(codec, state, SUBSPACE + name, value)
            new[name] = _read(codec, state, SUBSPACE + name, A.dtype)
        plan.refresh.done(step, lambda: projector.alignment(new, old), state)
        if step:
            self._transport(state, A, projector, new, old)
        return new

    def _transport(
        self, state: dict[str, Tensor], A: Tensor, projector: Projector, new: Any, old: Any
    ) -> None:
        """Carry the moments over to the new basis."""
        rule, codec = self.plan.rule, self.plan.moments
        names = [name for name in (*rule.linear, *rule.quadratic) if name in state]
        if self.plan.transport == "reset":
            state["age"] = torch.zeros_like(state["age"])
            for name in names:
                for key in [key for key in state if key == name or key.startswith(f"{name}.")]:
                    del state[key]
        elif self.plan.transport == "rotate":
            for name in names:
                squares = name in rule.quadratic
                x = _read(codec, state, name, A.real.dtype if squares else A.dtype)
                _write(codec, state, name, projector.carry(x, new, old, squared=squares), not squares)

    def _stepped(self, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        """Return the step of the rule, its moments read and written back."""
        rule, codec = self.plan.rule, self.plan.moments
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

    def _completed(
        self, rest: Tensor, g: Tensor, u: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> Tensor:
        complement = self.plan.complement
        assert complement is not None
        known = all(name in state for name in complement.names)
        moments = {name: state[name] for name in complement.names} if known else complement.start(rest)
        state.update(moments)
        return complement.step(rest, g, u, moments, int(state["step"]), group)

    def _constrained(self, A: Tensor, parameter: Tensor, turned: bool) -> Tensor:
        if self.plan.constraint is None:
            return A
        return self.plan.constraint(parameter, A.mT).mT if turned else self.plan.constraint(parameter, A)

    def _projector(self, group: dict[str, Any]) -> Projector:
        return TwoSided(self.plan.projector) if group["proj_type"] == "full" else self.plan.projector

    def _turned(self, group: dict[str, Any], parameter: Tensor, view: MatrixView | None) -> bool:
        """Return whether the columns of the matrix are projected, not its rows."""
        if view is None or group["proj_type"] == "left":
            return False
        if group["proj_type"] == "right":
            return True
        if self.plan.projector.ordered and view.ordered is not None:
            return view.ordered == "columns"
        m, n = view.sizes(parameter.shape)
        return (m < n) if group["proj_type"] == "reverse_std" else (m >= n)

    def _place(self, parameter: Tensor, step: int) -> Place:
        return Place(self.plan.seed, step, self._places[parameter], self._sizes)

    def state_elements(self) -> int:
        """Return how many real numbers gradients have left in the state, bases among them."""
        return sum(
            _of(value, self.plan.bases if key.startswith(SUBSPACE) else self.plan.moments).elements(
                _parts(state, key)
            )
            if parameter in self._views
            else real_numbers(value)
            for parameter, state in self.state.items()
            for key, value in state.items()
            if key not in COUNTS and key.count(".") == key.startswith(SUBSPACE)
        )

    def state_bytes(self) -> int:
        """Return the memory of the state."""
        return sum(value.nbytes for state in self.state.values() for value in state.values())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state; tensors keep their dtypes, which torch would make those of the parameters."""
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in state_dict["state"]:
                self.state[parameter] = {
                    key: value.clone() if key in COUNTS else value.to(parameter.device, copy=True)
                    for key, value in state_dict["state"][number].items()
                }

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"plan": self.plan, "_views": self._views, "_warned": self._warned}


def _dense(parameter: Tensor) -> Tensor:
    """Return the gradient."""
    gradient = parameter.grad
    assert gradient is not None
    if gradient.layout != torch.strided:
        msg = "got a sparse gradient; dense ones are needed: nn.Embedding(..., sparse=False), or SparseAdam"
        raise OptionError(msg)
    return gradient


def _working(A: Tensor) -> Tensor:
    return A.float() if A.dtype in (torch.bfloat16, torch.float16) else A


def _of(value: Tensor, codec: Codec) -> Codec:
    """Return the codec of a part of the state: whole numbers other than codes are kept as they are."""
    return Full() if value.dtype in (torch.int32, torch.bool) else codec


def _parts(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}."
    return {key[len(name) :]: value for key, value in state.items() if key == name or key.startswith(start)}


def _read(codec: Codec, state: dict[str, Tensor], name: str, dtype: torch.dtype) -> Tensor:
    return codec.decode(_parts(state, name), dtype)


def _write(codec: Codec, state: dict[str, Tensor], name: str, x: Tensor, signed: bool = True) -> None:
    state.update({name + suffix: part for suffix, part in codec.encode(x, signed).items()})
