"""Layers of s5-pytorch, and ours with their weights."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from neuralsolve.models.s5 import S5
from neuralsolve.ssm.starts import Start

PEER = "s5-pytorch"


def release_of_the_peer() -> str | None:
    """Return its name and version; None where it is not installed."""
    try:
        return f"{PEER} {version(PEER)}"
    except PackageNotFoundError:
        return None


def drawn_peer(width: int, steps: tuple[float, float] = (1e-3, 1e-1)) -> tuple[nn.Module, Any]:
    """Return a layer of theirs, weights from torch's generator, and what of it holds them.

    The two eigenvalues of a pair have equal steps, so that one of them tells of the other.
    """
    from s5 import S5 as Peer  # type: ignore[import-not-found]

    peer = Peer(width, width, dt_min=steps[0], dt_max=steps[1])
    inner = peer.seq
    half = len(inner.Lambda) // 2
    with torch.no_grad():
        inner.log_step.copy_(torch.cat([inner.log_step[half:].flip(0), inner.log_step[half:]]))
    return peer, inner


def same_layers(width: int) -> dict[str, nn.Module]:
    """Return the peer, our layer with all its states, and our layer with one of each pair, weights copied."""
    with torch.random.fork_rng():
        torch.manual_seed(2208)
        peer, inner = drawn_peer(width)
        kinds = {"all states": False, "pairs": True}
        return {"peer": peer} | {name: copied(inner, pairs) for name, pairs in kinds.items()}


def copied(inner: Any, pairs: bool) -> S5:
    """Return our layer with the weights of theirs: all its states, or one of each pair."""
    width, weight = len(inner.D), 2.0 if pairs else 1.0
    kept = slice(len(inner.Lambda) // 2 if pairs else 0, None)
    eigenvalues, B, C = inner.Lambda.detach()[kept], inner.B.detach()[kept], inner.C.detach()
    N = len(eigenvalues)
    if pairs:  # x of the other one of a pair is conj(x) times the phase between their eigenvectors
        mine, other = torch.view_as_complex(B), torch.view_as_complex(inner.B.detach()[:N].flip(0))
        phase = (other * mine).sum(1) / mine.abs().square().sum(1)
        C = (C[:, kept] + (C[:, :N].flip(1) * phase).conj()) / 2
    one = torch.ones(N, dtype=torch.complex128)
    V = torch.eye(width, N, dtype=torch.complex128)
    V[N:] = 1j * torch.eye(width - N, N)  # of no use but that it can be inverted: B and C are copied
    ours = S5(width, width, init=Start(eigenvalues.to(one.dtype), weight * one.real, one, V))
    with torch.no_grad():
        ours.log_step.copy_(inner.log_step[kept])
        ours.B.copy_(B)
        ours.C.copy_(torch.view_as_real(C.resolve_conj())[None])
        ours.D.copy_(inner.D)
    return ours
