"""Data sets of fields: samples in memory, our own HDF5 files, and readers of the formats that others use."""

from neuralsolve.data.hdf5 import Header, read_header, read_samples, write_samples
from neuralsolve.data.making import Made, make
from neuralsolve.data.samples import Layout, Samples

__all__ = ["Header", "Layout", "Made", "Samples", "make", "read_header", "read_samples", "write_samples"]


def read_data(path, frames=None):
    return read_samples(path)
