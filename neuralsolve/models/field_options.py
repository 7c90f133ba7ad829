"""How a model of fields is trained: numbers and words, checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from neuralsolve.errors import OptionError, check_known
from neuralsolve.models import symmetry
from neuralsolve.models.field_losses import FIELD_LOSSES
from neuralsolve.models.optimizers import Optimizing
from neuralsolve.models.rates import SCHEDULES

RESIDUAL = "residual"
PASSES_FROM = 0.2  # of the steps: before, predictions are worth nothing


@dataclass(frozen=True)
class FieldTraining:
    """How to train a model of fields.

    Parameters
    ----------
    epochs : passes over the samples
    batch : samples a step, of every process
    learning_rate : the highest
    schedule : "onecycle", "cosine", "step", "constant"; `rise`, `period` (epochs), `factor` as of
        `rates.rate`
    optimizer, rank, refresh, scale : see `neuralsolve.models.optimizers`
    weight_decay : of all weights
    loss : weights of "l2", "h1", "derivative", "residual" (of the equation that made the data), which add up
    clip : norm to which a longer gradient is cut; None never
    symmetry : "none", "square", "swaps" or "shifts": see `neuralsolve.models.symmetry`
    ema : of the weights, a step; 0 for none
    patience : epochs without a better validation after which it ends; None: never
    rollout : steps of a roll-out that the loss goes through; 0: all outputs at once
    windows : whether a roll-out begins at any frame of a sample's trajectory, drawn at random, not only at
        the first; of equations that do not change in time
    passes : of networks of frames: up to so many times, drawn each step, the frames after the first are
        replaced by what the model itself makes of those before, so that it sees what a roll-out shows it;
        from `PASSES_FROM` of the steps on
    precision : "float32", or "bfloat16" for what is safe in it (transforms never are)
    seed : of weights, order and motions

    Raises
    ------
    OptionError
    """

    epochs: int = 100
    batch: int = 20
    learning_rate: float = 1e-3
    schedule: str = "onecycle"
    rise: float = 0.3
    period: int = 100
    factor: float = 0.5
    optimizer: str = "adamw"
    rank: int | float | None = None
    refresh: int | None = None
    scale: float | None = None
    weight_decay: float = 1e-5
    loss: dict[str, float] = field(default_factory=lambda: {"l2": 1.0})
    clip: float | None = None
    symmetry: str = "none"
    ema: float = 0.0
    patience: int | None = None
    rollout: int = 0
    windows: bool = False
    passes: int = 0
    precision: str = "float32"
    seed: int = 1905

    @property
    def optimizing(self) -> Optimizing:
        """Which optimizer it is."""
        return Optimizing(self.optimizer, self.rank, self.refresh, self.scale, self.seed)

    def __post_init__(self) -> None:
        _ = self.optimizing  # its checks
        words = {
            "schedule": SCHEDULES,
            "symmetry": symmetry.KINDS,
            "precision": ("float32", "bfloat16"),
        }
        for name, known in words.items():
            check_known(f"{name} =", getattr(self, name), known)
        for name in self.loss:
            check_known("loss", name, (*FIELD_LOSSES, RESIDUAL))
        weights = self.loss.values()
        fits = {
            "at least 1": {
                name: getattr(self, name) is None or getattr(self, name) >= 1
                for name in ("epochs", "batch", "period", "patience")
            },
            "at least 0": {
                name: getattr(self, name) >= 0 for name in ("rollout", "passes", "weight_decay", "seed")
            },
            "from 0 to less than 1": {name: 0 <= getattr(self, name) < 1 for name in ("rise", "ema")},
            "more than 0": {
                "learning_rate": self.learning_rate > 0,
                "clip": self.clip is None or self.clip > 0,
            },
            "more than 0, at most 1": {"factor": 0 < self.factor <= 1},
            "no weight below 0, and one above,": {"loss": min(weights, default=0) >= 0 and sum(weights) > 0},
        }
        for needed, known in fits.items():
            for name, good in known.items():
                if not good:
                    msg = f"{name} = {getattr(self, name)}; {needed} is needed"
                    raise OptionError(msg)
