"""A Fourier neural operator with a memory: Fourier layers frame by frame, a state-space layer along time.

    z_t = lift(u_t, coordinates)                         frames u_0, u_1, ..., each seen by itself
    z   = Fourier layers of z_t, `before` of them
    z   = z + GLU(GELU(memory(norm(z))))                 along time, at every node
    z   = Fourier layers of z_t, `after` of them
    u_{t+1} = u_t + projection(z_t)

All is causal: u_{t+1} depends on u_0 .. u_t alone. Trained on whole trajectories, which is one pass; rolled
out step by step, the state of the memory carried along: what the nodes do not show of a frame, the frames
before it have shown.

The memory "none" is a network of two layers at every node and frame in its place, of such a width that the
number of parameters is the same to half a channel of that width: the same operator without a memory.

Source: R. Buitrago Ruiz, T. Marwah, A. Gu, A. Risteski, "On the benefits of memory for modeling
time-dependent PDEs", ICLR 2025 (arXiv 2409.02313). Differences: Fourier layers of all axes together, S4D with
the start of perturb-then-diagonalise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import OptionError, ShapeError, nearest
from neuralsolve.models.fourier_layer import FourierLayer
from neuralsolve.models.s4d import S4D

STARTS = ("ptd", "legs", "s4d-lin", "s4d-inv", "lru")
NONE = "none"


class MemoryOperator(nn.Module):
    """Frames ``(batch, frames * fields, *shape)`` to the frames that follow each; see the head of this file.

    Parameters
    ----------
    dim : axes
    inputs, outputs : channels of the trajectories that it is trained on, equal; others can be shown to it
    fields : channels of one frame
    width : hidden channels
    modes : m, Fourier modes kept along each axis, -m .. m - 1
    before, after : Fourier layers before the memory and after it
    memory : start of the state-space layer, "ptd", "legs", "s4d-lin", "s4d-inv" or "lru"; "none": see above
    state : real states of each channel and node
    step_range : of the state-space layer, in frames
    coordinates : whether places are seen, too
    closed : whether an axis has nodes at both ends; else it is periodic, and places are angles

    Raises
    ------
    OptionError
    ShapeError
        At a call: channels that are no whole frames, or nodes too few for the modes.

    Examples
    --------
    >>> net = MemoryOperator(1, 5, 5, width=8, modes=4, state=8)
    >>> frames = torch.randn(2, 5, 16)
    >>> made, state = net(frames, return_state=True)
    >>> following, state = net.step(made[:, -1:], state)
    >>> made.shape, following.shape
    (torch.Size([2, 5, 16]), torch.Size([2, 1, 16]))
    """

    def __init__(
        self,
        dim: int,
        inputs: int,
        outputs: int,
        fields: int = 1,
        width: int = 32,
        modes: int = 12,
        before: int = 2,
        after: int = 2,
        memory: str = "ptd",
        state: int = 32,
        step_range: Sequence[float] = (1e-2, 1.0),
        coordinates: bool = True,
        closed: bool | Sequence[bool] = False,
    ):
        super().__init__()
        if inputs != outputs or fields < 1 or inputs % fields:
            msg = (
                f"inputs = {inputs}, outputs = {outputs}, fields = {fields}; as many frames in as out are "
                "needed, of whole fields: history = true in a case, or `neuralsolve.data.history`"
            )
            raise OptionError(msg)
        if min(width, before, after + 1, state) < 1:
            msg = (
                f"width = {width}, before = {before}, after = {after}, state = {state}; after >= 0 and the "
                "others >= 1 are needed"
            )
            raise OptionError(msg)
        self.dim, self.fields, self.width = dim, fields, width
        self.closed = [closed] * dim if isinstance(closed, bool) else list(closed)
        places = sum(1 if end else 2 for end in self.closed) if coordinates else 0
        self.coordinates = coordinates
        self.lift = nn.Linear(fields + places, width)
        self.before = nn.Sequential(*(FourierLayer(dim, width, modes) for _ in range(before)))
        self.after = nn.Sequential(*(FourierLayer(dim, width, modes) for _ in range(after)))
        self.norm = nn.LayerNorm(width)
        self.memory = made_memory(memory, width, state, step_range)
        self.gate = nn.Linear(width, 2 * width)
        self.project = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, fields))

    def forward(self, x: Tensor, state: Any = None, return_state: bool = False) -> Any:
        """Return the frames that follow each of x, and the state of the memory behind them if asked for.

        Parameters
        ----------
        x : (batch, frames * fields, *shape)
        state : of the memory, as a call before it returned; None: nothing has been seen
        """
        u = self._frames(x)  # (batch, T, *shape, fields)
        z = self._by_frame(self.before, self.lift(self._placed(u)))
        z, state = self._remembered(z, state, return_state)
        made = u + self.project(self._by_frame(self.after, z))
        made = made.movedim(-1, 2).reshape(x.shape)
        return (made, state) if return_state else made

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the frame that follows x (batch, fields, *shape), and the state behind it."""
        if x.shape[1] != self.fields:
            msg = f"got {x.shape[1]} channels, need one frame of {self.fields}; forward takes several"
            raise ShapeError(msg)
        u = self._frames(x)
        z = self._by_frame(self.before, self.lift(self._placed(u)))
        seen = self.norm(z[:, 0])
        if isinstance(self.memory, S4D):
            rows = seen.reshape(-1, self.width)
            found, state = self.memory.step(rows, state)
            found = found.reshape(seen.shape)
        else:
            found = self.memory(seen)
        z = z + F.glu(self.gate(F.gelu(found)), -1)[:, None]
        made = u + self.project(self._by_frame(self.after, z))
        return made[:, 0].movedim(-1, 1), state

    def _frames(self, x: Tensor) -> Tensor:
        if x.ndim != 2 + self.dim or not x.shape[1] or x.shape[1] % self.fields:
            msg = (
                f"got frames {tuple(x.shape)}, need (batch, frames * {self.fields}, *shape) on {self.dim} "
                "axes"
            )
            raise ShapeError(msg)
        return x.reshape(len(x), -1, self.fields, *x.shape[2:]).movedim(2, -1)

    def _placed(self, u: Tensor) -> Tensor:
        """Return the frames with their coordinates as further fields."""
        if not self.coordinates:
            return u
        shape, found = u.shape[2:-1], []
        for axis, (n, closed) in enumerate(zip(shape, self.closed, strict=True)):
            line = torch.arange(n, dtype=u.dtype, device=u.device) / (n - 1 if closed and n > 1 else n)
            turned = line.reshape([-1 if k == axis else 1 for k in range(self.dim)]).expand(shape)
            found += (
                [turned] if closed else [torch.cos(2 * math.pi * turned), torch.sin(2 * math.pi * turned)]
            )
        return torch.cat([u, torch.stack(found, -1).expand(*u.shape[:-1], -1)], -1)

    def _by_frame(self, layers: nn.Module, z: Tensor) -> Tensor:
        return layers(z.flatten(0, 1)).reshape(z.shape)

    def _remembered(self, z: Tensor, state: Any, wanted: bool) -> tuple[Tensor, Any]:
        seen = self.norm(z)
        if isinstance(self.memory, S4D):
            rows = seen.movedim(1, -2)  # (batch, *shape, T, width): time is the sequence of every node
            found = self.memory(rows.flatten(0, -3), state, wanted)
            found, state = found if wanted else (found, None)
            found = found.reshape(rows.shape).movedim(-2, 1)
        else:
            found = self.memory(seen)
        return z + F.glu(self.gate(F.gelu(found)), -1), state


def made_memory(memory: str, width: int, state: int, step_range: Sequence[float]) -> nn.Module:
    """Return the state-space layer of a start, or what stands in its place with as many parameters.

    Raises
    ------
    OptionError
        No such memory.

    Examples
    --------
    >>> from neuralsolve.models.networks import parameters_of
    >>> [parameters_of(made_memory(name, 32, 32, (0.01, 1.0))) for name in ("legs", "none")]
    [3136, 3152]
    """
    if memory != NONE and memory not in STARTS:
        known = [*STARTS, NONE]
        msg = f"got memory = {memory!r}, need one of {', '.join(known)}{nearest(str(memory), known)}"
        raise OptionError(msg)
    if memory != NONE:
        return S4D(width, state, init=memory, step_range=step_range)
    wanted = width * (
        2 + 6 * math.ceil(state / 2)
    )  # those of S4D: D, Delta, and lambda, B and C of each mode
    between = max(1, round((wanted - width) / (2 * width + 1)))
    return nn.Sequential(nn.Linear(width, between), nn.GELU(), nn.Linear(between, width))
