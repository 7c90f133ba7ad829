"""State-space systems x' = A x + B u, y = C x: their starts, discretisations, kernels and recurrences."""
