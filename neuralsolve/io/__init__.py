"""Files in and out: matrices, vectors and meshes, none of them trusted.

Reading a broken or hostile file ends in a `FormatError` that names the file, what was found and what is
expected; no pickle is ever loaded, and nothing is allocated because a header says so. Writing goes through a
temporary file and a rename, and never replaces an existing file unless asked to.
"""

from neuralsolve.io.files import replacing
from neuralsolve.io.matrices import MATRIX_SUFFIXES, MatrixFile, read_matrix
from neuralsolve.io.mesh import Mesh, grid_mesh
from neuralsolve.io.meshes import MESH_SUFFIXES, read_mesh
from neuralsolve.io.vectors import VECTOR_SUFFIXES, read_vector
from neuralsolve.io.write import SOLUTION_SUFFIXES, write_solution

__all__ = [
    "MATRIX_SUFFIXES",
    "MESH_SUFFIXES",
    "SOLUTION_SUFFIXES",
    "VECTOR_SUFFIXES",
    "MatrixFile",
    "Mesh",
    "grid_mesh",
    "read_matrix",
    "read_mesh",
    "read_vector",
    "replacing",
    "write_solution",
]
