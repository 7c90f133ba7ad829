"""Factors solved anew, layer by layer, so that each makes up for what those before it have changed.

    min over rank W = r, b of  E |W x + b - y|^2,      x what the factored layers before send on,
                                                       y what the layer makes in the model as trained
    W_0 = C_yx (C_xx + e)^-1,   U = leading r eigenvectors of W_0 C_xx W_0^H,   W = U U^H W_0

with moments about the means, which go into b: the reduced-rank regression. Factors of one layer at a time
answer for its own error alone, at inputs that it never has again; here an error is mended where the next
layer can see it. Two passes a layer, one by each model. Spectral weights stay as they are.

Sources: Izenman, J. Multivariate Analysis 5 (1975) 248-264 (reduced-rank regression); towards the outputs of
the model as trained, of convolutions: Zhang, Zou, He, Sun, IEEE TPAMI 38 (2016) 1943-1955. Differs: a ridge
towards the weights as trained, for inputs that are never seen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.compress.afm import balanced
from neuralsolve.lowrank.compress.calibration import Data, batches, calibrate, patches_of
from neuralsolve.lowrank.compress.factored import Factored
from neuralsolve.lowrank.compress.layers import Target, targets
from neuralsolve.lowrank.weighted import psd_eigh

RIDGE = 1e-6  # of the mean variance of the inputs
ROWS = 4096  # of a layer and a batch, at most
M = TypeVar("M", bound=nn.Module)


def refit(model: nn.Module, compressed: M, calibration: Data) -> M:
    """Return a copy of a compressed model with the same ranks and factors that are solved anew.

    Parameters
    ----------
    model : as trained
    compressed : what `compress` made of it
    calibration : inputs (n, ...), or batches, see `calibrate`

    Raises
    ------
    OptionError
        Layers that the model has not.

    Examples
    --------
    >>> from neuralsolve.lowrank.compress import Plan, compress
    >>> _ = torch.manual_seed(7)
    >>> net, x = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16)), torch.randn(300, 16)
    >>> small = compress(net, x, Plan(kept=0.5)).model
    >>> bool((refit(net, small, x)(x) - net(x)).norm() < (small(x) - net(x)).norm())
    True
    """
    data = list(batches(calibration))
    result = copy.deepcopy(compressed)
    truth = {each.path: each for each in targets(model)[0] if each.kind != "modes"}
    found = {each.path: each for each in targets(result)[0] if isinstance(each.module, Factored)}
    strange = [path for path in found if path not in truth]
    if strange:
        msg = f"the model has no layer {strange[0]!r} to refit by; pass the one that was compressed"
        raise OptionError(msg)
    training = model.training, result.training
    model.eval()
    result.eval()
    try:
        for path in calibrate(result, data[:1], list(found.values()), ()).moments:
            _solved(found[path], truth[path], _joint(model, result, truth[path], found[path], data))
    finally:
        model.train(training[0])
        result.train(training[1])
    return result


@dataclass
class Joint:
    """Sums over rows of (x, 1)(x, 1)^T and y (x, 1)^T."""

    count: int = 0
    inputs: Any = 0.0
    cross: Any = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x (n, in) and y (n, out)."""
        x, y = F.pad(x.double(), (0, 1), value=1.0), y.double()
        self.count += len(x)
        self.inputs, self.cross = self.inputs + x.T @ x, self.cross + y.T @ x


@dataclass
class Calls:
    """What went through a layer in one call of its model, call by call."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


@contextmanager
def _watched(target: Target, calls: Calls) -> Iterator[None]:
    def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        x = args[0]
        if target.caller is not target.module:  # which takes the weights alone
            x = x.movedim(1, -1)
            output = F.linear(x, target.module.weight, target.module.bias)
        calls.inputs.append(x)
        calls.outputs.append(output)

    handle = target.caller.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _joint(
    model: nn.Module, small: nn.Module, dense: Target, factored: Target, data: Sequence[tuple[Any, ...]]
) -> Joint:
    """Return the moments of what a layer is given in one model and makes in the other."""
    sums, chosen = Joint(), torch.Generator().manual_seed(1905)
    device = next(iter(small.parameters())).device
    for arguments in data:
        moved = [each.to(device) if isinstance(each, Tensor) else each for each in arguments]
        given, made = Calls(), Calls()
        with _watched(dense, made), _watched(factored, given):
            model(*moved)
            small(*moved)
        for x, y in zip(given.inputs, made.outputs, strict=True):
            sums.add(*_rows(factored, x, y, chosen))
    return sums


def _rows(target: Target, x: Tensor, y: Tensor, chosen: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return rows (n, in) and (n, out), `ROWS` drawn at random of more."""
    conv = target.module.first if target.kind == "conv" else None
    if conv is not None:
        if x.ndim == len(conv.kernel_size) + 1:
            x, y = x[None], y[None]
        y = y.movedim(1, -1)
    y = y.reshape(-1, y.shape[-1])
    which = torch.randperm(len(y), generator=chosen)[:ROWS].to(y.device)
    return x.reshape(-1, x.shape[-1])[which] if conv is None else patches_of(conv, x, which), y[which]


def _solved(target: Target, truth: Target, sums: Joint) -> None:
    """Give a layer the factors of the regression; without a bias in the layer, through the origin."""
    layer, S, P = target.module, sums.inputs / sums.count, sums.cross / sums.count
    mean, shift = S[:-1, -1], P[:, -1]
    C, D = S[:-1, :-1], P[:, :-1]
    if layer.bias is not None:
        C, D = C - torch.outer(mean, mean), D - torch.outer(shift, mean)
    trained = truth.matrices()[0]
    ridge = RIDGE * C.diagonal().mean().clamp(min=torch.finfo(C.dtype).tiny)
    C_ridge = C + ridge * torch.eye(len(C), dtype=C.dtype, device=C.device)
    W = torch.linalg.solve(C_ridge, (D + ridge * trained).T).T
    U = psd_eigh(W @ C_ridge @ W.T, floor=0.0).vectors[:, : layer.rank]
    B, A = balanced(U, U.T @ W)
    layer.set_factors(B, A, None if layer.bias is None else shift - B @ (A @ mean))
