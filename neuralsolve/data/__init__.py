"""Data sets of fields: samples in memory, our own HDF5 files, and readers of the formats that others use."""

from neuralsolve.data.hdf5 import Header, read_header, read_samples, write_samples
from neuralsolve.data.making import Made, make
from neuralsolve.data.readers import read_data
from neuralsolve.data.samples import Layout, Samples

__all__ = [
    "Header",
    "Layout",
    "Made",
    "Samples",
    "make",
    "read_data",
    "read_header",
    "read_samples",
    "write_samples",
]
