"""What models of trajectories have to know of frames: networks that carry a state from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError
from neuralsolve.models.networks import ON_FRAMES


def on_frames(network: Any) -> bool:
    """Return whether a network, given by its name and options, takes any number of frames."""
    return network.get("name") in ON_FRAMES


def seen_by(network: Any, samples: Samples) -> Samples:
    """Return the samples that a network is trained on: as `Samples.history` where it takes frames."""
    return samples.history(int(network.get("fields", 1))) if on_frames(network) else samples


def frames_of(network: Any, samples: Samples) -> Tensor:
    """Return all frames of such samples, (n * frames, fields, *shape): one normaliser is for all of them."""
    fields = int(network.get("fields", 1))
    first, rest = samples.inputs[:, :fields], samples.outputs
    every = np.concatenate([first, rest], 1)
    return torch.from_numpy(np.asarray(every.reshape(-1, fields, *samples.shape), np.float32))


def check_frames(network: Any, frames: int | None, prior: int) -> None:
    """Raise OptionError where a network of frames is asked to be trained in another way."""
    if on_frames(network) and (frames is not None or prior):
        msg = (
            f"the network {network['name']!r} is trained on whole trajectories at once; leave rollout and "
            "prior out: it is rolled out from any frames that it is given"
        )
        raise OptionError(msg)


def fits(network: Any, channels: int) -> bool:
    """Return whether a network takes inputs of so many channels."""
    if on_frames(network):
        return channels > 0 and channels % int(network.get("fields", 1)) == 0
    return channels == network["inputs"]


@torch.no_grad()
def own_frames(model: nn.Module, x: Tensor, passes: int) -> Tensor:
    """Return the history x ``(n, frames * fields, *shape)`` as the model tells it, the first frame excepted.

    A pass puts in the place of each frame what the model makes of those before it. After k passes frame j is
    that of a roll-out of k steps from the true frames up to j - k, of j steps where j < k.
    """
    for _ in range(passes):
        made = model(x)
        x = torch.cat([x[:, : model.net.fields], made[:, : -model.net.fields]], 1)  # type: ignore[union-attr, index, operator]
    return x


def rolled(net: nn.Module, seen: Tensor, steps: int) -> Tensor:
    """Return `steps` frames that follow those seen ``(n, frames * fields, *shape)``, its state carried along.

    The frames that are given are seen all together; then every prediction is the input of the next.
    """
    made, state = net(seen, return_state=True)
    found = [made[:, -net.fields :]]  # type: ignore[index]
    for _ in range(steps - 1):
        following, state = net.step(found[-1], state)  # type: ignore[operator]
        found.append(following)
    return torch.cat(found, 1)
