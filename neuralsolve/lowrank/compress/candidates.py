"""A layer on its way: what it offers the allocator, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from neuralsolve.errors import NonFiniteError
from neuralsolve.lowrank.compress.allocators import Offer, Ranks
from neuralsolve.lowrank.compress.calibration import Calibration, Moments
from neuralsolve.lowrank.compress.factored import Factored, FactoredConv, FactoredLinear
from neuralsolve.lowrank.compress.factoriser import Factoriser
from neuralsolve.lowrank.compress.layers import Target
from neuralsolve.lowrank.compress.report import LayerReport
from neuralsolve.lowrank.compress.spectral import FactoredSpectral


@dataclass
class Candidate:
    """A layer that can be factored, and how.

    Attributes
    ----------
    target : the layer
    factoriser : of it
    matrices : (batch, out, in), in double precision; a batch of one but for spectral weights
    moments : what goes through it; None where nobody asks
    rows : of the layer in one sample; None where it is not known
    weight : of its error
    """

    target: Target
    factoriser: Factoriser
    matrices: Tensor
    moments: Moments | None
    rows: float | None
    weight: float = 1.0

    @classmethod
    def of(cls, target: Target, factoriser: Factoriser, seen: Calibration | None) -> Candidate:
        """Return the candidate of a layer.

        Raises
        ------
        NonFiniteError
            NaN or infinity in the weights.
        """
        matrices = target.matrices()
        if not bool(matrices.abs().sum().isfinite()):
            msg = f"the weights of {target.path!r} hold NaN or infinity; those of a sound model are needed"
            raise NonFiniteError(msg)
        moments = None if seen is None else seen.moments[target.path]
        rows = None if seen is None or moments is None else moments.rows / seen.samples
        weight = 1.0 if seen is None else seen.sensitivity.get(target.path, 1.0)
        if target.kind == "modes":  # a bias would be one for every mode
            factoriser = factoriser.without_bias()
        return cls(target, factoriser, matrices, moments, rows, weight)

    @property
    def sizes(self) -> tuple[int, int]:
        """Of one matrix, (out, in)."""
        m, n = self.matrices.shape[-2:]
        return m, n

    @property
    def gains_bias(self) -> bool:
        """Whether the factored layer has a bias, and the layer has none."""
        return self.factoriser.adds_bias() and self.target.module.bias is None

    def offers(self, measure: str, every: int) -> list[Offer]:
        """Return what the allocator chooses from, an offer a matrix; costs as of `Plan.measure`."""
        (m, n), count, modes = self.sizes, len(self.matrices), self.target.kind == "modes"
        squares = [self._squares(k) for k in range(count)]
        scale = (2.0 if modes else 1.0) if measure == "parameters" else float(self.rows or 0.0)
        whole = scale * self.target.parameters / (2 * count if modes else 1)
        if modes and measure != "parameters":
            whole = 0.0  # formed anew at every call: the products stay what they are
        extra = float(m) if self.gains_bias and measure == "parameters" else 0.0
        total = float(sum(each.sum() for each in squares))
        costs = {"unit": scale * (m + n), "whole": whole, "extra": extra}
        ways = {"least": 0 if modes else 1, "every": every, "matrices": count, "weight": self.weight}
        return [Offer(each, total, **costs, **ways) for each in squares]

    def _squares(self, k: int) -> np.ndarray:
        moments = (
            None if self.moments is None else self.moments.at(k) if len(self.matrices) > 1 else self.moments
        )
        return self.factoriser.squares(self.matrices[k], self.target.bias, moments).cpu().numpy()

    def factored(self, ranks: Ranks, moments: Moments | None, scheme: str) -> nn.Module:
        """Return the layer of some ranks, one a matrix; of spectral weights None keeps a mode whole."""
        if self.target.kind == "modes":
            return self._spectral(ranks, moments)
        rank, module = ranks[0], self.target.module
        assert rank is not None
        found = self.factoriser.factors(self.matrices[0], self.target.bias, moments, rank)
        has_bias = found.bias is not None
        if self.target.kind == "linear":
            layer: Factored = FactoredLinear.like(module, rank, has_bias)
        else:
            spatial = scheme == "spatial" and self.target.view.rows == (0, 3)
            layer = FactoredConv.like(module, rank, "spatial" if spatial else "channel", has_bias)
        layer.set_factors(found.B, found.A, found.bias)
        return layer

    def _spectral(self, ranks: Ranks, moments: Moments | None) -> FactoredSpectral:
        weight, most = self.target.weight, min(self.sizes)
        whole = [most if rank is None else rank for rank in ranks]
        layer = FactoredSpectral(self.target.view, weight.shape, whole, weight.dtype, weight.device)
        kept, parts = set(layer.kept.tolist()), []
        for k, W in enumerate(self.matrices):
            if k in kept:
                parts.append(W)
            elif not layer.ranks[k]:
                parts.append((W[:, :0], W[:0]))
            else:
                own = None if moments is None else moments.at(k) if len(self.matrices) > 1 else moments
                found = self.factoriser.factors(W, None, own, layer.ranks[k])
                parts.append((found.B, found.A))
        layer.set_matrices(parts)
        return layer

    def row(self, ranks: Ranks, offers: Sequence[Offer]) -> LayerReport:
        """Return the row of the report."""
        (m, n), modes, before = self.sizes, self.target.kind == "modes", self.target.parameters
        changed = any(rank is not None for rank in ranks)
        cost = (2 if modes else 1) * (m + n)
        kept = [before // len(ranks) if rank is None else cost * rank for rank in ranks]
        after = sum(kept) + (m if changed and self.gains_bias else 0)
        error = sum(offer.error(rank) for offer, rank in zip(offers, ranks, strict=True)) ** 0.5
        mean = float(np.mean([min(m, n) if rank is None else rank for rank in ranks]))
        macs: Any = None if self.rows is None else self.rows * (4 if modes else 1)
        products = None if macs is None else macs * (before // 2 if modes else before)
        factored = None if macs is None else products if modes or not changed else macs * sum(kept)
        note = "" if changed else "factors would be no smaller" if not offers[0].ranks else ""
        return LayerReport(
            self.target.path, self.target.kind, (m, n), mean if changed else None, min(m, n), after, before,
            factored, products, error, note,
        )  # fmt: skip
