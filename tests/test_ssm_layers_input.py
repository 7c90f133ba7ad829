"""State-space layers: what is refused by name, and what stands between torch and them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from state_space_layers import ALL, made, sequence

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models.s4 import S4
from neuralsolve.models.s4d import S4D
from neuralsolve.models.s5 import S5
from neuralsolve.ssm.starts import start

pytestmark = pytest.mark.usefixtures("double_precision")


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
