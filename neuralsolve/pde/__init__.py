"""Equations on grids: a MAC-grid smoke plume, and the pieces that another simulation can take from it."""

from neuralsolve.pde.advection import advect, courant, sample, trace
from neuralsolve.pde.mac import MACGrid, Projection
from neuralsolve.pde.smoke import Plume, SmokeResult, StepRecord, simulate
from neuralsolve.pde.smoke_case import SmokeCase

__all__ = [
    "MACGrid",
    "Plume",
    "Projection",
    "SmokeCase",
    "SmokeResult",
    "StepRecord",
    "advect",
    "courant",
    "sample",
    "simulate",
    "trace",
]
