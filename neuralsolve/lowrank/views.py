"""How a parameter is seen as a matrix, outputs by inputs, or as a batch of them.

    linear map           (out, in)              as it is
    convolution          (out, in, *taps)       out x (in taps)
    transposed           (in, out, *taps)       out x (in taps)
    spectral weights     (in, out, *modes)      complex: out x (in modes)
    any other            first axis x all others

A module that knows better says so in its attribute `matrix_views`: the views of its parameters by name, None
for those that are no matrix, such as eigenvalues. Adjoints of complex matrices are conjugate: `.mH`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralsolve.errors import ShapeError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EXCLUDED = ("norm", "bias")


@dataclass(frozen=True)
class MatrixView:
    """Which axes of a parameter are rows, and which are columns; all others are a batch.

    Parameters
    ----------
    rows, columns : axes, outputs and inputs; several are one axis of the matrix, the last the fastest
    pairs : whether the last axis, which is none of them, holds real and imaginary parts
    ordered : "rows" or "columns" that are points of a line (taps, lags, modes), None for channels

    Examples
    --------
    >>> view = MatrixView(rows=(0,), columns=(1, 2))
    >>> kernel = torch.arange(12.0).view(2, 3, 2)
    >>> view.to_matrix(kernel).shape
    torch.Size([2, 6])
    >>> torch.equal(view.from_matrix(view.to_matrix(kernel), kernel.shape), kernel)
    True
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    pairs: bool = False
    ordered: str | None = None

    def to_matrix(self, parameter: Tensor) -> Tensor:
        """Return the matrices (*batch, m, n); without a copy where strides allow it.

        Raises
        ------
        ShapeError
            The parameter has not the axes of the view.
        """
        shape, (m, n) = self._shape(parameter.shape), self.sizes(parameter.shape)
        seen = torch.view_as_complex(parameter.contiguous()) if self.pairs else parameter
        order = self._order(len(shape))
        return seen.permute(order).reshape(*(shape[axis] for axis in self._batch(len(shape))), m, n)

    def from_matrix(self, matrix: Tensor, shape: Iterable[int]) -> Tensor:
        """Return the parameter of a shape whose matrices these are."""
        sizes = self._shape(tuple(shape))
        order = self._order(len(sizes))
        moved = matrix.reshape([sizes[axis] for axis in order])
        seen = moved.permute([order.index(axis) for axis in range(len(sizes))])
        return torch.view_as_real(seen.resolve_conj()) if self.pairs else seen

    def sizes(self, shape: Iterable[int]) -> tuple[int, int]:
        """Return (m, n) of the matrices of a parameter of a shape.

        >>> MatrixView(rows=(1,), columns=(0, 2)).sizes((3, 8, 5))
        (8, 15)
        """
        known = self._shape(tuple(shape))
        m, n = (math.prod(known[axis] for axis in axes) for axes in (self.rows, self.columns))
        return m, n

    def _batch(self, ndim: int) -> list[int]:
        return [axis for axis in range(ndim) if axis not in (*self.rows, *self.columns)]

    def _order(self, ndim: int) -> list[int]:
        return [*self._batch(ndim), *self.rows, *self.columns]

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes of the axes that rows, columns and the batch are of."""
        axes = (*self.rows, *self.columns)
        known = shape[:-1] if self.pairs else shape
        if (self.pairs and shape[-1:] != (2,)) or not all(0 <= axis < len(known) for axis in axes):
            msg = f"{self} of a parameter {tuple(shape)}; axes that it has are needed"
            raise ShapeError(msg)
        return tuple(known)


def real_numbers(x: Tensor) -> int:
    """Return the entries of a tensor, a complex one counted as two.

    >>> real_numbers(torch.zeros(2, 3, dtype=torch.complex64))
    12
    """
    return x.numel() * (2 if x.is_complex() else 1)


@dataclass(frozen=True)
class MatrixParameter:
    """A parameter that is a matrix, and where it is.

    Attributes
    ----------
    name : its path in the model
    module, key : whose attribute `key` it is
    parameter, view : what, and how it is seen
    """

    name: str
    module: nn.Module
    key: str
    parameter: nn.Parameter
    view: MatrixView

    @property
    def shape(self) -> tuple[int, int]:
        """Of one matrix, (m, n)."""
        return self.view.sizes(self.parameter.shape)


def view_of(module: nn.Module, key: str) -> MatrixView | None:
    """Return how a parameter of a module is a matrix; None where it is none.

    Examples
    --------
    >>> view_of(nn.Conv2d(3, 8, 5), "weight")
    MatrixView(rows=(0,), columns=(1, 2, 3), pairs=False, ordered=None)
    >>> view_of(nn.Linear(3, 8), "bias") is None
    True
    """
    declared = getattr(module, "matrix_views", {})
    if key in declared:
        return declared[key]
    return plain_view(getattr(module, key), inputs_first=isinstance(module, TRANSPOSED))


def plain_view(parameter: Tensor, inputs_first: bool = False) -> MatrixView | None:
    """Return how a parameter is a matrix where its module says nothing; None where it is none.

    `inputs_first` says that its first axis is the inputs; spectral weights, complex ones of three and more
    axes, are taken to be so.

    >>> plain_view(torch.zeros(3, 8, 5, dtype=torch.complex64))
    MatrixView(rows=(1,), columns=(0, 2), pairs=False, ordered=None)
    """
    others = tuple(range(2, parameter.ndim))
    if parameter.ndim < 2 or not (parameter.is_floating_point() or parameter.is_complex()):
        return None
    turned = inputs_first or (parameter.is_complex() and bool(others))
    return MatrixView((1,), (0, *others)) if turned else MatrixView((0,), (1, *others))


def matrices(
    model: nn.Module, min_dim: int = 1, exclude: Iterable[str] = EXCLUDED
) -> Iterator[MatrixParameter]:
    """Yield the parameters of a model that are matrices, shared ones once.

    Parameters
    ----------
    min_dim : of rows and of columns, at least
    exclude : words; a parameter with one of them in its path is left out

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> [each.name for each in matrices(net, min_dim=2)]
    ['0.weight']
    """
    words, seen = tuple(exclude), set()
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{key}" if path else key
            if id(parameter) in seen or any(word in name for word in words):
                continue
            seen.add(id(parameter))
            view = view_of(module, key)
            if view is None:
                continue
            found = MatrixParameter(name, module, key, parameter, view)
            if min(found.shape) >= min_dim:
                yield found
