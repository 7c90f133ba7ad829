"""Matrices by few numbers: random sketches, and what is built on them."""
