"""Adapters of all kinds, and models of one weight to put them on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuralsolve.lowrank.adapters import (
    GPM,
    OSF,
    SALT,
    Effort,
    LoLDU,
    LoRA,
    LoRASB,
    LoRAXS,
    SVFit,
    attach,
    deltas_of,
    trainable_parameters,
)
from neuralsolve.lowrank.adapters.options import Adapter
from neuralsolve.lowrank.adapters.record import base_of
from neuralsolve.lowrank.views import MatrixView

m, n, r = 12, 9, 3

p = min(m, n)

METHODS: dict[str, tuple[Adapter, int]] = {  # and the real numbers trained for a real matrix (m, n)
    "lora": (LoRA(rank=r, alpha=2.0), r * (m + n)),
    "lora-xs": (LoRAXS(rank=r), r * r),
    "lora-sb": (LoRASB(rank=r), r * r),
    "lora-sb raw": (LoRASB(rank=r, signed=False), r * r),
    "svfit": (SVFit(energy=1.0), p),
    "svfit of a rank": (SVFit(rank=r), r),
    "salt": (SALT(rank=r, keep=5 / 9), 2 * 5 + 2 * r * (p - 5)),
    "salt nonnegative": (SALT(rank=2, keep=2 / 9, nonnegative=True), 2 * 2 + 2 * 2 * (p - 2)),
    "loldu": (LoLDU(rank=r, alpha=2.0), r + 1),
    "loldu rank-revealing": (LoLDU(rank=r, pivot="rank-revealing"), r + 1),
    "osf": (OSF(keep=4 / 9), (p - 4) * (m + n + 1)),
    "gpm": (GPM(keep=0.3), m * n),
    "effort": (Effort(tail=2), 2 * (m + n + 1)),
    "effort soft": (Effort(tail=2, hard=False), 2 * (m + n + 1)),
}
EACH = pytest.mark.parametrize("adapter", [each for each, _ in METHODS.values()], ids=METHODS)
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


class Single(nn.Module):
    """One weight of any dtype and shape."""

    def __init__(self, weight: Tensor, view: MatrixView | None = None):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.matrix_views = {} if view is None else {"weight": view}

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mH


def drawn(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=generator, dtype=dtype)


def put(model: nn.Module, adapter: Adapter, generator: torch.Generator) -> nn.Module:
    """Attach; the loss is linear, so that its gradient is any matrix at all."""
    where = {name: drawn(generator, *p.shape, dtype=p.dtype) for name, p in model.named_parameters()}

    def loss() -> Tensor:
        found = sum((where[k] * p).real.sum() for k, p in model.named_parameters())
        return torch.stack([found]) if adapter.wants_losses else found  # type: ignore[list-item, return-value]

    return attach(model, adapter, loss if adapter.wants_loss() else None)


def train(model: nn.Module, steps: int, generator: torch.Generator, rate: float = 0.05) -> None:
    """Draw the weights to other ones by AdamW, with decay."""
    optimizer = torch.optim.AdamW(trainable_parameters(model), rate, weight_decay=0.1)
    goals = {
        name: drawn(generator, *d.shape, dtype=d(base_of(model, name)).dtype)
        for name, d in deltas_of(model).items()
    }
    for _ in range(steps):
        optimizer.zero_grad()
        made = {name: d(base_of(model, name)) for name, d in deltas_of(model).items()}
        loss = sum((made[k] - goals[k]).abs().square().sum() for k in made)
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
