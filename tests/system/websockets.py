"""Just enough of RFC 6455 to open a websocket through the tunnel and to send frames on it.

Frames go through unread, so both ends are here: the test counts on what it
wrote itself, not on a library's idea of a message.
"""

from __future__ import annotations

import base64
import hashlib
import os

from tests.system.harness import Visitor

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: bytes) -> bytes:
    """What a server must answer to a key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def accept(connection: Visitor, fields: dict[bytes, bytes]) -> None:
    """The server's side of the opening handshake."""
    connection.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(fields[b"sec-websocket-key"]) + b"\r\n\r\n"
    )


def open_websocket(visitor: Visitor, path: bytes, early: bytes = b"") -> None:
    """The client's side of it; ``early`` is sent together with the request."""
    key = base64.b64encode(os.urandom(16))
    lines = [b"GET %b HTTP/1.1" % path, b"Host: " + visitor.host, b"Upgrade: websocket"]
    lines += [b"Connection: Upgrade", b"Sec-WebSocket-Key: " + key, b"Sec-WebSocket-Version: 13"]
    visitor.send(b"\r\n".join([*lines, b"", early]))
    answer = visitor.answer()
    assert answer.status == 101, answer
    assert answer.fields[b"sec-websocket-accept"] == accept_key(key), answer


def frame(payload: bytes) -> bytes:
    """A binary message in one masked frame (section 5.2); a mask of zeros changes nothing."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return b"\x82" + length + b"\0\0\0\0" + payload
