"""Optimizers whose state is of low rank, or of few bits: see `projected` for what they have in common."""

from neuralsolve.lowrank.optim.adam8bit import Adam8bit as Adam8bit
from neuralsolve.lowrank.optim.dct_adamw import DCTAdamW as DCTAdamW
from neuralsolve.lowrank.optim.frugal import Frugal as Frugal
from neuralsolve.lowrank.optim.galore import GaLore as GaLore
from neuralsolve.lowrank.optim.groups import Method as Method
from neuralsolve.lowrank.optim.groups import build_param_groups as build_param_groups
from neuralsolve.lowrank.optim.muon import Muon as Muon
from neuralsolve.lowrank.optim.plan import Plan as Plan
from neuralsolve.lowrank.optim.projected import ProjectedOptimizer as ProjectedOptimizer
from neuralsolve.lowrank.optim.q_galore import QGaLore as QGaLore
from neuralsolve.lowrank.optim.tensor_galore import TensorGaLore as TensorGaLore

METHODS: dict[str, type[Method]] = {
    "galore": GaLore,
    "tensor-galore": TensorGaLore,
    "q-galore": QGaLore,
    "dct": DCTAdamW,
    "frugal": Frugal,
    "adam8bit": Adam8bit,
    "muon": Muon,
}
