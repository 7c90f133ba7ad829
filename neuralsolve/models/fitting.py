"""Training from Python: samples in, a model out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError
from neuralsolve.models import training_loop
from neuralsolve.models.field_options import FieldTraining
from neuralsolve.models.field_training import FieldTrainer, Residual
from neuralsolve.models.fine_tuning import mark
from neuralsolve.models.frames import seen_by
from neuralsolve.models.networks import NETWORKS, parameters_of
from neuralsolve.models.parallel import Parallel
from neuralsolve.models.surrogate import Surrogate, tensors_of

HELD = 10  # one in so many samples is held back to choose by
MODEL = "best.safetensors"
LSM = {"name": "lsm", "width": 32, "levels": 2}


def train(
    samples: Samples,
    validation: Samples | None = None,
    network: str | Mapping[str, Any] = LSM,
    options: FieldTraining | None = None,
    folder: str | os.PathLike[str] | None = None,
    normaliser: str = "channel",
    residual: Residual | None = None,
    device: str = "cpu",
    tell: Callable[[int, str], None] = lambda step, note: None,
    model: Surrogate | None = None,
    teacher: Surrogate | None = None,
) -> Surrogate:
    """Train a network on samples and return what did best on the validation.

    Parameters
    ----------
    samples : to train on
    validation : to choose by; None: the last tenth of `samples`, which is not trained on
    network : {"name": "lsm", "unet", "transolver" or "fno", option: value, ...}, or the name alone
    options : FieldTraining; None: its defaults
    folder : made if need be; checkpoint, log and ``best.safetensors`` go there, and the same call goes on
        from them after an interruption. None: nothing is kept
    normaliser : of inputs and outputs: "pointwise", "channel" or "none"
    residual : (inputs, outputs) -> (n,) of the equation, for the loss "residual"
    device : "cpu", "cuda" or "auto"
    tell : called with the step and a line on the loss at the end of every epoch
    model : to go on from, compressed or not, with its own network and normalisers; it is left as it is
    teacher : whose outputs count as much as those of the samples: the dense model of a compressed one

    Raises
    ------
    OptionError, ShapeError
        Options, network and samples that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralsolve.data import Layout, Samples
    >>> from neuralsolve.models import FieldTraining, train
    >>> a = np.random.default_rng(31).standard_normal((20, 1, 16))
    >>> data = Samples(a, np.cumsum(a, 2) / 16, Layout((np.linspace(0, 1, 16),)))
    >>> small = {"name": "unet", "width": 8, "levels": 2}
    >>> model = train(data, network=small, options=FieldTraining(epochs=2))
    >>> model.predict(a[:3]).shape
    (3, 1, 16)
    """
    options = options or FieldTraining()
    network = {"name": network} if isinstance(network, str) else dict(network)
    network = network if model is None else model.network
    if "name" not in network:
        msg = f"network = {network} has no name; {{'name': 'lsm', ...}} is needed, of {', '.join(NETWORKS)}"
        raise OptionError(msg)
    if validation is None:
        held = max(1, len(samples) // HELD)
        if len(samples) < 2:
            msg = "one sample alone; give validation=, samples to choose by, or two samples at least"
            raise OptionError(msg)
        samples, validation = samples.split(len(samples) - held)
    samples, validation = (seen_by(network, each) for each in (samples, validation))
    parallel = Parallel(device)
    about: dict[str, Any] = {"normaliser": normaliser}
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            frames = int(network.get("outputs", 1)) if options.rollout else None
            prior = int(frames == 1)  # in a roll-out the frame before
            model = Surrogate.of(network, samples, normaliser, frames, prior)
    else:
        model, about = copy.deepcopy(model), {"from": mark(*tensors_of(model).values())}
    if teacher is not None:
        about["teacher"] = mark(*tensors_of(teacher).values())
    trainer = FieldTrainer(model, samples, validation, options, about, residual, parallel, teacher)
    if folder is None:
        with TemporaryDirectory() as temporary:
            _run(trainer, Path(temporary), tell, keeps=False)
    else:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _run(trainer, Path(folder), tell, keeps=True)
    return trainer.best_model()


def _run(trainer: FieldTrainer, folder: Path, tell: Callable[[int, str], None], keeps: bool) -> None:
    def saved() -> None:
        facts = {
            "parameters": str(parameters_of(trainer.model)),
            "steps": str(trainer.step),
            "wall_seconds": f"{trainer.seconds:.0f}",
        }
        trainer.best_model().save(folder / MODEL, facts)

    parallel = trainer.parallel
    training_loop.train(
        trainer,
        folder,
        tell,
        writes=keeps and parallel.rank == 0,
        saved=saved,
        agreed=parallel.any,
    )
