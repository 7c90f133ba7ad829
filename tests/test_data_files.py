"""Our files of samples: round trips, parts of them, damaged and hostile ones, a full disk."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuralsolve.data import Layout, Samples, read_header, read_samples, write_samples
from neuralsolve.errors import FormatError, InputError, NonFiniteError, OptionError, ShapeError

rng = np.random.default_rng(4417)


def on_grid(n=6, dtype=np.float32):
    layout = Layout(
        (np.arange(8) / 8, np.linspace(0, 1, 5)),
        ("a",),
        ("u", "v"),
        {"a": "m^2", "u": "Pa"},
        ("periodic", "dirichlet"),
        {"name": "invented", "viscosity": 0.125, "sizes": [3, 4]},
        {"source": "test"},
    )
    inputs = np.where(rng.standard_normal((n, 1, 8, 5)) > 0, 12, 3).astype(dtype)
    return Samples(inputs, rng.standard_normal((n, 2, 8, 5)).astype(dtype), layout, rng.random(n) * 1e-9)


def on_mesh(shared=False):
    points = rng.random((4, 2) if shared else (6, 4, 2))
    cells = np.array([[0, 1, 2], [1, 2, 3]])
    fields = rng.standard_normal((2, 6, 1, 4))
    return Samples(*fields, Layout(inputs=("f",)), None, points, cells, rng.random((6, 3)))


def same(a, b):
    for name in ("inputs", "outputs", "residuals", "points", "cells", "codes"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            assert np.array_equal(one, other), name
    assert all(np.array_equal(*pair) for pair in zip(a.layout.axes, b.layout.axes, strict=True))
    assert replace(a.layout, axes=()) == replace(b.layout, axes=())


@pytest.mark.parametrize(
    "samples", [on_grid(), on_grid(dtype=np.float64), on_grid(1), on_mesh(), on_mesh(shared=True)]
)
def test_a_round_trip_is_exact(tmp_path, samples):
    write_samples(tmp_path / "s.h5", samples)
    same(read_samples(tmp_path / "s.h5"), samples)
    header = read_header(tmp_path / "s.h5")
    assert len(header) == len(samples)
    assert header.shapes["outputs"] == samples.outputs.shape


@pytest.mark.parametrize(
    "which", [slice(1, 4), slice(None, None, 2), slice(4, 0, -2), [4, 0, 4], 3, np.arange(6) % 2 == 0, -1]
)
@pytest.mark.parametrize("make", [on_grid, on_mesh])
def test_a_part_is_what_take_gives(tmp_path, make, which):
    samples = make()
    write_samples(tmp_path / "s.h5", samples)
    same(read_samples(tmp_path / "s.h5", which), samples.take([which] if isinstance(which, int) else which))


@pytest.mark.parametrize("which", [slice(6, 9), [6], "first", []])
def test_a_part_that_is_not_there_is_refused(tmp_path, which):
    write_samples(tmp_path / "s.h5", on_grid())
    with pytest.raises(OptionError, match="samples 0 to 5"):
        read_samples(tmp_path / "s.h5", which)


def test_fields_of_two_values_are_packed_and_others_are_not(tmp_path):
    axes = (np.arange(96) / 96,) * 2
    noise = rng.standard_normal((4, 1, 96, 96)).astype(np.float32)
    phases = np.where(noise > 0, 12, 3).astype(np.float32)
    write_samples(tmp_path / "s.h5", Samples(phases, noise, Layout(axes)))
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["inputs"].compression == "gzip"
        assert (
            file["inputs"].id.get_storage_size() < phases.nbytes / 8
        )  # a random bit of 32 is kept, and order
        assert file["outputs"].compression is None
        assert file["outputs"].chunks[0] < 4 or noise[0].nbytes * 4 <= 2**18


def test_other_programs_find_what_the_page_says(tmp_path):
    samples = on_grid()
    write_samples(tmp_path / "s.h5", samples)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file.attrs["format"] == "neuralsolve samples"
        assert file.attrs["version"] == 1
        assert json.loads(file.attrs["layout"])["equation"] == samples.layout.equation
        assert np.array_equal(file["axes/1"][()], samples.layout.axes[1])


def test_an_existing_file_is_left_unless_told(tmp_path):
    write_samples(tmp_path / "s.h5", on_grid())
    with pytest.raises(FileExistsError, match="--force"):
        write_samples(tmp_path / "s.h5", on_mesh())
    write_samples(tmp_path / "s.h5", on_mesh(), overwrite=True)
    assert read_samples(tmp_path / "s.h5").points is not None


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    samples = on_grid()
    with pytest.raises(OptionError, match=r"\.h5"):
        write_samples(tmp_path / "s.npz", samples)
    with pytest.raises(OptionError, match=r"astype"):
        write_samples(tmp_path / "s.h5", replace(samples, inputs=samples.inputs.astype(int)))
    with pytest.raises(OptionError, match="JSON"):
        write_samples(
            tmp_path / "s.h5", replace(samples, layout=replace(samples.layout, origin={"a": float("nan")}))
        )
    assert not list(tmp_path.iterdir())


def cut(file):
    path = Path(file.filename)
    file.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replaced(file, name, values):
    del file[name]
    file[name] = values


def never_written(file):
    del file["outputs"]
    file.create_dataset("outputs", (6, 2, 8, 5), "f4", chunks=(1, 2, 8, 5))


def enormous(file):
    del file["outputs"]
    file.create_dataset("outputs", (6, 2, 10**7, 10**4), "f4", chunks=(1, 1, 100, 100), compression="gzip")


def linked(file):
    del file["outputs"]
    file["outputs"] = h5py.ExternalLink("other.h5", "/outputs")


def outside(file):
    del file["outputs"]
    Path(file.filename + ".raw").write_bytes(bytes(6 * 2 * 40 * 4))
    file.create_dataset("outputs", (6, 2, 8, 5), "f4", external=[(file.filename + ".raw", 0, 6 * 2 * 40 * 4)])


def virtual(file):
    del file["outputs"]
    layout = h5py.VirtualLayout((6, 2, 8, 5), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "outputs", (6, 2, 8, 5))
    file.create_virtual_dataset("outputs", layout)


HOSTILE = {
    "cut": (cut, "written to its end"),
    "no inputs": (lambda file: file.pop("inputs"), "no dataset 'inputs'"),
    "a group": (lambda file: (file.pop("inputs"), file.create_group("inputs")), "a group 'inputs'"),
    "another version": (lambda file: file.attrs.__setitem__("version", 2), "version 2"),
    "another format": (lambda file: file.attrs.__setitem__("format", "else"), "read_data"),
    "no layout": (lambda file: file.attrs.__delitem__("layout"), "no layout"),
    "a layout of numbers": (lambda file: file.attrs.__setitem__("layout", "[" * 99999), "no layout"),
    "names of numbers": (
        lambda file: file.attrs.__setitem__(
            "layout", file.attrs["layout"].replace('"inputs": ["a"]', '"inputs": [7]')
        ),
        "whose inputs are",
    ),
    "text": (lambda file: replaced(file, "inputs", np.array([b"a"] * 6)), "of type"),
    "whole numbers": (lambda file: replaced(file, "inputs", np.ones((6, 1, 8, 5), int)), "of type"),
    "fewer outputs": (lambda file: replaced(file, "outputs", np.ones((5, 2, 8, 5))), "with 6 inputs"),
    "other axes": (lambda file: replaced(file, "axes/0", np.ones(9)), "its axes"),
    "an axis of rows": (lambda file: replaced(file, "axes/0", np.ones((2, 4))), "in a row"),
    "never written": (never_written, "written to its end"),
    "enormous": (enormous, "written to its end"),
    "a link": (linked, "a link"),
    "numbers outside": (outside, "in other files"),
    "virtual": (virtual, "in other files"),
    "a scalar": (lambda file: replaced(file, "residuals", 1.0), "residuals of shape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_or_hostile_file_is_refused(tmp_path, name):
    change, words = HOSTILE[name]
    write_samples(tmp_path / "s.h5", on_grid())
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        change(file)
    with pytest.raises(InputError, match=words) as caught:
        read_samples(tmp_path / "s.h5")
    assert str(tmp_path / "s.h5") in str(caught.value)
    assert isinstance(caught.value, FormatError | ShapeError)


def test_cells_of_points_that_are_not_there_are_refused(tmp_path):
    write_samples(tmp_path / "s.h5", replace(on_mesh(), cells=np.array([[0, 1, 4]])))
    with pytest.raises(FormatError, match="0 to 3"):
        read_samples(tmp_path / "s.h5")


def test_nan_in_a_file_is_told_with_its_name(tmp_path):
    write_samples(tmp_path / "s.h5", on_grid())
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["outputs"][2, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"s\.h5: outputs hold NaN"):
        read_samples(tmp_path / "s.h5")


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"no HDF5 at all", "signature")])
def test_what_is_no_hdf5_is_refused(tmp_path, content, words):
    (tmp_path / "s.h5").write_bytes(content)
    with pytest.raises(FormatError, match=words):
        read_samples(tmp_path / "s.h5")


def test_every_cut_and_every_flipped_byte_ends_in_an_answer(tmp_path):
    write_samples(tmp_path / "s.h5", on_grid())
    whole = (tmp_path / "s.h5").read_bytes()
    for trial in range(120):
        bad = bytearray(whole)
        if trial % 3:
            bad[rng.integers(len(bad) if trial % 2 else 2048)] ^= int(rng.integers(1, 256))
        else:
            bad = bad[: rng.integers(1, len(bad))]
        (tmp_path / "bad.h5").write_bytes(bad)
        try:
            read_samples(tmp_path / "bad.h5")
        except InputError as error:
            assert "bad.h5" in str(error)  # noqa: PT017


FULL = """
import resource, sys, numpy as np
from neuralsolve.data import Layout, Samples, write_samples
u = np.random.default_rng(9).standard_normal((64, 1, 64, 64))
data = Samples(u, u, Layout((np.arange(64) / 64,) * 2))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_samples(sys.argv[1], data, overwrite=True)
except OSError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_told_and_leaves_the_older_file(tmp_path):
    path = tmp_path / "s.h5"
    samples = on_grid()
    write_samples(path, samples)
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert "cannot be written (File too large" in done.stdout, done.stderr[-2000:]
    assert done.returncode == 0
    same(read_samples(path), samples)
    assert [each.name for each in tmp_path.iterdir()] == ["s.h5"]
