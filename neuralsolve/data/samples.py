"""Pairs of fields, input and output, of one equation: what a neural operator is trained on.

On a grid a field is ``(channels, *shape)``, one number per node of the axes. On meshes it is
``(channels, points)``, and every sample has points of its own, or all share them. A trajectory has its frames
as channels, in the order of time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError


@dataclass(frozen=True)
class Layout:
    """What the numbers of a data set are.

    Attributes
    ----------
    axes : coordinates of the nodes along each axis of the grid, first axis first; () on meshes
    inputs, outputs : names of the channels
    units : unit per name of a channel or axis; "1" where dimensionless
    boundary : "dirichlet", "periodic", ..., per axis of the grid; () where unknown
    equation : name and parameters of the equation that the data obey, as JSON holds them; {} where unknown
    origin : anything else to tell: source, command, version, what was left out
    """

    axes: tuple[np.ndarray, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    units: dict[str, str] = field(default_factory=dict)
    boundary: tuple[str, ...] = ()
    equation: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along each axis; () on meshes."""
        return tuple(len(axis) for axis in self.axes)


def check_finite(name: str, values: np.ndarray, remedy: str) -> None:
    """Raise NonFiniteError where values ``(samples, ...)`` hold NaN or infinity; it says in which sample."""
    finite = np.isfinite(values).reshape(len(values), -1).all(1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        msg = (
            f"{name} hold NaN or infinity in {len(bad)} of {len(values)} samples, the first is number "
            f"{bad[0]}; {remedy}"
        )
        raise NonFiniteError(msg)


@dataclass(frozen=True)
class Samples:
    """A data set in memory.

    Attributes
    ----------
    inputs : (n, channels, *shape) or (n, channels, points), float32 or float64
    outputs : (n, channels, *shape) or (n, channels, points)
    layout : Layout
    residuals : (n,) relative residual of the equation that each sample was solved to; None where unknown
    points : (points, dim) or (n, points, dim) of a mesh; None on grids
    cells : (m, corners) of the mesh, shared by all samples; None where there are none
    codes : (n, k) numbers that describe the geometry of each sample; None where there are none

    Raises
    ------
    ShapeError
        Sizes that do not fit together, or no sample.
    NonFiniteError
        NaN or infinity; the message names the sample.

    Examples
    --------
    >>> import numpy as np
    >>> axes = (np.arange(4) / 4, np.arange(6) / 6)
    >>> u = np.random.default_rng(7).standard_normal((5, 1, 4, 6))
    >>> data = Samples(u, 2 * u, Layout(axes, ("a",), ("u",)))
    >>> train, rest = data.split(3)
    >>> len(train), rest.every(2).layout.shape
    (3, (2, 3))
    """

    inputs: np.ndarray
    outputs: np.ndarray
    layout: Layout = Layout()
    residuals: np.ndarray | None = None
    points: np.ndarray | None = None
    cells: np.ndarray | None = None
    codes: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, values in (("inputs", self.inputs), ("outputs", self.outputs)):
            self._fits(name, values)
        if len(self.inputs) != len(self.outputs):
            msg = (
                f"{len(self.inputs)} inputs and {len(self.outputs)} outputs; the first axis counts samples, "
                "and every input has its output"
            )
            raise ShapeError(msg)

    def _fits(self, name: str, values: np.ndarray) -> None:
        wanted = self.layout.shape if self.points is None else self.points.shape[-2:-1]
        nodes = "its axes" if self.points is None else "its points"
        if values.ndim != 2 + len(wanted) or values.shape[2:] != wanted or not values.size:
            msg = (
                f"{name} have the shape {values.shape}; (samples, channels, "
                f"{', '.join(map(str, wanted))}) is needed by {nodes}, one sample at least: move the axes "
                "with numpy.moveaxis, or give the axes that belong to the data"
            )
            raise ShapeError(msg)
        names = self.layout.inputs if name == "inputs" else self.layout.outputs
        if names and len(names) != values.shape[1]:
            msg = f"{name} have {values.shape[1]} channels, the layout names {len(names)}: {', '.join(names)}"
            raise ShapeError(msg)
        check_finite(name, values, "leave them out with data.take(numpy.flatnonzero(good))")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one channel: nodes along each axis, or (points,)."""
        return self.inputs.shape[2:]

    def take(self, which: Any) -> Samples:
        """Return the samples at some places: a slice, or whole numbers."""
        points = self.points if self.points is None or self.points.ndim == 2 else self.points[which]
        residuals = None if self.residuals is None else self.residuals[which]
        codes = None if self.codes is None else self.codes[which]
        return replace(
            self,
            inputs=self.inputs[which],
            outputs=self.outputs[which],
            residuals=residuals,
            points=points,
            codes=codes,
        )

    def split(self, *counts: int) -> tuple[Samples, ...]:
        """Return consecutive parts of so many samples each, and what is left as the last, if anything is.

        Raises
        ------
        OptionError
            More samples than there are, or an empty part.
        """
        if sum(counts) > len(self) or min(counts, default=1) < 1:
            msg = f"a split into {counts} of {len(self)} samples; counts >= 1 of that sum at most are needed"
            raise OptionError(msg)
        edges = [0, *np.cumsum(counts).tolist()]
        if edges[-1] < len(self):
            edges.append(len(self))
        return tuple(self.take(slice(a, b)) for a, b in itertools.pairwise(edges))

    def spread(self, *counts: int) -> tuple[Samples, ...]:
        """Return the parts of `split`, each spread evenly over the samples instead of being consecutive.

        The last part is spread over all samples, the one before over those that it left, and so on; what is
        left of all is the last of those returned. Of samples on a grid of parameters with an odd number of
        columns, a last part of half of them is one colour of a checkerboard.

        Examples
        --------
        >>> data = Samples(np.arange(7.0).reshape(7, 1, 1), np.zeros((7, 1, 1)), Layout((np.zeros(1),)))
        >>> [part.inputs.ravel().tolist() for part in data.spread(3, 1, 3)]
        [[0.0, 2.0, 6.0], [4.0], [1.0, 3.0, 5.0]]

        Raises
        ------
        OptionError
            As of `split`.
        """
        parts = self.split(*counts)
        left, places = np.arange(len(self)), []
        for count in reversed(counts):
            chosen = ((np.arange(count) + 0.5) * len(left) / count).astype(int)
            places.append(left[chosen])
            left = np.delete(left, chosen)
        places = places[::-1] + ([left] if len(parts) > len(counts) else [])
        return tuple(self.take(each) for each in places)

    def history(self, fields: int = 1) -> Samples:
        """Return the trajectories with all frames but the last as inputs and all but the first as outputs.

        Outputs follow inputs in time. Samples that are so already stay as they are.

        Parameters
        ----------
        fields : channels of one frame

        Raises
        ------
        ShapeError
            Channels that are no whole frames.

        Examples
        --------
        >>> u = np.arange(4.0).reshape(1, 4, 1)
        >>> data = Samples(u[:, :1], u[:, 1:], Layout((np.zeros(1),), ("u0",), ("u1", "u2", "u3")))
        >>> data.history().inputs.ravel().tolist(), data.history().layout.outputs
        ([0.0, 1.0, 2.0], ('u1', 'u2', 'u3'))
        """
        inner, outer = self.inputs.shape[1], self.outputs.shape[1]
        if fields < 1 or inner % fields or outer % fields:
            msg = (
                f"{inner} channels of inputs and {outer} of outputs; whole frames of {fields} are needed: "
                "set fields to the channels of one frame"
            )
            raise ShapeError(msg)
        if inner == outer and np.array_equal(self.inputs[:, fields:], self.outputs[:, :-fields]):
            return self
        every = np.concatenate([self.inputs, self.outputs], 1)
        names = (*self.layout.inputs, *self.layout.outputs)
        layout = replace(self.layout, inputs=names[:-fields], outputs=names[fields:])
        return replace(self, inputs=every[:, :-fields], outputs=every[:, fields:], layout=layout)

    def every(self, stride: int | Sequence[int]) -> Samples:
        """Return every `stride`-th node of each axis, the first among them.

        Raises
        ------
        OptionError
            On meshes, or a stride that leaves no second node.
        """
        dim = len(self.layout.axes)
        strides = (stride,) * dim if isinstance(stride, int) else tuple(stride)
        if not dim or len(strides) != dim or min(strides) < 1:
            msg = f"stride {stride} on {dim} axes; one whole number >= 1 per axis of a grid is needed"
            raise OptionError(msg)
        axes = tuple(axis[::s] for axis, s in zip(self.layout.axes, strides, strict=True))
        if math.prod(len(axis) > 1 for axis in axes) == 0:
            msg = f"stride {stride} leaves {tuple(map(len, axes))} nodes; two along each axis are needed"
            raise OptionError(msg)
        where = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
        return replace(
            self,
            inputs=np.ascontiguousarray(self.inputs[where]),
            outputs=np.ascontiguousarray(self.outputs[where]),
            layout=replace(self.layout, axes=axes),
        )
