"""EoRA: what a compressed layer has lost, given back by a residual of low rank where the inputs are.

    dW = W - W_c,   C = E[x x^H],   dW C^(1/2) = U S V^H,   B = U_r S_r^(1/2),   A = S_r^(1/2) V_r^H C^(-1/2)

so that the layer is W_c + B A, and the mean square of its error is the sum of s_j^2, j > r: the whitened SVD
of dW. Nothing is trained. Layer by layer, x is what the layers before, compensated already, send on.

Source: Liu, Khadkevich et al., EoRA: Training-free compensation for compressed LLM with eigenspace low-rank
approximation (arXiv 2410.21271). Differs: eigenvalues of C are floored relative to the largest.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.compress.calibration import INPUTS, Data, batches, calibrate
from neuralsolve.lowrank.compress.compensated import Compensated
from neuralsolve.lowrank.compress.factored import check_rank
from neuralsolve.lowrank.compress.layers import Target, replace, targets
from neuralsolve.lowrank.compress.spectral import break_even
from neuralsolve.lowrank.compress.whitened import FLOOR, Whitened


def compensate(
    model: nn.Module,
    compressed: nn.Module,
    calibration: Data,
    rank: int = 8,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    propagate: bool = True,
    floor: float = FLOOR,
) -> nn.Module:
    """Return a copy of a compressed model with residuals of low rank towards the model it was made of.

    Parameters
    ----------
    model : as trained
    compressed : the same layers with other weights: rounded, pruned
    calibration : inputs (n, ...), or batches, see `calibrate`
    rank : of every residual, at most: less where a residual would be no smaller than the layer
    include, exclude : words of paths, see `targets`
    propagate : whether each layer sees what the compensated layers before it make; False: all see what the
        compressed model makes, in one pass
    floor : smallest eigenvalue of C that is kept, relative to the largest

    Raises
    ------
    ShapeError
        Layers of other shapes, or paths that the model has not.
    OptionError
        A rank below 1, or no layer to compensate.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(7)
    >>> net, x = nn.Sequential(nn.Linear(24, 16)), torch.randn(60, 24)
    >>> rounded = copy.deepcopy(net)
    >>> rounded[0].weight.data = (8 * net[0].weight).round() / 8
    >>> better = compensate(net, rounded, x, rank=4)
    >>> bool((better(x) - net(x)).norm() < 0.8 * (rounded(x) - net(x)).norm())
    True
    """
    check_rank(rank, 2**31)
    data = calibration if isinstance(calibration, Tensor) else list(batches(calibration))
    result = copy.deepcopy(compressed)
    truth = {each.path: each for each in targets(model, include, exclude)[0] if each.kind != "modes"}
    found = [each for each in targets(result, include, exclude)[0] if each.path in truth]
    ranks = {each.path: min(rank, break_even(*each.matrices().shape[-2:]) - 1) for each in found}
    found = [each for each in found if ranks[each.path]]
    if not found:
        msg = (
            f"{type(model).__name__} has no layer that a residual is smaller than; check include and exclude"
        )
        raise OptionError(msg)
    wanted, whitened = frozenset({INPUTS}), Whitened(floor)
    moments = calibrate(result, data, found, wanted).moments
    by_path = {each.path: each for each in found}
    for path in list(moments):
        target = by_path[path]
        seen = calibrate(result, data, [target], wanted).moments if propagate else moments
        lost = _lost(truth[path], target)
        layer: Any = Compensated.like(target.module, ranks[path])
        factors = whitened.factors(lost, None, seen[path], layer.rank)
        layer.residual.set_factors(factors.B, factors.A)
        replace(result, target.module, layer.train(result.training))
    return result


def _lost(truth: Target, target: Target) -> Tensor:
    W, W_c = truth.matrices(), target.matrices()
    if W.shape != W_c.shape:
        msg = f"{truth.path!r} is {tuple(W.shape)} in one model and {tuple(W_c.shape)} in the other"
        raise ShapeError(msg)
    return (W - W_c)[0]
