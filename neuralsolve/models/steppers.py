"""State-space layers with frozen parameters, a sample at a time, in NumPy: for use inside a solver's loop."""

from __future__ import annotations

import numpy as np

from neuralsolve.errors import ShapeError

Array = np.ndarray


class DiagonalStepper:
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
        self._a, self._D = a, D
        self._inputs = np.ascontiguousarray(np.stack([np.real(B), np.imag(B)], 1).reshape(2 * P, H).T)
        self._outputs = np.ascontiguousarray(np.stack([np.real(C), -np.imag(C)], 2).reshape(H, 2 * P).T)
        leading = () if batch is None else (batch,)
        self._shape = (*leading, H)
        self.state = np.zeros((*leading, P), np.complex128)
        self._given = np.empty((*leading, 2 * P))

    def __call__(self, u: Array) -> Array:
        """Return y for one sample u, (H,) or (batch, H), and move the state on.

        Raises
        ------
        ShapeError
        """
        if u.shape != self._shape:
            msg = f"got a sample of shape {u.shape}, need {self._shape}"
            raise ShapeError(msg)
        u = np.asarray(u, np.float64)
        x = np.multiply(self.state, self._a, out=self.state)
        parts = x.view(np.float64)
        parts += np.dot(u, self._inputs, out=self._given)
        y = np.dot(parts, self._outputs)
        y += self._D * u
        return y

    def reset(self) -> None:
        """Go back to the state of rest."""
        self.state[...] = 0


class ChannelStepper:
    """The same with one system for each channel: a, B and C (H, N), each B a column, each C a row.

    Examples
    --------
    >>> one = np.ones((1, 1), complex)
    >>> stepper = ChannelStepper(0.5 * one, one, one, np.zeros(1))
    >>> [float(stepper(np.ones(1))[0]) for _ in range(3)]
    [1.0, 1.5, 1.75]
    """

    def __init__(self, a: Array, B: Array, C: Array, D: Array, batch: int | None = None):
        leading = () if batch is None else (batch,)
        self._shape = (*leading, len(D))
        self._a, self._gain, self._C, self._D = a, B, C, D

        self.state = np.zeros((*leading, *a.shape), np.complex128)
        self._room = np.empty_like(self.state)

    def __call__(self, u: Array) -> Array:
        """Return y for one sample u, (H,) or (batch, H), and move the state on.

        Raises
        ------
        ShapeError
        """
        if u.shape != self._shape:
            msg = f"got a sample of shape {u.shape}, need {self._shape}"
            raise ShapeError(msg)
        u = np.asarray(u, np.float64)
        x = np.multiply(self.state, self._a, out=self.state)
        x += np.multiply(self._gain, u[..., None], out=self._room)
        y = np.real(np.multiply(self._C, x, out=self._room)).sum(-1)
        y += self._D * u
        return y

    def reset(self) -> None:
        """Go back to the state of rest."""
        self.state[...] = 0
