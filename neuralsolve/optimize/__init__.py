"""Constrained optimisation: minimise f(x) subject to c(x) = 0."""
