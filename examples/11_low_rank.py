"""Low rank three times: a training with less state, the model by half of its numbers, and another material.

Darcy flow on 16 x 16 nodes, permeabilities 12 and 3; then 3 and 1, from 60 samples.
"""

import numpy as np

from neuralsolve.lowrank.adapters import TensorLoRA, attach, merge, summary
from neuralsolve.lowrank.compress import Plan, compress
from neuralsolve.models import FieldTraining, train
from neuralsolve.models.compression import calls, tuned
from neuralsolve.pde.darcy import Darcy

NETWORK = {"name": "unet", "width": 16, "levels": 2}


def error(model, samples):
    """Return the mean relative L2 error of the predictions."""
    missed = model.predict(samples.inputs) - samples.outputs
    sizes = np.linalg.norm(samples.outputs.reshape(len(samples), -1), axis=1)
    return float(np.mean(np.linalg.norm(missed.reshape(len(samples), -1), axis=1) / sizes))


def main():
    """Train, compress and adapt one model; return what of the old material's error the adapter leaves."""
    first, second = Darcy(grid=61, stride=4), Darcy(grid=61, stride=4, high=3.0, low=1.0)
    data, held = first.samples(range(256), seed=905).split(192, 64)

    saving = FieldTraining(epochs=12, batch=16, learning_rate=4e-3, optimizer="frugal", rank=0.25)
    model = train(data, held, network=NETWORK, options=saving)
    print(f"trained with FRUGAL: error {error(model, held):.3f}")

    small = compress(model, calls(model, data), Plan(kept=0.5))
    print(f"by {small.report.kept:.0%} of the numbers: {error(small.model, held):.3f}", end=", ")
    small = tuned(small.model, data, held, FieldTraining(epochs=3, batch=16, learning_rate=1e-3))
    print(f"after three epochs more {error(small, held):.3f}")

    few, other = second.samples(range(124), seed=906).split(60, 64)
    before = error(model, other)
    adapted = attach(model, TensorLoRA(rank=2, also=["head"]))
    print(summary(adapted))
    options = FieldTraining(epochs=20, batch=10, learning_rate=1e-2)
    adapted = merge(train(few, network=NETWORK, options=options, model=adapted))
    print(f"another material: error {before:.3f} before, {error(adapted, other):.3f} after")
    return error(adapted, other) / before


if __name__ == "__main__":
    print(f"error that the adapter leaves: {main():.3f} of that before")
