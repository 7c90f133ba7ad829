"""Is this installation sound? What is there, and a self-test of about ten seconds.

Every self-test solves a small system whose answer is known and checks the true residual with SciPy's product
of the assembled matrix, so that a broken kernel cannot vouch for itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neuralsolve as ns
from neuralsolve.kernels import table, use

REQUIRED = ("torch", "numpy", "scipy", "numba", "pyamg", "meshio", "matplotlib", "pydantic", "typer", "rich")
OPTIONAL = {"scikit-fem": "pip install 'neuralsolve[fem]'", "petsc4py": "pip install 'neuralsolve[petsc]'"}
RTOL = 1e-8


@dataclass(frozen=True)
class Check:
    """The outcome of one self-test."""

    name: str
    passed: bool
    detail: str
    seconds: float


def installed() -> dict[str, str]:
    """Return the version of every library that the package uses; "missing" where there is none."""
    found = {}
    for name in ("neuralsolve", *REQUIRED, *OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def threads() -> dict[str, Any]:
    """Return how many cores there are and how many threads our kernels and torch use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    limits = {name: os.environ[name] for name in names if name in os.environ}
    return {"cores": available, "torch and kernels": torch.get_num_threads(), "limits": limits}


def kernels() -> dict[str, str]:
    """Return the kernel table: name -> which room serves it on the CPU."""
    with use("reference") as reference:
        names = sorted(reference.__all__)
    compiled = table("cpu")
    return {name: "numba" if hasattr(compiled, name) else "missing" for name in names}


def cache() -> dict[str, Any]:
    """Return where numba keeps compiled kernels, how many there are, and whether more can be stored."""
    here = Path(__file__).parent / "kernels" / "cpu"
    folder = Path(os.environ.get("NUMBA_CACHE_DIR", here / "__pycache__"))
    files = list(folder.rglob("*.nbc")) if folder.is_dir() else []
    return {
        "folder": str(folder),
        "kernels": len(files),
        "megabytes": round(sum(file.stat().st_size for file in files) / 2**20, 2),
        "writable": os.access(folder if folder.is_dir() else folder.parent, os.W_OK),
    }


def self_test() -> Iterator[Check]:
    """Run the self-tests one by one; none of them raises."""
    for name, test in TESTS.items():
        start = time.perf_counter()
        try:
            detail, passed = test(), True
        except Exception as error:  # a broken installation breaks in any way; the report must go on
            detail, passed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", False
        yield Check(name, passed, detail, time.perf_counter() - start)


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise RuntimeError(complaint)


def _solved(A: Any, matrix: Any, b: np.ndarray, method: Any = None, M: Any = None) -> np.ndarray:
    """Solve, and check the residual against `matrix` rather than against the operator itself."""
    result = ns.solve(A, b, method, M=M, rtol=RTOL)
    residual = np.linalg.norm(b - matrix @ result.x) / np.linalg.norm(b)
    _require(bool(residual <= 1.01 * RTOL), f"true residual {residual:.1e} where {RTOL:.0e} was claimed")
    return result.x


def _noise(n: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(n)


def _test_box() -> str:
    """Solve for an eigenvector of the Dirichlet box, whose eigenvalue is known."""
    n = 48
    A = ns.PoissonStencil(ns.Grid((n, n), walls="dirichlet"))
    wave = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))
    v, eigenvalue = np.outer(wave, wave).ravel(), 8 * np.sin(np.pi / (2 * (n + 1))) ** 2
    x = _solved(A, A.to_scipy(), v)
    error = abs(x * eigenvalue - v).max()
    _require(bool(error <= 1e-6), f"error {error:.1e}")
    return f"error {error:.1e}"


def _test_mask() -> str:
    """Solve in a closed box with an obstacle: singular, so b is made consistent."""
    cells = np.zeros((24, 24, 24), dtype=np.uint8)
    cells[8:14, 6:12, 9:15] = ns.SOLID
    A = ns.PoissonStencil(ns.Grid(cells, walls="neumann"))
    fluid = cells.ravel() == ns.FLUID
    b = np.where(fluid, _noise(cells.size), 0.0)
    b[fluid] -= b[fluid].mean()
    x = _solved(A, A.to_scipy(), b, ns.CG(), ns.IncompleteCholesky(modified=0.97))
    _require(bool(abs(x[fluid].mean()) <= 1e-10 * abs(x).max()), "the mean is not zero")
    return f"{fluid.sum()} fluid cells, zero mean"


def _test_amg() -> str:
    import scipy.sparse as sp

    weights = np.exp(_noise(2 * 2500))
    along = sp.csr_array(np.diff(np.eye(50), axis=0))
    gradient: Any = sp.vstack([sp.kron(along, sp.eye_array(50)), sp.kron(sp.eye_array(50), along)])
    conductance = sp.diags_array(weights[: gradient.shape[0]])
    A = sp.csr_array(gradient.T @ conductance @ gradient + 1e-3 * sp.eye_array(2500))
    _solved(A, A, _noise(2500), ns.CG(), ns.AMG())
    return "random coefficients, n = 2500"


def _test_nonsymmetric() -> str:
    import scipy.sparse as sp

    bands: Any = {-1: -1.6, 0: 2.1, 1: -0.4, 40: -0.05}
    A = sp.csr_array(sum(sp.eye_array(2000, k=k) * value for k, value in bands.items()))
    b = _noise(2000)
    for method in (ns.GMRES(), ns.BiCGStab()):
        _solved(A, A, b, method, ns.IncompleteLU())
    _solved(A, A, b, ns.SparseLU())
    return "GMRES and BiCGStab with ILU(0), sparse LU"


def _test_columns() -> str:
    A = ns.PoissonStencil(ns.Grid((20, 30), walls=("dirichlet", "periodic")))
    B = _noise(1800).reshape(600, 3)
    X = ns.solve(A, B, ns.CG(), M=ns.SSOR(1.5), rtol=RTOL).x
    worst = np.linalg.norm(B - A.to_scipy() @ X, axis=0) / np.linalg.norm(B, axis=0)
    _require(bool((worst <= 1.01 * RTOL).all()), f"true residual {worst.max():.1e}")
    return "three right sides at once"


def _test_gradient() -> str:
    """Check d(w.x)/db = A^-1 w for symmetric A."""
    A = ns.PoissonStencil(ns.Grid((12, 12), walls="dirichlet"))
    b = torch.from_numpy(_noise(144)).requires_grad_()
    (gradient,) = torch.autograd.grad(ns.solve(A, b, rtol=1e-12).x.sum(), b)
    exact = np.linalg.solve(A.to_scipy().toarray(), np.ones(144))
    error = abs(gradient.numpy() - exact).max() / abs(exact).max()
    _require(bool(error <= 1e-9), f"error {error:.1e}")
    return f"error {error:.1e}"


def _test_kernels() -> str:
    """Compare the compiled kernels with their definition in plain torch."""
    A = ns.PoissonStencil(ns.Grid((6, 7, 8), walls="dirichlet"))
    C = ns.as_operator(A.to_scipy())
    x = torch.from_numpy(_noise(336))
    compiled = A @ x, C @ x, table("cpu").dot(x, x)
    with use("reference") as reference:
        defined = A @ x, C @ x, reference.dot(x, x)
    error = max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(compiled, defined, strict=True))
    _require(error <= 1e-13, f"compiled and reference kernels differ by {error:.1e}")
    return f"difference {error:.1e}"


def _test_honesty() -> str:
    """Try what must be refused, or called not converged."""
    A = ns.PoissonStencil(ns.Grid((16, 16), walls="dirichlet"))
    result = ns.solve(A, np.ones(256), ns.CG(), maxiter=2, throw=False)
    _require(not result.converged, "two steps of CG were called converged")
    try:
        ns.solve(A, np.full(256, np.nan))
    except ns.NonFiniteError:
        return "two steps are not enough, NaN is refused"
    msg = "NaN was accepted"
    raise RuntimeError(msg)


def _test_files() -> str:
    from neuralsolve.io import grid_mesh, read_matrix, read_mesh, read_vector, write_solution

    x, mesh = _noise(9), grid_mesh((2, 2), (0.5, 0.5), np.ones(4, dtype=bool))
    banner = "%%MatrixMarket matrix coordinate real symmetric\n2 2 2\n1 1 2.5\n2 1 -1.0\n"
    with tempfile.TemporaryDirectory() as folder:
        write_solution(Path(folder) / "x.mtx", x)
        write_solution(Path(folder) / "x.vtu", x, mesh=mesh)
        (Path(folder) / "A.mtx").write_text(banner)
        _require(np.array_equal(read_vector(Path(folder) / "x.mtx"), x), "a vector changed on its way")
        _require(len(read_mesh(Path(folder) / "x.vtu").cells) == 4, "a mesh changed on its way")
        A = read_matrix(Path(folder) / "A.mtx").A.toarray()
        _require(A.tolist() == [[2.5, -1.0], [-1.0, 0.0]], "a matrix was misread")
    return "matrix, vector and mesh"


def _test_mesh() -> str:
    if importlib.util.find_spec("skfem") is None:
        return f"left out: scikit-fem is missing ({OPTIONAL['scikit-fem']})"
    from neuralsolve.fem import poisson
    from neuralsolve.io import Mesh, grid_mesh
    from neuralsolve.io.mesh import boundary_nodes

    mesh = grid_mesh((9, 9), (1 / 9, 1 / 9), np.ones(81, dtype=bool))
    mesh = Mesh(mesh.points, mesh.cells, mesh.kind, {"boundary": boundary_nodes(mesh.cells, mesh.kind)})
    system = poisson(mesh, {"boundary": 3.0}, source=0.0)
    u = system.expand(_solved(system.A, system.A, system.b))
    _require(bool(abs(u - 3).max() <= 1e-7), "a constant was not found")
    return "constant on a square"


TESTS: dict[str, Callable[[], str]] = {
    "compiled kernels": _test_kernels,
    "fast Poisson solver": _test_box,
    "obstacle, null space, MIC(0)": _test_mask,
    "algebraic multigrid": _test_amg,
    "nonsymmetric systems": _test_nonsymmetric,
    "several right sides": _test_columns,
    "gradients": _test_gradient,
    "honest failure": _test_honesty,
    "files": _test_files,
    "meshes": _test_mesh,
}
