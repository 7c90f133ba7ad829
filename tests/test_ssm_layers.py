"""State-space layers: every mode equals a dense simulation, and what holds for sequences of all kinds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from state_space_layers import ALL, DIAGONAL, METHODS, apart, by_steps, held, made, sequence, simulated
from torch import Tensor

from neuralsolve.kernels import use
from neuralsolve.ssm.starts import start

pytestmark = pytest.mark.usefixtures("double_precision")


@DIAGONAL
@METHODS
def test_every_mode_equals_a_dense_simulation(name, method, generator):
    layer = made(name, 2, 64, discretisation=method)
    u = sequence(generator, 1, 4096, 2)
    expected = simulated(layer, u[0], method)[None]
    single = copy.deepcopy(layer).float()
    rounded = copy.deepcopy(single).double()  # the numbers that the layer in float32 holds
    truth = simulated(rounded, u[0].float().double(), method)[None]
    with torch.no_grad():
        for mode in ("convolution", "scan"):
            assert apart(layer(u, mode=mode), expected) <= 1e-10
            assert apart(single(u.float(), mode=mode), truth) <= 2e-6
        assert apart(by_steps(layer, u)[0], expected) <= 1e-10
        assert apart(by_steps(single, u.float())[0], truth) <= 2e-6


# Zero-order hold by a dense matrix exponential, step 0.01, C = ones / sqrt(n): entries 0, 1, 10, 100 and 255,
# the sum of 256 and their Euclidean norm.
GOLDEN = {
    16: (7.57364e-2, 5.238112e-2, -1.859783e-2, 3.510735e-2, 9.46767e-3, 0.253117324, 0.402020770),
    32: (5.21469e-2, 1.637789e-2, -4.90805e-2, 5.966127e-2, -1.117081e-2, 0.158119625, 0.502697858),
}


@pytest.mark.parametrize("n", [16, 32])
def test_the_kernel_of_s4d_legs_has_its_known_values(n):
    layer = made("s4d", 1, n)
    row = torch.full((1, 1, n), n**-0.5, dtype=torch.complex128) @ start("legs", n).V
    with torch.no_grad():
        layer.C.copy_(torch.view_as_real(row))
        layer.log_step.fill_(np.log(0.01))
        k = layer.kernel(256)[0, 0]
    got = [*(float(k[i]) for i in (0, 1, 10, 100, 255)), float(k.sum()), float(k.norm())]
    np.testing.assert_allclose(got, GOLDEN[n], rtol=2e-6)


@pytest.mark.parametrize(("n", "length"), [(1, 5), (16, 256), (9, 255), (64, 1024), (2, 1), (3, 2)])
def test_s4_is_the_exact_hippo_system(n, length, generator):
    """A and B of HiPPO-LegS from their definition, discretised densely, no eigenvalue taken."""
    i = np.arange(n)
    A = -np.tril(np.sqrt(np.outer(2 * i + 1, 2 * i + 1)), -1) - np.diag(i + 1.0)
    layer = made("s4", 2, n)
    C = torch.randn(2, n, generator=generator)
    rows = C[None].to(torch.complex128) @ start("legs", n).V
    with torch.no_grad():
        layer.C.copy_(torch.view_as_real(rows))
        k = layer.kernel(length)[0]
    for h in range(2):
        step = float(layer.log_step[h].detach().exp())
        step_A, step_B = held(step * A, step * np.sqrt(2 * i + 1.0)[:, None], "bilinear")
        x, expected = step_B[:, 0], []
        for _ in range(length):
            expected.append(C[h].numpy() @ x)
            x = step_A @ x
        assert apart(k[h], torch.tensor(expected)) <= 1e-10


@ALL
@pytest.mark.parametrize("length", [1, 2, 37])
@pytest.mark.parametrize("state", [1, 7, 8])
def test_modes_agree_on_short_sequences_and_odd_states(name, length, state, generator):
    layer, u = made(name, 3, state), sequence(generator, 2, length, 3)
    with torch.no_grad():
        found = [layer(u), layer(u, mode="convolution"), layer(u, mode="scan"), by_steps(layer, u)[0]]
    assert all(apart(y, found[0]) <= 1e-11 for y in found[1:])


@ALL
def test_two_halves_chained_are_the_whole(name, generator):
    layer, u = made(name, 3, 16), sequence(generator, 2, 101, 3)
    whole, last = layer(u, return_state=True)
    _, stepped = by_steps(layer, u)
    first, state = layer(u[:, :40], return_state=True)
    for mode in ("auto", "scan") if name == "s4" else ("auto", "scan", "convolution"):
        second, end = layer(u[:, 40:], state, return_state=True, mode=mode)
        assert apart(torch.cat([first, second], 1), whole) <= 1e-10
        assert apart(end, last) <= 1e-10
    assert apart(whole, layer(u)) <= 1e-10
    assert apart(stepped, last) <= 1e-10
    assert apart(by_steps(layer, u[:, 40:], state)[0], whole[:, 40:]) <= 1e-10


@ALL
def test_a_bidirectional_layer_is_two_causal_ones(name, generator):
    layer, u = made(name, 3, 7, bidirectional=True), sequence(generator, 2, 30, 3)
    one = made(name, 3, 7)
    halves = []
    for direction, given in enumerate((u, u.flip(1))):
        held = {key: value.clone() for key, value in layer.state_dict().items()}
        held["C"] = held["C"][direction : direction + 1]
        one.load_state_dict(held)
        halves.append(one(given) - one.D * given)
    expected = halves[0] + halves[1].flip(1) + layer.D * u
    for mode in ("convolution", "scan"):
        assert apart(layer(u, mode=mode), expected) <= 1e-11


@ALL
@pytest.mark.parametrize("both", [False, True], ids=["causal", "bidirectional"])
def test_plain_torch_gives_the_same(name, both, generator):
    """Outputs, states and gradients without numba's kernels, as on devices that have none."""
    layer, u = made(name, 3, 7, bidirectional=both), sequence(generator, 2, 30, 3).requires_grad_()
    found = []
    for room in ("cpu", "reference"):
        with use(room):
            y, *states = [layer(u)] if both else layer(u, layer.initial_state(2) + 1, return_state=True)
            loss = y.square().sum() + sum(x.abs().square().sum() for x in states)
            found.append([y, *states, *torch.autograd.grad(loss, [u, *layer.parameters()])])
    assert all(apart(got, expected) <= 1e-11 for got, expected in zip(*found, strict=True))


@ALL
def test_gradients_of_the_modes_agree(name, generator):
    layer, u = made(name, 2, 7, bidirectional=True), sequence(generator, 2, 21, 2).requires_grad_()
    weight = sequence(generator, 2, 21, 2)
    found = []
    for mode in ("convolution", "scan"):
        layer.zero_grad()
        grads = torch.autograd.grad((layer(u, mode=mode) * weight).sum(), [u, *layer.parameters()])
        found.append(grads)
    for got, expected in zip(*found, strict=True):
        assert apart(got, expected) <= 1e-9


@ALL
def test_gradients_are_those_of_differences(name, generator):
    layer, u = made(name, 2, 3), sequence(generator, 1, 6, 2).requires_grad_()
    names = [key for key, _ in layer.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in layer.parameters()]

    def outputs(u: Tensor, *given: Tensor) -> Tensor:
        y, state = torch.func.functional_call(layer, dict(zip(names, given, strict=True)), (u, None, True))
        more = torch.func.functional_call(layer, dict(zip(names, given, strict=True)), (u, state))
        return torch.cat([y, more], 1)

    assert torch.autograd.gradcheck(outputs, (u, *values), atol=1e-6, rtol=1e-5)


@DIAGONAL
def test_a_sequence_is_not_changed_by_its_neighbours(name, generator):
    """Nor by how it lies in memory; nor by numbers that are none in another sequence."""
    layer, u = made(name, 3, 8), sequence(generator, 3, 50, 3)
    with torch.no_grad():
        expected = layer(u)
        for b in range(3):
            assert apart(layer(u[b : b + 1]), expected[b : b + 1]) <= 1e-13
        strided = u.transpose(0, 1).contiguous().transpose(0, 1)
        assert apart(layer(strided), expected) <= 1e-13
        u[1, 10, 2] = torch.nan
        for mode in ("convolution", "scan"):
            got = layer(u, mode=mode)
            assert got[1].isnan().any()
            assert apart(got[[0, 2]], expected[[0, 2]]) <= 1e-13


@ALL
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_half_precision_is_computed_in_single(name, kind, generator):
    layer, u = made(name, 3, 8).float(), sequence(generator, 2, 200, 3).to(kind)
    with torch.no_grad():
        y = layer(u)
        assert y.dtype == kind
        assert torch.equal(y, layer(u.float()).to(kind))
        stepped, _ = layer.step(u[:, 0], layer.initial_state(2))
    assert stepped.dtype == kind
    assert torch.allclose(stepped.float(), y[:, 0].float(), rtol=2 * torch.finfo(kind).eps, atol=1e-2)


@ALL
def test_autocast_changes_nothing(name, generator):
    layer, u = made(name, 3, 8).float(), sequence(generator, 2, 40, 3).float().requires_grad_()
    given = [u, *layer.parameters()]
    expected = torch.autograd.grad(layer(u).square().sum(), given)
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.autograd.grad(layer(u).square().sum(), given)
    assert all(torch.equal(one, two) for one, two in zip(got, expected, strict=True))


@ALL
def test_an_empty_sequence_gives_an_empty_one(name):
    layer = made(name)
    assert layer(torch.zeros(2, 0, 3)).shape == (2, 0, 3)
    assert layer(torch.zeros(0, 4, 3)).shape == (0, 4, 3)
    if name != "s4":
        state = layer.initial_state(2) + 1
        assert torch.equal(layer(torch.zeros(2, 0, 3), state, return_state=True)[1], state)
