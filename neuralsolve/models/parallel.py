"""The processes of a training: one, or those that ``torchrun`` has started, by Lightning Fabric."""

from __future__ import annotations

import inspect
import logging
import os
import time
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError

PATIENCE = timedelta(days=1)  # with the others; one that fails is ended with all by torchrun
GLANCE = 0.05  # seconds between looks at whether the others have come


def processes() -> int:
    """Return how many processes ``torchrun`` has started; 1 without it.

    >>> processes()
    1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return which of the processes this is, 0 the first, before they have been made known to each other."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


class Parallel:
    """Which process this is, of how many; gradients are means over them.

    Buffers of a model, the means of batch normalisation among them, are those of each process; the first
    one's are what is saved.

    Parameters
    ----------
    device : "cpu", "cuda" or "auto", the first that there is

    Raises
    ------
    OptionError
        No such device, or several processes without Lightning Fabric.

    Examples
    --------
    >>> one = Parallel()
    >>> one.rank, one.count, one.device.type
    (0, 1, 'cpu')
    """

    def __init__(self, device: str = "cpu"):
        self.fabric: Any = None
        self.rank, self.count = 0, processes()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            msg = "device = 'cuda', and torch finds none; 'cpu', or 'auto' for what there is"
            raise OptionError(msg)
        self.device = torch.device(device)
        if self.count > 1:
            try:
                from lightning_fabric import Fabric
                from lightning_fabric.strategies.ddp import DDPStrategy
            except ImportError:
                msg = "several processes need Lightning Fabric: pip install 'neuralsolve[train]'"
                raise OptionError(msg) from None
            local = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
            known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
            buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            options: dict[str, Any] = {buffers: False}
            strategy = DDPStrategy(timeout=PATIENCE, **options)
            self.fabric = Fabric(
                accelerator=device, devices=local, num_nodes=self.count // local, strategy=strategy
            )
            self.fabric.launch()
            self.rank, self.device = self.fabric.global_rank, self.fabric.device

    def shared(self, model: nn.Module) -> nn.Module:
        """Return the model whose gradients are means over the processes; its weights are those of `model`."""
        return model if self.fabric is None else self.fabric.setup_module(model)

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over the processes."""
        return float(value if self.fabric is None else self.fabric.all_reduce(value, reduce_op="mean"))

    def any(self, flag: bool) -> bool:
        """Return whether a flag is up in any of the processes."""
        if self.fabric is None:
            return flag
        return self.mean(torch.tensor(float(flag), device=self.device)) > 0

    def of_first(self, value: float) -> float:
        """Return the first process's number."""
        if self.fabric is None:
            return value
        told = torch.tensor(value if self.rank == 0 else 0.0, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(told, 0)
        return float(told)

    def wait(self) -> None:
        """Return when all processes have come here; Ctrl-C is heard meanwhile."""
        if self.fabric is None:
            return
        waiting: Any = torch.distributed.barrier(async_op=True)
        while not waiting.is_completed():
            time.sleep(GLANCE)
