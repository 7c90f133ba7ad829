"""Fields of mean zero and size one, and back.

"pointwise": mean and deviation of every node over the samples, as for Darcy in Li et al. (2021).
"channel": one mean and deviation a channel. "none": as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, check_known

KINDS = ("pointwise", "channel", "none")
EPS = 1e-5  # added to a deviation, relative to that of all nodes
ROUNDING = 1e-7  # a channel that varies less, relative to its size, is constant: it is only moved to zero


class Normaliser(nn.Module):
    """The map of one kind of field, ``(n, channels, *shape)``.

    Attributes
    ----------
    mean, deviation : (channels, *shape), of one node along every axis unless pointwise; fields of a multiple
        of these channels are frames, one after the other, each moved in the same way

    Examples
    --------
    >>> u = 3 + 2 * torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    >>> to_unit = Normaliser.of("channel", u)
    >>> v = to_unit(u)
    >>> bool(abs(v.mean()) < 1e-5), bool(torch.allclose(to_unit.back(v), u, atol=1e-5))
    (True, True)
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    @classmethod
    def of(cls, kind: str, fields: Tensor) -> Normaliser:
        """Return that of fields ``(n, channels, *shape)``.

        Raises
        ------
        OptionError
            An unknown kind; a pointwise one of less than two samples.
        """
        check_known("normaliser", kind, KINDS)
        if kind == "none":
            ones = torch.ones(fields.shape[1], *[1] * (fields.ndim - 2))
            return cls(0 * ones, ones)
        if kind == "pointwise" and len(fields) < 2:
            msg = 'a pointwise normaliser needs two samples at least; use "channel" or "none"'
            raise OptionError(msg)
        over = [0] if kind == "pointwise" else [0, *range(2, fields.ndim)]
        wide = fields.double()
        deviation = wide.std(over, keepdim=True, unbiased=False)[0]
        overall = wide.std([0, *range(2, fields.ndim)], keepdim=True, unbiased=False)[0]
        mean, size = wide.mean(over, keepdim=True)[0], wide.abs().mean([0, *range(2, fields.ndim)], True)[0]
        deviation = torch.where(overall > ROUNDING * size, deviation + EPS * overall, 1.0)
        return cls(mean.to(fields.dtype), deviation.to(fields.dtype))

    def forward(self, fields: Tensor) -> Tensor:
        return (fields - _repeated(self.mean, fields)) / _repeated(self.deviation, fields)

    def back(self, fields: Tensor) -> Tensor:
        """Return fields as they were."""
        return fields * _repeated(self.deviation, fields) + _repeated(self.mean, fields)


def _repeated(values: Tensor, fields: Tensor) -> Tensor:
    """Return the values of one frame for all channels of the fields; as they are where it is one frame."""
    count = fields.shape[1] // len(values)
    return values if count == 1 else values.repeat(count, *[1] * (values.ndim - 1))
