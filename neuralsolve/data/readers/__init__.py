"""Readers of the formats that others keep fields in; every one ends in `Samples`."""

from neuralsolve.data.readers.reading import READABLE, read_data

__all__ = ["READABLE", "read_data"]
