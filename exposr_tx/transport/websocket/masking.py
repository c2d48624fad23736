"""Masking of websocket payloads (RFC 6455 section 5.3), with as few copies as can be.

Large payloads go through NVX, autobahn's compiled masker, called on our own
memory: its wrapper in autobahn copies each payload three times and clears a
buffer, which at 64 KiB takes twice as long as the masking. Small ones are one
exclusive-or of whole numbers, as calling into NVX costs 9 µs however little
there is to do. Where autobahn was built without NVX, numbers do it all.
"""

from __future__ import annotations

from typing import Any, Final

from exposr_tx.wire.frames import masked

try:
    from _nvx_xormasker import ffi as _ffi
    from _nvx_xormasker import lib as _lib
except ImportError:  # a platform that autobahn has no compiled code for
    _ffi = _lib = None

__all__ = ["SMALL", "mask_from", "masked", "unmasked"]

#: Up to so many bytes numbers are quicker than NVX.
SMALL: Final = 1024
#: Bytes that pass through NVX at once; what a socket is read by.
SCRATCH: Final = 256 * 1024

_scratch: Final[Any] = None if _ffi is None else _ffi.new("uint8_t[]", SCRATCH)


class _Masker:
    """NVX with a mask."""

    __slots__ = ("_masker",)

    def __init__(self, mask: bytes) -> None:
        self._masker = _ffi.gc(_lib.nvx_xormask_new(mask), _lib.nvx_xormask_free)
        _lib.nvx_xormask_set_impl(self._masker, 2)  # SIMD

    def process(self, memory: Any, size: int) -> None:
        _lib.nvx_xormask_process(self._masker, memory, size)


def mask_from(frame: bytearray, start: int, mask: bytes) -> None:
    """Mask a frame's bytes from ``start`` on, where they are."""
    size = len(frame) - start
    if size <= SMALL or _ffi is None:
        frame[start:] = masked(memoryview(frame)[start:], mask)
        return
    memory = _ffi.from_buffer(frame, require_writable=True)
    _Masker(mask).process(_ffi.cast("uint8_t *", memory) + start, size)
    _ffi.release(memory)


def unmasked(data: memoryview, mask: bytes) -> bytes:
    """A payload of any size, unmasked."""
    size = len(data)
    if size <= SMALL or _ffi is None:
        return masked(data, mask)
    if size > SCRATCH:  # a multiple of four: the mask goes on as it began
        return unmasked(data[:SCRATCH], mask) + unmasked(data[SCRATCH:], mask)
    _ffi.memmove(_scratch, data, size)
    _Masker(mask).process(_scratch, size)
    return bytes(_ffi.buffer(_scratch, size))
