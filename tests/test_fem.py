"""Finite elements on meshes: exactness on linear functions, order of accuracy, and real meshes."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import spsolve

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError
from neuralsolve.fem import poisson
from neuralsolve.io import Mesh, grid_mesh, read_mesh
from neuralsolve.io.mesh import boundary_nodes

EPS = np.finfo(float).eps
rng = np.random.default_rng(2903)


def box_mesh(kind, sides):
    """A unit square or cube in cells of the kind; inner points moved, so that nothing is aligned."""
    sides = (sides, sides) if kind in ("triangle", "quad") else (sides,) * 3
    mesh = grid_mesh(sides, [1 / side for side in sides], np.ones(np.prod(sides), dtype=bool))
    cells = mesh.cells
    if kind == "triangle":
        cells = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 3, 2]]])  # the second half is clockwise
    elif kind == "tetra":
        paths = [(0, 1, 2, 6), (0, 1, 5, 6), (0, 3, 2, 6), (0, 3, 7, 6), (0, 4, 5, 6), (0, 4, 7, 6)]
        cells = np.concatenate([cells[:, path] for path in paths])
    points = mesh.points.copy()
    if kind != "hexahedron":
        inner = np.all((points > 0) & (points < 1), axis=1)
        points[inner] += 0.2 / sides[0] * (rng.random((inner.sum(), points.shape[1])) - 0.5)
    return Mesh(points, cells, kind, {"boundary": boundary_nodes(cells, kind)})


def solved(system):
    return system.expand(spsolve(system.A.tocsc(), system.b))


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])
def test_linear_functions_are_solved_exactly(kind):
    mesh = box_mesh(kind, 4)
    exact = 1 + mesh.points @ np.array([2.0, -3.0, 0.5])[: mesh.points.shape[1]]
    held = {f"point {i}": [i] for i in mesh.groups["boundary"]}
    mesh = Mesh(mesh.points, mesh.cells, kind, {name: np.array(nodes) for name, nodes in held.items()})
    values = {name: exact[nodes[0]] for name, nodes in held.items()}
    system = poisson(mesh, values, source=0.0)
    condition = np.linalg.cond(system.A.toarray())
    assert abs(solved(system) - exact).max() <= 10 * EPS * condition * abs(exact).max()


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])
def test_mass_is_the_volume_and_constants_are_the_null_space(kind):
    system = poisson(box_mesh(kind, 3), {}, source=1.0)
    n = len(system.free)
    assert abs(system.mass.sum() - 1) <= n * EPS
    assert abs(system.b.sum() - 1) <= n * EPS
    assert abs(system.A @ np.ones(n)).max() <= 100 * EPS * abs(system.A).max()


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_errors_fall_with_the_square_of_the_cell_size(kind):
    # -lap u = 2 pi^2 sin(pi x) sin(pi y) on the unit square, u = 0 around
    errors = []
    for sides in (8, 16, 32):
        mesh = box_mesh(kind, sides)
        exact = np.sin(np.pi * mesh.points[:, 0]) * np.sin(np.pi * mesh.points[:, 1])
        system = poisson(mesh, {"boundary": 0.0}, source=2 * np.pi**2 * exact)
        errors.append(np.sqrt(system.mass @ (solved(system) - exact) ** 2))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (abs(orders - 2) < 0.2).all()


def test_a_shift_makes_the_neumann_problem_definite_with_the_known_constant():
    system = poisson(box_mesh("triangle", 5), {}, source=3.0, shift=0.5)
    assert abs(solved(system) - 6).max() <= 1e-12
    assert np.linalg.eigvalsh(system.A.toarray()).min() > 0


def test_later_groups_win_at_shared_points():
    mesh = box_mesh("quad", 2)
    left, low = np.flatnonzero(mesh.points[:, 0] == 0), np.flatnonzero(mesh.points[:, 1] == 0)
    mesh = Mesh(mesh.points, mesh.cells, "quad", {"left": left, "low": low})
    u = poisson(mesh, {"left": 1.0, "low": 2.0}).values
    assert u[np.intersect1d(left, low)] == 2.0
    u = poisson(mesh, {"low": 2.0, "left": 1.0}).values
    assert u[np.intersect1d(left, low)] == 1.0


def test_the_sphere_has_the_eigenvalue_two_three_times():
    # Laplace-Beltrami on the unit sphere: eigenvalues l (l + 1), 2 l + 1 times; linear elements: O(h^2) above
    mesh = icosphere(3)
    system = poisson(mesh, {})
    scale = scipy.sparse.diags_array(system.mass**-0.5)
    eigenvalues = np.linalg.eigvalsh((scale @ system.A @ scale).toarray())
    h = np.linalg.norm(mesh.points[mesh.cells[0, 0]] - mesh.points[mesh.cells[0, 1]])
    assert abs(eigenvalues[0]) <= 1e-12 * eigenvalues[-1]
    assert abs(eigenvalues[1:4] - 2).max() <= h**2
    assert abs(eigenvalues[4:9] - 6).max() <= 6 * h**2
    assert abs(system.mass.sum() - 4 * np.pi) <= 4 * np.pi * h**2


def icosphere(refinements):
    golden = (1 + 5**0.5) / 2
    points = [(0, a, b) for a in (-1, 1) for b in (-golden, golden)]
    points = np.array([p[-k:] + p[:-k] for p in points for k in range(3)], dtype=float)
    from scipy.spatial import ConvexHull

    for _ in range(refinements + 1):
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        cells = ConvexHull(points).simplices.astype(np.int64)
        edges = np.unique(np.sort(cells[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
        points = np.concatenate([points, points[edges].mean(axis=1)])
    return Mesh(points[: len(points) - len(edges)], cells, "triangle", {})


def test_wrong_input_is_named():
    mesh = box_mesh("triangle", 2)
    with pytest.raises(OptionError, match="did you mean 'boundary'"):
        poisson(mesh, {"boundry": 0.0})
    with pytest.raises(ShapeError, match=r"\(9,\) is needed"):
        poisson(mesh, {}, source=np.ones(4))
    with pytest.raises(NonFiniteError, match="finite"):
        poisson(mesh, {"boundary": np.nan})
    with pytest.raises(OptionError, match="coefficient > 0"):
        poisson(mesh, {}, coefficient=0.0)
    everything = Mesh(mesh.points, mesh.cells, "triangle", {"all": np.arange(9)})
    with pytest.raises(ShapeError, match="leave some of them free"):
        poisson(everything, {"all": 0.0})
    system = poisson(mesh, {"boundary": 0.0})
    with pytest.raises(ShapeError, match="1 free points"):
        system.expand(np.ones(9))


@pytest.mark.parametrize("dimension", [2, 3])
def test_cells_without_area_are_refused(dimension):
    points = np.array([[0.0, 0, 0], [1, 0, 1], [2, 0, 2], [0, 1, 0]])[:, :dimension]
    with pytest.raises(StructureError, match="without area"):
        poisson(Mesh(points, np.array([[0, 1, 2], [0, 1, 3]]), "triangle", {}))


def test_without_scikit_fem_the_message_says_what_to_install():
    code = (
        "import sys; sys.modules['skfem'] = None\n"
        "import numpy as np\n"
        "from neuralsolve.fem import poisson\nfrom neuralsolve.io import grid_mesh\n"
        "poisson(grid_mesh((2, 2), (1, 1), np.ones(4, bool)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'neuralsolve[fem]'" in run.stderr


def test_the_holed_square_reproduces_the_stored_solutions(data):
    # -0.1 lap u = 1, u = 0 on outer wall and hole; stored in float32 by another code, so 1e-6 of the maximum
    import torch

    stored_set = torch.load(data / "poisson_holed" / "holed_poisson.pt", weights_only=True)
    cells = stored_set["triang"].numpy()
    for column in (3, 60, 117):
        points = np.stack([stored_set[axis][:, column].double().numpy() for axis in "xy"], axis=1)
        mesh = Mesh(points, cells, "triangle", {"boundary": boundary_nodes(cells, "triangle")})
        u = solved(poisson(mesh, {"boundary": 0.0}, source=1.0, coefficient=0.1))
        stored = stored_set["u"][:, column].double().numpy()
        assert abs(u - stored).max() <= 1e-6 * abs(stored).max()


def test_the_bunny_laplacian_is_the_published_one(data):
    system = poisson(read_mesh(data / "meshes" / "stanford-bunny.obj"), {})
    stored = scipy.sparse.load_npz(data / "matrices" / "bunny35k_cotan_laplacian.npz")
    assert abs(system.A - stored).max() <= 1e-12 * abs(stored).max()
    lumped = np.load(data / "matrices" / "bunny35k_lumped_mass.npy")
    assert abs(system.mass - lumped).max() <= 1e-12 * lumped.max()


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("skfem_backward-facing_step.json", {"inlet": 1.0, "floor": 0.0}),
        ("skfem_annulus.msh", {"exter": 0.0, "inter": 1.0}),
        ("mfem_square-disc.vtk", {"boundary": 0.0}),
        ("skfem_box.msh", {"front": 0.0, "back": 1.0}),
        ("skfem_disk.json", {"perimeter": 0.0}),
        ("mfem_periodic-torus-sector.msh", {"1": 0.0, "2": 1.0}),
        ("trimesh_plate_holes.STL", {}),
    ],
)
def test_on_real_meshes_the_solution_has_the_least_energy(name, held, data):
    """The solution of the discrete problem minimises the energy among all that share its held values."""
    mesh = read_mesh(data / "meshes" / name)
    system = poisson(mesh, held, source=0.0, shift=0.0 if held else 1.0)
    u = solved(system)
    assert np.isfinite(u).all()
    whole = poisson(mesh, {}, source=0.0, shift=0.0 if held else 1.0)
    energy = u @ (whole.A @ u)
    for _ in range(3):
        other = u.copy()
        other[system.free] += 1e-3 * rng.standard_normal(len(system.free))
        assert other @ (whole.A @ other) > energy
    for group in held:  # a later group holds the points that two share
        assert np.isin(u[mesh.groups[group]], list(held.values())).all()


def test_the_annulus_has_its_logarithm(data):
    # between radii 0.1 and 0.5 with 1 inside and 0 outside: u = log(r / 0.5) / log(0.2); only 60 points
    mesh = read_mesh(data / "meshes" / "skfem_annulus.msh")
    u = solved(poisson(mesh, {"exter": 0.0, "inter": 1.0}, source=0.0))
    radius = np.linalg.norm(mesh.points, axis=1)
    assert abs(u - np.log(radius / 0.5) / np.log(0.2)).max() < 0.05
