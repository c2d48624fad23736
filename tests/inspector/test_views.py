"""Messages of a websocket as JSON."""

from __future__ import annotations

import zlib
from base64 import b64decode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.inspector.visits import Visits

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def frame(first: int, data: bytes, masked: bool = False) -> bytes:
    assert len(data) < 126
    if masked:
        return bytes([first, 0x80 | len(data)]) + b"\0\0\0\0" + data
    return bytes([first, len(data)]) + data


class FrameTests(SynchronousTestCase):
    """Messages of a websocket."""

    def setUp(self) -> None:
        self.visits = Visits()
        self.recording = self.visits.pass_through(UPGRADE, SWITCHED)

    def frames(self, after: int = 0) -> Any:
        return self.visits.get(f"/api/exchanges/1/frames?after={after}").json

    def test_kinds(self) -> None:
        """Text, bytes and control messages, with direction, size and time."""
        self.visits.clock.advance(0.5)
        self.recording.sent(frame(0x81, "grüß".encode(), masked=True))
        self.recording.received(frame(0x82, b"\0\1") + frame(0x89, b"") + frame(0x88, b"\3\xe8bye"))
        found = self.frames()["frames"]
        self.assertEqual(
            [(x["sent"], x["kind"], x.get("text"), x.get("base64")) for x in found],
            [
                (True, "text", "grüß", None),
                (False, "binary", None, "AAE="),
                (False, "ping", "", None),
                (False, "close", "1000 bye", None),
            ],
        )
        self.assertEqual((found[0]["at"], found[0]["size"], found[0]["whole"]), (500.0, 6, True))

    def test_from_a_number_on(self) -> None:
        """Only what is new, for who asks again."""
        self.recording.received(frame(0x81, b"one"))
        first = self.frames()
        self.recording.received(frame(0x81, b"two"))
        second = self.frames(first["next"])
        self.assertEqual([x["text"] for x in second["frames"]], ["two"])
        self.assertEqual((second["frames"][0]["number"], second["next"]), (1, 2))

    def test_secrets(self) -> None:
        """Credentials in JSON messages are left out, also where they are sent as bytes."""
        for first in (0x81, 0x82):
            self.recording.received(frame(first, b'{"password": "sesame"}'))
        text, octets = self.frames()["frames"]
        self.assertEqual(text["text"], '{"password": "[redacted]"}')
        self.assertEqual(b64decode(octets["base64"]), b'{"password": "[redacted]"}')

    def test_control_characters(self) -> None:
        """A message of text is shown as text, whatever letters it has; credentials are left out."""
        self.recording.received(frame(0x81, b'{"password": "sesame"}\x1e') + frame(0x81, b"a\0"))
        texts = [x["text"] for x in self.frames()["frames"]]
        self.assertEqual(texts, ['{"password": "[redacted]"}\x1e', "a\0"])

    def test_compressed(self) -> None:
        """Compressed messages are shown inflated, though each builds on those before it."""
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        for text in (b"hello hello hello", b"hello hello hello again"):
            data = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
            self.recording.received(frame(0xC1, data[:-4]))
        texts = [x["text"] for x in self.frames()["frames"]]
        self.assertEqual(texts, ["hello hello hello", "hello hello hello again"])
        self.assertEqual([x["text"] for x in self.frames(1)["frames"]], ["hello hello hello again"])

    def test_bomb(self) -> None:
        """A message that inflates without end is cut, and what follows it stays as it came."""
        deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        bomb = deflate.compress(b"x" * (10 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
        head = bytes([0xC1, 126]) + (len(bomb) - 4).to_bytes(2, "big")
        self.recording.received(head + bomb[:-4])
        self.recording.received(frame(0xC1, b"\1\2\3"))
        first, second = self.frames()["frames"]
        self.assertEqual((len(first["text"]), first["whole"]), (65536, False))
        self.assertEqual(second["base64"], "AQID")

    def test_many_bombs(self) -> None:
        """Many messages that inflate to much each are decompressed up to a sum."""
        deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        for _ in range(140):
            data = deflate.compress(b"x" * 65536) + deflate.flush(zlib.Z_SYNC_FLUSH)
            head = bytes([0xC1, 126]) + (len(data) - 4).to_bytes(2, "big")
            self.recording.received(head + data[:-4])
        found = self.frames()["frames"]
        self.assertEqual([len(x.get("text", "")) for x in found], [65536] * 128 + [0] * 12)
