"""Whether our S5 learns as s5-pytorch does: stacks that start as one function, trained alike.

With all states it has the parameters of theirs; with one of each pair of states, half of those.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, missing, row
from neuralsolve.bench.ssm_learning import DIGITS, to_the_end
from neuralsolve.bench.ssm_peer import copied, drawn_peer, release_of_the_peer
from neuralsolve.data.sequences import digits
from neuralsolve.errors import OptionError
from neuralsolve.models.sequence_model import SequenceModel
from neuralsolve.models.sequence_training import SequenceTrainer, SequenceTraining, accuracy
from neuralsolve.models.state_space import StateSpaceLayer

GROUP, EQUAL = "parity", Bars(0.5)
KINDS = {"S5, all states": False, "S5, pairs": True, "s5-pytorch": None}  # whether one of a pair is kept
PROBLEM = "digits, L 64, S5 and s5-pytorch with the same weights at the start"

WHOLE = "a layer of s5-pytorch is given whole sequences here; S5 takes steps"


class PeerLayer(StateSpaceLayer):
    """A layer of s5-pytorch among ours: its parameters, and the rates that such parameters want."""

    def __init__(self, peer: nn.Module, inner: Any):
        super().__init__(len(inner.D), (1.0, 1.0), bidirectional=False)
        self.peer, self.D = peer, inner.D

    def slow_parameters(self) -> list[nn.Parameter]:
        """Return its eigenvalues, B and step sizes."""
        inner: Any = self.peer.seq
        return [inner.Lambda, inner.B, inner.log_step]

    def forward(self, u: Tensor, state: Tensor | None = None, return_state: bool = False) -> Tensor:
        """Return y, the shape of u."""
        return self.peer(u)

    def step(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Raise OptionError: whole sequences are all that is asked."""
        raise OptionError(WHOLE)

    def initial_state(self, batch: int) -> Tensor:
        """Raise OptionError: whole sequences are all that is asked."""
        raise OptionError(WHOLE)


def parity(settings: Settings) -> Iterator[BarRow]:
    """Tell digits by their 64 pixels, from the same weights, and compare the mean accuracy."""
    words = "accuracy: points that ours, all states, is behind"
    if (release := release_of_the_peer()) is None:
        yield missing(GROUP, PROBLEM, words, "", EQUAL, "no s5-pytorch")
        return
    seeds = settings.seeds(5)[: 1 if settings.quick else None]
    sets = digits().split(*((50, 20, 20) if settings.quick else (1200, 200, 397)))
    options: dict[str, Any] = {"epochs": 1 if settings.quick else 20, "slow_rate": 4e-3}
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for seed in seeds:
        for name, model in same_models(seed).items():
            trainer = SequenceTrainer(model, sets[0], sets[1], SequenceTraining(seed=seed, **options))
            to_the_end(trainer)
            found[name].append(100 * accuracy(model, sets[2]))
    for name, right in found.items():
        note = f"mean {mean(right):.2f}"
        yield row(GROUP, PROBLEM, f"accuracy of {name}", "%", None, right, seeds=listed(seeds), note=note)
    behind = mean(found["s5-pytorch"]) - mean(found["S5, all states"])
    yield row(GROUP, PROBLEM, words, "", EQUAL, [behind], seeds=listed(seeds), baseline=release)


def same_models(seed: int) -> dict[str, SequenceModel]:
    """Return models that are the same function, by `KINDS`."""
    models = {}
    for name, pairs in KINDS.items():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = SequenceModel(1, 10, layer="s5", init="legs", **DIGITS)
            peers = [drawn_peer(DIGITS["channels"], DIGITS["step_range"]) for _ in model.each_block]
            for block, (peer, inner) in zip(model.each_block, peers, strict=True):
                block.layer = PeerLayer(peer, inner) if pairs is None else copied(inner, pairs)
        models[name] = model
    return models
