"""`NeuralDirection`: trained networks as M; broken ones do no harm, wrong files and matrices are refused."""

from __future__ import annotations

import json
import pickle
from statistics import median

import numpy as np
import pytest
import torch
from simulated_gpu import CUDA, Device, gpu
from test_dcdm import iterates, right_side, run

import neuralsolve as ns
from neuralsolve.errors import FormatError, OptionError, ShapeError, StructureError
from neuralsolve.models.direction import DirectionNet
from neuralsolve.models.neural import load_network
from neuralsolve.models.npsdo import StencilNet
from neuralsolve.pde.scenes import free_surface, noise, smooth_divergence
from neuralsolve.preconditioners.relaxation import Jacobi
from neuralsolve.preconditioners.weights import read_tensors, shipped, write_tensors
from neuralsolve.solvers.krylov import CG

__all__ = ["gpu"]  # a fixture
MADE_FOR = {"dcdm2d": (2, "dcdm"), "dcdm3d": (3, "dcdm"), "npsdo2d": (2, "npsdo"), "npsdo3d": (3, "npsdo")}


def box(*shape, walls="dirichlet"):
    return ns.PoissonStencil(ns.Grid(shape, walls=walls))


def masked(side=24, seed=3101):
    return ns.PoissonStencil(free_surface((side, side), np.random.default_rng(seed)))


def masked_3d():
    return ns.PoissonStencil(free_surface((11, 12, 13), np.random.default_rng(3102)))


def network(kind, generator, fill=None):
    """Return an untrained network whose weights are drawn, or all of one value."""
    net = DirectionNet(2) if kind == "dcdm" else StencilNet(2, 2)
    with torch.no_grad():
        for p in net.parameters():
            if fill is None:
                p.normal_(0.0, 0.3, generator=generator)
            else:
                p.fill_(fill)
    return net


def file_of(net, path, **changes):
    kind = "dcdm" if isinstance(net, DirectionNet) else "npsdo"
    options = {"depth": "shallow"} if kind == "dcdm" else {"own_levels": net.own_levels}
    architecture = {"network": kind, "dim": net.dim} | options | changes
    write_tensors(path, net.state_dict(), {"architecture": json.dumps(architecture)})
    return path


# shipped weights


@pytest.mark.parametrize("name", sorted(MADE_FOR))
def test_shipped_weights_say_where_they_come_from(name):
    path = shipped()[name]
    assert path.stat().st_size <= 1_000_000
    net, metadata = load_network(path)
    dim, kind = MADE_FOR[name]
    architecture = json.loads(metadata["architecture"])
    assert (architecture["dim"], architecture["network"]) == (dim, kind)
    assert metadata["command"] == f"neuralsolve train train_{name}.toml"
    for key in ("seed", "data", "wall_seconds", "package", "case", "schedule", "steps"):
        assert metadata[key]
    results = json.loads(metadata["results"])
    assert {row["right_side"] for row in results} == {"noise", "divergence"}
    assert all(row["converged"] for row in results)
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


def test_the_networks_of_both_papers_ship():
    assert set(shipped()) >= set(MADE_FOR)


@pytest.mark.parametrize("name", sorted(MADE_FOR))
def test_a_shipped_network_takes_fewer_steps_than_cg(name):
    """On a small grid of its own kind, with sides that it must pad; the true residual decides."""
    dim, kind = MADE_FOR[name]
    if kind == "dcdm":
        A = box(*{2: (45, 51), 3: (19, 20, 21)}[dim])
    else:
        A = (
            masked(52)
            if dim == 2
            else ns.PoissonStencil(free_surface((20, 21, 23), np.random.default_rng(3103)))
        )
    b = noise(A, np.random.default_rng(3104))
    ours = ns.solve(A, b, ns.DCDM(history=2), M=ns.NeuralDirection(name), rtol=1e-4)
    plain = ns.solve(A, b, ns.CG(), rtol=1e-4)
    assert np.linalg.norm(b - A.to_scipy() @ ours.x) <= 1e-4 * np.linalg.norm(b)
    assert ours.iterations < plain.iterations / 2
    assert f"the network {name}" in ours.explanation


# bars of the method card


def ratios(A, name, seeds, rtol=1e-4):
    found = []
    for seed in seeds:
        for make in (noise, smooth_divergence):
            b = make(A, np.random.default_rng([seed, 2]))
            ours = ns.solve(A, b, ns.DCDM(history=2), M=ns.NeuralDirection(name), rtol=rtol)
            found.append(ns.solve(A, b, ns.CG(), rtol=rtol).iterations / ours.iterations)
    return found


@pytest.mark.slow
def test_d1_dcdm_in_2d_takes_an_eighth_of_cg():
    assert median(ratios(box(64, 64), "dcdm2d", range(1000, 1020))) >= 8


@pytest.mark.slow
def test_d2_dcdm_in_3d_takes_a_fifth_of_cg():
    assert median(ratios(box(32, 32, 32), "dcdm3d", range(1000, 1005))) >= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "small", "large", "least"),
    [("npsdo2d", (64,) * 2, (256,) * 2, 20), ("npsdo3d", (24,) * 3, (48,) * 3, 5)],
)
def test_npsdo_carries_over_to_larger_grids(name, small, large, least):
    """On twice or four times the side: about as many steps, where CG takes twice or four times as many."""

    def steps(shape, method, M):
        grids = (free_surface(shape, np.random.default_rng(seed)) for seed in range(3110, 3116))
        runs = [(A, noise(A, np.random.default_rng(3120))) for A in map(ns.PoissonStencil, grids)]
        return median(ns.solve(A, b, method, M=M, rtol=1e-6).iterations for A, b in runs)

    ours = steps(large, ns.DCDM(history=2), ns.NeuralDirection(name))
    assert ours <= 2 * steps(small, ns.DCDM(history=2), ns.NeuralDirection(name))
    assert ours <= steps(large, ns.CG(), None) / least


# any network is safe


class Broken(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, r, cells=None):
        return self.function(r)


BROKEN = {
    "random": lambda g: Broken(lambda r: torch.randn(r.shape, generator=g)),
    "zero": lambda g: Broken(torch.zeros_like),
    "constant": lambda g: Broken(torch.ones_like),
    "negated": lambda g: Broken(torch.neg),
    "nan": lambda g: Broken(lambda r: torch.full_like(r, float("nan"))),
    "infinite": lambda g: Broken(lambda r: torch.full_like(r, float("inf"))),
    "untrained dcdm": lambda g: network("dcdm", g),
    "untrained npsdo": lambda g: network("npsdo", g),
    "weights of zero": lambda g: network("dcdm", g, 0.0),
    "weights of nan": lambda g: network("dcdm", g, float("nan")),
    "stencils of nan": lambda g: network("npsdo", g, float("nan")),
    "stencils of one": lambda g: network("npsdo", g, 1.0),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(
    "geometry",
    [lambda: box(20, 24), masked, lambda: box(14, 13, walls="neumann")],
    ids=["box", "masked", "closed"],
)
def test_s1_a_broken_network_costs_at_most_five_steps(kind, geometry, generator):
    A = geometry()
    b, _ = right_side(A, generator)
    fallback = run(CG(), A, b, Jacobi().build(A))
    M = ns.NeuralDirection(BROKEN[kind](generator))
    result = ns.solve(A, b, ns.DCDM(history=2), M=M, rtol=1e-6)
    assert result.converged
    assert float((b - A @ result.x).norm()) <= 1e-6 * float(b.norm())
    assert result.iterations <= fallback.iterations + 5


@pytest.mark.parametrize(
    "cut", [lambda r: r[..., :-1], lambda r: r.flatten(), lambda r: r.repeat(1, 2, 1, 1)]
)
def test_a_network_of_another_shape_is_refused(cut, generator):
    A = box(8, 8)
    b, _ = right_side(A, generator)
    with pytest.raises(ShapeError, match="returned"):
        ns.solve(A, b, ns.DCDM(), M=ns.NeuralDirection(Broken(cut)))


def test_s2_with_jacobi_as_the_network_it_is_pcg(generator):
    A = box(20, 24)
    b, _ = right_side(A, generator)
    M = ns.NeuralDirection(Broken(lambda r: r / 4)).build(A)
    jacobi = Jacobi().build(A)
    exact = iterates(CG(), A, b, jacobi, 20)
    for x, y in zip(iterates(ns.DCDM(history=2), A, b, jacobi, 20), exact, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-8 * float(y.abs().max()))
    # the network's float32 rounds r, so its iterates agree to that only
    ours = iterates(ns.DCDM(history=2), A, b, M, 20)[-1]
    torch.testing.assert_close(ours, exact[-1], rtol=0, atol=1e-4 * float(ours.abs().max()))


# the recipe


@pytest.mark.parametrize("kind", ["dcdm", "npsdo"])
@pytest.mark.parametrize("geometry", [lambda: box(9, 13), lambda: masked(23), lambda: box(3, 2)], ids="abc")
def test_directions_live_on_the_fluid_and_scale_with_the_residual(kind, geometry, generator):
    A = geometry()
    M = ns.NeuralDirection(network(kind, generator)).build(A)
    r = torch.randn(A.shape[0], 3, dtype=torch.float64, generator=generator)
    kept = r.clone()
    z = M.apply(r)
    assert torch.equal(r, kept)
    assert z.shape == r.shape
    assert z.dtype == torch.float64
    if A.active is not None:
        assert not z[~A.active].any()
    close = {"rtol": 0.0, "atol": 1e-5 * float(z.abs().max())}
    torch.testing.assert_close(M.apply(r[:, 1].contiguous()), z[:, 1], **close)
    torch.testing.assert_close(M.apply(1000 * r), 1000 * z, rtol=0.0, atol=1e-2 * float(z.abs().max()))
    out = torch.full_like(r, float("nan"))
    assert M.apply(r, out) is out
    torch.testing.assert_close(out, z, **close)
    assert not M.apply(torch.zeros_like(r)).any()
    assert not M.symmetric


def test_npsdo_freezes_its_stencils_in_the_set_up(generator):
    net, (A, B) = network("npsdo", generator), (masked(16, 3101), masked(16, 3105))
    M = ns.NeuralDirection(net).build(A)
    frozen = M.frozen
    r = torch.randn(256, dtype=torch.float64, generator=generator)
    M.apply(r)
    M.update(ns.PoissonStencil(A.grid))
    assert M.frozen is frozen
    M.update(B)
    assert M.frozen is not frozen
    expected = ns.NeuralDirection(net).build(B).apply(r)
    torch.testing.assert_close(M.apply(r), expected)


def test_npsdo_is_linear_as_a_recipe(generator):
    M = ns.NeuralDirection(network("npsdo", generator)).build(masked())
    u, v = (torch.randn(576, dtype=torch.float64, generator=generator) for _ in range(2))
    both = M.apply(2 * u - v)
    torch.testing.assert_close(
        both, 2 * M.apply(u) - M.apply(v), rtol=0.0, atol=1e-5 * float(both.abs().max())
    )


def test_npsdo_sees_a_dirichlet_wall_as_air(generator):
    """A box with Dirichlet walls is the same water inside a frame of air."""
    net = network("npsdo", generator)
    cells = np.full((8, 8), ns.AIR, np.uint8)
    cells[1:7, 1:7] = ns.FLUID
    inside, framed = box(6, 6), ns.PoissonStencil(ns.Grid(cells))
    r = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    whole = torch.nn.functional.pad(r, (1, 1, 1, 1)).reshape(-1)
    z = ns.NeuralDirection(net).build(framed).apply(whole).reshape(8, 8)[1:7, 1:7]
    torch.testing.assert_close(ns.NeuralDirection(net).build(inside).apply(r.reshape(-1)), z.reshape(-1))


def test_without_a_name_it_is_dcdm_of_the_grids_dimension():
    assert ns.NeuralDirection().build(box(6, 6)).describe() == "the network dcdm2d"
    assert ns.NeuralDirection().build(box(4, 4, 6)).describe() == "the network dcdm3d"


def test_a_matrix_with_its_grid_is_taken(generator):
    A = masked()
    b, _ = right_side(A, generator)
    M = ns.NeuralDirection(network("dcdm", generator))
    rows = A.to_scipy()
    assert ns.solve(rows, b.numpy(), ns.DCDM(), M=M, grid=A.grid).converged
    with pytest.raises(StructureError, match=r"tells of none; pass ns.PoissonStencil\(grid\), or grid=cells"):
        ns.solve(rows, b.numpy(), ns.DCDM(), M=M)


@pytest.mark.parametrize(
    ("method", "M"),
    [
        (ns.DCDM(), ns.NeuralDirection()),
        (ns.CG(), ns.NeuralMultigrid()),
        (ns.CG(), ns.Multigrid()),
        (ns.CG(), ns.EmbeddedBox()),
        (ns.FastPoisson(), None),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_grid_that_does_not_fit_is_told_as_such(method, M):
    A = box(12, 12)
    stray = A.to_scipy().tolil()
    stray[5, 100] = stray[100, 5] = -0.5
    wanted = type(M or method).__name__
    match = rf"grid= not used: .*; {wanted} needs the grid of A: pass the cells that A was made from"
    with pytest.raises(StructureError, match=match):
        ns.prepare(stray.tocsr(), method, M=M, grid=A.grid)
    if M is not None:
        prepared = ns.prepare(A.to_scipy(), method, M=M, grid=A.grid)
        with pytest.raises(StructureError, match=match):
            prepared.update(stray.tocsr())


def test_grids_of_other_dimensions_and_periodic_ones_are_refused(generator):
    net = network("npsdo", generator)
    with pytest.raises(StructureError, match="2 dimensions"):
        ns.NeuralDirection(net).build(box(4, 4, 4))
    with pytest.raises(StructureError, match="periodic"):
        ns.NeuralDirection(net).build(box(8, 8, walls="periodic"))
    assert ns.NeuralDirection(network("dcdm", generator)).build(box(8, 8, walls="periodic"))


# precision, and where it runs

SMALL = {
    "dcdm2d": lambda: box(45, 51),
    "dcdm3d": lambda: box(9, 12, 11),
    "npsdo2d": lambda: masked(40),
    "npsdo3d": masked_3d,
}


@pytest.mark.parametrize("precision", ["bfloat16", torch.float16], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_half_the_digits_of_a_network_cost_few_iterations_and_no_accuracy(name, precision):
    """M is another one then, the residual in float64 decides: 1e-8, far below the rounding of bfloat16."""
    A = SMALL[name]()
    b = noise(A, np.random.default_rng(3106))
    full, half = (
        ns.solve(A, b, ns.DCDM(history=2), M=ns.NeuralDirection(name, p), rtol=1e-8)
        for p in (None, precision)
    )
    assert np.linalg.norm(b - A.to_scipy() @ half.x) <= 1e-8 * np.linalg.norm(b)
    assert half.iterations <= 1.3 * full.iterations
    assert f"the network {name} in {str(precision).removeprefix('torch.')}" in half.explanation


@pytest.mark.parametrize("kind", ["dcdm", "npsdo"])
def test_a_precision_rounds_the_answer_and_nothing_of_the_callers(kind, generator):
    A, net = masked(), network(kind, generator)
    r = torch.randn(A.shape[0], 2, dtype=torch.float64, generator=generator)
    full, half = (ns.NeuralDirection(net, p).build(A).apply(r) for p in ("float32", "bfloat16"))
    assert half.dtype == torch.float64
    assert 0 < float((half - full).norm()) <= 32 * torch.finfo(torch.bfloat16).eps * float(full.norm())
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("precision", ["half", torch.int8, torch.float64, 16])
def test_other_precisions_are_refused(precision):
    with pytest.raises(OptionError, match="one of float32, bfloat16, float16 is needed"):
        ns.NeuralDirection(precision=precision)


def test_layers_that_a_device_has_not_are_told():
    def layer(r):
        msg = "\"some_layer\" not implemented for 'Half'"
        raise NotImplementedError(msg)

    A = box(8, 8)
    M = ns.NeuralDirection(Broken(layer), "float16").build(A)
    with pytest.raises(OptionError, match=r"does not evaluate in torch.float16 on cpu \(.some_layer"):
        M.apply(torch.ones(64, dtype=torch.float64))
    with pytest.raises(NotImplementedError):
        ns.NeuralDirection(Broken(layer)).build(A).apply(torch.ones(64, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["dcdm", "npsdo"])
def test_on_a_gpu_it_proposes_the_same(gpu: Device, kind, generator, monkeypatch):
    monkeypatch.setattr("torch.__future__._overwrite_module_params_on_conversion", True)  # they are There
    net, A, B = network(kind, generator), masked(12), masked(12, 3105)
    M = ns.NeuralDirection(net).build(A)
    moved, r = M.to(CUDA), torch.randn(144, 2, dtype=torch.float64, generator=generator)
    assert moved.stays
    assert not M.stays
    there = r.to(CUDA)
    for _ in range(2):
        gpu.reads = 0
        z = moved.apply(there)
        assert gpu.reads == 0
        expected = M.apply(r)
        torch.testing.assert_close(z.cpu(), expected, rtol=0.0, atol=1e-5 * float(expected.abs().max()))
        M.update(B)
        moved.update(B)


@pytest.mark.slow
def test_on_a_gpu_dcdm_takes_its_steps(gpu: Device):
    A = masked(12)
    b = torch.from_numpy(noise(A, np.random.default_rng(3107)))
    M = ns.NeuralDirection("npsdo2d", "bfloat16")
    here, there = (ns.solve(A.to(d), b.to(d), ns.DCDM(history=2), M=M, rtol=1e-8) for d in ("cpu", CUDA))
    assert abs(there.iterations - here.iterations) <= 1
    assert float((b - A @ there.x.cpu()).norm()) <= 1e-8 * float(b.norm())


# files


@pytest.mark.parametrize("kind", ["dcdm", "npsdo"])
def test_a_network_comes_back_from_its_file(kind, tmp_path, generator):
    net, A = network(kind, generator), masked()
    path = file_of(net, tmp_path / "own.safetensors")
    r = torch.randn(576, dtype=torch.float64, generator=generator)
    expected = ns.NeuralDirection(net).build(A).apply(r)
    for recipe in (ns.NeuralDirection(path), ns.NeuralDirection(str(path))):
        torch.testing.assert_close(recipe.build(A).apply(r), expected, rtol=0.0, atol=0.0)
        assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_missing_and_foreign_files_are_refused(tmp_path, generator):
    A, path = masked(), tmp_path / "w.safetensors"
    with pytest.raises(OptionError, match="did you mean"):
        ns.NeuralDirection("dcdm2").build(A)
    with pytest.raises(FileNotFoundError, match="neuralsolve train"):
        ns.NeuralDirection(path).build(A)
    path.write_bytes(b"PK\x03\x04 no tensors")
    with pytest.raises(FormatError, match="no safetensors file"):
        ns.NeuralDirection(path).build(A)
    write_tensors(path, {"a": torch.zeros(3)}, {})
    with pytest.raises(FormatError, match="name no network"):
        ns.NeuralDirection(path).build(A)
    for changes in ({"network": "unet"}, {"dim": 7}, {"depth": "bottomless"}, {"extra": 1}):
        file_of(network("dcdm", generator), path, **changes)
        with pytest.raises(FormatError, match="name no network"):
            ns.NeuralDirection(path).build(A)
    file_of(network("npsdo", generator), path, levels=6)  # every level with weights of its own
    with pytest.raises(FormatError, match=r"with {'levels': 6}; .* npsdo \(own_levels\) are known"):
        ns.NeuralDirection(path).build(A)
    for kind, changes in (("dcdm", {"depth": "deep"}), ("npsdo", {"own_levels": 3})):
        file_of(network(kind, generator), path, **changes)
        with pytest.raises(FormatError, match="its network needs"):
            ns.NeuralDirection(path).build(A)


def test_weights_of_the_learned_cycle_are_no_network(tmp_path):
    A = masked()
    with pytest.raises(OptionError, match=r"of network 'cycle', which ns.NeuralMultigrid takes.*dcdm2d"):
        ns.NeuralDirection("cycle").build(A)
    with pytest.raises(OptionError, match="of network 'cycle'"):
        ns.NeuralDirection(shipped()["cycle"]).build(A)
    for name in ("", "cycl"):
        with pytest.raises(
            OptionError, match=f"no weights '{name}'; known: dcdm2d, dcdm3d, npsdo2d, npsdo3d"
        ):
            ns.NeuralDirection(name).build(A)
    with pytest.raises(OptionError, match="a name of weights"):
        ns.NeuralDirection(3).build(A)  # type: ignore[arg-type]


def test_a_pickle_is_never_loaded(tmp_path):
    path = tmp_path / "w.safetensors"
    torch.save(DirectionNet(2).state_dict(), path)
    with pytest.raises(FormatError):
        read_tensors(path)


@pytest.mark.parametrize("answer", [None, 3.0, (1, 2)])
def test_a_network_that_returns_no_tensor_is_told(answer):
    class Odd(torch.nn.Module):
        def forward(self, r):
            return answer

    A = box(12, 12)
    with pytest.raises(ShapeError, match="a tensor like its input"):
        ns.solve(A, np.ones(144), ns.DCDM(), M=ns.NeuralDirection(Odd()))


def test_the_callers_network_stays_in_its_mode():
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    ns.NeuralDirection(net).build(box(12, 12))
    assert net.training
