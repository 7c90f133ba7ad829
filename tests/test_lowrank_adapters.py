"""Laws of the adapters: what they begin with, what they can reach, and that they come off without a trace."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuralsolve.errors import NonFiniteError, OptionError
from neuralsolve.lowrank.adapters import (
    GPM,
    OSF,
    SALT,
    Effort,
    LoLDU,
    LoRA,
    LoRASB,
    LoRAXS,
    SVFit,
    attach,
    deltas_of,
    detach,
    disabled,
    make_adapter,
    merge,
    merged_copy,
    penalty,
    save_adapter,
    summary,
    trainable_parameters,
)
from neuralsolve.lowrank.adapters.loldu import ldu
from neuralsolve.lowrank.adapters.options import Adapter
from neuralsolve.lowrank.views import MatrixView

m, n, r = 12, 9, 3
p = min(m, n)
METHODS: dict[str, tuple[Adapter, int]] = {  # and the real numbers trained for a real matrix (m, n)
    "lora": (LoRA(rank=r, alpha=2.0), r * (m + n)),
    "lora-xs": (LoRAXS(rank=r), r * r),
    "lora-sb": (LoRASB(rank=r), r * r),
    "lora-sb raw": (LoRASB(rank=r, signed=False), r * r),
    "svfit": (SVFit(energy=1.0), p),
    "svfit of a rank": (SVFit(rank=r), r),
    "salt": (SALT(rank=r, keep=5 / 9), 2 * 5 + 2 * r * (p - 5)),
    "salt nonnegative": (SALT(rank=2, keep=2 / 9, nonnegative=True), 2 * 2 + 2 * 2 * (p - 2)),
    "loldu": (LoLDU(rank=r, alpha=2.0), r + 1),
    "loldu rank-revealing": (LoLDU(rank=r, pivot="rank-revealing"), r + 1),
    "osf": (OSF(keep=4 / 9), (p - 4) * (m + n + 1)),
    "gpm": (GPM(keep=0.3), m * n),
    "effort": (Effort(tail=2), 2 * (m + n + 1)),
    "effort soft": (Effort(tail=2, hard=False), 2 * (m + n + 1)),
}
EACH = pytest.mark.parametrize("adapter", [each for each, _ in METHODS.values()], ids=METHODS)
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


class Single(nn.Module):
    """One weight of any dtype and shape."""

    def __init__(self, weight: Tensor, view: MatrixView | None = None):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.matrix_views = {} if view is None else {"weight": view}

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mH


def drawn(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=generator, dtype=dtype)


def put(model: nn.Module, adapter: Adapter, generator: torch.Generator) -> nn.Module:
    """Attach; the loss is linear, so that its gradient is any matrix at all."""
    where = {name: drawn(generator, *p.shape, dtype=p.dtype) for name, p in model.named_parameters()}

    def loss() -> Tensor:
        found = sum((where[k] * p).real.sum() for k, p in model.named_parameters())
        return torch.stack([found]) if adapter.wants_losses else found  # type: ignore[list-item, return-value]

    return attach(model, adapter, loss if adapter.wants_loss() else None)


def train(model: nn.Module, steps: int, generator: torch.Generator, rate: float = 0.05) -> None:
    """Draw the weights to other ones by AdamW, with decay."""
    optimizer = torch.optim.AdamW(trainable_parameters(model), rate, weight_decay=0.1)
    goals = {
        name: drawn(generator, *d.shape, dtype=d(_base(model, name)).dtype)
        for name, d in deltas_of(model).items()
    }
    for _ in range(steps):
        optimizer.zero_grad()
        made = {name: d(_base(model, name)) for name, d in deltas_of(model).items()}
        loss = sum((made[k] - goals[k]).abs().square().sum() for k in made)
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()


def _base(model: nn.Module, name: str) -> Tensor:
    path, _, key = name.rpartition(".")
    return model.get_submodule(path).parametrizations[key].original  # type: ignore[index, union-attr]


def eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


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


@pytest.mark.parametrize("name", ["svfit", "svfit of a rank"])
def test_svfit_changes_singular_values_alone(name, generator):
    W = drawn(generator, m, n)
    model = put(Single(W), METHODS[name][0], generator)
    train(model, 20, generator)
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    core = U.mH @ (model.weight - W) @ Vh.mH
    off = core - torch.diag(core.diagonal())
    assert off.norm() <= 100 * eps(W.dtype) * W.norm()


def test_salt_keeps_its_blocks_apart(generator):
    W = drawn(generator, m, n)
    model = put(Single(W), SALT(rank=2, keep=5 / 9), generator)
    delta = deltas_of(model)["weight"]
    (model.weight * drawn(generator, m, n)).sum().backward()
    assert not delta.X.grad.any()  # Y = 0
    assert delta.Y.grad.norm() > 0.1
    train(model, 20, generator)
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    core = U.mH @ (model.weight - W) @ Vh.mH
    bound = 100 * eps(W.dtype) * W.norm()
    assert core[:5, 5:].norm() <= bound
    assert core[5:, :5].norm() <= bound
    assert (core[:5, :5] - torch.diag(core.diagonal()[:5])).norm() <= bound
    assert torch.linalg.matrix_rank(core[5:, 5:], tol=1e-8) == 2


def test_salt_cuts_singular_values_at_zero_where_asked(generator):
    W = drawn(generator, m, n)
    model = put(Single(W), SALT(rank=1, keep=5 / 9, nonnegative=True), generator)
    delta = deltas_of(model)["weight"]
    with torch.no_grad():
        delta.shift[0] = -2 * delta.s[0]
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    assert abs(U[:, 0].dot(model.weight @ Vh[0])) <= 100 * eps(W.dtype) * s[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_lora_sb_begins_with_the_best_low_rank_step(dtype, generator):
    W, G = drawn(generator, m, n, dtype=dtype), drawn(generator, m, n, dtype=dtype)
    model = Single(W)
    attach(model, LoRASB(rank=r, step=0.01), lambda: (G.conj() * model.weight).real.sum())
    sign = torch.complex(G.real.sign(), G.imag.sign()) if dtype.is_complex else G.sign()
    U, s, Vh = torch.linalg.svd(-0.01 * sign, full_matrices=False)
    best = (U[:, :r] * s[:r]) @ Vh[:r]
    assert (model.weight - W - best).norm() <= 100 * eps(dtype) * W.norm()
    assert (G.conj() * (model.weight - W)).real.sum() < 0  # the loss falls
    delta = deltas_of(model)["weight"]
    eye = torch.eye(r, dtype=dtype)
    assert (delta.left.mH @ delta.left - eye).norm() <= 50 * eps(dtype)
    assert (delta.right @ delta.right.mH - eye).norm() <= 50 * eps(dtype)
    (G.conj() * model.weight).real.sum().backward()  # and its gradient is the projected one
    through = delta.left @ delta.core.grad @ delta.right
    wanted = delta.left @ (delta.left.mH @ G @ delta.right.mH) @ delta.right
    assert (through - wanted).norm() <= 50 * eps(dtype) * G.norm()


@pytest.mark.parametrize("pivot", ["partial", "rank-revealing"])
@pytest.mark.parametrize("shape", [(m, n), (n, m), (1, 5), (4, m, n), (6, 6)])
def test_ldu_is_the_matrix(pivot, shape, generator):
    for dtype in (torch.float64, torch.complex128):
        W = drawn(generator, *shape, dtype=dtype)
        for each in (W, torch.zeros_like(W), (W[..., :1] @ W[..., :1, :])):
            left, pivots, right = ldu(each, pivot)
            made = (left * pivots[..., None, :]) @ right
            # growth of elimination with partial pivoting is at most 2^(p - 1), in practice about p
            assert (made - each).norm() <= 100 * eps(dtype) * max(float(each.norm()), 1.0)


def test_a_pivoted_order_makes_leading_pivots_count(generator):
    decay = torch.logspace(0, -4, 20, dtype=torch.float64)
    Q, P = (torch.linalg.qr(drawn(generator, 20, 20)).Q for _ in range(2))
    W = (Q * decay) @ P
    lost = {}
    for pivot in ("partial", "rank-revealing"):
        left, pivots, right = ldu(W, pivot)
        lost[pivot] = float((W - (left[:, :6] * pivots[:6]) @ right[:6]).norm())
    assert lost["rank-revealing"] <= 10 * float(decay[6:].norm())
    assert lost["rank-revealing"] < lost["partial"]


@pytest.mark.parametrize("start", ["lu", "uniform", "normal", "constant", "ones", "zeros"])
def test_loldu_begins_with_the_weight_whatever_its_pivots_are(start, generator):
    W = drawn(generator, m, n)
    model = put(Single(W), LoLDU(rank=r, start=start), generator)
    assert torch.equal(model.weight, W)
    train(model, 3, generator)
    assert not torch.equal(model.weight, W)


HARD = pytest.mark.parametrize("adapter", [OSF(keep=4 / 9), Effort(tail=5)], ids=["osf", "effort"])


@HARD
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(m, n), (n, m)])
def test_nothing_leaks_into_the_protected_subspaces(adapter, dtype, shape, generator):
    # under AdamW, whose steps are turned out of any subspace by their scaling of single entries
    W = drawn(generator, *shape, dtype=dtype)
    model = put(Single(W), adapter, generator)
    train(model, 60, generator)
    change = model.weight - W
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    assert change.norm() > 0.3 * W.norm()
    bound = 4 * p * eps(dtype) * change.norm()
    assert (U[:, :4].mH @ change).norm() <= bound
    assert (change @ Vh[:4].mH).norm() <= bound
    assert (U[:, :4].mH @ model.weight - s[:4, None] * Vh[:4]).norm() <= bound  # triplets stay triplets


def test_a_projected_gradient_would_leak():
    """Why the map itself projects: the same training with projected gradients alone."""
    generator = torch.Generator().manual_seed(11)
    W = drawn(generator, 40, 30)
    model = attach(Single(W), Effort(tail=20, hard=False))
    delta = deltas_of(model)["weight"]
    optimizer = torch.optim.Adam(trainable_parameters(model), 0.02)
    goal = drawn(generator, 40, 30)
    for _ in range(50):
        optimizer.zero_grad()
        (model.weight - goal).square().sum().backward()
        delta.left.grad -= delta.U @ (delta.U.mH @ delta.left.grad)
        delta.right.grad -= (delta.right.grad @ delta.Vh.mH) @ delta.Vh
        optimizer.step()
    change = model.weight - W
    assert (delta.U.mH @ change).norm() > 0.01 * change.norm()


@HARD
def test_projecting_in_the_map_is_projecting_after_every_step(adapter, generator):
    W, goal = drawn(generator, m, n), drawn(generator, m, n)
    ways = []
    for after in (False, True):
        model = attach(Single(W), adapter)
        delta = deltas_of(model)["weight"]
        optimizer = torch.optim.AdamW(trainable_parameters(model), 0.02, weight_decay=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            (model.weight - goal).square().sum().backward()
            optimizer.step()
            if after:
                with torch.no_grad():
                    for held, projected in zip((delta.left, delta.right), delta.outside(), strict=True):
                        held.copy_(projected)
        ways.append(model.weight.detach())
    # rounding may turn the sign of an entry of Adam's first step where a gradient is zero: none is
    assert (ways[0] - ways[1]).norm() <= 1e-9 * W.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_gpm_leaves_an_older_task_alone(dtype, generator):
    old = drawn(generator, 40, 3, dtype=dtype) @ drawn(generator, 3, n, dtype=dtype)  # few kinds of inputs
    model = Single(drawn(generator, m, n, dtype=dtype))
    W, before = model.weight.detach().clone(), model(old).detach()
    aim = drawn(generator, 40, m, dtype=dtype)
    attach(model, GPM(keep=4 / 9), lambda: (model(old) - aim).abs().square().sum(1))
    assert torch.equal(model.weight, W)
    assert deltas_of(model)["weight"].protected.norm() ** 2 == pytest.approx(3, abs=1e-4)  # no more are used
    train(model, 60, generator)
    change = model.weight - W
    assert change.norm() > 0.3 * W.norm()
    assert (model(old) - before).norm() <= 100 * eps(dtype) * old.norm() * (W.norm() + change.norm())


def test_penalties_are_zero_at_first_and_positive_after(generator):
    for adapter in (SALT(rank=2), OSF(), Effort(tail=2), Effort(tail=2, hard=False)):
        model = put(Single(drawn(generator, n, n)), adapter, generator)
        first = float(penalty(model).detach())
        assert abs(first) <= 200 * eps(torch.float64) * n**2
        train(model, 5, generator)
        assert float(penalty(model).detach()) > 0.01
    with pytest.raises(OptionError, match="LoRA has no penalty"):
        penalty(attach(nn.Linear(4, 4), LoRA(rank=1)))


def test_the_soft_penalty_draws_back(generator):
    W, goal = drawn(generator, n, n), drawn(generator, n, n)
    leaks = {}
    for weight in (0.0, 30.0):
        model = attach(Single(W), Effort(tail=3, hard=False))
        delta = deltas_of(model)["weight"]
        optimizer = torch.optim.Adam(trainable_parameters(model), 0.01)
        for _ in range(150):
            optimizer.zero_grad()
            ((model.weight - goal).square().sum() + weight * penalty(model)).backward()
            optimizer.step()
        leaks[weight] = float((delta.U.mH @ delta.left.detach()).norm())
    assert leaks[30.0] < 0.3 * leaks[0.0]


def test_lora_is_its_formula_and_begins_as_torch_does(generator):
    model = attach(nn.Linear(n, m), LoRA(rank=r, alpha=6.0, seed=77))
    delta = deltas_of(model)["weight"]
    A = nn.init.kaiming_uniform_(torch.empty(r, n), a=5**0.5, generator=torch.Generator().manual_seed(77))
    assert torch.allclose(delta.right, A, atol=4 * eps(torch.float32))
    train(model, 3, generator)
    assert torch.allclose(model.weight, _base(model, "weight") + 6.0 / r * delta.left @ delta.right)


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


def test_no_more_than_all_is_trained():
    assert summary(attach(nn.Linear(n, m), LoRA(rank=2)).requires_grad_(True)).share == 1


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        save_adapter(attach(nn.Linear(n, m), LoRA(rank=2)), tmp_path / "nowhere" / "a.safetensors")
