"""What the command line, the loader and the training know of an equation that makes data.

One object, three uses: it makes samples, it says how well a field obeys it, and it is the linear system that
an exact answer comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import OptionError, nearest


class Equation(Protocol):
    """An equation with its parameters: a frozen dataclass.

    Attributes
    ----------
    name : as in ``neuralsolve data make NAME``
    """

    name: ClassVar[str]

    def layout(self) -> Layout:
        """Return axes, channels, units and boundary of its samples, and itself as `described`."""
        ...

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        """Return the samples of these numbers. Number k of a seed is the same whatever is made beside it."""
        ...

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return by how much fields ``(n, channels, *shape)`` miss the equation, a relative number each."""
        ...


def described(equation: Any) -> dict[str, Any]:
    """Return name and parameters of an equation as JSON holds them; `equation_of` goes back."""
    return {"name": equation.name} | asdict(equation)


def equations() -> dict[str, type]:
    """Return the equations that make data, name -> class."""
    from neuralsolve.pde.burgers import Burgers
    from neuralsolve.pde.darcy import Darcy
    from neuralsolve.pde.kuramoto_sivashinsky import KuramotoSivashinsky
    from neuralsolve.pde.navier_stokes import NavierStokes
    from neuralsolve.pde.void import VoidElasticity, VoidPoisson

    every = (Darcy, NavierStokes, Burgers, KuramotoSivashinsky, VoidPoisson, VoidElasticity)
    return {each.name: each for each in every}


def equation_of(layout: Layout) -> Any:
    """Return the equation that a data set obeys.

    Raises
    ------
    OptionError
        The data set names none, or one that this version does not know.
    """
    given = dict(layout.equation)
    name, known = given.pop("name", None), equations()
    if name not in known:
        msg = f"the data name the equation {name!r}{nearest(str(name), known)}"
        raise OptionError(msg)
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    try:
        return known[name](**plain)
    except TypeError as error:
        msg = f"parameters of {name}: {error}; the data are of another version"
        raise OptionError(msg) from None


def with_prior(samples: Samples) -> Samples:
    """Return the samples with the equation's own cheap solutions as further channels of the inputs.

    Raises
    ------
    OptionError
        The data name no equation, or one that has no such solutions.

    Examples
    --------
    >>> from neuralsolve.pde.darcy import Darcy
    >>> data = Darcy(grid=33, stride=2).samples(range(2), seed=7)
    >>> with_prior(data).layout.inputs
    ('a', 'u by arithmetic means', 'u by harmonic means')
    """
    equation = equation_of(samples.layout)
    prior = getattr(equation, "prior", None)
    if prior is None:
        msg = f"the equation {equation.name!r} has no prior, no cheap solution to begin from; leave prior out"
        raise OptionError(msg)
    names = (*samples.layout.inputs, *equation.prior_names)
    inputs = np.concatenate([samples.inputs, prior(samples.inputs).astype(samples.inputs.dtype)], 1)
    return replace(samples, inputs=inputs, layout=replace(samples.layout, inputs=names))


def stream(seed: int, number: int) -> np.random.Generator:
    """Return the random numbers of one sample."""
    return np.random.default_rng([seed, number])


def distance(fields: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return ‖fields - expected‖ / ‖expected‖ of each sample, (n,)."""
    count = len(fields)
    missed = np.linalg.norm((fields - expected).reshape(count, -1), axis=1)
    return missed / np.linalg.norm(expected.reshape(count, -1), axis=1)
