"""What goes through the layers of a model: first and second moments, gathered batch by batch in float64.

For rows x (in,) and y (out,) of a layer, n of them:

    mean(y), C_y = E[(y - mean)(y - mean)^H]   of a linear map, or of a convolution at each place
    E[x x^H]                                    x of a convolution: the patch under its taps

Sums are kept alone, so that the number of batches does not matter; of a layer with many places a random part
of `ROWS` a batch is taken. Of spectral layers, rows are the coefficients of one mode, and each mode has
moments of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import InputError, NonFiniteError, OptionError, ShapeError
from neuralsolve.lowrank.compress.factored import Factored
from neuralsolve.lowrank.compress.layers import Target

ROWS = 65_536  # of a layer and a batch, at most
BATCH = 32  # samples at a time, of a tensor
INPUTS, OUTPUTS = "inputs", "outputs"
Data = Tensor | Iterable[Any]


@dataclass
class Moments:
    """Of one layer, or of a batch of matrices: sums over rows.

    Attributes
    ----------
    count : rows that were summed
    rows : rows that there were, of all samples
    shift : mean of the first rows y (*batch, out), which sums are about: means may be far larger than what
        varies about them
    total, outputs : sums of y - shift (*batch, out) and of (y - shift)(y - shift)^H; None where not asked for
    inputs : sum of x x^H (*batch, in, in)
    """

    count: int = 0
    rows: int = 0
    shift: Tensor | None = None
    total: Tensor | None = None
    outputs: Tensor | None = None
    inputs: Tensor | None = None

    def at(self, k: int) -> Moments:
        """Return those of one matrix of a batch."""
        sums = (self.shift, self.total, self.outputs, self.inputs)
        parts = (None if each is None else each[k] for each in sums)
        return Moments(self.count, self.rows, *parts)

    def mean(self) -> Tensor:
        """Return the mean output (out,)."""
        return _known(self.shift, OUTPUTS) + _known(self.total, OUTPUTS) / self.count

    def output_moment(self, offset: Tensor | None = None) -> Tensor:
        """Return E[(y - c)(y - c)^H] (out, out), c zero if left out; about the mean, the covariance."""
        second, shift = _known(self.outputs, OUTPUTS) / self.count, _known(self.shift, OUTPUTS)
        moved = -shift if offset is None else offset - shift
        cross = torch.outer(_known(self.total, OUTPUTS) / self.count, moved.conj())
        return second - cross - cross.mH + torch.outer(moved, moved.conj())

    def input_moment(self) -> Tensor:
        """Return E[x x^H] (in, in)."""
        return _known(self.inputs, INPUTS) / self.count

    def add(self, x: Tensor | None, y: Tensor | None, rows: int) -> None:
        """Add rows x (*batch, n, in) and y (*batch, n, out) of `rows` that there were."""
        given = x if x is not None else y
        self.rows += rows
        if given is None:
            return
        self.count += given.shape[-2]
        if y is not None:
            self.shift = y.mean(-2) if self.shift is None else self.shift
            y = y - self.shift[..., None, :]
            self.total = _plus(self.total, y.sum(-2))
            self.outputs = _plus(self.outputs, y.mT @ y.conj())
        if x is not None:
            self.inputs = _plus(self.inputs, x.mT @ x.conj())


@dataclass
class Calibration:
    """What `calibrate` found.

    Attributes
    ----------
    moments : by path of the layer, in the order in which the layers are called first
    samples : how many went through the model
    sensitivity : weights of the errors by path, of `sensitivities`; empty where they were not measured
    """

    moments: dict[str, Moments] = field(default_factory=dict)
    samples: int = 0
    sensitivity: dict[str, float] = field(default_factory=dict)


def calibrate(
    model: nn.Module,
    data: Data,
    found: Sequence[Target],
    needs: Iterable[str] = (OUTPUTS,),
    batch: int = BATCH,
) -> Calibration:
    """Run samples through a model and gather the moments of some of its layers.

    The model is in evaluation mode meanwhile, and as before after it.

    Parameters
    ----------
    data : inputs (n, ...), or batches of them: tensors, or tuples of what the model is called with. Of
        training samples: what is tested on shall take part in no choice
    found : layers, of `targets`
    needs : "inputs" and "outputs", which moments
    batch : samples at a time of a tensor

    Raises
    ------
    InputError
        Nothing to run, or what the model cannot be called with.
    NonFiniteError
        NaN or infinity in what a layer makes.
    """
    needs, result = frozenset(needs), Calibration()
    training = model.training
    device = next(iter(model.parameters())).device if any(True for _ in model.parameters()) else "cpu"
    model.eval()
    try:
        with _watched(found, result.moments, needs), torch.no_grad():
            for arguments in batches(data, batch):
                arguments = tuple(_moved(each, device) for each in arguments)
                try:
                    model(*arguments)
                except InputError:
                    raise
                except (RuntimeError, ValueError, TypeError) as error:
                    shapes = [tuple(each.shape) for each in arguments if isinstance(each, Tensor)]
                    msg = (
                        f"calibration of shapes {shapes} does not fit the model: {str(error).splitlines()[0]}"
                    )
                    raise ShapeError(msg) from None
                result.samples += len(arguments[0])
    finally:
        model.train(training)
    if not result.samples:
        msg = "calibration holds no sample; pass inputs (n, ...), 128 to 512 of those of the training"
        raise ShapeError(msg)
    for path, moments in result.moments.items():
        for part in (moments.outputs, moments.inputs):
            if part is not None and not bool(
                torch.isfinite(torch.view_as_real(part) if part.is_complex() else part).all()
            ):
                msg = f"NaN or infinity goes through the layer {path!r}; calibrate by finite samples alone"
                raise NonFiniteError(msg)
    return result


def batches(data: Data, batch: int = BATCH) -> Iterator[tuple[Any, ...]]:
    """Yield what a model is called with, from inputs (n, ...) or from batches.

    >>> [each[0].shape for each in batches(torch.zeros(5, 2), 4)]
    [torch.Size([4, 2]), torch.Size([1, 2])]
    """
    if isinstance(data, Tensor):
        if data.ndim < 2:
            msg = f"calibration has the shape {tuple(data.shape)}; inputs (n, ...) are needed"
            raise ShapeError(msg)
        for part in data.split(batch):
            if len(part):
                yield (part,)
        return
    if not isinstance(data, Iterable):
        msg = (
            f"got {type(data).__name__} to calibrate by; inputs (n, ...) as a tensor, or batches, are needed"
        )
        raise OptionError(msg)
    for each in data:
        arguments = tuple(each) if isinstance(each, tuple | list) else (each,)
        if not arguments or not isinstance(arguments[0], Tensor):
            kind = type(arguments[0]).__name__ if arguments else "an empty tuple"
            msg = f"got a batch of {kind}; a tensor, or a tuple that begins with one, is needed"
            raise OptionError(msg)
        yield arguments


@contextmanager
def _watched(found: Sequence[Target], moments: dict[str, Moments], needs: frozenset[str]) -> Iterator[None]:
    """Gather moments while the block runs."""
    chosen = torch.Generator().manual_seed(1905)
    undo: list[Callable[[], Any]] = []
    try:
        for target in found:
            watch = {"linear": _watch_linear, "conv": _watch_conv, "modes": _watch_modes}[target.kind]
            undo.append(watch(target, moments, needs, chosen))
        yield
    finally:
        for each in undo:
            each()


def _watch_linear(target: Target, moments: dict[str, Moments], needs: frozenset[str], chosen: Any) -> Any:
    def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
        x, y = args[0], output
        if target.caller is not target.module:
            x = x.movedim(1, -1)
            y = F.linear(x, target.module.weight, target.module.bias)
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        which = _chosen(len(y), chosen, y.device)
        own = moments.setdefault(target.path, Moments())
        own.add(
            x[which].double() if INPUTS in needs else None,
            y[which].double() if OUTPUTS in needs else None,
            len(y),
        )

    return target.caller.register_forward_hook(hook).remove


def _watch_conv(target: Target, moments: dict[str, Moments], needs: frozenset[str], chosen: Any) -> Any:
    conv = target.module.first if isinstance(target.module, Factored) else target.module

    def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        x, dim = args[0], len(conv.kernel_size)
        if x.ndim == dim + 1:
            x, output = x[None], output[None]
        places = output.movedim(1, -1)
        which = _chosen(places[..., 0].numel(), chosen, x.device)
        y = places.reshape(-1, places.shape[-1])[which].double() if OUTPUTS in needs else None
        patches = patches_of(conv, x, which).double() if INPUTS in needs else None
        own = moments.setdefault(target.path, Moments())
        own.add(patches, y, places[..., 0].numel())

    return target.module.register_forward_hook(hook).remove


def _watch_modes(target: Target, moments: dict[str, Moments], needs: frozenset[str], chosen: Any) -> Any:
    W = target.matrices()

    def seen(modes: Tensor) -> None:
        rows = modes.flatten(2).movedim(2, 0).to(torch.complex128)  # (modes, batch, in)
        if len(rows) != len(W):
            return
        own = moments.setdefault(target.path, Moments())
        own.add(rows if INPUTS in needs else None, rows @ W.mT if OUTPUTS in needs else None, rows.shape[1])

    if target.module is target.caller:
        return target.module.register_forward_hook(lambda module, args, output: seen(args[0])).remove
    caller, contract = target.caller, target.caller._contract

    def watched(x: Tensor, weight: Any, *more: Any, **named: Any) -> Tensor:
        seen(x)
        return contract(x, weight, *more, **named)

    caller._contract = watched

    def undo() -> None:
        caller._contract = contract

    return undo


def patches_of(conv: Any, x: Tensor, which: Tensor | slice) -> Tensor:
    """Return what is under the taps of a convolution (rows, in * taps), at some of its places."""
    sides = conv._reversed_padding_repeated_twice
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    x = F.pad(x, sides, mode=mode) if any(sides) else x
    dim = len(conv.kernel_size)
    for axis, (taps, stride, apart) in enumerate(
        zip(conv.kernel_size, conv.stride, conv.dilation, strict=True), 2
    ):
        x = x.unfold(axis, (taps - 1) * apart + 1, stride)[..., ::apart]
    shape = (len(x), *x.shape[2 : 2 + dim])
    where = torch.arange(math.prod(shape), device=x.device)[which]
    at = torch.unravel_index(where, shape)
    return x.movedim(1, 1 + dim)[at].reshape(len(where), -1)


def _chosen(rows: int, generator: torch.Generator, device: Any) -> Tensor | slice:
    """Return which rows are summed: all of them, or `ROWS` drawn at random."""
    if rows <= ROWS:
        return slice(None)
    return torch.randint(rows, (ROWS,), generator=generator).to(device)


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _plus(sums: Tensor | None, more: Tensor) -> Tensor:
    return more if sums is None else sums + more


def _known(value: Tensor | None, what: str) -> Tensor:
    if value is None:
        msg = f"moments of the {what} were not gathered; calibrate(..., needs=({what!r},)) does"
        raise OptionError(msg)
    return value
