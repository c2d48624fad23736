"""Memory: keeping the buffers of large transfers, and collecting rubbish less often.

A socket is read into fresh bytes of :data:`~exposr_tx.rounds.READ_SIZE`. By its
defaults glibc returns a freed block of that size to the kernel at once and asks
for it again at the next read, so that every page of it faults once more.
Measured: a gigabyte through the tunnel cost 1.9 s of the server's CPU, most of
it the kernel's, and 0.8 s with what is set here.

Python looks for unreachable cycles whenever 700 objects more were made than freed,
which is every few hundred requests and every twenty clients that come. There are
few cycles to be found on the data path, as transports are let go of when they end.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

__all__ = ["collect_rarely", "keep_freed_memory"]

#: glibc's names for what is set (malloc.h).
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
#: Free bytes at the heap's end that are kept; a process holds on to so much more at most.
TRIM: Final = 4 * 1024 * 1024
#: Blocks from this size on are the kernel's affair.
MMAP: Final = 2 * 1024 * 1024

#: Objects made and not freed before the youngest are looked through: 10,000 of them take a
#: millisecond and a few megabytes.
YOUNG: Final = 10_000


def collect_rarely() -> None:
    """Set it for this process, and leave what is there by now out of every collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def keep_freed_memory() -> None:
    """Set it for this process; does nothing where the C library has no such thing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_TRIM_THRESHOLD, TRIM)
    mallopt(M_MMAP_THRESHOLD, MMAP)
