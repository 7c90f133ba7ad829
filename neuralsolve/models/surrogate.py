"""A trained model of an operator: network, what it was trained to see, its grid; fields in, fields out.

A file holds all of it, tensors in safetensors and the rest as JSON in its metadata, so a model is rebuilt
without the code that trained it; of a compressed one, which layers are factored, and their ranks. Fields of
another grid are resampled to that of the training and back; a model of points takes any points.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.data.samples import Layout, Samples, check_finite
from neuralsolve.errors import FormatError, OptionError, ShapeError
from neuralsolve.lowrank.adapters import without_adapter
from neuralsolve.lowrank.compress.structure import restructure, structure_of
from neuralsolve.models.frames import check_frames, fits, frames_of, on_frames, rolled, seen_by
from neuralsolve.models.meshes import box_of, check_axes, check_kind, check_points, mesh_of, placed
from neuralsolve.models.networks import make_network
from neuralsolve.models.normaliser import Normaliser
from neuralsolve.models.resampling import Resampling
from neuralsolve.preconditioners.weights import read_tensors, write_tensors

__all__ = ["Surrogate", "load_tensors", "mesh_of", "tensors_of"]
VERSION = 1


class Surrogate(nn.Module):
    """A network between two normalisers; physical fields ``(n, channels, *shape)`` in and out.

    Parameters
    ----------
    network : name and options of the network, as of `make_network`, JSON
    net : the network
    before, after : normalisers of inputs and outputs
    layout : of the data that it is trained on
    prior : so many channels of the inputs, the last, are guesses already, cheap solutions or in a roll-out
        the frame before: the network's output is added to their mean

    Examples
    --------
    >>> data = Samples(np.ones((3, 1, 8, 8)), np.ones((3, 1, 8, 8)), Layout((np.arange(8) / 8,) * 2))
    >>> model = Surrogate.of({"name": "unet", "width": 8, "levels": 2}, data)
    >>> model.predict(np.ones((5, 1, 8, 8))).shape
    (5, 1, 8, 8)
    """

    def __init__(
        self,
        network: dict[str, Any],
        net: nn.Module,
        before: Normaliser,
        after: Normaliser,
        layout: Layout | None = None,
        prior: int = 0,
    ):
        super().__init__()
        self.network, self.net, self.before, self.after = network, net, before, after
        self.layout, self.prior = layout or Layout(), prior

    @classmethod
    def of(
        cls,
        network: dict[str, Any],
        samples: Samples,
        normaliser: str = "channel",
        frames: int | None = None,
        prior: int = 0,
    ) -> Surrogate:
        """Return the untrained model of a data set; the weights are drawn from torch's global generator.

        Parameters
        ----------
        network : {"name": as of `make_network`, option: value, ...}
        samples : what it is to be trained on
        normaliser : of inputs and outputs, see `neuralsolve.models.normaliser`
        frames : channels of one step of a roll-out; None: all outputs at once
        prior : channels of the inputs that are cheap solutions

        Raises
        ------
        OptionError
            A network of grids for samples on points, or the reverse; a pointwise normaliser of points that
            are not the same for all samples.
        """
        points = samples.points
        check_kind(str(network.get("name")), points, normaliser)
        check_frames(network, frames, prior)
        samples = seen_by(network, samples)
        inputs, outputs = (
            torch.from_numpy(np.asarray(v, np.float32)) for v in (samples.inputs, samples.outputs)
        )
        before = Normaliser.of(normaliser, inputs)
        wanted = outputs if frames is None else outputs[:, :frames]
        after = Normaliser.of(normaliser, wanted - _first_guess(inputs, prior))
        if on_frames(network):
            before = after = Normaliser.of(normaliser, frames_of(network, samples))
        dim = len(samples.layout.axes) if points is None else points.shape[-1]
        sizes: dict[str, Any] = {"dim": dim, "inputs": inputs.shape[1]}
        sizes["outputs"] = outputs.shape[1] if frames is None else frames
        if samples.layout.axes:
            sizes["closed"] = [bool(abs(axis[-1] - 1) < 1e-6) for axis in samples.layout.axes]
        if points is not None:
            sizes["bounds"] = box_of(points)
        options = sizes | network
        return cls(options, make_network(**options), before, after, samples.layout, prior)

    def forward(self, x: Tensor, points: Tensor | None = None, codes: Tensor | None = None) -> Tensor:
        """Return outputs for inputs on the grid, or at the points, of the training."""
        seen = self.before(x)
        found = self.net(seen) if points is None else self.net(seen, points, codes)
        return _first_guess(x, self.prior) + self.after.back(found.to(x.dtype))

    def rollout(self, x: Tensor, steps: int) -> Tensor:
        """Return `steps` steps ``(n, steps * channels, *shape)``, each of the frames before it.

        A network of frames carries its state along; a step is one frame, and x holds any number of them.
        """
        if on_frames(self.network):
            return self.after.back(rolled(self.net, self.before(x), steps).to(x.dtype))
        frames = []
        for _ in range(steps):
            frames.append(self(x))
            x = torch.cat([x[:, frames[-1].shape[1] :], frames[-1]], 1)
        return torch.cat(frames, 1)

    @torch.no_grad()
    def predict(
        self,
        data: Samples | np.ndarray,
        axes: Sequence[np.ndarray] | None = None,
        steps: int | None = None,
        batch: int = 50,
        points: np.ndarray | None = None,
        codes: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the outputs, ``(n, channels, *shape)``, on the grid, or at the points, of the inputs.

        Parameters
        ----------
        data : samples, whose outputs are not looked at, or inputs ``(n, channels, *shape)``
        axes : coordinates of the nodes of an array; those of the training where the shape is the same
        steps : of a roll-out; None: all outputs at once, of a network of frames the one after each input
        batch : samples at a time
        points : of an array, (points, dim) for all or (n, points, dim), e.g. those of a mesh
        codes : of an array, (n, k), where the network was trained with codes of the geometry

        Raises
        ------
        ShapeError
            Other channels or nodes, or no sample at all.
        NonFiniteError
            NaN or infinity; the message names the sample.
        OptionError
            Axes or points far outside the box of the training.
        """
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            msg = f"steps = {steps!r}; a whole number of at least 1 is needed"
            raise OptionError(msg)
        samples = data if isinstance(data, Samples) else None
        inputs = samples.inputs if samples is not None else np.asarray(data)
        if inputs.ndim < 3 or not fits(self.network, inputs.shape[1]):
            channels = "whole frames as" if on_frames(self.network) else self.network["inputs"]
            msg = f"inputs have the shape {inputs.shape}; (samples, {channels} channels, nodes) is needed"
            raise ShapeError(msg)
        if not inputs.size:
            msg = f"inputs have the shape {inputs.shape}; one sample at least is needed to predict from"
            raise ShapeError(msg)
        check_finite("inputs", inputs, "leave them out")
        if samples is not None:
            points, codes = samples.points, samples.codes
        check_points(self.network, points, inputs, self.before.mean.shape[-1])
        if axes is None:
            axes = samples.layout.axes if samples is not None else self._axes_like(inputs)
        to, back = self._resampling(axes, inputs.shape[2:] if samples is None else samples.layout.shape)
        device, training = self.before.mean.device, self.training
        self.eval()
        found = []
        try:
            for start in range(0, len(inputs), batch):
                part = slice(start, start + batch)
                x = to(torch.from_numpy(np.ascontiguousarray(inputs[part], np.float32)).to(device))
                if points is not None:
                    y = self(x, *placed(points, codes, part, device))
                else:
                    y = self(x) if steps is None else self.rollout(x, steps)
                found.append(back(y).cpu().numpy())
        finally:
            self.train(training)
        return np.concatenate(found)

    def _axes_like(self, inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        if inputs.shape[2:] != self.layout.shape and self.layout.axes:
            msg = (
                f"inputs on {inputs.shape[2:]} nodes, the model was trained on {self.layout.shape}; pass "
                "their axes=, coordinates along each axis"
            )
            raise ShapeError(msg)
        return self.layout.axes

    def _resampling(self, axes: Sequence[np.ndarray], shape: Sequence[int]) -> tuple[Any, Any]:
        own, nodes = self.layout.axes, tuple(len(axis) for axis in axes)
        if len(axes) != len(own):
            msg = f"fields on {len(axes)} axes; the model was trained on {len(own)}"
            raise ShapeError(msg)
        if nodes and nodes != tuple(shape):
            msg = f"axes of {nodes} nodes for inputs on {tuple(shape)}; one coordinate a node is needed"
            raise ShapeError(msg)
        check_axes(axes, own)
        boundary = self.layout.boundary
        wraps = [kind if kind == "periodic" else "" for kind in boundary]  # walls are those of the outputs
        return Resampling(axes, own, wraps), Resampling(own, axes, boundary)

    def save(self, path: Path | str, about: dict[str, str] | None = None) -> None:
        """Write a safetensors file, in one step; `about` is more metadata. An adapter is folded in."""
        write_tensors(Path(path), tensors_of(without_adapter(self)), self.metadata() | (about or {}))

    def metadata(self) -> dict[str, str]:
        """Return all of a file but the tensors: what `load` rebuilds the network from."""
        layout = self.layout
        facts = {
            "version": VERSION,
            "network": self.network,
            "axes": [axis.tolist() for axis in layout.axes],
            "inputs": layout.inputs,
            "outputs": layout.outputs,
            "units": layout.units,
            "boundary": layout.boundary,
            "equation": layout.equation,
            "prior": self.prior,
        }
        factored = structure_of(self.net)
        return {"surrogate": json.dumps(facts | ({"factored": factored} if factored else {}))}

    @classmethod
    def load(cls, path: Path | str) -> Surrogate:
        """Return the model of a file.

        Raises
        ------
        FileNotFoundError
        FormatError
            Another format, version or architecture.
        """
        path = Path(path)
        tensors, metadata = read_tensors(path)
        try:
            facts = json.loads(metadata["surrogate"])
            version, network = facts["version"], facts["network"]
        except (KeyError, TypeError, ValueError, RecursionError):
            msg = f"{path} holds no model of fields; one that `neuralsolve train` wrote is needed"
            raise FormatError(msg) from None
        if version != VERSION:
            msg = f"{path} is of version {version}; this package reads {VERSION}: train it again"
            raise FormatError(msg)
        try:
            layout = Layout(
                tuple(np.array(axis, np.float64, ndmin=1) for axis in facts["axes"]),
                tuple(facts["inputs"]),
                tuple(facts["outputs"]),
                facts["units"],
                tuple(facts["boundary"]),
                facts["equation"],
            )
            normalisers = [
                Normaliser(tensors[f"{k}.mean"], tensors[f"{k}.deviation"]) for k in ("before", "after")
            ]
            with torch.random.fork_rng():
                prior = int(facts.get("prior", 0))
                net = restructure(make_network(**network), facts.get("factored", {}))
                model = cls(network, net, normalisers[0], normalisers[1], layout, prior)
            load_tensors(model, tensors)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            msg = f"{path}: its weights do not fit the network that it names ({error})"
            raise FormatError(msg) from None
        return model.eval()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers by name; what else a state holds is left out."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def load_tensors(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Take weights and buffers.

    Raises
    ------
    RuntimeError
        Names or shapes that do not fit.
    """
    own = tensors_of(module)
    if own.keys() != tensors.keys():
        missing, foreign = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
        msg = f"missing {missing[:3]}, not known {foreign[:3]}"
        raise RuntimeError(msg)
    module.load_state_dict(tensors, strict=False)


def _first_guess(x: Tensor, prior: int) -> Tensor:
    """Return the mean of the cheap solutions among the inputs; zero where there are none."""
    return x[:, -prior:].mean(1, keepdim=True) if prior else x.new_zeros(())
