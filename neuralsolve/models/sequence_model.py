"""A network of state-space layers: sequences in, one answer a sequence, or one a sample.

    encoder -> blocks: norm -> layer -> GELU -> dropout -> linear map to 2 H, GLU -> dropout, + what came in
            -> norm -> mean over the samples, or the last one, or neither -> linear map

Dropout takes whole channels: one mask along time. Where the norm comes after a block ("post"), it is that of
the sum. Sequences of different lengths are padded at their ends, `lengths` saying how long each is, and a
`mask` tells which samples are missing: layers see zeros there, means leave them out, and the last sample is
the last that is there.

Sources: Gu, Goel, Re, S4, ICLR 2022 (arXiv 2111.00396), app. D; Smith, Warrington, Linderman, S5, ICLR 2023
(arXiv 2208.04933), app. B.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError, check_known
from neuralsolve.models.s4 import S4
from neuralsolve.models.s4d import S4D
from neuralsolve.models.s5 import S5, check_steps
from neuralsolve.models.sequence_block import SequenceBlock, over_channels
from neuralsolve.models.state_space import StateSpaceLayer, check_count, check_tensor

LAYERS: dict[str, Callable[..., StateSpaceLayer]] = {"s4d": S4D, "s5": S5, "s4": S4}
POOLS = ("mean", "last", "none")
NORMS = ("layer", "batch", "none")


class SequenceModel(nn.Module):
    """State-space layers between a linear encoder and a linear decoder; see the head of this file.

    Parameters
    ----------
    inputs : numbers a sample of a sequence; with a vocabulary, None
    outputs : numbers of the answer, e.g. classes
    channels : H
    layers : blocks
    layer : "s4d", "s5" or "s4"
    pool : "mean" over the samples, "last" sample, or "none": an answer for every sample
    norm, prenorm, residual, dropout : of a block; "batch" learns fastest, "layer" where batches are small or
        padded far
    feedthrough : whether layers have D u; without it D is zero and stays so
    vocabulary : words, where sequences are of whole numbers below it
    options : of the layers: state, init, bidirectional, step_range, ...; `state` as in the layer: with the
        start "ptd" of others, other sizes than 8, 16, 32, 64 and 128 take minutes to make

    Raises
    ------
    OptionError
        For options that do not exist or do not fit.
    ShapeError
        At a call, for sequences that do not fit.

    Examples
    --------
    >>> model = SequenceModel(1, 10, channels=8, layers=2, state=8)
    >>> model(torch.zeros(4, 20, 1)).shape
    torch.Size([4, 10])
    >>> words = SequenceModel(None, 10, channels=8, layers=1, vocabulary=16, state=8)
    >>> words(torch.ones(4, 20, dtype=torch.int64), lengths=[20, 3, 1, 7]).shape
    torch.Size([4, 10])
    """

    def __init__(
        self,
        inputs: int | None,
        outputs: int,
        channels: int = 64,
        layers: int = 4,
        layer: str = "s4d",
        pool: str = "mean",
        norm: str = "batch",
        prenorm: bool = True,
        residual: bool = True,
        dropout: float = 0.0,
        feedthrough: bool = True,
        vocabulary: int | None = None,
        **options: Any,
    ):
        super().__init__()
        for name, value, known in (("layer", layer, LAYERS), ("pool", pool, POOLS), ("norm", norm, NORMS)):
            check_known(f"{name} =", value, known)
        counts = {"outputs": outputs, "channels": channels, "layers": layers}
        counts |= {"inputs": inputs} if vocabulary is None else {"vocabulary": vocabulary}
        for name, count in counts.items():
            check_count(name, count)
        if vocabulary is not None and inputs is not None:
            msg = f"inputs = {inputs} with vocabulary = {vocabulary}; inputs = None is needed for words"
            raise OptionError(msg)
        if not 0 <= dropout < 1:
            msg = f"dropout = {dropout}; 0 <= dropout < 1 is needed"
            raise OptionError(msg)
        self.inputs, self.pool, self.vocabulary = inputs, pool, vocabulary
        # A norm of batches takes a constant away again: its gradient would be rounding, which Adam walks on.
        constant = not (prenorm and norm == "batch")
        self.encoder = (
            nn.Embedding(vocabulary, channels)
            if vocabulary
            else nn.Linear(inputs or 1, channels, bias=constant)
        )
        made = [_layer(layer, channels, options) for _ in range(layers)]
        if not feedthrough:
            for each in made:
                each.D.data.zero_()
                each.D.requires_grad = False
        self.blocks = nn.ModuleList(SequenceBlock(each, norm, prenorm, residual, dropout) for each in made)
        last = norm if prenorm else "none"  # the sum of blocks that are normed before has no norm yet
        self.norm = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}.get(last, nn.Identity)(channels)
        self.decoder = nn.Linear(channels, outputs)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        steps: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return answers (batch, outputs), or (batch, length, outputs) where nothing is pooled.

        x : (batch, length, inputs), or (batch, length) of words
        lengths : (batch,) whole numbers, samples of each sequence that are none of the padding; None: all
        steps : (batch, length) factors > 0 of Delta, the time from the sample before, where layers are "s5"
        mask : (batch, length) bool, False where a sample is missing; time goes on there
        """
        self._check(x)
        if steps is not None and not isinstance(self.each_block[0].layer, S5):
            msg = "steps of varying length, which layer='s5' alone takes; make the model with it"
            raise OptionError(msg)
        check_steps(x, steps, mask, "auto")
        lengths = None if lengths is None else _whole(lengths, x)
        x, valid = self._seen(x), self._valid(x, lengths, mask)
        if lengths is not None and self.pool != "none":  # padding that all of them have is no work
            longest = int(lengths.max())
            x = x[:, :longest]
            valid, steps = (None if t is None else t[:, :longest] for t in (valid, steps))
        if valid is not None:  # what stands in the padding is not looked at: it may be NaN, or no word
            x = x.masked_fill(valid[..., 0] == 0 if x.ndim == 2 else valid == 0, 0)
        h = self.encoder(self._known(x))
        for block in self.blocks:
            h = block(h, valid, steps)
        h = over_channels(self.norm, h, valid)
        if self.pool == "mean":
            h = h.mean(1) if valid is None else (h * valid).sum(1) / valid.sum(1).clamp(min=1)
        elif self.pool == "last":
            h = h[:, -1] if valid is None else _last(h * valid, valid)
        return self.decoder(h)

    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the state of rest, of every block."""
        return [block.layer.initial_state(batch) for block in self.each_block]

    def step(self, x: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the answer (batch, outputs) for one sample (batch, inputs) or (batch,), and the next state.

        Without a state it is the first sample of a sequence.

        Raises
        ------
        OptionError
            The mean over a sequence is no matter of one sample.
        """
        if self.pool == "mean":
            msg = "step of a model with pool = 'mean', which needs whole sequences; 'last' and 'none' do not"
            raise OptionError(msg)
        check_tensor(x)
        if state is not None and len(state) != len(self.blocks):
            msg = f"got {len(state)} states for {len(self.blocks)} blocks; initial_state(batch) gives them"
            raise ShapeError(msg)
        h, states = self.encoder(self._known(self._seen(x))), []
        for block, before in zip(self.each_block, state or [None] * len(self.blocks), strict=True):
            h, after = block.step(h, before)
            states.append(after)
        return self.decoder(over_channels(self.norm, h)), states

    @property
    def each_block(self) -> list[SequenceBlock]:
        """The blocks, first to last."""
        return [block for block in self.blocks if isinstance(block, SequenceBlock)]

    def _seen(self, x: Tensor) -> Tensor:
        """Return numbers in the precision of the weights, whatever theirs; words as they are."""
        return x if self.vocabulary is not None else x.to(self.decoder.weight.dtype)

    def _check(self, x: Tensor) -> None:
        check_tensor(x)
        words = self.vocabulary is not None
        fits = x.ndim == 2 if words else x.ndim == 3 and x.shape[2] == self.inputs
        fits = fits and x.is_floating_point() is not words and not x.is_complex()
        if not fits or not x.shape[1]:
            kind = (
                "(batch, length) of whole numbers"
                if words
                else f"(batch, length, {self.inputs}) of real ones"
            )
            msg = f"got sequences {tuple(x.shape)} of {x.dtype}, need {kind}, length >= 1"
            raise ShapeError(msg)

    def _known(self, x: Tensor) -> Tensor:
        """Return what the encoder takes; raise OptionError for words that the vocabulary has not."""
        if self.vocabulary is not None and x.numel():
            low, high = int(x.min()), int(x.max())
            if low < 0 or high >= self.vocabulary:
                msg = f"got words from {low} to {high}, of a vocabulary of {self.vocabulary}: 0 to "
                msg += f"{self.vocabulary - 1} are needed"
                raise OptionError(msg)
        return x

    def _valid(self, x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Return (batch, length, 1), 0 where there is no sample; None where there are all."""
        valid = mask
        if lengths is not None:
            before = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
            valid = before if mask is None else before & mask
        return None if valid is None else valid[..., None].to(self.decoder.weight.dtype)


def _whole(lengths: Tensor | Sequence[int], x: Tensor) -> Tensor:
    """Return lengths as a tensor, one for each of the sequences; raise what does not fit."""
    try:
        found = torch.as_tensor(lengths, device=x.device)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        msg = f"got lengths {lengths!r:.60}, need whole numbers, one a sequence: lengths=[20, 3, 7]"
        raise OptionError(msg)
    if found.shape != x.shape[:1] or not bool(((found >= 1) & (found <= x.shape[1])).all()):
        msg = f"got lengths {tuple(found.shape)}, need one a sequence, from 1 to {x.shape[1]} each"
        raise ShapeError(msg)
    return found


def _last(h: Tensor, valid: Tensor) -> Tensor:
    """Return of each sequence (length, channels) what stands at its last sample; of one without any, zero."""
    places = torch.arange(h.shape[1], device=h.device)
    return h[torch.arange(len(h), device=h.device), ((valid[..., 0] > 0) * places).argmax(1)]


def check_options(layer: str, options: Iterable[str]) -> None:
    """Raise OptionError for names that neither `SequenceModel` nor the layer knows.

    >>> check_options("s5", ["channels", "blocks"])
    """
    own = [name for name in inspect.signature(SequenceModel).parameters if name != "options"]
    known = [*own, *(name for name in inspect.signature(LAYERS[layer]).parameters if name not in own)]
    for key in options:
        check_known(f"layer {layer!r}: unknown option", key, known)


def _layer(name: str, channels: int, options: dict[str, Any]) -> StateSpaceLayer:
    check_options(name, options)
    return LAYERS[name](channels, **options)
