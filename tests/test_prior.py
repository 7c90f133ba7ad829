"""The prior of an equation, which a network corrects, and the bound of an error by its residual."""

import numpy as np
import pytest
import torch

import neuralsolve as ns
from neuralsolve.data import Layout, Samples
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models import Surrogate
from neuralsolve.pde.darcy import Darcy
from neuralsolve.pde.equation import with_prior


def test_a_prior_is_corrected_and_kept_by_the_file(tmp_path):
    data = with_prior(Darcy(grid=17, stride=2).samples(range(8), seed=905))
    guess = data.inputs[:, 1:].mean(1, keepdims=True)
    torch.manual_seed(906)
    model = Surrogate.of({"name": "unet", "width": 8, "levels": 2}, data, prior=2)
    with torch.no_grad():
        for p in model.net.head.parameters():
            p.zero_()
    left = (data.outputs - guess).mean()  # of a channel's normaliser, which zero comes back from
    np.testing.assert_allclose(model.predict(data), guess + left, atol=1e-8)
    model.save(tmp_path / "model.safetensors")
    again = Surrogate.load(tmp_path / "model.safetensors")
    assert again.prior == 2
    np.testing.assert_array_equal(again.predict(data), model.predict(data))


def test_the_prior_of_darcy_is_the_solution_where_it_was_solved_on_the_same_grid():
    data = Darcy(grid=17).samples(range(3), seed=905)
    found = Darcy(grid=17).prior(data.inputs)
    np.testing.assert_allclose(found[:, 0], data.outputs[:, 0], rtol=1e-5, atol=1e-9)
    one_sided = Darcy(grid=17, far_wall=False).samples(range(3), seed=905)
    found = Darcy(grid=17, far_wall=False).prior(one_sided.inputs)
    assert found.shape == (3, 2, 16, 16)
    assert np.linalg.norm(found[:, 0] - one_sided.outputs[:, 0]) < 0.2 * np.linalg.norm(one_sided.outputs)


def test_data_without_a_prior_are_told_of():
    layout = Layout((np.arange(8) / 8,), boundary=("periodic",), equation={"name": "burgers"})
    data = Samples(np.ones((2, 1, 8)), np.ones((2, 1, 8)), layout)
    with pytest.raises(OptionError, match="'burgers' has no prior"):
        with_prior(data)


def test_the_bound_of_darcy_holds_and_says_nothing_where_it_cannot():
    equation = Darcy(grid=33)
    a = equation.permeability(3, seed=905)
    exact = ns.solve(equation.operator(a), equation.right_side(a), rtol=1e-13).x
    generator = np.random.default_rng(907)
    for size in (1e-9, 1e-7, 1e-5):
        x = exact + size * generator.standard_normal(exact.shape)
        error = np.linalg.norm(x - exact) / np.linalg.norm(exact)
        assert error <= equation.bound(a, x)
        walls_too = np.pad(x.reshape(31, 31), 1, constant_values=9.0)
        assert equation.bound(a, x) == equation.bound(a, walls_too)
    with pytest.raises(ShapeError, match=r"\(961,\), at the inner vertices, or \(33, 33\)"):
        equation.bound(a, np.ones((31, 31)))
    assert equation.bound(a, 0 * exact) == np.inf
