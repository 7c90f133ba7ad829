"""Adapters: a trained model learns another task by few numbers, added to weights that stay as they are."""

from neuralsolve.lowrank.adapters.attach import attach as attach
from neuralsolve.lowrank.adapters.effort import Effort as Effort
from neuralsolve.lowrank.adapters.files import load_adapter as load_adapter
from neuralsolve.lowrank.adapters.files import save_adapter as save_adapter
from neuralsolve.lowrank.adapters.gpm import GPM as GPM
from neuralsolve.lowrank.adapters.loldu import LoLDU as LoLDU
from neuralsolve.lowrank.adapters.lora import LoRA as LoRA
from neuralsolve.lowrank.adapters.lora_sb import LoRASB as LoRASB
from neuralsolve.lowrank.adapters.lora_xs import LoRAXS as LoRAXS
from neuralsolve.lowrank.adapters.methods import make_adapter as make_adapter
from neuralsolve.lowrank.adapters.osf import OSF as OSF
from neuralsolve.lowrank.adapters.peft import export_to_peft_lora as export_to_peft_lora
from neuralsolve.lowrank.adapters.record import deltas_of as deltas_of
from neuralsolve.lowrank.adapters.removal import detach as detach
from neuralsolve.lowrank.adapters.removal import merge as merge
from neuralsolve.lowrank.adapters.removal import merged_copy as merged_copy
from neuralsolve.lowrank.adapters.removal import without_adapter as without_adapter
from neuralsolve.lowrank.adapters.salt import SALT as SALT
from neuralsolve.lowrank.adapters.svfit import SVFit as SVFit
from neuralsolve.lowrank.adapters.tensor_lora import TensorLoRA as TensorLoRA
from neuralsolve.lowrank.adapters.trained import disabled as disabled
from neuralsolve.lowrank.adapters.trained import penalty as penalty
from neuralsolve.lowrank.adapters.trained import summary as summary
from neuralsolve.lowrank.adapters.trained import trainable_parameters as trainable_parameters
