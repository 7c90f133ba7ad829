"""What a factoriser is: W (out, in) and what goes through it to B (out, r), A (r, in) and a bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuralsolve.lowrank.compress.calibration import Moments


@dataclass(frozen=True)
class Factors:
    """Of W ~ B A: B (out, r), A (r, in), and the bias (out,) of the layer, None for none."""

    B: Tensor
    A: Tensor
    bias: Tensor | None = None


class Factoriser(ABC):
    """A way to factor a layer; it must answer two questions.

    Attributes
    ----------
    needs : "inputs" and "outputs", the moments it looks at; none: weights alone
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def adds_bias(self) -> bool:
        """Whether layers without a bias get one."""
        return False

    def without_bias(self) -> Factoriser:
        """Return the way for layers that can have none."""
        return self

    @abstractmethod
    def squares(self, W: Tensor, bias: Tensor | None, moments: Moments | None) -> Tensor:
        """Return what each direction adds to the mean square of the error if left out, descending."""

    @abstractmethod
    def factors(self, W: Tensor, bias: Tensor | None, moments: Moments | None, rank: int) -> Factors:
        """Return the factors of a rank."""
