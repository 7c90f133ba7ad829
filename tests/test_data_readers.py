"""Readers of the formats of others: what each is known to hold, the real files, and hostile ones."""

import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from neuralsolve.data import Layout, Samples, read_data, read_samples, write_samples
from neuralsolve.errors import FormatError, InputError, NonFiniteError, OptionError, ShapeError

rng = np.random.default_rng(6203)


def normal(*shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def saved(path, **tensors):
    torch.save({name: torch.as_tensor(each) for name, each in tensors.items()}, path)
    return path


# .pt


def test_pt_of_fields_on_a_grid_has_one_channel_and_nodes_at_i_by_n(tmp_path):
    x, y = normal(5, 8, 6) > 0, normal(5, 8, 6)
    data = read_data(saved(tmp_path / "d.pt", x=x, y=y))
    assert data.inputs.dtype == np.float32
    assert np.array_equal(data.inputs[:, 0], x)
    assert np.array_equal(data.outputs[:, 0], y)
    assert np.array_equal(data.layout.axes[0], np.arange(8) / 8)
    assert "i/n" in data.layout.origin["axes"]


def test_pt_with_times_in_the_middle_gives_frames_as_channels(tmp_path):
    y = normal(4, 7, 16, dtype=np.float64)
    path = saved(tmp_path / "d.pt", x=y[:, 0], y=y, visc=np.array([[0.01]]))
    data = read_data(path)
    assert data.inputs.shape == (4, 1, 16)
    assert np.array_equal(data.outputs, y)
    assert data.layout.outputs[3] == "y[3]"
    assert data.layout.origin["visc"] == 0.01
    some = read_data(path, frames=(2, 3))
    assert np.array_equal(some.inputs, y[:, :2])
    assert np.array_equal(some.outputs, y[:, 2:5])


def test_pt_with_channels_keeps_them(tmp_path):
    x, y = normal(4, 3, 8, 8), normal(4, 2, 8, 8)
    data = read_data(saved(tmp_path / "d.pt", x=x, y=y))
    assert np.array_equal(data.inputs, x)
    assert np.array_equal(data.outputs, y)
    assert data.layout.inputs == ("x[0]", "x[1]", "x[2]")


def test_views_do_not_keep_their_buffer_alive(tmp_path):
    whole = torch.randn(1000, 8, generator=torch.Generator().manual_seed(31))
    torch.save({"x": whole[:3], "y": whole[3:6]}, tmp_path / "d.pt")
    data = read_data(tmp_path / "d.pt")
    assert data.inputs.base is None or data.inputs.base.nbytes == data.inputs.nbytes
    assert np.array_equal(data.inputs[:, 0], whole[:3].numpy())


def test_other_keys_are_chosen_by_name(tmp_path):
    a, b = normal(4, 8), normal(4, 8)
    path = saved(tmp_path / "d.pt", start=a, end=b)
    assert np.array_equal(read_data(path, input="start", output="end").outputs[:, 0], b)
    with pytest.raises(FormatError, match=r"d\.pt: found start \(4, 8\), end \(4, 8\).*input= and output="):
        read_data(path)
    with pytest.raises(FormatError, match="no 'begin' among"):
        read_data(path, input="begin", output="end")


def triangles(tmp_path):
    x, y = normal(4, 3), normal(4, 3)
    return saved(tmp_path / "m.pt", x=x, y=y, u=x + y, triang=[[0, 1, 2], [3, 1, 2]], mu=normal(3, 2)), x, y


def area(points, cells):
    (ax, ay), (bx, by), (cx, cy) = (points[cells[:, k]].T for k in range(3))
    return ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) / 2


def test_pt_of_triangles_has_points_per_sample_and_turns_clockwise_ones(tmp_path):
    path, x, y = triangles(tmp_path)
    data = read_data(path)
    assert data.points.shape == (3, 4, 2)
    assert np.array_equal(data.inputs, np.stack([x.T, y.T], 1))
    assert np.array_equal(data.outputs[:, 0], (x + y).T)
    assert data.codes.shape == (3, 2)
    assert (area(data.points[0], data.cells) > 0).all()


# .mat


def test_mat_of_darcy_has_walls_and_both_ends(tmp_path):
    coeff, sol = normal(3, 9, 9, dtype=float), normal(3, 9, 9, dtype=float)
    scipy.io.savemat(tmp_path / "d.mat", {"coeff": coeff, "sol": sol, "Kcoeff": sol}, do_compression=True)
    data = read_data(tmp_path / "d.mat")
    assert np.array_equal(data.inputs[:, 0], coeff)
    assert np.array_equal(data.outputs[:, 0], sol)
    assert data.layout.axes[0][-1] == 1
    assert data.layout.boundary == ("dirichlet", "dirichlet")


def v73(path, **arrays):
    """Write arrays as MATLAB's v7.3 does: a user block of 512 bytes, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, each in arrays.items():
            file[name] = np.asarray(each).transpose()
        file.create_group("#refs#")
    with path.open("rb+") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def test_mat_of_level_5_and_of_hdf5_are_the_same(tmp_path):
    a, u = normal(3, 16, dtype=float), normal(3, 16, dtype=float)
    scipy.io.savemat(tmp_path / "5.mat", {"a": a, "u": u})
    one, other = read_data(tmp_path / "5.mat"), read_data(v73(tmp_path / "73.mat", a=a, u=u))
    for data in (one, other):
        assert np.array_equal(data.inputs[:, 0], a)
        assert np.array_equal(data.outputs[:, 0], u)
        assert data.layout.boundary == ("periodic",)
        assert data.layout.axes[0][-1] == 15 / 16


@pytest.mark.parametrize("write", [lambda path, **arrays: scipy.io.savemat(path, arrays), v73])
def test_mat_of_navier_stokes_has_times_last(tmp_path, write):
    u = normal(3, 8, 8, 6, dtype=float)
    write(tmp_path / "u.mat", u=u)
    data = read_data(tmp_path / "u.mat", frames=(2, 4))
    assert np.array_equal(data.inputs, np.moveaxis(u, -1, 1)[:, :2])
    assert np.array_equal(data.outputs, np.moveaxis(u, -1, 1)[:, 2:])
    assert read_data(tmp_path / "u.mat").outputs.shape == (3, 5, 8, 8)  # the first frame, all later ones
    write(tmp_path / "au.mat", a=u[..., 0] / 2, u=u)
    both = read_data(tmp_path / "au.mat")
    assert np.array_equal(both.inputs[:, 0], u[..., 0] / 2)
    assert both.outputs.shape == (3, 6, 8, 8)
    assert both.layout.outputs[5] == "u[5]"
    assert np.array_equal(read_data(tmp_path / "au.mat", frames=(0, 2)).inputs, both.inputs)
    with pytest.raises(OptionError, match="holds 6 frames"):
        read_data(tmp_path / "au.mat", frames=(4, 3))


def test_mat_with_other_variables_names_them(tmp_path):
    scipy.io.savemat(tmp_path / "d.mat", {"input": normal(3, 8), "target": normal(3, 8)})
    with pytest.raises(FormatError, match=r"variables input, target.*input="):
        read_data(tmp_path / "d.mat")
    assert read_data(tmp_path / "d.mat", input="input", output="target").shape == (8,)
    with pytest.raises(FormatError, match="no 'inputs'"):
        read_data(tmp_path / "d.mat", input="inputs", output="target")


# .npy of Geo-FNO


def clouds(tmp_path, n=3):
    xy, sigma, rr = normal(10, 2, n), normal(10, n), normal(42, n)
    for name, each in {"XY": xy, "sigma": sigma, "rr": rr}.items():
        np.save(tmp_path / f"Random_UnitCell_{name}_10.npy", each)
    return xy, sigma, rr


@pytest.mark.parametrize("given", [("XY",), ("sigma",), ("rr", "sigma", "XY")])
def test_point_clouds_of_geo_fno(tmp_path, given):
    xy, sigma, rr = clouds(tmp_path)
    data = read_data(*(tmp_path / f"Random_UnitCell_{name}_10.npy" for name in given))
    assert np.array_equal(data.points, np.moveaxis(xy, -1, 0))
    assert np.array_equal(data.inputs, data.points.transpose(0, 2, 1))
    assert np.array_equal(data.outputs[:, 0], sigma.T)
    assert np.array_equal(data.codes, rr.T)


@pytest.mark.parametrize("stem", ["NACA_Cylinder", "Pipe"])
def test_structured_meshes_of_geo_fno(tmp_path, stem):
    x, y, q = normal(4, 9, 5), normal(4, 9, 5), normal(3, 5, 9, 5)
    for name, each in {"X": x, "Y": y, "Q": q}.items():
        np.save(tmp_path / f"{stem}_{name}.npy", each)
    data = read_data(tmp_path / f"{stem}_X.npy", output="q4")
    assert np.array_equal(data.inputs, np.stack([x, y], 1)[:3])
    assert np.array_equal(data.outputs, q[:, 4:])
    assert data.layout.axes[0][-1] == 1
    with pytest.raises(OptionError, match="q5"):
        read_data(tmp_path / f"{stem}_Q.npy", output="q5")


def test_two_npy_files_are_input_and_output(tmp_path):
    np.save(tmp_path / "a.npy", normal(4, 8, 8))
    np.save(tmp_path / "b.npy", normal(4, 8, 8))
    data = read_data(tmp_path / "a.npy", tmp_path / "b.npy")
    assert data.layout.inputs == ("a",)
    with pytest.raises(FormatError, match="inputs first"):
        read_data(tmp_path / "a.npy")
    np.save(tmp_path / "c.npy", normal(5, 8, 8))
    with pytest.raises(ShapeError, match="moveaxis"):
        read_data(tmp_path / "a.npy", tmp_path / "c.npy")


def test_different_grids_channels_last_and_too_many_axes_are_told(tmp_path):
    def read(x, y):
        np.savez(tmp_path / "d.npz", x=x, y=y)
        return read_data(tmp_path / "d.npz")

    with pytest.raises(ShapeError, match="x is on 17 x 23 nodes, y on 9 x 12"):
        read(normal(10, 17, 23), normal(10, 9, 12))
    sizes = ((10, 17, 23, 1), (10, 17, 23, 2)), ((10, 17, 23, 3), (10, 17, 23)), ((10, 17, 23, 1),) * 2
    for x, y in sizes:
        with pytest.raises(ShapeError, match=r"channels come second, numpy\.moveaxis\(a, -1, 1\)"):
            read(normal(*x), normal(*y))
    with pytest.raises(ShapeError, match="grid of 3 x 4 x 5 x 6 nodes; one to three axes"):
        read(normal(2, 3, 4, 5, 6), normal(2, 3, 4, 5, 6))


def test_wrong_axes_of_clouds_are_told(tmp_path):
    xy, _, _ = clouds(tmp_path)
    np.save(tmp_path / "Random_UnitCell_XY_10.npy", np.moveaxis(xy, -1, 0))
    with pytest.raises(ShapeError, match=r"XY \(3, 10, 2\).*expected XY \(points, 2, n\)"):
        read_data(tmp_path / "Random_UnitCell_XY_10.npy")


# PDEBench


def hdf5(path, attributes=(), **arrays):
    with h5py.File(path, "w") as file:
        for name, each in arrays.items():
            file[name.replace("__", "/").replace("_", "-", "coordinate" in name)] = each
        file.attrs.update(dict(attributes))
    return path


def test_pdebench_darcy(tmp_path):
    nu, tensor, axis = normal(3, 8, 8), normal(3, 1, 8, 8), (np.arange(8) + 0.5) / 8
    arrays = {"nu": nu, "tensor": tensor, "x_coordinate": axis, "y_coordinate": axis}
    data = read_data(hdf5(tmp_path / "d.hdf5", {"beta": 1.0}, **arrays), which=slice(1, 3))
    assert np.array_equal(data.inputs[:, 0], nu[1:])
    assert np.array_equal(data.outputs, tensor[1:])
    assert np.array_equal(data.layout.axes[1], axis)
    assert data.layout.origin["parameters"] == {"beta": 1.0}


def test_pdebench_in_one_dimension(tmp_path):
    tensor = normal(3, 5, 16)
    arrays = {"tensor": tensor, "x_coordinate": np.arange(16) / 16, "t_coordinate": np.arange(6) / 5}
    path = hdf5(tmp_path / "d.hdf5", **arrays)
    assert np.array_equal(read_data(path).outputs, tensor[:, 1:])
    assert np.array_equal(read_data(path, frames=(2, 2)).outputs, tensor[:, 2:4])
    with pytest.raises(ShapeError, match="15"):
        read_data(hdf5(tmp_path / "e.h5", tensor=tensor, x_coordinate=np.arange(15)))


def test_pdebench_flow_has_fields_side_by_side(tmp_path):
    fields = {name: normal(2, 4, 8, 6) for name in ("density", "pressure", "Vx", "Vy")}
    path = hdf5(tmp_path / "d.hdf5", **fields)
    data = read_data(path, frames=(2, 1))
    assert data.layout.inputs[:5] == ("density[0]", "pressure[0]", "Vx[0]", "Vy[0]", "density[1]")
    assert np.array_equal(data.inputs[:, 6], fields["Vx"][:, 1])
    assert np.array_equal(data.outputs[:, 3], fields["Vy"][:, 2])
    some = read_data(path, input="density", output="pressure", frames=(1, 2))
    assert some.layout.inputs == ("density[0]",)
    assert some.layout.outputs == ("pressure[1]", "pressure[2]")


def test_pdebench_with_a_group_per_sample(tmp_path):
    blocks = normal(3, 4, 8, 6, 2)
    arrays = {f"{k:04d}__data": blocks[k] for k in range(3)}
    arrays |= {
        "0000__grid__x": np.arange(8) / 8,
        "0000__grid__y": np.arange(6) / 6,
        "0000__grid__t": np.arange(4),
    }
    path = hdf5(tmp_path / "d.h5", **arrays)
    data = read_data(path)
    assert data.layout.inputs == ("data[0][0]", "data[1][0]")
    assert np.array_equal(data.inputs, np.moveaxis(blocks[:, 0], -1, 1))
    assert data.outputs.shape == (3, 6, 8, 6)
    assert np.array_equal(data.layout.axes[0], np.arange(8) / 8)
    hdf5(path, **(arrays | {"0001__data": blocks[1, :3]}))
    with pytest.raises(ShapeError, match="0001/data"):
        read_data(path)


# The Well


def well(path, change=None):
    fields = {
        "t0_fields/pressure": (normal(3, 5, 8, 6), {}),
        "t0_fields/depth": (normal(8, 6), {"sample_varying": False, "time_varying": False}),
        "t0_fields/profile": (normal(3, 5, 8), {"dim_varying": [True, False]}),
        "t1_fields/velocity": (normal(3, 5, 8, 6, 2), {}),
        "t2_fields/stress": (normal(3, 5, 8, 6, 2, 2), {}),
    }
    with h5py.File(path, "w") as file:
        file.attrs.update({"n_trajectories": 3, "n_spatial_dims": 2, "dataset_name": "invented"})
        file.create_group("dimensions").attrs["spatial_dims"] = ["x", "y"]
        file["dimensions/x"], file["dimensions/y"] = np.arange(8.0), np.arange(6.0)
        file["dimensions/time"] = np.arange(5.0)
        for name, (values, flags) in fields.items():
            file[name] = values
            known = {"sample_varying": True, "time_varying": True, "dim_varying": [True, True]}
            file[name].attrs.update(known | flags)
        for name, kind in {"x": "PERIODIC", "y": "WALL"}.items():
            group = file.create_group(f"boundary_conditions/{name}_edge")
            group.attrs.update({"bc_type": kind, "associated_dims": [name]})
        file["scalars/Re"], file["scalars/gamma"] = np.array([1.0, 2.0, 3.0]), np.float32(1.5)
        file["scalars/Re"].attrs["sample_varying"] = True
        if change:
            change(file)
    return {name: values for name, (values, _) in fields.items()}


def test_the_well_gives_components_constants_codes_and_walls(tmp_path):
    fields = well(tmp_path / "w.hdf5")
    data = read_data(tmp_path / "w.hdf5", frames=(2, 2), which=slice(0, 2))
    names = [
        "pressure",
        "profile",
        "velocity_x",
        "velocity_y",
        "stress_xx",
        "stress_xy",
        "stress_yx",
        "stress_yy",
    ]
    assert data.layout.inputs == (
        "depth",
        *(f"{name}[{k}]" for k in range(2) for name in sorted(names[:2]) + names[2:]),
    )
    assert len(data.layout.outputs) == 2 * len(names)
    assert np.array_equal(data.inputs[1, 0], fields["t0_fields/depth"])
    assert np.array_equal(data.inputs[:, 3], fields["t1_fields/velocity"][:2, 0, ..., 0])
    profile = data.outputs[:, data.layout.outputs.index("profile[3]")]
    assert np.array_equal(profile, np.repeat(fields["t0_fields/profile"][:2, 3, :, None], 6, 2))
    assert data.layout.boundary == ("periodic", "wall")
    assert np.array_equal(data.codes, [[1.0], [2.0]])
    assert data.layout.origin["parameters"] == {"codes": ["Re"], "gamma": 1.5}


def test_fields_of_the_well_are_chosen_by_name(tmp_path):
    fields = well(tmp_path / "w.h5")
    data = read_data(tmp_path / "w.h5", input=["depth", "velocity"], output="pressure")
    assert data.layout.inputs == ("depth", "velocity_x[0]", "velocity_y[0]")
    assert np.array_equal(data.outputs, fields["t0_fields/pressure"][:, 1:])
    with pytest.raises(OptionError, match="did you mean 'pressure'"):
        read_data(tmp_path / "w.h5", output="presure")


WRONG = {
    "fewer samples": lambda file: file.attrs.__setitem__("n_trajectories", 4),
    "no count": lambda file: file.attrs.__delitem__("n_trajectories"),
    "enormous": lambda file: file.attrs.__setitem__("n_trajectories", 2**40),
    "no dimensions": lambda file: file["dimensions"].attrs.__delitem__("spatial_dims"),
    "other sides": lambda file: (
        file.pop("dimensions/y"),
        file.create_dataset("dimensions/y", data=np.ones(7)),
    ),
    "a dimension that is not there": lambda file: file.pop("dimensions/y"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_of_the_well_is_told(tmp_path, name):
    well(tmp_path / "w.h5", WRONG[name])
    with pytest.raises(InputError, match=r"w\.h5: found .*expected"):
        read_data(tmp_path / "w.h5")


# own arrays, and ours


def test_named_arrays_with_axes(tmp_path):
    u, axes = normal(4, 8, 6), (np.arange(8.0), np.linspace(2, 3, 6))
    np.savez(tmp_path / "d.npz", inputs=u, outputs=np.stack([u, 2 * u], 1), axis0=axes[0], axis1=axes[1])
    data = read_data(tmp_path / "d.npz")
    assert data.outputs.shape == (4, 2, 8, 6)
    assert np.array_equal(data.layout.axes[1], axes[1])
    other = read_data(hdf5(tmp_path / "d.h5", a=u, u=u), axes=axes, which=slice(2))
    assert other.inputs.shape == (2, 1, 8, 6)
    assert np.array_equal(other.layout.axes[1], axes[1])


def test_named_arrays_of_a_mesh(tmp_path):
    arrays = {"points": normal(4, 7, 2), "cells": [[0, 1, 2]], "codes": normal(4, 3), "residuals": np.ones(4)}
    np.savez(tmp_path / "m.npz", inputs=normal(4, 2, 7), outputs=normal(4, 7), **arrays)
    data = read_data(tmp_path / "m.npz", which=slice(0, 4, 3))
    assert data.points.shape == (2, 7, 2)
    assert data.inputs.shape == (2, 2, 7)
    assert data.outputs.shape == (2, 1, 7)
    assert data.codes.shape == (2, 3)


def test_whole_numbers_become_float32_and_double_stays(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((3, 8), int), y=np.ones((3, 8), ">f8"))
    data = read_data(tmp_path / "d.npz")
    assert data.inputs.dtype == np.float32
    assert data.outputs.dtype == np.dtype("f8")


def test_our_files_are_read_too(tmp_path):
    u = normal(4, 1, 8)
    write_samples(tmp_path / "d.h5", Samples(u, u, Layout((np.arange(8) / 8,))))
    assert np.array_equal(read_data(tmp_path / "d.h5", which=slice(2)).inputs, u[:2])
    with pytest.raises(OptionError, match="already"):
        read_data(tmp_path / "d.h5", input="u")


def test_bad_samples_are_told_or_left_out(tmp_path):
    x, y = normal(5, 8), normal(5, 8)
    x[1, 3], y[4, 0] = np.nan, np.inf
    path = saved(tmp_path / "d.pt", x=x, y=y)
    with pytest.raises(NonFiniteError, match=r"d\.pt: inputs hold NaN or infinity in 1 of 5.*--drop-bad"):
        read_data(path)
    data = read_data(path, drop_bad=True)
    assert np.array_equal(data.inputs[:, 0], x[[0, 2, 3]])
    assert data.layout.origin["left_out"] == {"count": 2, "numbers": [1, 4]}
    with pytest.raises(NonFiniteError, match="all 5"):
        read_data(saved(path, x=x * np.nan, y=y), drop_bad=True)


def test_one_sample_and_what_is_read_survives_our_format(tmp_path):
    data = read_data(saved(tmp_path / "d.pt", x=normal(1, 8, 8), y=normal(1, 8, 8)))
    write_samples(tmp_path / "d.h5", data)
    assert np.array_equal(read_samples(tmp_path / "d.h5").outputs, data.outputs)


# hostile


class Wicked:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_no_pickle_is_ever_loaded(tmp_path, capsys):
    torch.save({"x": Wicked(), "y": torch.ones(3)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"x": Wicked()}))
    np.save(tmp_path / "X.npy", np.array([Wicked(), Wicked()]))
    np.savez(tmp_path / "d.npz", x=np.array([Wicked()]), y=np.ones(1))
    for name in ("a.pt", "b.pt", "X.npy", "d.npz"):
        with pytest.raises(FormatError, match=name) as refused:
            read_data(tmp_path / name)
        assert "weights_only" not in str(refused.value)
    assert "never" not in capsys.readouterr().out


def test_a_tensor_that_repeats_one_number_is_refused(tmp_path):
    torch.save({"x": torch.ones(1).expand(10**6, 10**4), "y": torch.ones(1)}, tmp_path / "d.pt")
    with pytest.raises(FormatError, match="bytes"):
        read_data(tmp_path / "d.pt")


CONTENTS = {
    "empty": b"",
    "text": b"no data at all, but long enough to be taken for something" * 9,
    "zip": b"PK\x03\x04" + bytes(64),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "matlab": b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, 2**31),
}


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".pt", ".pth", ".mat", ".npy", ".npz"])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_such_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"d{suffix}"
    path.write_bytes(CONTENTS[content])
    with pytest.raises(FormatError, match=f"d{suffix}: found"):
        read_data(path)


def valid(tmp_path, kind):
    path = tmp_path / f"valid{kind}"
    x = normal(6, 8, 8)
    if kind == ".pt":
        return saved(path, x=x, y=x)
    if kind == ".mat":
        scipy.io.savemat(path, {"a": x, "u": x}, do_compression=True)
    elif kind == ".npz":
        np.savez_compressed(path, x=x, y=x)
    elif kind == ".hdf5":
        well(path)
    else:
        hdf5(path, x=x, y=x)
    return path


@pytest.mark.parametrize("kind", [".pt", ".mat", ".npz", ".hdf5", ".h5"])
def test_every_cut_and_every_flipped_byte_ends_in_an_answer(tmp_path, kind):
    whole = valid(tmp_path, kind).read_bytes()
    bad = tmp_path / f"bad{kind}"
    for trial in range(40):
        content = bytearray(whole)
        if trial % 2:
            content[rng.integers(len(content) if trial % 4 == 1 else 1024)] ^= int(rng.integers(1, 256))
        else:
            content = content[: rng.integers(1, len(content))]
        bad.write_bytes(content)
        try:
            read_data(bad)
        except InputError as error:
            assert bad.name in str(error)  # noqa: PT017


def test_a_name_that_tells_no_format_or_no_file_is_told(tmp_path):
    (tmp_path / "d.csv").write_text("1,2")
    with pytest.raises(FormatError, match=r"suffix '.csv'"):
        read_data(tmp_path / "d.csv")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'd\.csv'"):
        read_data(tmp_path / "d.cvs")


def test_a_zip_that_unpacks_to_gigabytes_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(2**20))
    with pytest.raises(FormatError, match="expected at most"):
        read_data(tmp_path / "d.npz")


# real


@pytest.mark.parametrize(
    ("name", "count", "side"), [("train_16", 1000, 16), ("test_16", 50, 16), ("test_32", 50, 32)]
)
def test_darcy_small(data, name, count, side):
    found = read_data(data / "darcy_small" / f"darcy_{name}.pt")
    assert found.inputs.shape == (count, 1, side, side)
    assert set(np.unique(found.inputs)) == {0, 1}
    assert found.layout.axes[0][-1] == 1 - 1 / side


def test_darcy_small_of_32_points_holds_that_of_16(data):
    fine, coarse = (read_data(data / "darcy_small" / f"darcy_test_{n}.pt") for n in (32, 16))
    half = fine.every(2)
    assert np.array_equal(half.inputs, coarse.inputs)
    assert np.array_equal(half.layout.axes[0], coarse.layout.axes[0])


def test_burgers_1d_small(data):
    found = read_data(data / "burgers_1d_small" / "burgers_test_16.pt")
    assert found.inputs.shape == (400, 1, 16)
    assert found.outputs.shape == (400, 17, 16)
    assert np.array_equal(found.inputs[:, 0], found.outputs[:, 0])
    assert found.layout.origin["visc"] == 0.01


def test_poisson_holed(data):
    found = read_data(data / "poisson_holed" / "holed_poisson.pt")
    assert found.points.shape == (121, 1352, 2)
    assert found.codes.shape == (121, 2)
    areas = np.array([area(points.astype(float), found.cells) for points in found.points])
    assert (areas > 0).all()  # in every geometry, though judged by the first
    assert np.allclose(areas.sum(1), 1 - 0.3**2, atol=1e-5)  # the square less its hole; float32 points


def test_real_files_survive_our_format(data, tmp_path):
    for path in (
        data / "burgers_1d_small" / "burgers_test_16.pt",
        data / "poisson_holed" / "holed_poisson.pt",
    ):
        found = read_data(path)
        write_samples(tmp_path / f"{path.stem}.h5", found)
        again = read_samples(tmp_path / f"{path.stem}.h5")
        assert np.array_equal(again.outputs, found.outputs)
        assert again.layout.origin == found.layout.origin
