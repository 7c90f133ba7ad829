"""Low-rank methods against their bars."""

from __future__ import annotations

from neuralsolve.bench.lowrank_adapters import adapters
from neuralsolve.bench.lowrank_compress import compression
from neuralsolve.bench.lowrank_optim import optim
from neuralsolve.bench.lowrank_svd import svd_speed

GROUPS = {"svd": svd_speed, "optim": optim, "adapters": adapters, "compress": compression}
