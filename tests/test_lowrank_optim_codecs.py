"""Codecs of optimizers: how far numbers go astray in few bits, fair rounding, what bytes there are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.optim import Adam8bit, GaLore, QGaLore
from neuralsolve.lowrank.optim.codecs import Brain, Full, Int4, Int8, Int8Weights
from neuralsolve.lowrank.optim.projectors import Place
from neuralsolve.lowrank.optim.selections import BasisSelect, dct, dct_matrix

SHAPES = pytest.mark.parametrize("shape", [(), (1,), (7,), (256,), (3, 5, 17), (40, 33), (0,)], ids=str)
CODECS = pytest.mark.parametrize("codec", [Full(), Brain(), Int8(), Int4(), Int8(32), Int4(64)], ids=repr)


@CODECS
@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_numbers_come_back_in_their_shape_and_dtype(codec, shape, dtype, generator):
    x = torch.randn(shape, generator=generator, dtype=dtype)
    parts = codec.encode(x)
    found = codec.decode(parts, dtype)
    assert found.shape == x.shape
    assert found.dtype == dtype
    assert codec.elements(parts) == x.numel() * (2 if x.is_complex() else 1)
    # half a level of a block in 4 bits: 1/30 of its range, at most twice the largest modulus
    error = (found - x).abs().max() if x.numel() else torch.tensor(0.0)
    parts_of = torch.view_as_real(x) if x.is_complex() else x
    assert float(error) <= 2**0.5 * (2 / 30 + 1e-6) * float(parts_of.abs().max() if x.numel() else 0)


def test_eight_bits_keep_small_numbers_relatively(generator):
    # decades of 2^(6-d) steps: within half a step, relative to the number, down to 1e-3 of the largest
    x = torch.cat([torch.ones(1), 10 ** (-3 * torch.rand(255, generator=generator))])
    for signed, steps in ((True, 2**4), (False, 2**5)):
        found = Int8().decode(Int8().encode(x, signed), x.dtype)
        assert ((found - x).abs() / x).max() <= 0.9 / steps / 0.1 / 2 + 1e-6
    assert torch.equal(Int8().decode(Int8().encode(-x), x.dtype)[:1], -x[:1])
    assert Int8().decode(Int8().encode(torch.zeros(300)), torch.float32).abs().max() == 0


def test_blocks_of_one_sign_are_not_clipped(generator):
    for x in (5 + torch.rand(256, generator=generator), -5 - torch.rand(256, generator=generator)):
        found = Int4().decode(Int4().encode(x), x.dtype)
        assert (found - x).abs().max() <= (x.max() - x.min()) / 30 + 1e-6


def test_stochastic_rounding_is_fair(generator):
    # a rounding has at most the variance scale^2/4: the mean of 10^4 is within 4 deviations of it
    grid, count = Int8Weights(), 10_000
    x = torch.randn(64, generator=generator)
    mean = torch.stack([grid.rounded(x, generator) for _ in range(count)]).double().mean(0)
    scale = grid.encode(x)[".scale"]
    assert ((mean - x).abs() <= 4 * scale / 2 / count**0.5).all()


def test_steps_below_a_level_add_up():
    # Denjoy and Koksma: of q golden turns, q Fibonacci, any arc holds its part of q, up to its variation, 2
    grid, turns, parts = Int8Weights(), 89, torch.linspace(-0.9, 0.9, 255)
    W = torch.zeros(256)
    W[0] = 100.0  # holds the scale of the block at 1
    for turn in range(turns):
        W[1:] += parts
        W = grid.rounded(W, torch.Generator().manual_seed(77), turn)
    assert (W[1:] - turns * parts).abs().max() <= 2 + 1e-3


@SHAPES
def test_weights_on_the_grid_stay_and_need_a_byte(shape, generator):
    grid = Int8Weights()
    W = grid.rounded(torch.randn(shape, generator=generator), generator)
    parts = grid.encode(W)
    assert torch.equal(grid.rounded(W, generator), W)
    assert torch.equal(grid.decode(parts, W.dtype), W)
    assert parts[""].dtype == torch.int8
    assert parts[""].nbytes == W.numel()


def test_a_basis_in_four_bits_is_nearly_orthonormal(generator):
    P = torch.linalg.qr(torch.randn(128, 32, generator=generator)).Q
    found = Int4(128).decode(Int4(128).encode(P), P.dtype)
    assert torch.linalg.matrix_norm(found.T @ found - torch.eye(32), 2) <= 0.15
    A = P @ torch.randn(32, 200, generator=generator)
    span = torch.linalg.qr(found).Q
    assert (span.T @ A).norm() ** 2 >= 0.98 * A.norm() ** 2


def test_bytes_are_those_of_the_formulas(generator):
    m, n, r = 32, 256, 8
    net = nn.Linear(n, m, bias=False)
    for method, needed in (
        (GaLore(rank=r), 4 * (m * r + 2 * r * n)),
        (QGaLore(rank=r), m * r // 2 + 8 * (m * r // 128) + 2 * r * n + 2 * 4 * (r * n // 256)),
        (Adam8bit(), 2 * m * n + 2 * 4 * (m * n // 256)),
    ):
        optimizer = method.optimizer(net)
        net.weight.grad = torch.randn(m, n, generator=generator)
        optimizer.step()
        counted = sum(v.nbytes for k, v in optimizer.state[net.weight].items() if "to." in k or "exp" in k)
        extra = sum(
            v.nbytes for k, v in optimizer.state[net.weight].items() if k.endswith(("shape", "unsigned"))
        )
        assert counted - extra == needed
        assert optimizer.state_bytes() <= needed + 64


def test_adam_in_eight_bits_goes_nearly_the_way_of_adam(generator):
    # a level is within 5 % of a moment: ten steps of lr each stay within 10 lr * (5 % + 5 %/2) of Adam's
    ours, theirs = (nn.Linear(64, 64, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    first, second = Adam8bit().optimizer(ours, 1e-3), torch.optim.Adam(theirs.parameters(), 1e-3)
    G = torch.randn(64, 64, generator=generator)
    for _ in range(10):
        ours.weight.grad, theirs.weight.grad = G.clone(), G.clone()
        first.step()
        second.step()
    assert ((ours.weight - theirs.weight).abs() <= 10 * 1e-3 * 0.5).all()
    assert (ours.weight - theirs.weight).abs().mean() <= 10 * 1e-3 * 0.075


@pytest.mark.parametrize("codec", [Int8, Int4, Int8Weights])
def test_blocks_that_cannot_be_are_refused(codec):
    with pytest.raises(OptionError, match="even number"):
        codec(block=3)


# cosines


@pytest.mark.parametrize("n", [1, 2, 5, 12, 33])
def test_the_transform_is_orthonormal_and_that_of_the_fft(n, generator):
    Q = dct_matrix(n)
    assert (Q.T @ Q - torch.eye(n)).abs().max() <= 4 * n * torch.finfo(torch.float64).eps
    for dtype in (torch.float64, torch.complex128):
        A = torch.randn(3, n, 7, generator=generator, dtype=dtype)
        assert torch.allclose(dct(A), Q.T.to(dtype) @ A, atol=1e-13)


@pytest.mark.parametrize("basis", ["dct", "identity"])
def test_the_longest_rows_leave_what_the_formula_says_and_no_choice_leaves_less(basis, generator):
    A = torch.randn(2, 12, 20, generator=generator, dtype=torch.complex128)
    kind, place = BasisSelect(basis), Place(seed=9, step=0)
    chosen = kind.refresh(A, 4, None, place)
    lengths = kind.coordinates(A).abs().square().sum(-1).sort(-1, descending=True).values

    def left(indices):
        return (A - kind.up(kind.down(A, indices), indices, A.shape)).abs().square().sum((-2, -1))

    assert torch.allclose(left(chosen), lengths[:, 4:].sum(-1))
    for k in range(20):
        other = BasisSelect(basis, choice="random").refresh(A, 4, None, Place(seed=9, step=k))
        assert (left(chosen) <= left(other) + 1e-12).all()


def test_moments_follow_their_cosines():
    kind, m = BasisSelect(), torch.arange(1.0, 4)[:, None]
    old, new = ({"indices": torch.tensor(which)} for which in ([1, 4, 7], [4, 5, 7]))
    assert kind.carry(m, new, old, squared=False).flatten().tolist() == [2, 0, 3]
    assert kind.alignment(new, old) == pytest.approx(2 / 3)
