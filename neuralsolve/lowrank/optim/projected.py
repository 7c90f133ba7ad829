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

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.optim.group_options import (
    DEFAULTS,
    check_adam,
    check_group,
    check_same_ranks,
    turned,
)
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projected_step import (
    COUNTS,
    dense_gradient,
    elements,
    projected_step,
    stackable,
    stacked_step,
)
from neuralsolve.lowrank.optim.projectors import Place, Projector, TwoSided
from neuralsolve.lowrank.views import MatrixView, plain_view, real_numbers

KEPT = ("plan", "_views", "_places", "_sizes", "_warned")  # in copies, beside what torch copies
SMALL = 2**16  # entries of a matrix that is stacked with others: of larger ones, copies would cost more
HALF = (torch.bfloat16, torch.float16)  # parameters of these are projected in float32


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
        check_adam(lr, betas, eps, weight_decay)
        self.plan = plan or Plan()
        self._views: dict[Tensor, MatrixView | None] = {}  # of those that are projected
        self._places: dict[Tensor, int] = {}
        self._sizes: tuple[int, ...] = ()
        self._warned = False
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; see the class for keys."""
        group = self._named(param_group)
        views = group.pop("views", None)
        if "rank" not in group:
            super().add_param_group(group)
            return
        super().add_param_group(DEFAULTS | group)
        before = self._views
        try:
            check_group(self.param_groups[-1], views)
            self._look_at(self.param_groups[-1], views)
        except OptionError:
            self._views = before
            self.param_groups.pop()
            raise

    def _named(self, group: dict[str, Any]) -> dict[str, Any]:
        """Return a group whose parameters have names where those before have: torch wants all or none."""
        params = group["params"]
        if not self.param_groups or "param_names" not in self.param_groups[0] or isinstance(params, set):
            return dict(group)
        params = [params] if isinstance(params, Tensor) else list(params)
        if any(not isinstance(each, Tensor) for each in params):
            return group | {"params": params}
        count = len(self.param_groups)
        return group | {"params": [(f"added.{count}.{k}", p) for k, p in enumerate(params)]}

    def _look_at(self, group: dict[str, Any], views: list[MatrixView | None] | None) -> None:
        """Note how parameters of a projected group are seen; check ranks, and warn of what is no matrix."""
        names = group.get("param_names", [f"a parameter {tuple(p.shape)}" for p in group["params"]])
        projector, others = self._projector(group), []
        for k, (parameter, name) in enumerate(zip(group["params"], names, strict=True)):
            view = plain_view(parameter) if views is None else views[k]
            if not projector.takes(parameter, view):
                others.append(name)
                continue
            self._views = self._views | {parameter: view}
            A = projector.seen(parameter.detach(), view, self._turned(group, parameter))
            projector.fit(group["rank"], A.shape, name)
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
            if "rank" in group:
                self._advance([p for p in having if p in self._views], group)
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
            self._advance([parameter], group)
        else:
            self._plain([parameter], group)
        parameter.grad = None

    def _plain(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """AdamW of torch."""
        for p in parameters:
            dense_gradient(p)
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

    def _advance(self, parameters: Iterable[Tensor], group: dict[str, Any]) -> None:
        """One step of projected parameters; of those that are alike, in one."""
        projector, alike = self._projector(group), {}
        for parameter in parameters:
            view, turned = self._views[parameter], self._turned(group, parameter)
            A = projector.seen(dense_gradient(parameter), view, turned)
            A = self._constrained(A.float() if A.dtype in HALF else A, parameter, turned)
            state = self.state[parameter]
            kind = parameter, int(state.get("step", 0))
            if A.numel() <= SMALL and stackable(self.plan, projector):
                kind = A.shape, A.dtype, A.device, kind[1], int(state.get("age", 0))
            alike.setdefault(kind, []).append((parameter, A))
        for pairs in alike.values():
            first, states = pairs[0][0], [self.state[parameter] for parameter, _ in pairs]
            place = self._place(first)
            if len(pairs) == 1:
                steps = [projected_step(pairs[0][1], states[0], self.plan, projector, group, place)]
            else:
                A = torch.stack([A for _, A in pairs])
                steps = stacked_step(A, states, self.plan, projector, group, place).unbind()
            for (parameter, _), U in zip(pairs, steps, strict=True):
                self._apply(parameter, U, group, projector)

    def _apply(self, parameter: Tensor, U: Tensor, group: dict[str, Any], projector: Projector) -> None:
        """Subtract a step from a parameter."""
        view, turned, lr = self._views[parameter], self._turned(group, parameter), float(group["lr"])
        U = projector.unseen(self._constrained(U, parameter, turned), view, turned, parameter.shape)
        if group["weight_decay"]:
            parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(U.to(parameter.dtype), alpha=-lr)
        if self.plan.weights is not None:
            place = self._place(parameter)
            drawn = place._replace(step=0).generator()
            parameter.copy_(self.plan.weights.rounded(parameter, drawn, place.step))

    def _place(self, parameter: Tensor) -> Place:
        step = int(self.state[parameter].get("step", 0))
        return Place(self.plan.seed, step, self._places[parameter], self._sizes)

    def _constrained(self, A: Tensor, parameter: Tensor, turned: bool) -> Tensor:
        if self.plan.constraint is None:
            return A
        return self.plan.constraint(parameter, A.mT).mT if turned else self.plan.constraint(parameter, A)

    def _projector(self, group: dict[str, Any]) -> Projector:
        return TwoSided(self.plan.projector) if group["proj_type"] == "full" else self.plan.projector

    def _turned(self, group: dict[str, Any], parameter: Tensor) -> bool:
        return turned(group, self.plan.projector, self._views[parameter], parameter.shape)

    def state_elements(self) -> int:
        """Return how many real numbers gradients have left in the state, bases among them."""
        return sum(
            elements(state, self.plan)
            if parameter in self._views
            else sum(real_numbers(value) for key, value in state.items() if key != "step")
            for parameter, state in self.state.items()
        )

    def state_bytes(self) -> int:
        """Return the memory of the state."""
        return sum(value.nbytes for state in self.state.values() for value in state.values())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state; tensors keep their dtypes, which torch would make those of the parameters.

        Raises
        ------
        ShapeError
            Of another rank, whose bases and moments are others.
        """
        check_same_ranks(self.param_groups, state_dict["param_groups"])
        super().load_state_dict({**state_dict, "state": {}})
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in state_dict["state"]:
                self.state[parameter] = {
                    key: value.clone() if key in COUNTS else value.to(parameter.device, copy=True)
                    for key, value in state_dict["state"][number].items()
                }

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {name: getattr(self, name) for name in KEPT}
