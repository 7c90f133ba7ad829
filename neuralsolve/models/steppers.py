"""State-space layers with frozen parameters, a sample at a time, in NumPy: for use inside a solver's loop."""

from __future__ import annotations

import numpy as np

from neuralsolve.errors import OptionError, ShapeError

Array = np.ndarray


class Stepper:
    """What steppers share: the shape of a sample, and the state that they keep.

    Parameters
    ----------
    channels : H
    states : shape of the state of one system
    batch : systems side by side; None for samples (H,) without an axis for them
    """

    def __init__(self, channels: int, states: tuple[int, ...], batch: int | None):
        leading = () if batch is None else (batch,)
        self._shape = (*leading, channels)
        self.state = np.zeros((*leading, *states), np.complex128)

    def reset(self) -> None:
        """Go back to the state of rest."""
        self.state[...] = 0

    def _sample(self, u: Array) -> Array:
        """Return a sample in float64; raise where it does not fit, or is not of real numbers."""
        u = np.asarray(u)
        if u.shape != self._shape:
            msg = f"got a sample of shape {u.shape}, need {self._shape}"
            raise ShapeError(msg)
        if u.dtype.kind not in "fiu":
            msg = f"got a sample of {u.dtype}, need real numbers"
            raise OptionError(msg)
        return u.astype(np.float64, copy=False)


class DiagonalStepper(Stepper):
    """The recurrence x = a x + B u, y = Re(C x) + D u, in float64, which keeps its own state.

    Parameters
    ----------
    a : (P,) complex
    B : (P, H) complex
    C : (H, P) complex
    D : (H,)
    batch : systems side by side; None for samples (H,) without an axis for them

    Examples
    --------
    >>> one = np.ones((1, 1), complex)
    >>> stepper = DiagonalStepper(0.5 * one[0], one, one, np.zeros(1))
    >>> [float(stepper(np.ones(1))[0]) for _ in range(3)]
    [1.0, 1.5, 1.75]
    """

    def __init__(self, a: Array, B: Array, C: Array, D: Array, batch: int | None = None):
        P, H = B.shape
        super().__init__(H, (P,), batch)
        self._a, self._D = a, D
        self._inputs = np.ascontiguousarray(np.stack([np.real(B), np.imag(B)], 1).reshape(2 * P, H).T)
        self._outputs = np.ascontiguousarray(np.stack([np.real(C), -np.imag(C)], 2).reshape(H, 2 * P).T)
        self._given = np.empty((*self._shape[:-1], 2 * P))

    def __call__(self, u: Array) -> Array:
        """Return y for one sample u, (H,) or (batch, H), and move the state on.

        Raises
        ------
        ShapeError
        """
        u = self._sample(u)
        x = np.multiply(self.state, self._a, out=self.state)
        parts = x.view(np.float64)
        parts += np.dot(u, self._inputs, out=self._given)
        y = np.dot(parts, self._outputs)
        y += self._D * u
        return y


class ChannelStepper(Stepper):
    """The same with one system for each channel: a, B and C (H, N), each B a column, each C a row.

    Examples
    --------
    >>> one = np.ones((1, 1), complex)
    >>> stepper = ChannelStepper(0.5 * one, one, one, np.zeros(1))
    >>> [float(stepper(np.ones(1))[0]) for _ in range(3)]
    [1.0, 1.5, 1.75]
    """

    def __init__(self, a: Array, B: Array, C: Array, D: Array, batch: int | None = None):
        super().__init__(len(D), a.shape, batch)
        self._a, self._gain, self._C, self._D = a, B, C, D
        self._room = np.empty_like(self.state)

    def __call__(self, u: Array) -> Array:
        """Return y for one sample u, (H,) or (batch, H), and move the state on.

        Raises
        ------
        ShapeError
        """
        u = self._sample(u)
        x = np.multiply(self.state, self._a, out=self.state)
        x += np.multiply(self._gain, u[..., None], out=self._room)
        y = np.real(np.multiply(self._C, x, out=self._room)).sum(-1)
        y += self._D * u
        return y
