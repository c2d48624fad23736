"""Frames of the native dialect as bytes: their types, limits, heads and payloads.

Source: docs/protocols/exposr-tx-1.md, "Messages and frames". A frame is a head of
eight bytes, big-endian, and a payload::

    u8 type | u24 length of the payload | u32 stream | payload
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from json import JSONDecoder, JSONEncoder
from struct import Struct
from typing import Any, Final, NoReturn

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "DATA_LIMIT",
    "HEAD_SIZE",
    "JSON_SIZE",
    "MESSAGE_SIZE",
    "REASON_SIZE",
    "coded",
    "coded_frame",
    "credit",
    "frame",
    "json_frame",
    "json_object",
    "pack_head",
    "unpack_head_from",
]

#: Bytes of a websocket message ("Messages and frames").
MESSAGE_SIZE: Final = 1024 * 1024

#: Bytes of a JSON payload, and levels of nesting in it.
JSON_SIZE: Final = 4096
JSON_LEVELS: Final = 8

#: Bytes of the reason in RESET and GOAWAY.
REASON_SIZE: Final = 256

DATA: Final = 0x00
OPEN: Final = 0x01
END: Final = 0x02
RESET: Final = 0x03
CREDIT: Final = 0x04
PING: Final = 0x05
PONG: Final = 0x06
GOAWAY: Final = 0x07
ATTACH: Final = 0x08
ATTACHED: Final = 0x09
REFUSED: Final = 0x0A
DETACH: Final = 0x0B

#: Payload bytes that a frame of a type must have at least, and may have at most.
SIZES: Final[Mapping[int, tuple[int, int]]] = {
    OPEN: (2, JSON_SIZE),
    END: (0, 0),
    RESET: (2, 2 + REASON_SIZE),
    CREDIT: (4, 4),
    PING: (8, 8),
    PONG: (8, 8),
    GOAWAY: (2, 2 + REASON_SIZE),
    ATTACH: (2, JSON_SIZE),
    ATTACHED: (2, JSON_SIZE),
    REFUSED: (2, JSON_SIZE),
    DETACH: (2, JSON_SIZE),
}

_HEAD: Final = Struct(">II")  # type and length are one number here; DATA's is its length
HEAD_SIZE: Final = _HEAD.size

#: Payload bytes that a frame can have, alone in its message.
DATA_LIMIT: Final = MESSAGE_SIZE - HEAD_SIZE

pack_head = _HEAD.pack
unpack_head_from = _HEAD.unpack_from
_pack_credit = Struct(">III").pack


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return pack_head(kind << 24 | len(payload), channel) + payload


@lru_cache(maxsize=4)
def ping(payload: bytes) -> bytes:
    """PING. Ten thousand peers are sent the same one, at the same time."""
    return frame(PING, 0, payload)


@lru_cache(maxsize=4)
def pong(payload: bytes) -> bytes:
    """PONG: what the ten thousand answer."""
    return frame(PONG, 0, payload)


def credit(channel: int, size: int) -> bytes:
    """CREDIT for so many bytes."""
    return _pack_credit(CREDIT << 24 | 4, channel, size)


def coded_frame(kind: int, channel: int, code: int, reason: str) -> bytes:
    """RESET or GOAWAY; a reason that is too long is cut at a character."""
    told = reason.encode("utf-8", "replace")[:REASON_SIZE]
    whole = told.decode("utf-8", "ignore").encode()
    return frame(kind, channel, code.to_bytes(2, "big") + whole)


def coded(payload: bytes) -> tuple[int, str]:
    """Code and reason; what is no UTF-8 in it is replaced, as it is for people only."""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_encode = JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_decode = JSONDecoder(parse_constant=_not_json).decode


def json_frame(kind: int, channel: int, fields: Mapping[str, object]) -> bytes:
    """A frame with a JSON object.

    :raises LocalProtocolError: it is larger than :data:`JSON_SIZE`, or not to be encoded.
    """
    try:
        payload = _encode(fields).encode()
    except ValueError as error:
        raise LocalProtocolError(f"not to be written as JSON: {error}") from None
    if len(payload) > JSON_SIZE:
        raise LocalProtocolError(f"{len(payload)} bytes of JSON in a frame of {JSON_SIZE}")
    return frame(kind, channel, payload)


def json_object(payload: bytes) -> dict[str, Any]:
    """The JSON object of a frame. 2.0 µs for an ordinary OPEN (measured).

    :raises RemoteProtocolError: it is none, no UTF-8, or nested too deeply.
    """
    try:
        value = _decode(payload.decode())
        # Most have fewer brackets than levels are allowed, wherever these stand.
        brackets = payload.count(b"{") + payload.count(b"[")
        too_deep = brackets > JSON_LEVELS and _levels(value) > JSON_LEVELS
    except (ValueError, RecursionError):
        raise RemoteProtocolError("a frame's JSON cannot be read") from None
    if not isinstance(value, dict) or too_deep:
        raise RemoteProtocolError(f"a frame's JSON is no object of up to {JSON_LEVELS} levels")
    return value


def _levels(value: object) -> int:
    """Levels of nesting."""
    if isinstance(value, dict):
        return 1 + max(map(_levels, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_levels, value), default=0)
    return 0
