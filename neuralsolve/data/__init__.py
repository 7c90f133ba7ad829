"""Data sets of fields: samples in memory, our own HDF5 files, and readers of the formats that others use."""

from neuralsolve.data.samples import Layout, Samples

__all__ = ["Layout", "Samples"]
