"""The processes of a training: one, or those that ``torchrun`` has started, by Lightning Fabric.

torchrun --standalone --nproc_per_node=2 -m neuralsolve train CASE
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError


class Parallel:
    """Which process this is, of how many; gradients are means over them.

    Parameters
    ----------
    device : "cpu", "cuda" or "auto", the first that there is

    Examples
    --------
    >>> one = Parallel()
    >>> one.rank, one.count, one.device.type
    (0, 1, 'cpu')
    """

    def __init__(self, device: str = "cpu"):
        self.fabric: Any = None
        self.rank, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        if self.count > 1:
            try:
                from lightning_fabric import Fabric
            except ImportError:
                msg = "several processes need Lightning Fabric: pip install 'neuralsolve[train]'"
                raise OptionError(msg) from None
            local = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
            self.fabric = Fabric(
                accelerator=device, devices=local, num_nodes=self.count // local, strategy="ddp"
            )
            self.fabric.launch()
            self.rank, self.device = self.fabric.global_rank, self.fabric.device

    def shared(self, model: nn.Module) -> nn.Module:
        """Return the model whose gradients are means over the processes; its weights are those of `model`."""
        return model if self.fabric is None else self.fabric.setup_module(model)

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over the processes."""
        return float(value if self.fabric is None else self.fabric.all_reduce(value, reduce_op="mean"))
