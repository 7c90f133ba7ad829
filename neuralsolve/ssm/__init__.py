"""State-space systems x' = A x + B u, y = C x: their mathematics, diagonal forms and kernels."""
