"""Equations on meshes, assembled by scikit-fem: Poisson's and linear elasticity in the plane."""

from neuralsolve.fem.elasticity import elasticity, von_mises
from neuralsolve.fem.poisson import poisson
from neuralsolve.fem.system import MeshSystem

__all__ = ["MeshSystem", "elasticity", "poisson", "von_mises"]
