"""CG of PETSc with a preconditioner of its own, run by an interpreter that has petsc4py, under ``mpirun``.

``mpirun -n 2 python petsc_peer.py system.npz x.npy rtol -pc_type gamg ...`` reads a CSR matrix and b (arrays
indptr, indices, data, b), gives every rank its rows, and times set-up and solve between barriers; neither
reading nor the assembly of PETSc's matrix counts. Rank 0 stores x and prints times and iterations as JSON.
The script knows nothing of this package.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def run(source: str, target: str, rtol: float, options: list[str]) -> dict[str, Any]:
    """Solve, store x from rank 0, and return what was measured."""
    import numpy as np
    import petsc4py  # type: ignore[import-not-found]

    petsc4py.init(options)
    from mpi4py import MPI  # type: ignore[import-not-found]
    from petsc4py import PETSc  # type: ignore[import-not-found]

    comm = MPI.COMM_WORLD
    with np.load(source) as parts:
        indptr, indices, data, b = (parts[name] for name in ("indptr", "indices", "data", "b"))
    n = len(b)
    first, end = n * comm.rank // comm.size, n * (comm.rank + 1) // comm.size
    rows, entries = slice(first, end), slice(indptr[first], indptr[end])
    local = indptr[first : end + 1] - indptr[first], indices[entries], data[entries]
    csr = local[0].astype(np.int32), local[1].astype(np.int32), local[2]
    A = PETSc.Mat().createAIJ(size=((end - first, n), (end - first, n)), csr=csr, comm=comm)
    A.setOption(PETSc.Mat.Option.SPD, True)
    right, x = A.createVecLeft(), A.createVecRight()
    right.getArray()[:] = b[rows]

    def clock() -> float:
        comm.Barrier()
        return time.perf_counter()

    start = clock()
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=rtol, atol=0.0, max_it=1000)
    ksp.setFromOptions()
    ksp.setUp()
    ready = clock()
    ksp.solve(right, x)
    done = clock()
    pieces = comm.gather(x.getArray().copy(), root=0)
    if comm.rank == 0:
        np.save(target, np.concatenate(pieces))
    version = ".".join(map(str, PETSc.Sys.getVersion()))
    return {
        "rank": comm.rank,
        "setup_s": ready - start,
        "solve_s": done - ready,
        "iterations": ksp.getIterationNumber(),
        "version": f"PETSc {version}, {comm.size} ranks",
    }


if __name__ == "__main__":
    measured = run(sys.argv[1], sys.argv[2], float(sys.argv[3]), [sys.argv[0], *sys.argv[4:]])
    if measured.pop("rank") == 0:
        print(json.dumps(measured))
