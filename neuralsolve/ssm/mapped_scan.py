"""The outputs of a diagonal system with full B and C, without the states of a whole sequence.

    x_k = a x_{k-1} + B u_k,   y_k = Re(C x_k) + D u_k

Rows of samples are taken in blocks that stay in cache: B u, the recurrence in place, Re(C x). The state
before each block is kept; the backward pass runs through the blocks in the opposite order and forms their
states again. Groups of sequences go to threads, each of which does its products alone: two threads that share
small products wait for each other longer than the products take. Sums over sequences are taken group by
group, so that results do not depend on the number of threads. Source of the layer: Smith, Warrington &
Linderman (ICLR 2023, arXiv 2208.04933).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.ssm.precision import as_given, first_derivative_only, not_compiled

BLOCK = 1 << 18  # numbers of the states of a block: 1 MB of float32, half of a core's cache
GROUPS = 8
ALONE = 1 << 18  # numbers of all states below which one thread does it


@not_compiled
def mapped_scan(
    a: Tensor,
    B: Tensor,
    C: Tensor,
    u: Tensor,
    initial: Tensor | None = None,
    D: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return y_k = Re(C x_k) + D u_k with x_k = a x_{k-1} + B u_k, and the last state.

    Parameters
    ----------
    a : (P,) complex
    B : (P, H) complex
    C : (O, P) complex
    u : (batch, L, H) real
    initial : (batch, P) complex, optional
    D : (H,) real, optional
        Only where O = H.
    reverse : bool
        From the end of the sequences to their start.

    Returns
    -------
    y : (batch, L, O), the dtype of u
    last : (batch, P) complex128

    Examples
    --------
    >>> one = torch.ones(1, 1, dtype=torch.complex64)
    >>> mapped_scan(torch.tensor([0.5 + 0j]), one, one, torch.ones(1, 3, 1))[0].flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    if initial is None:
        initial = u.new_zeros(u.shape[0], a.shape[0], dtype=torch.complex128)
    inputs = torch.view_as_real(B).permute(1, 0, 2).flatten(1).to(u.dtype)  # (H, 2 P)
    outputs = torch.view_as_real(C.conj().resolve_conj()).flatten(1).to(u.dtype)  # (O, 2 P)
    arguments = a.to(torch.complex128), inputs, outputs, u, initial.to(torch.complex128), D, reverse
    return _MappedScan.apply(*arguments)  # type: ignore[return-value]


class _Maps(NamedTuple):
    """What a block needs: a (P,), inputs (H, 2 P) and outputs (O, 2 P) as pairs of real numbers, D (H,)."""

    kernels: Any
    a: Tensor
    inputs: Tensor
    outputs: Tensor
    D: Tensor | None
    reverse: bool

    def states(self, given: Tensor, state: Tensor, room: Tensor) -> Tensor:
        """Return the states of rows of samples, in pairs of real numbers; state becomes the last one."""
        x = torch.mm(given, self.inputs, out=room[: len(given)])
        v = _sequences(x, state)
        self.kernels.diagonal_scan(self.a, v, state, v, state, self.reverse)
        return x


class _MappedScan(torch.autograd.Function):
    @staticmethod
    @as_given
    def forward(
        ctx: Any,
        a: Tensor,
        inputs: Tensor,
        outputs: Tensor,
        u: Tensor,
        initial: Tensor,
        D: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        a, inputs, outputs, u = (t.detach().resolve_conj().contiguous() for t in (a, inputs, outputs, u))
        D = None if D is None else D.detach().contiguous()
        maps = _Maps(table(u.device), a, inputs, outputs, D, reverse)
        y, state = u.new_empty(*u.shape[:2], len(outputs)), initial.detach().resolve_conj().clone()
        ctx.groups = _groups(u, inputs.shape[1], reverse)
        rooms: list[Tensor] = []
        ctx.before = _in_threads(lambda c: _forward(maps, ctx.groups[c], u, y, state, rooms), len(ctx.groups))
        ctx.save_for_backward(a, inputs, outputs, u, D)
        ctx.reverse = reverse
        return y, state

    @staticmethod
    @first_derivative_only
    @as_given
    def backward(ctx: Any, grad: Tensor, of_last: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, inputs, outputs, u, D = ctx.saved_tensors
        maps = _Maps(table(u.device), a, inputs, outputs, D, ctx.reverse)
        grad, carry = grad.contiguous(), of_last.resolve_conj().clone(memory_format=torch.contiguous_format)
        of_u = torch.empty_like(u) if ctx.needs_input_grad[3] else None
        rooms: list[Tensor] = []

        def task(c: int) -> tuple[Tensor, ...]:
            return _backward(maps, ctx.groups[c], ctx.before[c], (u, grad, carry, of_u), rooms)

        found = _in_threads(task, len(ctx.groups))
        of_a, of_in, of_out, of_D = (torch.stack(parts).sum(0) for parts in zip(*found, strict=True))
        return of_a, of_in, of_out, of_u, carry, None if D is None else of_D.to(D.dtype), None


Block = tuple[int, int, int, int]  # b0, b1, k0, k1: several whole sequences, or a piece of one
Blocks = list[Block]


def _forward(
    maps: _Maps, blocks: Blocks, u: Tensor, y: Tensor, state: Tensor, rooms: list[Tensor]
) -> list[Tensor]:
    """Set the outputs and last states of some blocks; return the states before each of them."""
    before, room = [], _room(rooms, blocks, maps.inputs)
    for block in blocks:
        now = state[block[0] : block[1]]
        before.append(now.clone())
        given, made = _rows(u, block), _rows(y, block)
        torch.mm(maps.states(given, now, room), maps.outputs.T, out=made)
        if maps.D is not None:
            maps.kernels.columns_axpy(maps.D, given, made)
    rooms.append(room)
    return before


def _backward(
    maps: _Maps,
    blocks: Blocks,
    before: list[Tensor],
    arrays: tuple[Tensor, Tensor, Tensor, Tensor | None],
    rooms: list[Tensor],
) -> tuple[Tensor, ...]:
    """Set the gradients of u and of the initial states; return those of a, inputs, outputs and D."""
    (u, grad, carry, of_u), kernels = arrays, maps.kernels
    of_a, of_in, of_out = (torch.zeros_like(t) for t in (maps.a, maps.inputs, maps.outputs))
    of_D = torch.zeros(u.shape[2], dtype=torch.float64, device=u.device)
    first, second = _room(rooms, blocks, maps.inputs), _room(rooms, blocks, maps.inputs)
    for block, state in zip(reversed(blocks), reversed(before), strict=True):
        given, g = _rows(u, block), _rows(grad, block)
        x = maps.states(given, state.clone(), first)
        of_out.addmm_(g.T, x)
        of_x = torch.mm(g, maps.outputs, out=second[: len(g)])
        states, slopes, later = _sequences(x, state), _sequences(of_x, state), carry[block[0] : block[1]]
        kernels.diagonal_scan_backward(maps.a, states, state, slopes, later, of_a, maps.reverse)
        of_in.addmm_(given.T, of_x)
        if of_u is not None:
            made = torch.mm(of_x, maps.inputs.T, out=_rows(of_u, block))
            if maps.D is not None:
                kernels.columns_axpy(maps.D, g, made)
        if maps.D is not None:
            kernels.columns_dot(g, given, of_D)
    rooms += [first, second]
    return of_a, of_in, of_out, of_D


def _groups(u: Tensor, width: int, reverse: bool) -> list[Blocks]:
    """Return the blocks of every group of sequences, in the order of the recurrence."""
    batch, length, _ = u.shape
    on_cpu = u.device.type == "cpu"
    rows = max(16, BLOCK // width) if on_cpu else max(1, batch * length)
    count = min(batch, GROUPS) if on_cpu and batch * length * width >= ALONE else min(batch, 1)
    edges = [(batch * c // count, batch * (c + 1) // count) for c in range(count)]
    return [list(_blocks(first, end, length, rows, reverse)) for first, end in edges]


def _blocks(first: int, end: int, length: int, rows: int, reverse: bool) -> Iterator[Block]:
    if length <= rows:
        together = max(1, rows // max(length, 1))
        for b in range(first, end, together):
            yield b, min(b + together, end), 0, length
        return
    pieces = -(-length // rows)
    for b in range(first, end):
        for piece in reversed(range(pieces)) if reverse else range(pieces):
            yield b, b + 1, length * piece // pieces, length * (piece + 1) // pieces


def _in_threads(task: Callable[[int], Any], count: int) -> list[Any]:
    """Return task(0) ... task(count - 1), done side by side where there are several, torch on one thread."""
    if count <= 1:
        return [task(c) for c in range(count)]
    from neuralsolve.kernels.cpu.threads import side_by_side, thread_count, torch_on_one_thread

    threads, inference = thread_count(), torch.is_inference_mode_enabled()

    def alone(c: int) -> Any:
        if torch.get_num_threads() > 1:  # a thread of the pool, at its first task
            torch.set_num_threads(1)
        # a thread has modes of its own
        with torch.inference_mode(inference), torch.no_grad():
            return task(c)

    with torch_on_one_thread():
        return side_by_side(count, alone, threads)


def _room(rooms: list[Tensor], blocks: Blocks, inputs: Tensor) -> Tensor:
    """Return memory for the states of any of the blocks: of a group that is done, where there is some."""
    rows = max((b1 - b0) * (k1 - k0) for b0, b1, k0, k1 in blocks)
    try:
        room = rooms.pop()
    except IndexError:  # as often as there are threads
        room = inputs.new_empty(0)
    return room if len(room) >= rows else inputs.new_empty(rows, inputs.shape[1])


def _rows(t: Tensor, block: Block) -> Tensor:
    """Return a block of sequences as rows: no copy."""
    b0, b1, k0, k1 = block
    return t[b0:b1, k0:k1].view(-1, t.shape[2])


def _sequences(x: Tensor, state: Tensor) -> Tensor:
    """Return rows of pairs of real numbers (n, 2 P) as complex sequences (batch, L, P): no copy."""
    return torch.view_as_complex(x.view(state.shape[0], -1, state.shape[1], 2))
