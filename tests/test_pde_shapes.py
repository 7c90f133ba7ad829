"""Obstacles: volumes and symmetries that are known, the scan where its folder is, clear refusals."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch

from neuralsolve.errors import FormatError, OptionError
from neuralsolve.pde.shapes import BUNNY, obstacle


@pytest.mark.parametrize(("name", "share"), [("sphere", math.pi / 4), ("box", 1.0)])
def test_area_of_disc_and_square(name, share):
    n = 200
    solid = obstacle(name, (n, n), center=(0.4, 0.6), size=0.5)
    perimeter_cells = 4 * 0.5 * n  # cells that the outline may cut, one wide
    assert abs(float(solid.sum()) - share * (0.5 * n) ** 2) <= perimeter_cells


def test_volume_of_ball_and_middle_of_mass():
    n = 48
    solid = obstacle("sphere", (n, n, n), center=(0.5, 0.375, 0.625), size=0.5)
    surface_cells = math.pi * (0.5 * n) ** 2
    assert abs(float(solid.sum()) - math.pi / 6 * (0.5 * n) ** 3) <= surface_cells
    middle = (solid.nonzero().double() + 0.5).mean(0) / n
    assert torch.allclose(middle, torch.tensor([0.5, 0.375, 0.625], dtype=torch.float64), atol=0.5 / n)


@pytest.mark.parametrize("shape", [(256, 256), (72, 72, 72)])
def test_the_bunny_stands_upright_in_one_piece(shape):
    center = (0.5,) * len(shape)
    solid = obstacle("bunny", shape, center=center, size=0.6, source="analytic")
    count = scipy.ndimage.label(solid.numpy())[1]
    assert count == 1
    assert scipy.ndimage.label(~solid.numpy())[1] == 1  # no air locked up inside
    n = shape[-1]
    rows = solid.any(-1).any(0) if len(shape) == 3 else solid.any(-1)
    filled = rows.nonzero()
    assert abs(int(filled[0]) - 0.2 * n) <= 0.02 * n  # feet on the ground
    assert abs(int(filled[-1]) - 0.8 * n) <= 0.02 * n  # ears at the top
    width = (solid.any(0) if len(shape) == 3 else solid).sum(-1)
    assert width[int(0.3 * n)] > 3 * width[int(0.74 * n)]  # a body below two slender ears
    ears = (solid.any(0) if len(shape) == 3 else solid)[int(0.74 * n)].double().diff().gt(0).sum()
    assert ears == 2


def test_the_flat_bunny_is_the_silhouette_of_the_solid_one():
    n = 56
    solid = obstacle("bunny", (n, n, n), center=(0.5, 0.5, 0.5), size=0.8, source="analytic")
    flat = obstacle("bunny", (n, n), center=(0.5, 0.5), size=0.8, source="analytic")
    shadow = solid.any(0)
    assert not bool((shadow & ~flat).any())
    assert float((flat & ~shadow).sum()) <= 0.05 * float(flat.sum())  # off-plane ellipsoids miss cell centres


def test_the_bunny_table_is_symmetric_in_depth_but_for_the_ears():
    others = {row for row in BUNNY if row[1] < 0.7}
    assert {(x, y, -z, *rest) for x, y, z, *rest in others} == others


@pytest.mark.skipif(not os.environ.get("NEURALSOLVE_DATA"), reason="NEURALSOLVE_DATA names no folder")
@pytest.mark.parametrize("shape", [(128, 128), (48, 48, 48)])
def test_the_scanned_bunny_stands_upright_without_shafts(shape):
    solid = obstacle("bunny", shape, center=(0.5,) * len(shape), size=0.6, source="data")
    n = shape[-1]
    rows = solid.any(-1).any(0) if len(shape) == 3 else solid.any(-1)
    filled = rows.nonzero()
    assert abs(int(filled[0]) - 0.2 * n) <= 0.03 * n
    assert abs(int(filled[-1]) - 0.8 * n) <= 0.03 * n
    width = solid.sum(dim=tuple(a for a in range(solid.ndim) if a != solid.ndim - 2))
    assert width[int(0.3 * n)] > 1.5 * width[int(0.76 * n)]
    assert scipy.ndimage.label(~solid.numpy())[1] == 1


def write_masks(folder: Path, **arrays):
    (folder / "meshes").mkdir()
    np.savez(folder / "meshes" / "obstacle_masks.npz", **arrays)


def test_auto_takes_the_file_where_it_is_there(tmp_path, monkeypatch):
    mask = np.zeros((192, 192), bool)
    mask[50:150, 40:80] = True  # stored (x, y): a lying bar, 100 wide and 40 tall
    write_masks(tmp_path, bunny_silhouette=np.packbits(mask))
    monkeypatch.setenv("NEURALSOLVE_DATA", str(tmp_path))
    solid = obstacle("bunny", (100, 100), center=(0.5, 0.5), size=0.2)
    rows, columns = solid.any(1).nonzero(), solid.any(0).nonzero()
    assert (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])) == (40, 59, 25, 74)
    monkeypatch.delenv("NEURALSOLVE_DATA")
    ears = obstacle("bunny", (100, 100), center=(0.5, 0.5), size=0.2)
    assert not torch.equal(ears, solid)


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.zeros(3, np.uint8)},
        {"bunny_silhouette": np.zeros(10, np.uint8)},
        {"bunny_silhouette": np.zeros(4608)},
        {"bunny_silhouette": np.zeros(4608, np.uint8)},
    ],
)
def test_a_wrong_mask_file_is_refused(tmp_path, monkeypatch, arrays):
    write_masks(tmp_path, **arrays)
    monkeypatch.setenv("NEURALSOLVE_DATA", str(tmp_path))
    with pytest.raises(FormatError, match="bunny_silhouette"):
        obstacle("bunny", (32, 32), center=(0.5, 0.5), size=0.5)


def test_objects_in_the_file_are_never_unpickled(tmp_path, monkeypatch):
    write_masks(tmp_path, bunny_silhouette=np.array([{"a": 1}], dtype=object))
    monkeypatch.setenv("NEURALSOLVE_DATA", str(tmp_path))
    with pytest.raises(FormatError):
        obstacle("bunny", (32, 32), center=(0.5, 0.5), size=0.5)


def test_a_truncated_file_is_refused(tmp_path, monkeypatch):
    write_masks(tmp_path, bunny_silhouette=np.zeros(4608, np.uint8))
    path = tmp_path / "meshes" / "obstacle_masks.npz"
    path.write_bytes(path.read_bytes()[:80])
    monkeypatch.setenv("NEURALSOLVE_DATA", str(tmp_path))
    with pytest.raises(FormatError):
        obstacle("bunny", (32, 32), center=(0.5, 0.5), size=0.5)


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(OptionError, match="did you mean 'bunny'"):
        obstacle("buny", (8, 8), center=(0.5, 0.5), size=0.5)
    with pytest.raises(OptionError, match="did you mean 'data'"):
        obstacle("bunny", (8, 8), center=(0.5, 0.5), size=0.5, source="date")
    monkeypatch.delenv("NEURALSOLVE_DATA", raising=False)
    with pytest.raises(OptionError, match="NEURALSOLVE_DATA"):
        obstacle("bunny", (8, 8), center=(0.5, 0.5), size=0.5, source="data")


def test_no_obstacle_is_no_obstacle():
    assert not obstacle("none", (5, 6, 7), center=(0.5, 0.5, 0.5), size=0.5).any()
