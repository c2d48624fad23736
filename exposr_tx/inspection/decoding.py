"""Bodies and messages without their coding, and bytes as text: for people to read."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from exposr_tx.inspection.exchanges import MAX_FRAME, Frame, Frames

__all__ = ["Said", "bytes_of", "decoded", "field_text", "said", "text_of"]

#: Bytes that are made of a coded body at most, a small one may stand for gigabytes; and codings
#: that are undone.
MAX_DECODED: Final = 1024 * 1024
MAX_CODINGS: Final = 3
#: The same for all messages of a websocket together.
MAX_SAID: Final = 8 * 1024 * 1024
#: The opcode of messages of text (RFC 6455, section 5.2).
TEXT: Final = 1
#: Members of a gzip body, of which each copies the rest; and what one begins with.
MAX_MEMBERS: Final = 256
_GZIP: Final = b"\x1f\x8b"
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([\w.:-]{1,40})', re.IGNORECASE)
#: Charsets that are believed. Of the others, punycode takes a minute for a megabyte.
_CHARSETS: Final = re.compile(
    r"utf-?8|utf-?16([lb]e)?|us-ascii|ascii|latin-?1|iso-8859-\d{1,2}|windows-125\d|"
    r"shift_jis|euc-(jp|kr)|gb(k|2312|18030)|big5|koi8-[ru]",
    re.IGNORECASE,
)
#: What no text holds.
_BINARY: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def field_text(data: bytes) -> str:
    """What stands in a head as text: UTF-8, or else Latin-1, which has all bytes."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decoded(data: bytes, coding: str) -> tuple[bytes, bool] | None:
    """A body, or its beginning, without its codings.

    :param coding: the value of Content-Encoding.
    :return: the body and whether it is whole; None where the coding is none of ours, or wrong.
    """
    whole = True
    names = [name for word in coding.lower().split(",") if (name := word.strip()) != "identity"]
    if len(names) > MAX_CODINGS:
        return None
    for name in reversed(names):
        if name not in ("gzip", "x-gzip", "deflate", "br"):
            return None
        inflated = _inflated(data, name)
        if inflated is None:
            return None
        data, ended = inflated
        whole = whole and ended
    return data, whole


def _inflated(data: bytes, name: str) -> tuple[bytes, bool] | None:
    if name == "br":
        return _unbrotlied(data)
    # "deflate" should have zlib's frame, and often has not.
    kinds = (zlib.MAX_WBITS, -zlib.MAX_WBITS) if name == "deflate" else (16 + zlib.MAX_WBITS,)
    for bits in kinds:
        try:
            return _members(data, bits)
        except zlib.error:
            continue
    return None


def _members(data: bytes, bits: int) -> tuple[bytes, bool]:
    """One deflated stream; of gzip, which may be a series of them (RFC 1952, section 2.2), all."""
    made = b""
    for _ in range(MAX_MEMBERS):
        inflating = zlib.decompressobj(bits)
        made += inflating.decompress(data, MAX_DECODED - len(made))
        data = inflating.unused_data
        if not (inflating.eof and bits > zlib.MAX_WBITS and data.startswith(_GZIP)):
            return made, inflating.eof
        if len(made) >= MAX_DECODED:
            break
    return made, False


def _unbrotlied(data: bytes) -> tuple[bytes, bool] | None:
    """By the package brotli, where somebody has installed it, in a version that can be limited."""
    try:
        import brotli  # noqa: PLC0415

        inflating = brotli.Decompressor()
        made = inflating.process(data, output_buffer_limit=MAX_DECODED)
    except (ImportError, TypeError):
        return None
    except brotli.error:
        return None
    return made[:MAX_DECODED], inflating.is_finished() and len(made) <= MAX_DECODED


def text_of(data: bytes, mime: str, whole: bool = True) -> str | None:
    """Bytes as text, by the charset of their media type or UTF-8; None where they are none.

    :param whole: whether the last character must be.
    """
    found = _CHARSET.search(mime)
    if found and not _CHARSETS.fullmatch(found[1]):
        return None
    try:
        decoder = codecs.getincrementaldecoder(found[1] if found else "utf-8")()
        text = decoder.decode(data, final=whole)
    except (LookupError, ValueError, TypeError, AssertionError):  # not all codecs are of text
        return None
    return None if not isinstance(text, str) or _BINARY.search(text) else text


def bytes_of(text: str, mime: str) -> bytes:
    """Text as bytes, by the charset of its media type or UTF-8.

    :raises UnicodeEncodeError: the charset has not all of its letters.
    """
    found = _CHARSET.search(mime)
    charset = found[1] if found and _CHARSETS.fullmatch(found[1]) else "utf-8"
    return text.encode(charset, "surrogatepass")


class Said(NamedTuple):
    """A message of a websocket as its ends mean it.

    :ivar data: its beginning, decompressed where it was compressed.
    :ivar text: the same of a message of text; None where it is none, or cannot be decompressed.
    :ivar whole: whether ``data`` is all of it.
    """

    frame: Frame
    data: bytes
    text: str | None
    whole: bool


def said(frames: Frames) -> Iterator[Said]:
    """The messages that are kept of a websocket."""
    # Messages that are compressed need those before them: once one is lost, they stay as they are.
    inflating: dict[bool, Any] = {}
    if not frames.lost:
        inflating = {sent: zlib.decompressobj(-zlib.MAX_WBITS) for sent in (True, False)}
    made = 0
    for frame in frames:
        data, whole, plain = frame.data, len(frame.data) == frame.size, not frame.compressed
        if frame.compressed and frame.sent in inflating and made < MAX_SAID:
            data, whole, plain = _decompressed(frame, inflating)
            made += len(data)
        # It is text because it says so: some protocols end messages with a control character.
        text = _utf8(data, whole) if plain and frame.opcode == TEXT else None
        yield Said(frame, data, text, whole)


def _decompressed(frame: Frame, inflating: dict[bool, Any]) -> tuple[bytes, bool, bool]:
    """A message without its compression (RFC 7692, section 7.2.2), whether it is whole, and whether
    that was possible."""
    inflate = inflating[frame.sent]
    try:
        data = inflate.decompress(frame.data + b"\0\0\xff\xff", MAX_FRAME)
    except zlib.error:
        del inflating[frame.sent]
        return frame.data, False, False
    whole = not inflate.unconsumed_tail and len(frame.data) == frame.size
    if not whole:
        del inflating[frame.sent]
    return data, whole, True


def _utf8(data: bytes, whole: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError:
        return None
