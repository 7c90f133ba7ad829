"""The layers of the package: imports only go down, and heavy libraries are imported where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "neuralsolve"

# A room may import the rooms before it. solvers never import models; plot alone imports matplotlib.
LAYERS = [
    "errors",
    "tuning",
    "kernels",
    "lowrank",
    "ssm",
    "operators",
    "preconditioners",
    "solvers",
    "linalg",
    "optimize",
    "io",
    "fem",
    "data",
    "models",
    "pde",
    "cases",
    "plot",
    "bench",
    "doctor",
    "cli",
    "__main__",
]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every absolute module name that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    here = room(path)
    if here == "__init__":
        return
    assert here in LAYERS, f"{here} is not among the layers: give it a place in LAYERS and in docs/design.md"
    own = {name.split(".")[1] for name in imported(path) if name.startswith("neuralsolve.")}
    above = {name for name in own if name in LAYERS and LAYERS.index(name) > LAYERS.index(here)}
    assert not above, f"{path.name} in {here} imports {above}, which lie above it"


SVDS = {
    "svd",
    "svdvals",
    "svds",
    "svd_lowrank",
    "pca_lowrank",
    "lobpcg",
    "interpolative",
    "randomized_svd",
    "matrix_rank",
    "pinv",
    "orth",
}


def foreign_svds(path: Path) -> set[str]:
    """Names of other libraries' SVDs, and of what is built on one, that a file uses as attributes."""
    tree = ast.parse(path.read_text())
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in SVDS}


def test_no_module_beside_the_core_calls_an_svd():
    core = {"lowrank/decompositions.py"}
    apart = {
        "preconditioners/coarsening.py": {"pinv"},  # a small singular system is solved by it
        "bench/lowrank_svd.py": {"svds"},  # the rival
    }
    for path in modules():
        name = path.relative_to(PACKAGE).as_posix()
        if name not in core:
            found = foreign_svds(path) - apart.get(name, set())
            assert not found, f"{name} calls {found}; neuralsolve.lowrank.svd is where SVDs are computed"


def test_models_import_nothing_of_solvers_and_cases():
    allowed = {"errors", "kernels", "lowrank", "operators", "preconditioners", "data", "models", "ssm"}
    for path in modules():
        if room(path) == "models":
            own = {name.split(".")[1] for name in imported(path) if name.startswith("neuralsolve.")}
            assert own <= allowed, f"{path.name} imports {own - allowed}"


def test_matplotlib_is_imported_by_plot_alone():
    users = {room(path) for path in modules() if any(n.split(".")[0] == "matplotlib" for n in imported(path))}
    assert users == {"plot"}


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, neuralsolve; heavy = {'numba', 'triton', 'pyamg', 'meshio', 'matplotlib', 'skfem', "
        "'pydantic', 'typer', 'rich', 'h5py', 'scipy'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # torch itself may load some of them; what torch loads is not ours
    own = subprocess.run(
        [sys.executable, "-c", code.replace("neuralsolve;", "torch;")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == own.stdout
