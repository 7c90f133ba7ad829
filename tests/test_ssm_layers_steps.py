"""State-space layers in time: rates, steps of any length, missing samples, steppers, starts and groups."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from state_space_layers import ALL, DIAGONAL, METHODS, apart, by_steps, held, made, real_system, sequence

from neuralsolve.models.state_space import joined, parameter_groups
from neuralsolve.ssm.starts import Start, start

pytestmark = pytest.mark.usefixtures("double_precision")


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
