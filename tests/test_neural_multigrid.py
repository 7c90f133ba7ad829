"""Learned multigrid: whatever the weights are, M is symmetric positive definite, or the classical cycle."""

from __future__ import annotations

import json

import numpy as np
import pytest
import recipe_laws as laws
import torch
from safetensors.torch import save_file

import neuralsolve as ns
from neuralsolve.bench.scenes import UNSEEN, unseen
from neuralsolve.cases import load_case
from neuralsolve.errors import FormatError, OptionError
from neuralsolve.kernels import use
from neuralsolve.models.cycle import adapted, cycle_of, levels_of, seen_by, volumes
from neuralsolve.models.cycle_training import (
    CycleModel,
    CycleTrainer,
    CycleTraining,
    batch_of,
    chebyshev_roots,
)
from neuralsolve.models.training_loop import train
from neuralsolve.pde.scenes import free_surface, inclusions, layered, varied
from neuralsolve.preconditioners.learned import reach_of, read_knowledge
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.preconditioners.weights import shipped, write_tensors

F64 = torch.float64
SMALL = {"2d": (41, 30), "3d": (14, 11, 13)}


def scene(shape, seed=311):
    return ns.PoissonStencil(free_surface(shape, np.random.default_rng(seed)))


def model(steps=(2, 2, 2), size=0.0, seed=4057):
    """Return a model whose networks put factors of about exp(size) on couplings."""
    generator = torch.Generator().manual_seed(seed)
    made = CycleModel(CycleTraining(steps=steps), generator)
    with torch.no_grad():
        for net, outputs in ((made.faces, 1), (made.cells, 2)):
            net[:, -outputs:] = size * torch.randn(net[:, -outputs:].shape, dtype=F64, generator=generator)
    return made


def recipe(folder, made, coarsest=12):
    path = folder / "some.safetensors"
    write_tensors(path, made.tensors("2d") | made.tensors("3d"), {})
    return ns.NeuralMultigrid(path, coarsest=coarsest)


@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_untrained_it_is_the_classical_v_cycle(shape, tmp_path):
    A = scene(shape)
    r = torch.randn(A.shape[0], dtype=F64, generator=torch.Generator().manual_seed(4051))
    z = recipe(tmp_path, model()).build(A).apply(r)
    classical = Multigrid("V", coarsest=12).build(A).apply(r)
    assert float((z - classical).norm()) <= 2e-6 * float(classical.norm())


@pytest.mark.parametrize("steps", [(2, 2, 2), (1, 3, 2), (4, 5, 6)])
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_the_compiled_cycle_is_the_one_that_was_trained(shape, steps, tmp_path):
    A, made = scene(shape), model(steps, 0.3)
    batch = batch_of([A], np.random.default_rng(4073))
    r = torch.randn(A.shape[0], dtype=F64, generator=torch.Generator().manual_seed(4079))
    r[~torch.as_tensor(A.active)] = 0
    with torch.no_grad():
        trained = made.cycle(batch).apply(r[None])[0]
    z = recipe(tmp_path, made).build(A).apply(r)
    assert float((z - trained).norm()) <= 1e-5 * float(trained.norm())


@pytest.mark.parametrize("kind", UNSEEN)
@pytest.mark.parametrize("shape", [(64, 64), (18, 22, 20)])
def test_shipped_weights_run_compiled_as_in_float64(kind, shape):
    """Rounding of float32 alone lies between them, on closed pockets too."""
    A = ns.PoissonStencil(unseen(shape, np.random.default_rng(1019), kind))
    known = read_knowledge("cycle")[f"{len(shape)}d"]
    r = torch.randn(A.shape[0], dtype=F64, generator=torch.Generator().manual_seed(4111))
    r[~torch.as_tensor(A.active)] = 0
    if A.null_space is not None:
        A.null_space.project(r)
    exact = cycle_of(A, known).apply(r[None])[0]
    z = ns.NeuralMultigrid().build(A).apply(r)
    assert float((z - exact).norm()) <= 1e-5 * float(exact.norm())


@pytest.mark.parametrize("make", [varied, layered])
@pytest.mark.parametrize("shape", [(60, 37), (17, 24, 20)])
def test_conductors_are_corrected_as_in_training(make, shape):
    A = make(shape, np.random.default_rng(1021))
    M = ns.NeuralMultigrid().build(A)
    r = torch.randn(A.shape[0], dtype=F64, generator=torch.Generator().manual_seed(4211))
    known = read_knowledge("cycle")[kind_of(M)]
    exact, z = cycle_of(A, known).apply(r[None])[0], M.apply(r)
    cosine = float(torch.dot(z, exact) / (z.norm() * exact.norm()))  # levels are in units of their own
    assert 1 - cosine <= 2e-9  # an angle of 6e-5


def kind_of(M):
    return M.describe().split(", ")[1].split(":")[0]


@pytest.mark.parametrize("shape", [(120, 96), (24, 32, 30)])
def test_anisotropy_is_seen_in_the_coefficients(shape):
    dim = len(shape)
    A, even = layered(shape, np.random.default_rng(1031)), varied(shape, np.random.default_rng(1031))
    assert kind_of(ns.NeuralMultigrid().build(A)) == f"{dim}d-anisotropic"
    assert kind_of(ns.NeuralMultigrid().build(even)) == f"{dim}d-coefficients"
    b = np.random.default_rng(4217).standard_normal(A.shape[0])
    learned, classical = (
        ns.solve(A, b, ns.CG(), M=M, rtol=1e-8).iterations for M in (ns.NeuralMultigrid(), Multigrid("V"))
    )
    assert learned <= 0.6 * classical


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("walls", ["neumann", "periodic", "dirichlet"])
@pytest.mark.parametrize("shape", [(37, 20), (24, 24), (9, 12, 10)])
def test_any_factors_leave_it_positive_definite(shape, walls, size, tmp_path):
    rng = np.random.default_rng(4091)
    cells = free_surface(shape, rng).cells.numpy()
    A = ns.PoissonStencil(ns.Grid(cells, walls=walls))
    M = recipe(tmp_path, model((3, 2, 3), size)).build(A)
    assert "certified" in M.describe()
    inside = torch.as_tensor(A.active)
    pairs = torch.randn((200, A.shape[0]), dtype=F64, generator=torch.Generator().manual_seed(4093))
    pairs[:, ~inside] = 0
    if A.null_space is not None:
        for r in pairs:
            A.null_space.project(r)
    images = M.apply(pairs.T.contiguous()).T
    energies = (pairs * images).sum(1)
    assert (energies > 0).all()
    forth, back = (pairs[:100] * images[100:]).sum(1), (images[:100] * pairs[100:]).sum(1)
    assert (abs(forth - back) <= 1e-5 * (energies[:100] * energies[100:]).sqrt()).all()


@pytest.mark.parametrize("kind", UNSEEN)
@pytest.mark.parametrize("shape", [(50, 61), (18, 22, 20)])
def test_shipped_weights_solve_scenes_that_no_training_saw(kind, shape):
    rng = np.random.default_rng(1009)
    A = ns.PoissonStencil(unseen(shape, rng, kind))
    b = rng.standard_normal(A.shape[0])
    learned, classical = (
        ns.solve(A, b, ns.CG(), M=M, rtol=1e-6) for M in (ns.NeuralMultigrid(), ns.Multigrid())
    )
    assert "certified" in learned.explanation
    assert learned.iterations <= 1.2 * classical.iterations + 1
    assert np.linalg.norm(learned.x - classical.x) <= 1e-3 * np.linalg.norm(classical.x)


def broken(made, kind="2d"):
    """Yield weights that must not be used, and what is said of them."""
    good = made.tensors(kind)
    yield good | {f"{kind}.cells": good[f"{kind}.cells"] * float("nan")}, "not finite"
    yield good | {f"{kind}.gains": -good[f"{kind}.gains"]}, "not finite"
    yield good | {f"{kind}.roots.1": torch.tensor([5.0, 9.0])}, "does not contract"
    yield good | {f"{kind}.roots.0": torch.tensor([float("inf")])}, "does not contract"
    yield {k: v for k, v in good.items() if not k.endswith("faces")}, "without"
    yield good | {f"{kind}.faces": good[f"{kind}.cells"]}, "odd shapes"
    yield good | {f"{kind}.faces": 1e38 * torch.ones_like(good[f"{kind}.faces"])}, "not finite"
    yield {k.replace(kind, "3d"): v for k, v in good.items()}, "no weights"


@pytest.mark.parametrize(("tensors", "reason"), [*broken(model(size=0.2))], ids=range(8))
def test_bad_weights_mean_the_classical_cycle_and_are_told(tensors, reason, tmp_path):
    A, path = scene((40, 33)), tmp_path / "bad.safetensors"
    save_file({k: v.clone() for k, v in tensors.items()}, path)
    M = ns.NeuralMultigrid(path, coarsest=12).build(A)
    assert "classical channel" in M.describe()
    assert reason in M.describe()
    r = torch.randn(A.shape[0], dtype=F64, generator=torch.Generator().manual_seed(4099))
    assert torch.equal(M.apply(r), Multigrid(coarsest=12).build(A).apply(r))


def test_where_nothing_was_trained_it_is_classical():
    A = ns.PoissonStencil(ns.Grid((40, 40), spacing=(1, 50), walls="dirichlet"))
    result = ns.solve(A, np.ones(A.shape[0]), ns.CG(), M=ns.NeuralMultigrid())
    assert "classical channel (stretched cells" in result.explanation
    assert result.iterations == ns.solve(A, np.ones(A.shape[0]), ns.CG(), M=ns.Multigrid()).iterations


@pytest.mark.parametrize("shape", [(90, 100), (20, 24, 22)])
def test_with_coefficients_steps_and_gains_alone_are_learned(shape):
    rng, grid = np.random.default_rng(1013), ns.Grid(shape, walls="dirichlet")
    A, A_next = (
        ns.PoissonStencil(grid, ns.face_coefficients(inclusions(shape, rng, c), grid)) for c in (1e4, 1e2)
    )
    b = rng.standard_normal(A.shape[0])
    learned, classical = (
        ns.solve(A, b, ns.CG(), M=M, rtol=1e-8) for M in (ns.NeuralMultigrid(), ns.Multigrid())
    )
    assert "certified" in learned.explanation
    assert learned.iterations <= 1.2 * classical.iterations + 1
    M = ns.NeuralMultigrid().build(A)
    M.update(A_next)
    r = torch.from_numpy(b)
    assert torch.equal(M.apply(r), ns.NeuralMultigrid().build(A_next).apply(r))


def test_an_update_is_what_a_new_set_up_gives():
    rng = np.random.default_rng(4127)
    cells = free_surface((48, 40), rng).cells.numpy()
    M = ns.NeuralMultigrid(coarsest=12).build(ns.PoissonStencil(ns.Grid(cells)))
    for _ in range(3):
        cells = cells.copy()
        y, x = rng.integers(0, 30, 2)
        cells[y : y + 6, x : x + 4] = ns.SOLID
        A = ns.PoissonStencil(ns.Grid(cells))
        M.update(A)
        fresh = ns.NeuralMultigrid(coarsest=12).build(A)
        r = torch.randn(A.shape[0], dtype=F64, generator=torch.Generator().manual_seed(4129))
        assert torch.equal(M.apply(r), fresh.apply(r))
        assert M.describe() == fresh.describe()
    small = ns.PoissonStencil(ns.Grid((9, 8), walls="dirichlet"))
    laws.check_update(ns.NeuralMultigrid(coarsest=4), small, laws.masked_2d())


@pytest.mark.parametrize("room", ["cpu", "reference"])
@pytest.mark.parametrize("shape", [(1, 30), (3, 17), (1, 9, 8), (2, 2, 40)])
def test_thin_grids(shape, room):
    with use(room):
        A = ns.PoissonStencil(ns.Grid(shape, walls="dirichlet"))
        b = np.random.default_rng(4139).standard_normal(A.shape[0])
        result = ns.solve(A, b, ns.CG(), M=ns.NeuralMultigrid(coarsest=1), rtol=1e-6)
        assert "certified" in result.explanation
        assert result.iterations <= 12


def test_a_reach_is_where_the_polynomial_stops_to_contract():
    for roots in ((0.8,), tuple(chebyshev_roots(2)), tuple(chebyshev_roots(4)), (0.53, 0.86, 2.2)):
        reach = reach_of(roots)
        t = np.linspace(1e-4, reach, 5000)
        assert (abs(np.prod(1 - np.outer(t, roots), 1)) < 1).all()
        assert abs(np.prod([1 - 1.02 * reach * w for w in roots])) > 0.9
    assert reach_of((1.2,)) < 2
    for bad in ((), (-1.0,), (float("nan"),), (1e9,)):
        assert reach_of(bad) == 0


def test_unknown_weights_and_those_of_other_networks_are_an_option_error():
    A = scene((20, 20))
    with pytest.raises(ns.OptionError, match="did you mean 'cycle'"):
        ns.NeuralMultigrid("cycel").build(A)
    with pytest.raises(ns.OptionError, match="no weights 'dcdm2'; known: cycle; or"):
        ns.NeuralMultigrid("dcdm2").build(A)
    for weights in ("dcdm2d", shipped()["npsdo3d"]):
        with pytest.raises(ns.OptionError, match=r"which ns.NeuralDirection takes; .* takes cycle"):
            ns.NeuralMultigrid(weights).build(A)
    with pytest.raises(FileNotFoundError, match="neuralsolve train"):
        ns.NeuralMultigrid("nowhere/cycle.safetensors").build(A)


def test_one_level_is_solved():
    A = ns.PoissonStencil(ns.Grid((6, 5), walls="dirichlet"))
    result = ns.solve(A, np.ones(30), ns.CG(), M=ns.NeuralMultigrid(), rtol=1e-6)
    assert "learned multigrid: one level, which is solved" in result.explanation
    assert result.iterations <= 2


def test_shipped_weights_say_where_they_come_from():
    from safetensors import safe_open

    path = shipped()["cycle"]
    assert path.stat().st_size < 1_000_000
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["command"] == "neuralsolve train train_cycle.toml"
    case = json.loads(told["case"])
    assert case["grids"] == load_case("train_cycle").model_dump(mode="json")["grids"]
    for row in json.loads(told["results"]):
        assert row["after"] < row["before"]
    for known in read_knowledge("cycle").values():
        assert not isinstance(known, str)
        assert min(known.reach) >= 2


def test_factors_are_one_far_from_everything():
    A = scene((64, 64))
    levels = levels_of([A], 12)
    made = model(size=0.5)
    v = volumes(levels)
    level = adapted(levels[1], seen_by(levels[1], v[1]), made.faces[0].detach(), made.cells[0].detach())
    far = (v[1] == 1) & (levels[1].fixed == 0)
    inner = far[:, :, 2:-2, 2:-2].clone()
    for dy in range(5):
        for dx in range(5):
            inner &= far[:, :, dy : far.shape[2] - 4 + dy, dx : far.shape[3] - 4 + dx]
    ratio = (level.lower[2] / levels[1].lower[2])[:, :, 2:-2, 2:-2][inner]
    assert inner.sum() > 100
    assert float((ratio - 1).abs().max()) < 1e-12
    assert float((level.lower[2] - levels[1].lower[2]).abs().max()) > 0.01


@pytest.mark.slow
def test_a_short_training_beats_the_cycle_that_it_starts_from(tmp_path):
    options = CycleTraining(steps=(2, 2, 2), iterations=40, scenes=3)
    trainer = CycleTrainer(scene, [(32, 32), (28, 36)], range(12), range(200, 206), options)
    train(trainer, tmp_path)
    assert trainer.validate() < trainer.before - 0.05
    A = scene((96, 90), 211)
    b = np.random.default_rng(4133).standard_normal(A.shape[0])
    learned = ns.solve(A, b, ns.CG(), M=recipe(tmp_path, trainer.model)).iterations
    assert learned <= ns.solve(A, b, ns.CG(), M=Multigrid("V")).iterations


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_of_something_else_is_refused(content, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    A = ns.PoissonStencil(ns.Grid((12, 12), walls="dirichlet"))
    with pytest.raises(FormatError, match=r"safetensors|no table"):
        ns.NeuralMultigrid(path).build(A)
    with pytest.raises(OptionError, match="a name of weights"):
        ns.NeuralMultigrid(3).build(A)  # type: ignore[arg-type]
