"""State-space layers: every mode equals a dense simulation, and what holds for sequences of all kinds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.kernels import use
from neuralsolve.models.s4 import S4
from neuralsolve.models.s4d import S4D
from neuralsolve.models.s5 import S5
from neuralsolve.models.state_space import StateSpaceLayer, joined, parameter_groups
from neuralsolve.ssm.starts import Start, start

LAYERS = {"s4d": S4D, "s5": S5, "s4": S4}
ALL = pytest.mark.parametrize("name", list(LAYERS))
DIAGONAL = pytest.mark.parametrize("name", ["s4d", "s5"])
METHODS = pytest.mark.parametrize("method", ["zoh", "bilinear"])


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parameters in float64: the simulation takes the same numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(name: str, channels: int = 3, state: int = 8, seed: int = 5, **more) -> StateSpaceLayer:
    if name != "s4":
        more = {"init": "legs", **more}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LAYERS[name](channels, state=state, **more)


def sequence(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def real_system(s: Tensor, B: Tensor, C: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x' = s x + B u, y = Re(C x) of complex numbers as a real system of twice the size."""
    re, im = torch.diag(s.real), torch.diag(s.imag)
    A = torch.cat([torch.cat([re, -im], 1), torch.cat([im, re], 1)])
    return A.numpy(), torch.cat([B.real, B.imag]).numpy(), torch.cat([C.real, -C.imag], -1).numpy()


def held(A: np.ndarray, B: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The step of length 1 of x' = A x + B u, by the matrix exponential or the bilinear transform."""
    n, one = len(A), np.eye(len(A))
    if method == "bilinear":
        return np.linalg.solve(one - A / 2, one + A / 2), np.linalg.solve(one - A / 2, B)
    whole = expm(np.block([[A, B], [np.zeros((B.shape[1], n + B.shape[1]))]]))
    return whole[:n, :n], whole[:n, n:]


def simulated(layer: StateSpaceLayer, u: Tensor, method: str) -> Tensor:
    """One sequence (L, H) through the layer, by dense matrices in float64."""
    step = torch.exp(layer.log_step.detach())
    s, B, C = (
        layer.eigenvalues.detach(),
        joined(layer.B.detach()),
        joined(layer.C.detach())[0] * layer.weights,
    )
    if isinstance(layer, S5):
        systems = [(step * s, step[:, None] * B, C)]
    else:
        systems = [(step[h] * s[h], step[h] * B[h, :, None], C[h : h + 1]) for h in range(layer.channels)]
    found = []
    for h, system in enumerate(systems):
        A, inputs, outputs = real_system(*system)
        A, inputs = held(A, inputs, method)
        given = u.numpy() if isinstance(layer, S5) else u.numpy()[:, h : h + 1]
        x, y = np.zeros(len(A)), []
        for row in given:
            x = A @ x + inputs @ row
            y.append(outputs @ x)
        found.append(np.stack(y))
    return torch.from_numpy(np.concatenate(found, 1)) + layer.D.detach() * u


def by_steps(layer: StateSpaceLayer, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    state, found = layer.initial_state(len(u)) if state is None else state, []
    for k in range(u.shape[1]):
        y, state = layer.step(u[:, k], state)
        found.append(y)
    return torch.stack(found, 1), state


def apart(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach().to(expected.dtype), expected.detach()
    return float((got - expected).norm() / expected.norm())


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


@ALL
def test_a_higher_rate_means_shorter_steps(name, generator):
    layer, u = made(name, 3, 8), sequence(generator, 2, 20, 3)
    faster = copy.deepcopy(layer)
    with torch.no_grad():
        faster.log_step -= np.log(2.0)
        assert apart(layer(u, rate=2.0), faster(u)) <= 1e-13
        state = layer.initial_state(2)
        assert apart(layer.step(u[:, 0], state, 2.0)[0], faster.step(u[:, 0], state)[0]) <= 1e-13


def test_inputs_held_over_several_samples_give_the_same_states(generator):
    """Zero-order hold is exact: at twice the rate, samples given twice, every second output is the same."""
    for name in ("s4d", "s5"):
        layer, u = made(name, 3, 8), sequence(generator, 2, 20, 3)
        with torch.no_grad():
            assert apart(layer(u.repeat_interleave(2, 1), rate=2.0)[:, 1::2], layer(u)) <= 1e-11


@METHODS
def test_steps_of_any_length_follow_a_loop(method, generator):
    layer, u = made("s5", 3, 7, discretisation=method), sequence(generator, 2, 25, 3)
    steps = 0.2 + 3 * torch.rand(2, 25, generator=generator)
    y, last = layer(u, steps=steps, return_state=True)
    for b in range(2):
        s, step = layer.eigenvalues.detach(), torch.exp(layer.log_step.detach())
        B, C = joined(layer.B.detach()), joined(layer.C.detach())[0] * layer.weights
        x, found = np.zeros(2 * len(s)), []
        for k in range(25):
            now = float(steps[b, k]) * step
            A, inputs, outputs = real_system(now * s, now[:, None] * B, C)
            A, inputs = held(A, inputs, method)
            x = A @ x + inputs @ u[b, k].numpy()
            found.append(outputs @ x + (layer.D * u[b, k]).detach().numpy())
        assert apart(y[b], torch.tensor(np.stack(found))) <= 1e-11
        assert apart(torch.cat([last[b].real, last[b].imag]), torch.from_numpy(x)) <= 1e-11
    assert torch.equal(y, layer(u, steps=steps))


def test_steps_of_one_are_no_steps(generator):
    for both in (False, True):
        layer, u = made("s5", 3, 7, bidirectional=both), sequence(generator, 2, 25, 3)
        assert apart(layer(u, steps=torch.ones(2, 25)), layer(u)) <= 1e-12


def test_a_missing_sample_gives_no_input_and_time_goes_on(generator):
    layer, u = made("s5", 3, 8), sequence(generator, 2, 25, 3)
    mask = torch.rand(2, 25, generator=generator) < 0.7
    expected = layer(torch.where(mask[..., None], u, 0))
    u[~mask] = torch.nan  # whatever stands there
    assert torch.equal(layer(u, mask=mask), expected)


def test_gradients_of_steps_and_factors(generator):
    layer, u = made("s5", 2, 3), sequence(generator, 1, 5, 2)
    steps = (0.5 + torch.rand(1, 5, generator=generator)).requires_grad_()
    assert torch.autograd.gradcheck(lambda steps: layer(u, steps=steps), (steps,))


@DIAGONAL
def test_the_stepper_and_the_remembered_step_follow_the_layer(name, generator):
    layer, u = made(name, 3, 7), sequence(generator, 2, 9, 3)
    with torch.no_grad():
        for _ in range(2):  # the second time after the parameters have changed
            y, last = layer(u, return_state=True)
            assert apart(by_steps(layer, u)[0], y) <= 1e-12
            stepper = layer.stepper(batch=2)
            found = [stepper(u[:, k].numpy()) for k in range(9)]
            assert apart(torch.from_numpy(np.stack(found, 1)), y) <= 1e-12
            np.testing.assert_allclose(stepper.state, last.numpy(), rtol=1e-10, atol=1e-12)
            stepper.reset()
            np.testing.assert_allclose(stepper(u[:, 0].numpy()), found[0], rtol=1e-13)
            alone = layer.stepper()
            np.testing.assert_allclose(alone(u[0, 0].numpy()), found[0][0], rtol=1e-12)
            layer.log_step.data += 0.3
            layer.frequency.mul_(1.1)


def test_a_start_may_be_given_and_blocks_repeat_it(generator):
    given = start("legs", 4)
    layer = made("s5", 3, 8, blocks=2, init=given)
    assert torch.equal(layer.eigenvalues.detach().imag, given.eigenvalues.imag.repeat(2))
    one = torch.ones(2, dtype=torch.complex128)
    whole = Start(torch.tensor([-1 + 2j, -3.0]), one.real, one, given.V[:2])
    layer = made("s5", 3, 2, init=whole)
    assert torch.equal(layer.weights, torch.ones(2))
    assert layer(sequence(generator, 1, 4, 3)).isfinite().all()


def test_inputs_of_s5_are_real_in_the_coordinates_of_the_start(generator):
    """B = V^-1 N of a real N: so Re sum weight V_n B_n is N, of variance 1 / channels."""
    layer, given = made("s5", 400, 7), start("legs", 7)
    N = ((given.V * given.weights) @ joined(layer.B.detach())).real
    assert abs(float(N.square().mean()) * 400 - 1) < 0.1


def test_parameters_that_want_care_have_a_group_of_their_own():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), made("s4d"), made("s4"), made("s5"))
    rest, slow = parameter_groups(model, lr=0.01, weight_decay=0.05)
    assert (slow["lr"], slow["weight_decay"]) == (1e-3, 0.0)
    assert (rest["lr"], rest["weight_decay"]) == (0.01, 0.05)
    assert len(rest["params"]) + len(slow["params"]) == len(list(model.parameters()))
    assert {p.shape for layer in model[1:] for p in (layer.C, layer.D)} <= {p.shape for p in rest["params"]}
    assert len(slow["params"]) == 4 + 5 + 4


@ALL
def test_a_step_of_training_keeps_the_system_stable(name, generator):
    layer, u = made(name, 3, 8), sequence(generator, 2, 30, 3)
    optimiser = torch.optim.SGD(layer.parameters(), lr=10.0)
    layer(u).square().mean().backward()
    optimiser.step()
    assert (layer.eigenvalues.real < 0).all()


@ALL
def test_wrong_input_is_refused(name):
    layer, u = made(name), torch.zeros(2, 5, 3)
    for wrong in (torch.zeros(5, 3), torch.zeros(2, 5, 4)):
        with pytest.raises(ShapeError, match="channels"):
            layer(wrong)
    with pytest.raises(ShapeError, match="initial_state"):
        layer(u, layer.initial_state(3))
    with pytest.raises(ShapeError, match="channels"):
        layer.step(torch.zeros(2, 4), layer.initial_state(2))
    with pytest.raises(OptionError, match="floating"):
        layer(u.long())
    with pytest.raises(OptionError, match="mode"):
        layer(u, mode="fft")
    for rate in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(OptionError, match="rate"):
            layer(u, rate=rate)
    both = made(name, bidirectional=True)
    for call in (
        lambda: both(u, return_state=True),
        lambda: both(u, both.initial_state(2)),
        lambda: both.step(u[:, 0], both.initial_state(2)),
    ):
        with pytest.raises(OptionError, match="bidirectional"):
            call()
    for options in ({"step_range": (0.0, 1.0)}, {"step_range": (1.0, 0.1)}, {"state": 0}):
        with pytest.raises(OptionError):
            made(name, **options)


def test_wrong_options_are_refused():
    for name in ("s4", "s4d"):
        with pytest.raises(ShapeError, match="length"):
            made(name).kernel(0)
    with pytest.raises(OptionError, match="blocks"):
        made("s5", state=8, blocks=3)
    for name in ("s4d", "s5"):
        with pytest.raises(OptionError, match="zoh"):
            made(name, discretisation="zohh")
        with pytest.raises(OptionError, match="legs"):
            made(name, init="leg")
        with pytest.raises(OptionError, match="states"):
            made(name, state=6, init=start("legs", 4))
        ranked = replace(start("legs", 8), P=torch.ones(4, dtype=torch.complex128))
        with pytest.raises(OptionError, match="rank"):
            made(name, init=ranked)
    layer, u = made("s5"), torch.zeros(2, 5, 3)
    with pytest.raises(ShapeError, match="steps"):
        layer(u, steps=torch.ones(2, 4))
    with pytest.raises(ShapeError, match="mask"):
        layer(u, mask=torch.ones(5, dtype=torch.bool))
    with pytest.raises(OptionError, match="bool"):
        layer(u, mask=torch.ones(2, 5))
    for bad in (0.0, -1.0, torch.nan, torch.inf):
        steps = torch.ones(2, 5)
        steps[1, 3] = bad
        with pytest.raises(OptionError, match="positive"):
            layer(u, steps=steps)
    with pytest.raises(OptionError, match="scan"):
        layer(u, steps=torch.ones(2, 5), mode="convolution")
    with pytest.raises(ShapeError, match="sample"):
        layer.stepper()(np.ones(4))


@pytest.mark.parametrize("kind", [S4D, S5, S4])
def test_second_derivatives_are_refused_not_wrong(kind):
    layer, u = kind(2, state=4).double(), torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(OptionError, match="second derivatives"):
        torch.autograd.grad(layer(u).square().sum(), u, create_graph=True)


@pytest.mark.parametrize(("kind", "other"), [(S4D, S4), (S5, S4), (S4, S4D)])
def test_a_state_of_the_other_kind_is_refused(kind, other):
    layer, state = kind(4, state=8), other(4, state=8).initial_state(2)
    for call in (lambda: layer(torch.randn(2, 9, 4), state), lambda: layer.step(torch.randn(2, 4), state)):
        with pytest.raises(OptionError, match="initial_state"):
            call()


@pytest.mark.parametrize("given", [{"steps": 2.0}, {"steps": [1.0] * 9}, {"mask": np.ones((2, 9), bool)}])
def test_steps_and_masks_that_are_no_tensors_are_refused(given):
    with pytest.raises(OptionError, match="as_tensor"):
        S5(3, state=4)(torch.randn(2, 9, 3), **given)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # that the compiler looks at
@pytest.mark.parametrize("kind", [S4D, S5, S4])
def test_compiled_layers_give_the_same(kind, generator):
    layer, u = kind(2, state=4), sequence(generator, 2, 30, 2)
    compiled = torch.compile(layer, backend="eager")
    found = [torch.autograd.grad(each(u).square().sum(), layer.C)[0] for each in (layer, compiled)]
    assert torch.equal(compiled(u), layer(u))
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", [S4D, S5, S4])
def test_transforms_of_functions_are_refused_by_name(kind):
    with pytest.raises(OptionError, match=r"torch\.func"):
        torch.func.vmap(kind(2, state=4))(torch.zeros(3, 1, 5, 2))


@pytest.mark.parametrize("kind", [S4D, S5, S4])
@pytest.mark.parametrize("count", [-1, 1.5, "2", True, None])
def test_counts_that_are_none_are_refused_by_name(kind, count):
    for name, call in (
        ("channels", lambda: kind(count)),
        ("state", lambda: kind(2, state=count)),
        ("batch", lambda: kind(2, state=4).initial_state(count)),
    ):
        with pytest.raises(OptionError, match=f"{name} = .*whole number"):
            call()


def test_samples_of_steppers_may_be_lists_and_must_be_real():
    for layer in (S4D(2, state=4), S5(2, state=4)):
        stepper, same = layer.stepper(), layer.stepper()
        assert np.array_equal(stepper([1, 2.5]), same(np.array([1, 2.5])))
        with pytest.raises(OptionError, match="real"):
            stepper(np.ones(2, complex))
