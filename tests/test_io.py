"""Readers and writers: round trips, real files, and hostile ones."""

import io as stdio
import json
import pickle
import struct
import tempfile
import tracemalloc
import zipfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralsolve.errors import FormatError, InputError, ShapeError
from neuralsolve.io import files, grid_mesh, read_matrix, read_mesh, read_vector, replacing, write_solution

rng = np.random.default_rng(7341)

# n, nnz of the folder's README; explicit zeros are kept, so zenios holds more than its README counts
MATRICES = {
    "bcsstk13.mtx": (2003, 83883),
    "bcsstk16.mtx": (4884, 290378),
    "cryg2500.mtx": (2500, 12349),
    "gr_30_30.mtx": (900, 7744),
    "jagmesh7.mtx": (1138, 7450),
    "lap2D_5pt_n100.mtx": (10000, 49600),
    "lap3D_7pt_n20.mtx": (8000, 53600),
    "olm1000.mtx": (1000, 3996),
    "bunny35k_cotan_laplacian.npz": (34834, 243410),
    "pyamg_airfoil.mat": (260, 1682),
    "pyamg_bar.mat": (600, 23402),
    "pyamg_helmholtz_2D.mat": (2880, 52016),
    "pyamg_recirc_flow.mat": (225, 1849),
}


def sparse_example(n=9, field="real"):
    A = scipy.sparse.random_array((n, n), density=0.4, rng=rng, format="csr") + scipy.sparse.eye_array(n)
    return (A * (1 + 2j) if field == "complex" else A).tocsr()


def valid_file(folder, kind):
    """Write a small valid file of the kind and return its path."""
    path = Path(folder) / f"valid{kind}"
    A = sparse_example()
    if kind == ".mtx":
        scipy.io.mmwrite(path, A)
    elif kind == ".npz":
        scipy.sparse.save_npz(path, A)
    elif kind == ".mat":
        scipy.io.savemat(path, {"A": A, "B": np.ones((9, 2))}, do_compression=True)
    elif kind == ".json":
        path.write_text(
            json.dumps({"p": [[0, 0], [1, 0], [0, 1]], "t": [[0, 1, 2]], "boundaries": {"low": [0]}})
        )
    elif kind == ".obj":
        path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 1\nv 1 1 1\nvt 0 0\nf 1/1 2/1 3/1\nf -3 -1 -2\n")
    else:
        mesh = grid_mesh((2, 3), (0.5, 1.0), np.ones(6, dtype=bool))
        triangles = np.concatenate([mesh.cells[:, [0, 1, 2]], mesh.cells[:, [0, 2, 3]]])
        meshio = pytest.importorskip("meshio")
        points = np.concatenate([mesh.points, 0.1 * mesh.points[:, :1]], axis=1)
        names = {".msh": {"file_format": "gmsh22", "binary": False}, ".vtk": {"binary": False}}
        meshio.Mesh(points, [("triangle", triangles)]).write(path, **names.get(kind, {}))
    return path


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr", "dia"])
def test_npz_round_trip_is_exact_in_every_layout(tmp_path, layout):
    A = sparse_example()
    scipy.sparse.save_npz(tmp_path / "A.npz", A.asformat(layout))
    assert abs(read_matrix(tmp_path / "A.npz").A - A).max() == 0


@pytest.mark.parametrize("symmetry", ["general", "symmetric", "skew-symmetric", "hermitian"])
def test_matrix_market_round_trip_keeps_every_symmetry(tmp_path, symmetry):
    A = sparse_example(field="complex" if symmetry == "hermitian" else "real")
    sign = -1 if symmetry == "skew-symmetric" else 1
    if symmetry != "general":
        A = (A + sign * (A.conj().T if symmetry == "hermitian" else A.T)).tocsr()
    scipy.io.mmwrite(tmp_path / "A.mtx", A, symmetry=symmetry, precision=17)
    assert abs(read_matrix(tmp_path / "A.mtx").A - A).max() == 0


def test_pattern_and_integer_files_become_float_ones_and_values(tmp_path):
    (tmp_path / "p.mtx").write_text("%%MatrixMarket matrix coordinate pattern symmetric\n2 2 2\n1 1\n2 1\n")
    (tmp_path / "i.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 3\n2 2 4\n")
    pattern, integer = read_matrix(tmp_path / "p.mtx").A, read_matrix(tmp_path / "i.mtx").A
    assert pattern.dtype == integer.dtype == np.float64
    assert pattern.toarray().tolist() == [[1, 1], [1, 0]]
    assert integer.toarray().tolist() == [[3, 0], [0, 4]]


def test_duplicates_are_summed(tmp_path):
    (tmp_path / "d.mtx").write_text(
        "%%MatrixMarket matrix coordinate real general\n1 1 2\n1 1 2.5\n1 1 -1.0\n"
    )
    assert read_matrix(tmp_path / "d.mtx").A.toarray().tolist() == [[1.5]]


def test_matlab_returns_the_near_null_space_and_lists_other_names(tmp_path):
    A, B = sparse_example(), rng.standard_normal((9, 3))
    scipy.io.savemat(tmp_path / "a.mat", {"A": A, "B": B, "other": A})
    found = read_matrix(tmp_path / "a.mat")
    assert abs(found.A - A).max() == 0
    assert np.array_equal(found.near_null_space, B)
    assert read_matrix(tmp_path / "a.mat", key="other").near_null_space is not None
    with pytest.raises(FormatError, match="'A', 'B', 'other'"):
        read_matrix(tmp_path / "a.mat", key="K")


@pytest.mark.parametrize("name", MATRICES)
def test_real_matrices_have_the_size_their_readme_states(name, data):
    A = read_matrix(data / "matrices" / name).A
    A.eliminate_zeros()
    assert (A.shape[0], A.nnz) == MATRICES[name]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mtx", ".txt"])
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_written_solution_reads_back_exactly(tmp_path, suffix, data):
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
    x = np.array(data.draw(st.lists(numbers, min_size=1, max_size=20)))
    write_solution(tmp_path / f"x{suffix}", x, overwrite=True)
    assert np.array_equal(read_vector(tmp_path / f"x{suffix}"), x)


def test_columns_keep_their_shape(tmp_path):
    x = rng.standard_normal((5, 3))
    for suffix in (".npy", ".npz", ".mtx", ".txt"):
        write_solution(tmp_path / f"x{suffix}", x)
        assert np.array_equal(read_vector(tmp_path / f"x{suffix}"), x)


def test_an_existing_file_is_never_replaced_silently(tmp_path):
    target = tmp_path / "x.npy"
    write_solution(target, np.ones(3))
    before = target.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_solution(target, np.zeros(3))
    assert target.read_bytes() == before
    write_solution(target, np.zeros(3), overwrite=True)
    assert not read_vector(target).any()


def test_an_interrupted_write_changes_nothing(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("precious")

    def interrupted():
        with replacing(target, overwrite=True) as temporary:
            temporary.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_appears_during_the_writing_survives(tmp_path):
    target = tmp_path / "x.txt"

    def raced():
        with replacing(target) as temporary:
            temporary.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(FileExistsError):
        raced()
    assert target.read_text() == "theirs"


# --- broken and hostile files


def npy_bytes(header, payload=b""):
    text = (header + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + payload


def npz_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class Trap:
    """Unpickling this would write a file."""

    def __reduce__(self):
        return (open, ("trap-was-sprung", "w"))


BANNER = "%%MatrixMarket matrix coordinate real general\n"
BROKEN_TEXT = {
    "empty.mtx": "",
    "nonsense.mtx": "hello\n",
    "bannerless.mtx": "2 2 1\n1 1 1.0\n",
    "truncated.mtx": BANNER + "3 3 4\n1 1 1.0\n2 2",
    "absurd_entries.mtx": BANNER + "5 5 999999999999\n1 1 1.0\n",
    "absurd_rows.mtx": BANNER + "999999999999 999999999999 1\n1 1 1.0\n",
    "absurd_dense.mtx": "%%MatrixMarket matrix array real general\n99999999 99999999\n1.0\n",
    "outside.mtx": BANNER + "2 2 1\n3 1 1.0\n",
    "zero_based.mtx": BANNER + "2 2 1\n0 0 1.0\n",
    "words.mtx": BANNER + "2 2 1\none one 1.0\n",
    "negative.mtx": BANNER + "-2 -2 1\n1 1 1.0\n",
    "v73.mat": "MATLAB 7.3 MAT-file" + " " * 105 + "\x00\x02IM" + "\x89HDF",
    "short.mat": "MATLAB 5.0",
    "text.npz": "not a zip archive",
}


@pytest.mark.parametrize("name", BROKEN_TEXT)
def test_broken_matrix_files_are_named_and_explained_at_once(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BROKEN_TEXT[name].encode("latin-1"))
    with little_memory(), pytest.raises(FormatError, match=rf"{name}: found .*; expected "):
        read_matrix(path)


@contextmanager
def little_memory():
    """Fail where the block allocates what a hostile header asks for; so that it also ends at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def hostile_archives(folder):
    good = {f"{name}.npy": np_bytes(array) for name, array in _csr_parts().items()}
    zeros = npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (2097152,), }", bytes(2**24))
    npz_of(folder / "bomb.npz", good | {"data.npy": zeros}, zipfile.ZIP_DEFLATED)
    pickled = stdio.BytesIO()
    np.save(pickled, np.array([Trap()], dtype=object), allow_pickle=True)
    objects = npy_bytes("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps(Trap()))
    huge = npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }", b"\0" * 8)
    npz_of(folder / "pickle.npz", good | {"data.npy": pickled.getvalue()})
    npz_of(folder / "objects.npz", good | {"indices.npy": objects})
    npz_of(folder / "huge.npz", good | {"data.npy": huge})
    npz_of(folder / "long_header.npz", good | {"data.npy": npy_bytes("{" + "'a':" * 16000 + "}")})
    npz_of(folder / "code.npz", good | {"data.npy": npy_bytes("__import__('os').getcwd()")})
    npz_of(folder / "missing.npz", {name: content for name, content in good.items() if name != "indptr.npy"})
    npz_of(folder / "format.npz", good | {"format.npy": np_bytes(np.array(b"lil"))})
    npz_of(folder / "outside.npz", good | {"indices.npy": np_bytes(np.full(3, 7, dtype=np.int32))})
    npz_of(folder / "negative.npz", good | {"indices.npy": np_bytes(np.full(3, -7, dtype=np.int32))})
    npz_of(folder / "indptr.npz", good | {"indptr.npy": np_bytes(np.array([0, 9, 2, 3], dtype=np.int32))})
    npz_of(folder / "rows.npz", good | {"shape.npy": np_bytes(np.array([2**40, 2**40]))})
    npz_of(folder / "floats.npz", good | {"indices.npy": np_bytes(np.array([0.0, np.nan, 2.0]))})
    npz_of(folder / "nested.npz", {"inner.npz": b"PK\x03\x04 and so on"})


def np_bytes(array):
    stream = stdio.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _csr_parts():
    return {
        "data": np.ones(3),
        "indices": np.arange(3, dtype=np.int32),
        "indptr": np.arange(4, dtype=np.int32),
        "shape": np.array([3, 3]),
        "format": np.array(b"csr"),
    }


def test_hostile_archives_are_refused_at_once_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 2**22)
    hostile_archives(tmp_path)
    paths = sorted(tmp_path.glob("*.npz"))
    assert len(paths) == 14
    for path in paths:
        with little_memory(), pytest.raises(FormatError, match=path.name):
            read_matrix(path)
    with pytest.raises(FormatError):
        read_vector(tmp_path / "pickle.npz", key="data")
    assert not (tmp_path / "trap-was-sprung").exists()


def test_a_compressed_matlab_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 2**20)
    scipy.io.savemat(tmp_path / "a.mat", {"A": np.zeros((1000, 1000))}, do_compression=True)
    with pytest.raises(FormatError, match="packed into"):
        read_matrix(tmp_path / "a.mat")


def test_matrices_that_are_no_linear_system(tmp_path):
    scipy.io.mmwrite(tmp_path / "wide.mtx", scipy.sparse.csr_array(np.ones((2, 3))))
    np.savez(tmp_path / "none.npz", A=np.zeros((0, 0)))
    for name, shape in (("wide.mtx", r"\(2, 3\)"), ("none.npz", r"\(0, 0\)")):
        with pytest.raises(ShapeError, match=shape):
            read_matrix(tmp_path / name)


def test_wrong_names_are_told_what_is_there(tmp_path):
    valid_file(tmp_path, ".mtx")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'valid\.mtx'"):
        read_matrix(tmp_path / "valod.mtx")
    with pytest.raises(FormatError, match=r"\.mat, \.mtx, \.npz"):
        read_matrix(_touch(tmp_path / "A.csv"))
    with pytest.raises(FormatError, match="NumPy array of numbers"):
        read_vector(_touch(tmp_path / "b.npy"))
    with pytest.raises(FormatError, match="as many in every line"):
        read_vector(_touch(tmp_path / "b.txt", "1 2\n3\n"))


def _touch(path, text="x"):
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", [".mtx", ".npz", ".mat"])
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_matrix_is_refused_or_still_a_matrix(tmp_path, kind, data):
    path = damaged(tmp_path, kind, data)
    A = read_or_refuse(read_matrix, path)
    if A is not None:
        A.A.check_format(full_check=True)
        assert A.A.shape[0] == A.A.shape[1] > 0


@pytest.mark.parametrize("kind", [".npy", ".npz", ".mtx", ".txt"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_vector_is_refused_or_still_numbers(tmp_path, kind, data):
    valid = tmp_path / f"valid{kind}"
    write_solution(valid, np.linspace(-1.5, 1.5, 12).reshape(6, 2), overwrite=True)
    x = read_or_refuse(read_vector, damaged(tmp_path, kind, data, valid.read_bytes()))
    assert x is None or (x.ndim in (1, 2) and x.dtype.kind in "fc" and x.size > 0)


@pytest.mark.parametrize("kind", [".msh", ".vtk", ".vtu", ".obj", ".ply", ".stl", ".json"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_mesh_is_refused_or_still_a_mesh(tmp_path, kind, data):
    path = damaged(tmp_path, kind, data)
    mesh = read_or_refuse(read_mesh, path)
    if mesh is not None:
        assert np.isfinite(mesh.points).all()
        assert np.array_equal(np.unique(mesh.cells), np.arange(len(mesh.points)))


def read_or_refuse(read, path):
    """Return what was read, or None where the file was refused by name; other exceptions fail the test."""
    try:
        return read(path)
    except InputError as error:
        if path.name not in str(error):
            raise
        return None


@cache
def valid_bytes(kind):
    with tempfile.TemporaryDirectory() as folder:
        return valid_file(folder, kind).read_bytes()


def damaged(folder, kind, data, valid=None):
    """Return a valid file of the kind with a few bytes replaced, or its end cut off."""
    content = bytearray(valid or valid_bytes(kind))
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = byte
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    path = folder / f"damaged{kind}"
    path.write_bytes(bytes(content))
    return path


# --- meshes


def test_a_grid_as_a_mesh_writes_and_reads_back_with_its_boundary(tmp_path):
    keep = np.ones(24, dtype=bool)
    keep[5] = False
    mesh = grid_mesh((2, 3, 4), (1.0, 0.5, 0.25), keep)
    write_solution(tmp_path / "x.vtu", np.arange(23.0), mesh=mesh)
    back = read_mesh(tmp_path / "x.vtu")
    assert back.kind == "hexahedron"
    assert np.array_equal(back.points, mesh.points)
    assert np.array_equal(back.cells, mesh.cells)
    assert np.ptp(back.points, axis=0).tolist() == [1.0, 1.5, 2.0]  # x, y, z
    outside = (back.points == back.points.min(0)) | (back.points == back.points.max(0))
    assert set(np.flatnonzero(outside.any(1))) <= set(back.groups["boundary"])


def test_vtu_needs_a_mesh_that_fits(tmp_path):
    mesh = grid_mesh((2, 2), (1.0, 1.0), np.ones(4, dtype=bool))
    with pytest.raises(FormatError, match="needs a mesh"):
        write_solution(tmp_path / "x.vtu", np.ones(9))
    with pytest.raises(ShapeError, match="9 points and 4 cells"):
        write_solution(tmp_path / "x.vtu", np.ones(5), mesh=mesh)
    assert not list(tmp_path.iterdir())


def test_quads_and_polygons_of_an_obj_are_split_and_unused_vertices_dropped(tmp_path):
    path = _touch(tmp_path / "s.obj", "v 0 0 0\nv 9 9 9\nv 1 0 0\nv 1 1 1\nv 0 1 1\nf 1 3 4 5\n")
    mesh = read_mesh(path)
    assert mesh.points.shape == (4, 3)
    assert len(mesh.cells) == 2
    assert "split" in mesh.note
    assert mesh.surface


def test_stl_corners_merge_within_float32_rounding(tmp_path):
    meshio = pytest.importorskip("meshio")
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5], [1, 0, 0], [1, 1, 0.5], [0, 1, 0.5]])
    corners += 1e-8 * rng.standard_normal(corners.shape)
    cells = [("triangle", np.arange(6).reshape(2, 3))]
    meshio.Mesh(corners, cells).write(tmp_path / "s.stl", binary=True)
    mesh = read_mesh(tmp_path / "s.stl")
    assert len(mesh.points) == 4
    assert len(np.unique(mesh.cells)) == 4


@pytest.mark.parametrize(
    ("name", "points", "cells", "kind", "groups"),
    [
        ("skfem_backward-facing_step.json", 2302, 4222, "triangle", {"ceiling", "inlet", "floor"}),
        ("skfem_annulus.msh", 60, 98, "triangle", {"exter", "inter"}),
        ("skfem_cylinder_stokes.msh", 171, 293, "triangle", {"left", "bottom", "right", "top", "ball"}),
        ("skfem_box.msh", 358, 1105, "tetra", {"front", "back", "top"}),
        ("skfem_disk.json", 909, 866, "quad", {"perimeter"}),
        ("mfem_square-disc.vtk", 101, 154, "triangle", set()),
        ("mfem_periodic-torus-sector.msh", 68, 36, "hexahedron", {"1", "2", "3"}),
        ("spot.obj", 2930, 5856, "triangle", set()),
        ("trimesh_bunny.ply", 8146, 16301, "triangle", set()),
        ("trimesh_featuretype.STL", 1722, 3476, "triangle", set()),
    ],
)
def test_real_meshes(name, points, cells, kind, groups, data):
    mesh = read_mesh(data / "meshes" / name)
    assert (len(mesh.points), len(mesh.cells), mesh.kind) == (points, cells, kind)
    assert set(mesh.groups) == groups | {"boundary"}
    for group in groups:  # a boundary part is part of the boundary
        assert set(mesh.groups[group]) <= set(mesh.groups["boundary"])


@pytest.mark.parametrize(
    "name", ["skfem_backward-facing_step.json", "skfem_cylinder_stokes.msh", "skfem_disk.json"]
)
def test_groups_agree_with_scikit_fem(name, data):
    skfem = pytest.importorskip("skfem")
    path = data / "meshes" / name
    if path.suffix == ".json":
        from skfem.io.json import from_file

        theirs = from_file(path)
    else:
        theirs = skfem.Mesh.load(str(path))
    ours = read_mesh(path)
    for group, facets in theirs.boundaries.items():
        assert np.array_equal(ours.groups[group], np.unique(theirs.facets[:, facets])), group
    assert np.array_equal(ours.groups["boundary"], theirs.boundary_nodes())


def test_watertight_surfaces_have_the_euler_number_of_their_handles(data):
    for name, handles in (("trimesh_unit_sphere.STL", 0), ("trimesh_torus.STL", 1)):
        mesh = read_mesh(data / "meshes" / name)
        edges = np.unique(
            np.sort(np.concatenate([mesh.cells[:, [0, 1]], mesh.cells[:, [1, 2]], mesh.cells[:, [2, 0]]]), 1),
            axis=0,
        )
        assert len(mesh.points) - len(edges) + len(mesh.cells) == 2 - 2 * handles
        assert not len(mesh.groups["boundary"])


def test_a_gmsh_file_of_absurd_node_numbers_is_refused(tmp_path):
    text = valid_bytes(".msh").decode().replace("$Nodes\n12\n1 ", "$Nodes\n12\n99999999999 ", 1)
    with pytest.raises(FormatError, match=r"tags\.msh"):
        read_mesh(_touch(tmp_path / "tags.msh", text))
