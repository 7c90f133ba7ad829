"""Every Triton kernel of the room compiles for sm_90, with the types and sizes it is launched with.

The interpreter, in which the other tests run them where there is no GPU, takes more than the compiler does.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from laws import GPU, KERNELS
from level_laws import LEVEL_KERNELS
from torch import Tensor

pytest.importorskip("triton")

import neuralsolve as ns
from neuralsolve.kernels import use
from neuralsolve.kernels.gpu.launch import INTERPRETED

F64, F32 = torch.float64, torch.float32
TYPES = {
    F64: "*fp64",
    F32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int8: "*i8",
    torch.uint16: "*u16",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}


def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def ragged(rows: int, long: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """CSR arrays with one long row: the product goes by shares of the entries."""
    lengths = torch.ones(rows, dtype=torch.int64)
    lengths[rows // 2] = long
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return (
        indptr.int(),
        torch.zeros(int(indptr[-1]), dtype=torch.int32),
        torch.ones(int(indptr[-1]), dtype=dtype),
    )


def stencils(name: str, t: torch.dtype) -> list[tuple[Any, ...]]:
    """Inputs of a product or direction on grids of two and three axes, one system and several."""
    calls = []
    for shape, columns in (((64, 64, 64), ()), ((1, 512, 512), ()), ((32, 32, 32), (4,)), ((5, 7, 9), (3,))):
        n = shape[0] * shape[1] * shape[2]
        codes = [zeros(n, dtype=torch.uint16), *([zeros(n, *columns, dtype=torch.uint16)] if columns else [])]
        parts = [(zeros(n, dtype=t), zeros(3, n, dtype=t), shape)]
        vectors = [zeros(n, *columns, dtype=t) for _ in range(4)]
        if name.endswith("direction_dot"):
            vectors.insert(1, zeros(*columns, dtype=t))
        else:
            vectors = vectors[:2]
        if name.startswith("stencil"):
            parts = [(code, (1.0, 1.0, 1.0), shape) for code in codes]
        calls += [(*part, *vectors) for part in parts]
    return calls


def long_vectors(t: torch.dtype, count: int, columns: tuple[int, ...]) -> list[Tensor]:
    return [zeros(100_000, *columns, dtype=t) for _ in range(count)]


def cycles(t: torch.dtype) -> list[tuple[Any, ...]]:
    """Return what cycles are told on grids of two and three axes: constant, periodic, with conductors."""
    calls: list[tuple[Any, ...]] = []
    values = np.ones((24, 24, 40))
    values[3:9, 4:9, 5:30] = values[12:20, 3:20, 8:30] = 1e4
    box, disc = ns.Grid(values.shape), ns.Grid((96, 140), walls=("periodic", "neumann"))
    matrices = [
        (ns.PoissonStencil(box, ns.face_coefficients(values, box)), ns.Multigrid()),
        (ns.PoissonStencil(ns.Grid((130, 64, 70), walls="dirichlet")), ns.Multigrid()),
        (ns.PoissonStencil(disc), ns.Multigrid("F", "red-black", sweeps=1)),
        (ns.PoissonStencil(disc), ns.Multigrid("full", sweeps=3)),
    ]
    cycles = [recipe.build(A) for A, recipe in matrices] if t == F32 else []
    recorder = SimpleNamespace(levels_cycle=lambda *given: calls.append(given))
    with patch("neuralsolve.preconditioners.grid_cycle.table", lambda device: recorder):
        for M in cycles:
            M.cycle()
    return calls


def scans(t: torch.dtype, backward: bool) -> list[tuple[Any, ...]]:
    """Scans with constant and varying factors, cut into chunks or not, both ways."""
    calls: list[tuple[Any, ...]] = []
    for batch, length, P in ((8, 4096, 64), (2, 9, 3)):
        for shape in ((P,), (batch, length, P)):
            a = torch.zeros(shape, dtype=torch.complex128)
            v = torch.zeros(batch, length, P, dtype=torch.complex128 if t == F64 else torch.complex64)
            state = torch.zeros(batch, P, dtype=torch.complex128)
            given = (a, v, state, v, state, a) if backward else (a, v, state, v, state)
            calls += [(*given, reverse) for reverse in (False, True)]
    return calls


# More launches than those of the laws: sizes as they are in use, kernels that are in no table of theirs.
MORE: dict[str, Any] = {
    "axpy": lambda t: [(zeros(*c, dtype=t), *long_vectors(t, 2, c)) for c in ((), (3,))],
    "cg_update": lambda t: [(zeros(*c, dtype=t), *long_vectors(t, 4, c)) for c in ((), (4,))],
    "columns_axpy": lambda t: [(zeros(300, dtype=t), *[zeros(50, 300, dtype=t) for _ in range(2)])],
    "columns_dot": lambda t: [(*[zeros(50, 300, dtype=t) for _ in range(2)], zeros(300, dtype=F64))],
    "csr_gram": lambda t: [(*ragged(100, 5, t), *[zeros(100, 4, dtype=t) for _ in range(2)])],
    "csr_matvec": lambda t: [
        (*ragged(5000, long, t), *[zeros(5000, *c, dtype=t) for _ in range(2)])
        for long in (9, 90_000)
        for c in ((), (4,))
    ],
    "cyclic_solve": lambda t: [
        (*[zeros(2, m, dtype=t)] * 2, 0.5, zeros(2, 64, m, dtype=t)) for m in (5, 4096)
    ],
    "diagonal_scan": lambda t: scans(t, False),
    "diagonal_scan_backward": lambda t: scans(t, True),
    "dot": lambda t: [long_vectors(t, 2, c) for c in ((), (4,), (3,))],
    "largest": lambda t: [long_vectors(t, 1, ())],
    "levels_cycle": cycles,
    "masked_copy": lambda t: [(zeros(100_000, dtype=torch.bool), *long_vectors(t, 2, c)) for c in ((), (3,))],
    "scaled_copy": lambda t: [(0.5, *long_vectors(t, 1, ()), *long_vectors(F32, 1, ()))],
    "subtract_means": lambda t: [
        (zeros(100_000, dtype=torch.int32), zeros(1, dtype=F64), zeros(100_000, dtype=t)),
    ],
    "tridiagonal_solve": lambda t: [
        (zeros(2, 64, m, dtype=t), 0.5, zeros(2, 64, m, w, dtype=t)) for m, w in ((5, 3), (4096, 1))
    ],
} | {
    f"{matrix}_{what}": functools.partial(stencils, f"{matrix}_{what}")
    for matrix in ("faces", "stencil")
    for what in ("direction_dot", "matvec", "matvec_dot")
}


def launched(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> tuple[Any, ...]:
    """Describe a launch as the compiler wants it: types, constants, which arguments 16 divides, options.

    Integers of 1 are constants to Triton, and numbers have the type that their annotation says.
    """
    function, as_they_are = kernel.fn, kernel.kwargs.get("do_not_specialize") or ()
    types, known, divisible = {}, {}, []
    for i, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if isinstance(value, Tensor):
            types[name] = TYPES[value.dtype]
            divisible += [i] * (value.data_ptr() % 16 == 0 and name not in as_they_are)
        elif isinstance(value, float):
            types[name] = "fp64" if function.__annotations__.get(name) == "fp64" else "fp32"
        elif value is None or (value == 1 and name not in as_they_are):
            types[name], known[name] = "constexpr", value
        else:
            types[name] = "i32" if abs(value) < 2**31 else "i64"
            divisible += [i] * (value % 16 == 0 and name not in as_they_are)
    known |= {name: value for name, value in constants.items() if name in kernel.arg_names}
    types |= dict.fromkeys(known, "constexpr")
    types = {name: types[name] for name in kernel.arg_names}
    options = {name: value for name, value in constants.items() if name not in kernel.arg_names}
    return function.__module__, function.__name__, types, known, divisible, options


def inputs(name: str, t: torch.dtype) -> list[tuple[Any, ...]]:
    """All inputs of a kernel: those of the laws, and more."""
    generator = torch.Generator().manual_seed(271828)
    with use("cpu"):
        laws = [table[name](generator, t) for table in (KERNELS, LEVEL_KERNELS) if name in table]
        return laws + (MORE[name](t) if name in MORE else [])


@pytest.mark.slow
@pytest.mark.skipif(not INTERPRETED, reason="the kernels run, so they were compiled")
def test_every_kernel_compiles(monkeypatch):
    seen: dict[str, tuple[Any, ...]] = {}
    reached: set[str] = set()

    def record(kernel: Any, grid: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> None:
        launch = launched(kernel, arguments, constants)
        seen[json.dumps(launch)] = launch
        reached.add(name)

    monkeypatch.setattr("neuralsolve.kernels.gpu.launch._start", record)
    with use("gpu") as room:
        written = {name for name in GPU if getattr(room, name).__module__.startswith(room.__name__)}
    for name in sorted(written):
        for dtype in (F64, F32):
            for given in inputs(name, dtype):
                with use("gpu") as room:
                    getattr(room, name)(*given)
    assert reached == written, "give these inputs, in MORE"
    script = Path(__file__).with_name("gpu_compiler.py")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(list(seen.values())),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout, done.stdout
