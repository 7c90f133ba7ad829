"""How the CPU kernels are compiled, and when they use more than one thread.

Every kernel is a serial function over a range; `prange` only hands ranges to threads. Below `SERIAL_BELOW` entries
the serial function is called directly: waking the other threads costs some microseconds, about as much as a
vector update of that length.
"""

from __future__ import annotations

import numba

# Reassociation lets sums be vectorised. NaN and infinity keep their meaning (no nnan, no ninf): a solver must see them.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
# Only explicit prange loops become parallel: array expressions stay serial, and compilation stays short.
PRANGE = {
    "prange": True,
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}
SERIAL_BELOW = 20_000

serial = numba.njit(cache=True, nogil=True, fastmath=FASTMATH)
# For sums whose order is written out, so that the compiler neither vectorises short rows nor lengthens a recurrence.
ordered = numba.njit(cache=True, nogil=True, fastmath={"contract"})
threaded = numba.njit(cache=True, nogil=True, fastmath=FASTMATH, parallel=PRANGE)


def parts(work: int) -> int:
    """Return into how many ranges to split a loop over `work` entries: 1 means the serial function."""
    return 1 if work < SERIAL_BELOW else numba.get_num_threads()
