"""Compress a trained model: factor its layers, each to a rank that a budget for all of them gives it.

    1  the layers that can be factored                                                   layers.py
    2  what goes through them, where the factoriser looks at it                          calibration.py
    3  the error of each at each rank, from one decomposition a layer                    plain, afm, whitened
    4  ranks within the budget                                                           allocators.py
    5  factored layers in the place of those that they make smaller                      factored, spectral

The errors of step 3 are those of each layer alone. With ``propagate`` the factors of step 5 are found layer
by layer, from what the layers before, factored already, send on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuralsolve.errors import OptionError, nearest
from neuralsolve.lowrank.compress.afm import AFM
from neuralsolve.lowrank.compress.allocators import ALLOCATORS, Allocator, Greedy, Offer, Ranks
from neuralsolve.lowrank.compress.calibration import Calibration, Data, Moments, batches, calibrate
from neuralsolve.lowrank.compress.candidates import Candidate
from neuralsolve.lowrank.compress.factored import SCHEMES
from neuralsolve.lowrank.compress.factoriser import Factoriser
from neuralsolve.lowrank.compress.layers import Target, replace, targets
from neuralsolve.lowrank.compress.plain import PlainSVD
from neuralsolve.lowrank.compress.report import CompressionReport
from neuralsolve.lowrank.compress.sensitivity import sensitivities
from neuralsolve.lowrank.compress.structure import real_parameters
from neuralsolve.lowrank.compress.whitened import Whitened

FACTORISERS: dict[str, Factoriser] = {
    "afm": AFM(),
    "afm-uncentred": AFM(center=False),
    "whitened": Whitened(),
    "svd": PlainSVD(),
}
MEASURES = ("parameters", "macs")


@dataclass(frozen=True)
class Plan:
    """How a model is compressed.

    Parameters
    ----------
    factoriser : "afm", "afm-uncentred", "whitened", "svd", or a `Factoriser`
    allocator : "greedy", "uniform", "energy", "value", "threshold", or an `Allocator`
    kept : part that is kept, in (0, 1]: of all parameters of the model, or of the products of the layers that
        can be factored
    measure : "parameters", or "macs", products a sample, which needs calibration
    include, exclude : words; layers are factored whose path has one of the first, if any, and none of the
        second
    round_to : ranks are multiples of it; it never raises what is kept
    scheme : of 2-d convolutions, "channel", or "spatial", of "svd" alone
    propagate : whether factors are found from what the factored layers before send on
    sensitivity : whether "greedy" weighs the error of each layer by what it was measured to be at the outputs
        of the model, see `sensitivities`; not without calibration

    Raises
    ------
    OptionError
    """

    factoriser: str | Factoriser = "afm"
    allocator: str | Allocator = "greedy"
    kept: float = 0.5
    measure: str = "parameters"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    round_to: int = 1
    scheme: str = "channel"
    propagate: bool = False
    sensitivity: bool = True

    def __post_init__(self) -> None:
        known = {
            "factoriser": (FACTORISERS, Factoriser),
            "allocator": (ALLOCATORS, Allocator),
            "measure": (MEASURES, ()),
            "scheme": (SCHEMES, ()),
        }
        for name, (words, kind) in known.items():
            value = getattr(self, name)
            if not (isinstance(value, kind) or (isinstance(value, str) and value in words)):
                msg = f"{name} = {value!r}{nearest(str(value), words)}"
                raise OptionError(msg)
        if not isinstance(self.kept, int | float) or not 0 < self.kept <= 1:
            msg = f"kept = {self.kept!r}; a part in (0, 1] is needed: kept=0.5"
            raise OptionError(msg)
        if isinstance(self.round_to, bool) or not isinstance(self.round_to, int) or self.round_to < 1:
            msg = f"round_to = {self.round_to!r}; a whole number of at least 1 is needed"
            raise OptionError(msg)
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                msg = f"{name} = {getattr(self, name)!r}; words are needed: {name}=({getattr(self, name)!r},)"
                raise OptionError(msg)
        if self.scheme == "spatial" and self.method.needs:
            msg = (
                f'scheme="spatial" with factoriser={self.factoriser!r}; it is known of factoriser="svd" alone'
            )
            raise OptionError(msg)

    @property
    def method(self) -> Factoriser:
        """The factoriser itself."""
        return FACTORISERS[self.factoriser] if isinstance(self.factoriser, str) else self.factoriser

    @property
    def sharing(self) -> Allocator:
        """The allocator itself."""
        return ALLOCATORS[self.allocator] if isinstance(self.allocator, str) else self.allocator


@dataclass(frozen=True)
class Compressed:
    """A compressed copy of a model, and what was done."""

    model: Any
    report: CompressionReport


def compress(
    model: nn.Module, calibration: Data | Calibration | None = None, plan: Plan | None = None
) -> Compressed:
    """Return a compressed copy of a model; the model itself is left as it is.

    Layers stay whole where factors of their rank would not be smaller. A model that is compressed already is
    compressed further; parts are of what it has now.

    Parameters
    ----------
    model : any module; its linear layers, convolutions and spectral weights are looked at, see `targets`
    calibration : inputs of training samples (n, ...), or batches of what the model is called with: (a, b) are
        two, [(a, b)] is one call with two arguments; 128 to 512 samples do. Or what `moments_of` found, for
        several plans of one model. Not needed by "svd"
    plan : Plan; None: its defaults

    Raises
    ------
    OptionError
        No layer that can be factored, a model that is a single layer itself, no calibration where one is
        needed, less kept than the lowest ranks take.
    ShapeError, NonFiniteError
        Calibration that the model cannot be called with, or with NaN.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(7)
    >>> net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    >>> small = compress(net, torch.randn(200, 16), Plan(kept=0.5))
    >>> small.report.kept <= 0.5, type(small.model[2]).__name__, type(net[2]).__name__
    (True, 'FactoredLinear', 'Linear')
    """
    plan = plan or Plan()
    if not isinstance(calibration, Tensor | Calibration | None):
        calibration = list(batches(calibration))  # it may be gone through several times
    result = copy.deepcopy(model)
    found, left = targets(result, plan.include, plan.exclude, plan.scheme)
    if not found:
        told = (
            "; ".join(f"{path}: {why}" for path, why in left.items())[:200]
            or "no linear layer, no convolution"
        )
        msg = f"{type(model).__name__} has no layer to compress ({told}); check include and exclude"
        raise OptionError(msg)
    seen = _calibrated(result, calibration, found, plan)
    if seen is not None:
        left |= {
            each.path: "not called in the calibration" for each in found if each.path not in seen.moments
        }
        order = {path: k for k, path in enumerate(seen.moments)}
        found = sorted((each for each in found if each.path in order), key=lambda each: order[each.path])
    candidates = [Candidate.of(each, plan.method, seen) for each in found]
    offers = [each.offers(plan.measure, plan.round_to) for each in candidates]
    before = real_parameters(result)
    ranks = _allocated(candidates, offers, before, plan)
    anew = plan.propagate and bool(plan.method.needs)
    if anew and isinstance(calibration, Calibration):
        msg = "propagate=True looks at the layers one after the other; pass calibration=inputs, not moments"
        raise OptionError(msg)
    for each, own in zip(candidates, ranks, strict=True):
        if any(rank is not None for rank in own):
            moments = _moments(result, calibration, each, plan) if anew else each.moments
            replace(
                result, each.target.module, each.factored(own, moments, plan.scheme).train(result.training)
            )
    rows = (each.row(own, offered) for each, own, offered in zip(candidates, ranks, offers, strict=True))
    return Compressed(result, CompressionReport(tuple(rows), real_parameters(result), before, left))


def moments_of(model: nn.Module, calibration: Data, plan: Plan | None = None) -> Calibration:
    """Return what `compress` looks at, for several plans of one model with the same layers and factoriser."""
    plan, model = plan or Plan(), copy.deepcopy(model)
    data = calibration if isinstance(calibration, Tensor) else list(batches(calibration))
    found = targets(model, plan.include, plan.exclude, plan.scheme)[0]
    seen = _calibrated(model, data, found, plan)
    assert seen is not None
    return seen


def _calibrated(
    model: nn.Module, calibration: Data | Calibration | None, found: Sequence[Target], plan: Plan
) -> Calibration | None:
    if calibration is None:
        if plan.method.needs or plan.measure == "macs":
            what = f"factoriser={plan.factoriser!r}" if plan.method.needs else 'measure="macs"'
            msg = f'{what} needs calibration=inputs of training samples; factoriser="svd" alone does without'
            raise OptionError(msg)
        return None
    if isinstance(calibration, Calibration):
        return calibration
    seen = calibrate(model, calibration, found, plan.method.needs)
    if plan.sensitivity and isinstance(plan.sharing, Greedy):
        candidates = [Candidate.of(each, plan.method, seen) for each in found if each.path in seen.moments]
        offers = [each.offers("parameters", 1) for each in candidates]
        data = list(batches(calibration))
        seen.sensitivity = sensitivities(model, data, candidates, offers, plan.scheme)
    return seen


def _moments(model: nn.Module, calibration: Any, candidate: Candidate, plan: Plan) -> Moments:
    """Return what goes through one layer now that those before are factored."""
    found = calibrate(model, calibration, [candidate.target], plan.method.needs)
    return found.moments[candidate.target.path]


def _allocated(
    candidates: Sequence[Candidate], offers: Sequence[Sequence[Offer]], parameters: int, plan: Plan
) -> list[Ranks]:
    """Return the ranks of the matrices of each layer."""
    flat = [offer for own in offers for offer in own]
    possible = sum(offer.whole for offer in flat)
    if plan.measure == "parameters":
        budget = plan.kept * parameters - (parameters - sum(each.target.parameters for each in candidates))
    else:
        budget = plan.kept * possible
    ranks = iter(plan.sharing.allocate(flat, budget) if plan.kept < 1 else [None] * len(flat))
    return [[next(ranks) for _ in own] for own in offers]
