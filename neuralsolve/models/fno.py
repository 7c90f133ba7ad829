"""The Fourier neural operator of the `neuraloperator` package, to compare with.

Source: Li et al. (ICLR 2021, arXiv 2010.08895). It is not part of this package: install the extra `peers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError


class FNO(nn.Module):
    """FNO on grids of one to three axes.

    Parameters
    ----------
    dim : axes
    inputs, outputs : channels
    width : hidden channels
    modes : Fourier modes kept along each axis
    layers : Fourier layers
    closed : not used; positions come from the package's own grid embedding
    more : further options of `neuralop.models.FNO`

    Raises
    ------
    OptionError
        The package is not installed.
    ShapeError
        At a call: more modes than the grid has.
    """

    def __init__(
        self,
        dim: int,
        inputs: int,
        outputs: int,
        width: int = 32,
        modes: int = 12,
        layers: int = 4,
        closed: bool | Sequence[bool] = True,
        **more: Any,
    ):
        super().__init__()
        try:
            from neuralop.models import FNO as Peer
        except ImportError:
            msg = "network 'fno' is that of neuraloperator: pip install 'neuralsolve[peers]'"
            raise OptionError(msg) from None
        self.modes = modes
        self.net = Peer(
            n_modes=(modes,) * dim,
            hidden_channels=width,
            in_channels=inputs,
            out_channels=outputs,
            n_layers=layers,
            **more,
        )

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < self.modes:
            msg = (
                f"{self.modes} modes on {tuple(x.shape[2:])} nodes; modes <= {min(x.shape[2:])} are needed, "
                "or a finer grid"
            )
            raise ShapeError(msg)
        with torch.autocast(x.device.type, enabled=False):  # its transforms want float32
            return self.net(x.float())
