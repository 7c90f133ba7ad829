"""Compressed models of fields: what to calibrate them by, and their further training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.data.samples import Samples
from neuralsolve.models.evaluation import steps_for
from neuralsolve.models.field_options import FieldTraining
from neuralsolve.models.fitting import train
from neuralsolve.models.frames import on_frames, seen_by
from neuralsolve.models.meshes import mesh_of
from neuralsolve.models.surrogate import Surrogate

CALIBRATED = 256  # samples
BATCH = 32
FINE_TUNE: dict[str, Any] = {  # a model that is trained already, and few steps: no rise, noise averaged out
    "optimizer": "muon",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "rise": 0.0,
    "ema": 0.98,
    "batch": 10,
}


def calls(model: Surrogate, samples: Samples, count: int = CALIBRATED) -> list[tuple[Tensor | None, ...]]:
    """Return what a model is called with, batch by batch, for `neuralsolve.lowrank.compress.compress`.

    Parameters
    ----------
    samples : on the model's own grid, of its training
    count : of the first samples; all where there are fewer

    Examples
    --------
    >>> from neuralsolve.data import Layout
    >>> data = Samples(np.ones((40, 1, 8, 8)), np.ones((40, 1, 8, 8)), Layout((np.arange(8) / 8,) * 2))
    >>> model = Surrogate.of({"name": "unet", "width": 8, "levels": 2}, data)
    >>> [each[0].shape[0] for each in calls(model, data)]
    [32, 8]
    """
    samples = seen_by(model.network, samples.take(slice(0, count)))
    found: list[tuple[Tensor | None, ...]] = []
    for start in range(0, len(samples), BATCH):
        part = slice(start, start + BATCH)
        x = torch.from_numpy(np.ascontiguousarray(samples.inputs[part], np.float32))
        mesh = () if samples.points is None else mesh_of(samples, part)
        found.append((x, *mesh))
    return found


def tuned(
    model: Surrogate,
    samples: Samples,
    validation: Samples,
    options: FieldTraining | None = None,
    teacher: Surrogate | None = None,
) -> Surrogate:
    """Return a model after some more epochs, a tenth of those of its training by custom.

    Parameters
    ----------
    samples, validation : to train on, and to choose by
    options : FieldTraining; None: ten epochs of `FINE_TUNE`. A roll-out is trained over all frames of the
        samples
    teacher : the dense model, whose outputs count as much as those of the samples; None: the samples alone
    """
    options = options or FieldTraining(epochs=10, **FINE_TUNE)
    steps = steps_for(model, samples)
    if steps and not options.rollout and not on_frames(model.network):
        options = replace(options, rollout=steps)
    return train(samples, validation, options=options, model=model, teacher=teacher)
