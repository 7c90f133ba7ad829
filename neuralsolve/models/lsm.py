"""Latent Spectral Models: a U-Net whose skip connections pass through patched latent spectral blocks.

Source: Wu, Hu, Luo, Wang and Long (ICML 2023, arXiv 2301.12664). The padding and the patches follow the one
rule behind all published settings: sides are padded to S, the next multiple of 2^levels, and patches have S
/ 2^levels nodes a side, so that the coarsest level is one patch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neuralsolve.models.spectral_block import SpectralBlock, check_heads
from neuralsolve.models.unet import UNet


class LatentSpectral(nn.Module):
    """LSM on grids of one to three axes and any size.

    Parameters
    ----------
    dim, inputs, outputs, width, levels, norm, patch, closed, periodic : as of `UNet`
    tokens, basis, heads : as of `SpectralBlock`; heads divide width
    scaled, bounded, mixing : as of `SpectralBlock`; all False is the model as published

    Raises
    ------
    OptionError

    Examples
    --------
    >>> import torch
    >>> LatentSpectral(1, 1, 1, width=16, levels=2)(torch.zeros(2, 1, 37)).shape
    torch.Size([2, 1, 37])
    """

    def __init__(
        self,
        dim: int,
        inputs: int,
        outputs: int,
        width: int = 32,
        levels: int = 4,
        tokens: int = 4,
        basis: int = 12,
        heads: int = 8,
        norm: str = "batch",
        patch: str | Sequence[int] = "auto",
        closed: bool | Sequence[bool] = True,
        scaled: bool = False,
        bounded: bool = False,
        mixing: bool = False,
        periodic: bool | Sequence[bool] = False,
    ):
        super().__init__()
        check_heads(width, heads)

        def block(level: int, channels: int) -> SpectralBlock:
            return SpectralBlock(channels, tokens, basis, heads, scaled, bounded, mixing)

        self.net = UNet(dim, inputs, outputs, width, levels, norm, patch, closed, block, periodic)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
