"""Laws of the adapters: what they begin with, what they can reach, and that they come off without a trace."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from lowrank_adapter_models import DTYPES, EACH, METHODS, Single, drawn, m, n, p, put, r, train
from lowrank_laws import eps
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuralsolve.errors import NonFiniteError, OptionError
from neuralsolve.lowrank.adapters import (
    GPM,
    OSF,
    SALT,
    Effort,
    LoRA,
    LoRASB,
    attach,
    deltas_of,
    detach,
    disabled,
    make_adapter,
    merge,
    merged_copy,
    save_adapter,
    summary,
    trainable_parameters,
)
from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.views import MatrixView


@EACH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_weight_begins_as_it_was(adapter, dtype, generator):
    W = drawn(generator, m, n, dtype=dtype)
    model = put(Single(W), adapter, generator)
    if isinstance(adapter, LoRASB) and adapter.signed:  # begins one step ahead, by design
        G = deltas_of(model)["weight"].matrix()
        assert torch.linalg.matrix_rank(G) == r
        assert (model.weight - W - G).norm() <= 4 * eps(dtype) * W.norm()
    else:
        assert torch.equal(model.weight, W)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_as_many_numbers_are_trained_as_the_method_says(name, dtype, generator):
    adapter, count = METHODS[name]
    found = summary(put(Single(drawn(generator, m, n, dtype=dtype)), adapter, generator))
    twice = 2 if dtype.is_complex else 1
    if dtype.is_complex:  # singular values stay real, and so does a scale
        count = {
            "svfit": p,
            "svfit of a rank": r,
            "salt": 2 * 5 + 4 * r * (p - 5),
            "salt nonnegative": 2 * 2 + 4 * 2 * (p - 2),
            "osf": (p - 4) * (2 * (m + n) + 1),
            "effort": 2 * (2 * (m + n) + 1),
            "effort soft": 2 * (2 * (m + n) + 1),
            "loldu": 2 * r + 1,
            "loldu rank-revealing": 2 * r + 1,
        }.get(name, 2 * count)
    assert found.trained == count
    assert found.total == twice * m * n
    assert found.layers == {"weight": count}


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_training_moves_it_merge_keeps_it_detach_undoes_it(adapter, dtype, generator):
    W = drawn(generator, m, n, dtype=dtype)
    model = put(Single(W), adapter, generator)
    x = drawn(generator, 5, n, dtype=dtype)
    far = (model.weight - W).norm()
    train(model, 5, generator)
    assert (model.weight - W).norm() > far + 0.01
    adapted, y = model.weight.detach().clone(), model(x)
    with disabled(model):
        assert torch.equal(model.weight, W)
    assert torch.equal(model.weight, adapted)
    merged = merge(copy.deepcopy(model))
    assert torch.equal(merged.weight, adapted)
    assert torch.equal(merged(x), y)
    assert not parametrize.is_parametrized(merged)
    assert type(merged) is Single
    assert torch.equal(model.weight, adapted)  # the copy has taken nothing from it
    assert torch.equal(detach(model).weight, W)
    assert model.weight.requires_grad


@EACH
def test_only_the_adapter_is_trained(adapter, generator):
    model = put(nn.Sequential(nn.Linear(n, m), nn.Linear(m, 7)), adapter, generator)
    held = {
        k: v.clone() for k, v in model.state_dict().items() if "parametrizations" not in k or "original" in k
    }
    train(model, 3, generator)
    now = model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in held.items())
    assert {id(q) for q in trainable_parameters(model)} == {
        id(q) for d in deltas_of(model).values() for q in d.trained().values()
    }


@EACH
def test_the_state_of_a_model_is_that_of_its_adapter_too(adapter, generator):
    weights = [drawn(generator, m, n, dtype=torch.float32) for _ in range(2)]
    model = put(Single(weights[0]), adapter, generator)
    train(model, 3, generator)
    other = put(Single(weights[1]), adapter, generator)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.weight, model.weight)


def test_half_precision_keeps_factors_in_float32(generator):
    for adapter, _ in METHODS.values():
        model = put(Single(drawn(generator, m, n).bfloat16()), adapter, generator)
        assert model.weight.dtype == torch.bfloat16
        assert all(q.dtype == torch.float32 for q in trainable_parameters(model))
        W = detach(model).weight
        assert W.dtype == torch.bfloat16


@pytest.mark.parametrize("modes", ["view", "unfold", "batch"])
@pytest.mark.parametrize(
    ("shape", "view", "matrix"),
    [
        ((6, 5, 3), None, {"view": (6, 15), "unfold": (6, 15), "batch": (3, 6, 5)}),
        (
            (4, 5, 6, 2),
            MatrixView((2,), (1,), pairs=True),
            {"view": (4, 6, 5), "unfold": (6, 20), "batch": (4, 6, 5)},
        ),
        (
            (6, 4, 5, 2),
            MatrixView((0,), (2, 1), pairs=True),
            {"view": (6, 20), "unfold": (6, 20), "batch": (4, 6, 5)},
        ),
    ],
)
@EACH
def test_weights_of_many_axes_are_batches_of_matrices(adapter, modes, shape, view, matrix, generator):
    W = drawn(generator, *shape)
    few = {"rank": 2} if isinstance(adapter, SALT) else {}
    adapter = dataclasses.replace(adapter, modes=modes, **few)
    model = put(Single(W, view), adapter, generator)
    delta = deltas_of(model)["weight"]
    assert delta.matrix().shape == matrix[modes]
    if not isinstance(adapter, LoRASB):
        assert torch.equal(model.weight, W)
    train(model, 2, generator)
    assert model.weight.shape == W.shape
    assert torch.equal(detach(model).weight, W)


@EACH
@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1), (5, 5)])
def test_thin_and_zero_matrices(adapter, shape, generator):
    one = dataclasses.replace(adapter, **({"rank": 1} if hasattr(adapter, "rank") else {}), min_dim=1)
    for W in (drawn(generator, *shape), torch.zeros(shape, dtype=torch.float64)):
        if min(shape) == 1 and isinstance(one, Effort):
            with pytest.raises(OptionError, match="min_dim"):
                put(Single(W), one, generator)
            continue
        model = put(Single(W.clone()), one, generator)
        assert torch.isfinite(model.weight).all()
        assert torch.equal(detach(model).weight, W)


def test_names_of_methods():
    assert make_adapter("salt", rank=2) == SALT(rank=2)
    with pytest.raises(OptionError, match="did you mean 'lora-xs'"):
        make_adapter("loraxs")
    with pytest.raises(OptionError, match="did you mean 'rank'"):
        make_adapter("lora", rnk=2)


@EACH
def test_nan_in_weights_is_told_and_nothing_is_touched(adapter, generator):
    W = drawn(generator, m, n)
    W[3, 3] = float("nan")
    model = Single(W)
    with pytest.raises(NonFiniteError, match="weight holds NaN"):
        put(model, adapter, generator)
    assert type(model) is Single
    assert list(model.state_dict()) == ["weight"]
    assert model.weight.requires_grad


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda net: attach(net, LoRA), "the class LoRA"),
        (lambda net: attach(net, "lora"), "make_adapter"),
        (lambda net: attach(3, LoRA(rank=2)), "torch.nn.Module"),
        (lambda net: LoRA(rank=2, targets="("), "no regular expression"),
        (lambda net: attach(net, GPM(), lambda: net(torch.ones(5, n)).sum()), "a vector"),
        (lambda net: attach(net, LoRASB(rank=2), lambda: torch.ones(())), "without a graph"),
        (lambda net: attach(net, LoRASB(rank=2), lambda: net.bias.sum()), "none of weight"),
        (merge, "no adapter is attached"),
        (merged_copy, "no adapter is attached"),
        (trainable_parameters, "no adapter is attached"),
        (lambda net: disabled(net).__enter__(), "no adapter is attached"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_touched(call, told):
    net = nn.Linear(n, m)
    with pytest.raises(OptionError, match=told):
        call(net)
    assert list(net.state_dict()) == ["weight", "bias"]
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_no_more_numbers_are_free_than_the_weight_has_and_no_fewer_than_the_change(adapter, dtype, generator):
    model = put(Single(drawn(generator, m, n, dtype=dtype)), adapter, generator)
    train(model, 3, generator)  # away from factors of zero, beside which others change nothing
    found, delta = summary(model), deltas_of(model)["weight"]
    dimensions = torch.linalg.matrix_rank(jacobian(delta, dtype), rtol=1e-9)
    assert dimensions <= found.free <= found.total
    if isinstance(adapter, GPM | OSF | Effort) and getattr(adapter, "hard", True):
        assert dimensions == found.free


def jacobian(delta: Delta, dtype: torch.dtype) -> Tensor:
    """Return the derivatives of a change by all that is trained, all as real numbers."""
    trained = {name: value.detach() for name, value in delta.trained().items()}

    def change(*parts: Tensor) -> Tensor:
        pairs = zip(trained.items(), parts, strict=True)
        held = {name: torch.view_as_complex(x) if v.is_complex() else x for (name, v), x in pairs}
        found = torch.func.functional_call(delta, held, (torch.zeros(m, n, dtype=dtype),))
        return torch.view_as_real(found) if found.is_complex() else found

    real = [torch.view_as_real(v) if v.is_complex() else v for v in trained.values()]
    found = torch.autograd.functional.jacobian(change, tuple(real))
    rows = 2 * m * n if dtype.is_complex else m * n
    return torch.cat([each.reshape(rows, -1) for each in found], 1)


def test_no_more_than_all_is_trained():
    assert summary(attach(nn.Linear(n, m), LoRA(rank=2)).requires_grad_(True)).share == 1


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        save_adapter(attach(nn.Linear(n, m), LoRA(rank=2)), tmp_path / "nowhere" / "a.safetensors")
