"""Solves on a device: the answers of the CPU, the host reads norms alone, steps are recorded as a graph."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import LinearOperator
from simulated_gpu import CUDA, Device, There, fast_gpu, gpu

import neuralsolve as ns
from neuralsolve.errors import OptionError
from neuralsolve.kernels import table
from neuralsolve.operators.csr import CSROperator
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.solvers.adjoint import _Solve

__all__ = ["fast_gpu", "gpu"]  # fixtures
ON_DEVICE = {
    "none": None,
    "Jacobi": ns.Jacobi(),
    "SSOR": ns.SSOR(order="multicolor"),
    "AMG": ns.AMG(max_coarse=8),
    "aggregation": ns.AMG("aggregation", max_coarse=8),
}
ON_CPU = {"lexicographic": ns.SSOR(), "IC": ns.IncompleteCholesky()}


def cells() -> np.ndarray:
    flags = np.full((6, 7), ns.FLUID)
    flags[2:4, 3], flags[-1, :2] = ns.SOLID, ns.AIR
    return flags


def stencil() -> ns.PoissonStencil:
    return ns.PoissonStencil(ns.Grid(cells()))


def closed() -> ns.PoissonStencil:
    """A singular one: all walls closed."""
    return ns.PoissonStencil(ns.Grid((5, 6)))


def matrix() -> ns.LinearOperator:
    A = ns.PoissonStencil(ns.Grid((6, 7), walls="dirichlet"))
    return ns.as_operator(A.to_scipy() + 0.1 * np.diag(np.arange(42)))


def right_side(A: ns.LinearOperator, *columns: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(12)
    return A @ torch.randn(A.shape[0], *columns, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("name", [*ON_DEVICE, *ON_CPU])
def test_cg_on_the_device(fast_gpu: Device, name):
    A, M = stencil(), (ON_DEVICE | ON_CPU)[name]
    b = right_side(A)
    expected = ns.solve(A, b, ns.CG(), M=M, rtol=1e-6)
    prepared = ns.prepare(A.to(CUDA), ns.CG(), M=M, rtol=1e-6, check_every=4)
    prepared.solve(b.to(CUDA))
    fast_gpu.reads = 0
    result = prepared.solve(b.to(CUDA))
    reads = fast_gpu.reads
    assert isinstance(result.x, There)
    assert result.converged
    assert result.iterations <= 1.5 * expected.iterations + 3  # AMG has other smoothers there
    assert (b - A @ result.x.cpu()).norm() <= 1.01e-6 * b.norm()
    looks = -(-result.iterations // 4)
    assert ("applied on the CPU" in result.explanation) == (name in ON_CPU)
    assert (reads > result.iterations) if name in ON_CPU else (reads <= looks + 12)


@pytest.mark.parametrize("make", [closed, matrix])
@pytest.mark.parametrize("columns", [(), (2,)], ids=["n", "nk"])
def test_operators_on_the_device(fast_gpu: Device, make, columns):
    A = make()
    b = right_side(A, *columns)
    moved = A.to(CUDA)
    assert moved.device == CUDA
    assert moved.to("cpu") is A or torch.equal(moved.to("cpu") @ b, A @ b)
    result = ns.solve(moved, b, ns.CG(), rtol=1e-8)  # b from the CPU: x goes back there
    assert not isinstance(result.x, There)
    torch.testing.assert_close(result.x, ns.solve(A, b, ns.CG(), rtol=1e-10).x, rtol=0, atol=1e-6)


def test_steps_are_recorded_once(fast_gpu: Device):
    A = stencil()
    prepared = ns.prepare(A.to(CUDA), ns.CG(), M=ns.Jacobi(), rtol=1e-8, check_every=4)
    plain = ns.prepare(A, ns.CG(), M=ns.Jacobi(), rtol=1e-8)
    first, second = right_side(A), right_side(A).flip(0) * (A.diagonal() > 0)
    x = prepared.solve(first.to(CUDA)).x
    kept = x.cpu().clone()
    recorded = prepared._place._unseen._graph  # type: ignore[union-attr]
    assert recorded is not None
    for b in (second, first):
        mine, theirs = prepared.solve(b.to(CUDA)), plain.solve(b)
        assert mine.converged
        assert mine.iterations == theirs.iterations
        assert mine.matvecs >= theirs.matvecs
        np.testing.assert_allclose(mine.residual_norms[:-1], theirs.residual_norms[:-1], rtol=1e-6)
        torch.testing.assert_close(mine.x.cpu(), theirs.x, rtol=1e-7, atol=1e-9)
    assert prepared._place._unseen._graph is recorded  # type: ignore[union-attr]
    assert torch.equal(x.cpu(), kept)
    prepared.update(A.to(CUDA))
    assert prepared.solve(first.to(CUDA)).converged


def recording(M: object = None, every: int = 4) -> tuple[ns.LinearOperator, torch.Tensor, ns.Prepared]:
    A = stencil()
    return A, right_side(A), ns.prepare(A.to(CUDA), ns.CG(), M=M, rtol=1e-9, check_every=every)


def test_a_graph_of_the_first_steps_goes_on_where_it_ended(fast_gpu: Device):
    """Recorded from a first state, a replay keeps what later steps need: CG does not begin anew in each."""
    A, b, prepared = recording(ns.Jacobi())
    prepared.solve(b.to(CUDA), maxiter=12, throw=False)  # three runs: the next one is recorded
    again = prepared.solve(b.to(CUDA))
    assert prepared._place._unseen._graph is not None  # type: ignore[union-attr]
    assert again.iterations == ns.solve(A, b, ns.CG(), M=ns.Jacobi(), rtol=1e-9).iterations


def test_fewer_steps_leave_a_graph_its_vectors(fast_gpu: Device):
    _, b, prepared = recording()
    expected = prepared.solve(b.to(CUDA))
    unseen = prepared._place._unseen
    assert unseen is not None
    assert unseen._graph is not None
    known = [id(v) for v in vars(unseen._state).values() if isinstance(v, torch.Tensor)]
    capped = prepared.solve(b.to(CUDA), maxiter=7, throw=False)  # a replay, and three steps one by one
    assert capped.iterations == 7
    np.testing.assert_allclose(capped.residual_norms[:7], expected.residual_norms[:7], rtol=1e-9)
    assert [id(v) for v in vars(unseen._state).values() if isinstance(v, torch.Tensor)] == known
    assert prepared.solve(b.to(CUDA)).iterations == expected.iterations


def test_another_shape_is_compiled_before_it_is_recorded(fast_gpu: Device, monkeypatch):
    A, b, prepared = recording()
    prepared.solve(b.to(CUDA))
    unseen, steps = prepared._place._unseen, []
    assert unseen is not None
    plain = unseen._steps
    monkeypatch.setattr(unseen, "_steps", lambda *given: (steps.append(fast_gpu.recording), plain(*given))[1])
    B = torch.stack([b, b.flip(0) * (A.diagonal() > 0)], 1)
    assert prepared.solve(B.to(CUDA)).converged
    assert steps[:3] == [None] * 3


def test_steps_on_another_gpu_than_the_present_one_are_recorded(fast_gpu: Device, monkeypatch):
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    A, b, prepared = recording()
    expected = ns.solve(A, b, ns.CG(), rtol=1e-9).iterations
    assert [prepared.solve(b.to(CUDA)).iterations for _ in range(2)] == [expected] * 2
    assert prepared._place._unseen._graph.calls  # type: ignore[union-attr]


def test_coefficients_that_are_written_to_are_no_matter_of_an_old_graph(fast_gpu: Device):
    grid = ns.Grid((5, 6), walls="dirichlet")
    faces = [torch.ones(6, 6, dtype=torch.float64), torch.ones(5, 7, dtype=torch.float64)]
    A = ns.PoissonStencil(grid, faces)
    b = right_side(A)
    prepared = ns.prepare(A.to(CUDA), ns.CG(), rtol=1e-9, check_every=3)
    prepared.solve(b.to(CUDA))
    assert prepared._place._unseen._graph is not None  # type: ignore[union-attr]
    A.coefficients[0].mul_(3.0)  # type: ignore[index]
    x = prepared.solve(b.to(CUDA)).x.cpu()
    assert (b - A @ x).norm() <= 1.01e-9 * b.norm()


def test_what_calls_back_is_not_recorded(fast_gpu: Device):
    A = stencil()
    prepared = ns.prepare(A.to(CUDA), ns.CG(), M=lambda r: r / max(float(r.norm()), 1.0), check_every=2)
    assert prepared.solve(right_side(A).to(CUDA), throw=False).iterations > 2
    assert prepared._place._unseen._graph is None  # type: ignore[union-attr]


def test_gradients_come_back_to_where_they_are_asked_for(fast_gpu: Device):
    grid = ns.Grid((4, 5), walls="dirichlet")
    faces = [torch.ones(5, 5, dtype=torch.float64), torch.ones(4, 6, dtype=torch.float64, requires_grad=True)]
    b = right_side(ns.PoissonStencil(grid))
    found = []
    for device in ("cpu", CUDA):
        faces[1].grad = None
        A = ns.PoissonStencil(grid, faces).to(device)
        ns.solve(A, b, ns.CG(), rtol=1e-10).x.sum().backward()
        found.append(faces[1].grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("symmetric", [True, False])
def test_gradients_of_values_on_the_device(fast_gpu: Device, symmetric):
    S = matrix().to_scipy()
    made = ns.as_operator(S if symmetric else S + 0.1 * sp.triu(S, 1).tocsr())
    assert isinstance(made, CSROperator)
    found = []
    for device in ("cpu", CUDA):
        values, b = made.values.to(device), right_side(made).to(device)
        A = CSROperator(made.indptr.to(device), made.indices.to(device), values, made.shape)
        prepared = ns.prepare(A, rtol=1e-10)
        x = prepared.solve(b).x
        context = SimpleNamespace(  # torch's own asks a driver
            saved_tensors=(x, b, values),
            needs_input_grad=(False,) * 4 + (True, True),
            adjoint=partial(prepared._adjoint, rtol=1e-10),
            A=A,
        )
        gradients = _Solve.backward(context, torch.ones_like(x))[4:]
        assert [g.device for g in gradients] == [torch.device(device)] * 2
        if not symmetric:
            assert prepared._transposed is not None
            assert prepared._transposed._place.structure.A.device == torch.device(device)
        found.append([g.cpu() for g in gradients])
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in [*ON_DEVICE, *ON_CPU] if name != "none"])
@pytest.mark.parametrize("moved", [False, True])
def test_an_M_that_the_caller_has_built_goes_along(fast_gpu: Device, name, moved):
    A, recipe = stencil(), (ON_DEVICE | ON_CPU)[name]
    assert isinstance(recipe, Recipe)
    M, b = recipe.build(A), right_side(A).to(CUDA)
    given = M.to(CUDA) if moved else M
    expected = ns.solve(A.to(CUDA), b, ns.CG(), M=recipe, rtol=1e-8)
    assert ns.solve(A.to(CUDA), b, ns.CG(), M=given, rtol=1e-8).iterations == expected.iterations


def test_a_scipy_operator_as_M_takes_vectors_of_the_device(fast_gpu: Device):
    A, b = matrix(), right_side(matrix())
    M = LinearOperator(A.shape, matvec=lambda r: r / A.diagonal().numpy(), dtype=float)
    result = ns.solve(A.to(CUDA), b.to(CUDA), ns.CG(), M=M, rtol=1e-8)
    assert result.iterations == ns.solve(A, b, ns.CG(), M=ns.Jacobi(), rtol=1e-8).iterations


@pytest.mark.parametrize("columns", [(), (2,)], ids=["n", "nk"])
def test_cycles_in_float32_are_linear_far_beyond_its_range(fast_gpu: Device, columns):
    """M (s r) = s M r for powers of two s; and M keeps no vectors that a graph may know from call to call."""
    A = stencil()
    r = right_side(A, *columns)
    M = ns.AMG("aggregation", max_coarse=8).build(A).to(CUDA)
    assert M.dtype == torch.float32  # type: ignore[attr-defined]
    levels = [dict(vars(level)) for level in M.levels]  # type: ignore[attr-defined]
    z = M.apply(r.to(CUDA)).cpu()
    for s in (2.0**-400, 2.0**400):
        torch.testing.assert_close(M.apply((s * r).to(CUDA)).cpu() / s, z, rtol=1e-5, atol=1e-6)
    for level, before in zip(M.levels, levels, strict=True):  # type: ignore[attr-defined]
        assert all(before[name] is value for name, value in vars(level).items())


def test_a_device_is_looked_at_as_seldom_after_an_update(fast_gpu: Device):
    A, b = stencil(), right_side(stencil())
    prepared = ns.prepare(A, ns.CG(), rtol=1e-8)
    prepared.update(A.to(CUDA))
    assert prepared._place.check_every == ns.prepare(A.to(CUDA), ns.CG())._place.check_every > 1
    assert prepared.solve(b.to(CUDA)).converged


def test_a_grid_is_for_matrices_on_the_cpu(fast_gpu: Device):
    with pytest.raises(OptionError, match=r"PoissonStencil\(grid\)\.to"):
        ns.prepare(matrix().to(CUDA), grid=(6, 7))


def test_set_up_is_not_for_the_device(gpu: Device):
    with pytest.raises(OptionError, match="runs on the CPU alone"):
        table(CUDA).csr_ic0_factor  # noqa: B018


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("make", [stencil, matrix])
def test_without_cuda_moving_says_what_is_missing(make):
    with pytest.raises(OptionError, match=r"built without CUDA|no CUDA GPU"):
        make().to("cuda")


@pytest.mark.parametrize("wrong", ["mps", "xpu", "meta", "gpu", "CUDA", "cuda:x", "cuda:-1", "", 1.5])
@pytest.mark.parametrize("make", [stencil, matrix, lambda: ns.CallableOperator(abs, (3, 3))])
def test_other_devices_are_refused(make, wrong):
    with pytest.raises(OptionError, match="there are kernels for 'cpu' and 'cuda'"):
        make().to(wrong)


def test_a_gpu_that_is_not_there_is_refused(fast_gpu: Device):
    assert stencil().to(0).device == CUDA
    with pytest.raises(OptionError, match=r"1 GPU\(s\)"):
        stencil().to("cuda:3")


def test_without_triton_tensors_of_a_gpu_say_what_is_missing(monkeypatch):
    monkeypatch.setattr("neuralsolve.kernels._loaded", {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"neuralsolve\[gpu\]"):
        table("cuda")
