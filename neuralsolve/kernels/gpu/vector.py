"""Vector kernels for CUDA. Vectors (n,) or (n, k), flat in C order, k right sides fastest."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, launch


@triton.jit
def _axpy(alpha, x, y, n, k, step, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < n
    a = tl.load(alpha + (i % k) * step, mask=there)
    tl.store(y + i, tl.load(y + i, mask=there) + a * tl.load(x + i, mask=there), mask=there)


def axpy(alpha: Tensor, x: Tensor, y: Tensor) -> None:
    """Add in place: y += alpha x; alpha () for (n,), () or (k,) for (n, k)."""
    n, k = x.numel(), 1 if x.ndim == 1 else x.shape[1]
    block = block_for(n)
    launch(_axpy, (blocks(n, block),), alpha, x, y, n, k, int(alpha.ndim > 0), BLOCK=block)
