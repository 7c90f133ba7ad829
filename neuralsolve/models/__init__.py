"""Torch modules that propose directions, their losses and data, and the one loop that trains them."""
