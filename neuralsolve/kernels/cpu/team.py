"""Work that threads share within one compiled call.

A call from Python costs tens of microseconds until another thread has woken; a pass over a level of multigrid
takes as little. Here one thread, the leader, runs a compiled sequence of passes. Helpers, woken once, wait
within compiled code for what it offers: an entry of `job` holds how many tasks a pass has and which is next,
and whoever comes takes one by compare and swap. A helper that got no core, or came too late, takes none: the
leader then does all tasks itself, and never waits but for a task that somebody has begun.
"""

from __future__ import annotations

import platform
from typing import Any

import numba.extending
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from neuralsolve.kernels.cpu.threads import serial

intrinsic: Any = numba.extending.intrinsic  # what it makes is called without the first argument

TICKET, DONE, ENDED, DETAILS = 0, 8, 16, 24  # entries of a job, the shared ones in cache lines of their own
NONE, OVER = -1, -2
PATIENCE = 500  # looks at a job before a thread offers its core to others
_INTEL = platform.machine().lower() in ("x86_64", "amd64", "i686")
_WINDOWS = platform.system() == "Windows"
_NOTHING = ir.FunctionType(ir.VoidType(), [])


def new_job(details: int) -> np.ndarray:
    """Return a job without tasks, and room for what tells the helpers which pass it is."""
    return np.zeros(DETAILS + details, np.int64)


def _entry(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return cgutils.gep_inbounds(builder, data, index)


@intrinsic
def _read(typing, job, index):
    def generate(context, builder, signature, args):
        return builder.load_atomic(_entry(context, builder, signature.args[0], *args), "acquire", 8)

    return types.int64(job, types.intp), generate


@intrinsic
def _write(typing, job, index, value):
    def generate(context, builder, signature, args):
        builder.store_atomic(args[2], _entry(context, builder, signature.args[0], *args[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(job, types.intp, types.int64), generate


@intrinsic
def _add(typing, job, index, value):
    def generate(context, builder, signature, args):
        place = _entry(context, builder, signature.args[0], *args[:2])
        return builder.atomic_rmw("add", place, args[2], "acq_rel")

    return types.int64(job, types.intp, types.int64), generate


@intrinsic
def _swap(typing, job, index, expected, value):
    """Whether the entry was as expected; it then has the value."""

    def generate(context, builder, signature, args):
        place = _entry(context, builder, signature.args[0], *args[:2])
        return builder.extract_value(builder.cmpxchg(place, args[2], args[3], "acq_rel", "acquire"), 1)

    return types.boolean(job, types.intp, types.int64, types.int64), generate


@intrinsic
def _pause(typing):
    def generate(context, builder, signature, args):
        if _INTEL:
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), _NOTHING), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _offer_core(typing):
    def generate(context, builder, signature, args):
        name = "SwitchToThread" if _WINDOWS else "sched_yield"
        call = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), name)
        builder.call(call, [])
        return context.get_dummy_value()

    return types.void(), generate


@serial
def offer(job, tasks):
    """Let the helpers take part in a pass; its details are in the job already."""
    _write(job, DONE, 0)
    number = (_read(job, TICKET) >> 32) + 1
    _write(job, TICKET, number << 32 | tasks << 16)


@serial
def take(job):
    """Return the next task of the present pass, NONE where all are taken, OVER after the last pass."""
    while True:
        ticket = _read(job, TICKET)
        task = ticket & 0xFFFF
        if task >= (ticket >> 16 & 0xFFFF):
            return OVER if _read(job, ENDED) else NONE
        if _swap(job, TICKET, ticket, ticket + 1):
            return task


@serial
def done(job):
    """Say that a task is done."""
    _add(job, DONE, 1)


@serial
def wait_for(job, tasks):
    """Wait until all tasks of a pass are done."""
    looks = 0
    while _read(job, DONE) < tasks:
        looks = rest(looks)


@serial
def rest(looks):
    """Wait a moment, the longer the more often nothing was found; return how often that was."""
    _pause()
    if looks >= PATIENCE:
        _offer_core()
    return looks + 1


@serial
def end(job):
    """Send the helpers back to sleep."""
    _write(job, ENDED, 1)
