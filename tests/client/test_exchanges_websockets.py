"""Visitors' websockets of a newer server: each is one with the destination."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client import exchanges
from exposr_tx.client.exchanges import REFUSAL_WAIT
from exposr_tx.transport.websocket import destinations
from tests.client.test_exchanges import Rig
from tests.ingress.visiting import Wire
from tests.system.websockets import accept_key


class Websockets(Rig):
    """A connection to a newer server, and a destination.

    :ivar waiting: connects to the destination, where that takes time.
    """

    waiting: list[Callable[[], object]] | None = None

    def _connect(self, factory: Any) -> Deferred[Any]:
        if self.waiting is None:
            return super()._connect(factory)
        connecting: Deferred[Any] = Deferred()
        connect = super()._connect
        self.waiting.append(lambda: connect(factory).chainDeferred(connecting))
        return connecting

    def tell(self, kind: str, **data: Any) -> None:
        message = {"type": f"websocket_{kind}", "data": data}
        self.exchanges.message(json.dumps(message).encode())

    def frame(self, id: str, kind: int, data: bytes) -> None:
        self.tell("frame", connection_id=id, type=kind, data=b64encode(data).decode())

    def upgrade(self, id: str = "1", path: str = "/a b?x=1", **header: str) -> None:
        self.tell("upgrade_request", id=id, path=path, header=header, remote="192.0.2.1:5000")

    def accept(self, *fields: bytes) -> Wire:
        """The destination accepts the last one; what it wrote before is forgotten."""
        wire = self.wires[-1]
        head = wire.taken()
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        lines = [b"HTTP/1.1 101 Yes", b"Upgrade: websocket", b"Connection: Upgrade"]
        lines += [b"Sec-WebSocket-Accept: " + accept_key(key), *fields, b"", b""]
        self.reply(b"\r\n".join(lines))
        return wire

    def heard(self) -> list[tuple[str, Any, Any]]:
        """What the server was told since the last call."""
        heard, self.websockets = self.websockets, []
        return [
            (kind, data.get("type", data.get("code")), data.get("data", data.get("reason")))
            for kind, data in heard
        ]


def unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """First bytes and payloads of short frames."""
    found = []
    while data:
        size, mask, data, first = data[1] & 0x7F, data[2:6], data[6:], data[0]
        found.append((first, bytes(b ^ mask[i % 4] for i, b in enumerate(data[:size]))))
        data = data[size:]
    return found


class WebsocketTests(SynchronousTestCase):
    """A destination's websocket."""

    def setUp(self) -> None:
        self.rig = Websockets()

    def opened(self, id: str = "1") -> Wire:
        self.rig.upgrade(id)
        wire = self.rig.accept()
        self.rig.websockets.clear()
        return wire

    def test_handshake(self) -> None:
        """The destination gets path, query and fields of the visitor's, and our handshake; the
        server gets what it answers, but for what is between the two."""
        self.rig.upgrade(
            **{"Cookie": "k", "Sec-Websocket-Key": "x", "Sec-Websocket-Protocol": "chat, b"},
            **{"Upgrade": "y", "Sec-Websocket-Extensions": "z"},
        )
        lines = self.rig.wires[0].value().split(b"\r\n")
        self.assertEqual(lines[:2], [b"GET /a%20b?x=1 HTTP/1.1", b"Host: app:3000"])
        for line in (b"Cookie: k", b"Upgrade: websocket", b"Sec-Websocket-Protocol: chat, b"):
            self.assertIn(line, lines)
        self.assertEqual(len([line for line in lines if b"Key" in line]), 1)
        self.assertFalse([line for line in lines if b"Extensions" in line])
        cookies = b"Set-Cookie: a=1", b"Set-Cookie: b=2"
        self.rig.accept(b"Sec-WebSocket-Protocol: chat", *cookies)
        ((kind, data),) = self.rig.websockets
        self.assertEqual((kind, data["id"], data["accepted"]), ("upgrade_response", "1", True))
        header = {"Sec-Websocket-Protocol": ["chat"], "Set-Cookie": ["a=1", "b=2"]}
        self.assertEqual(data["header"], header)

    def test_messages(self) -> None:
        """Text and binary messages pass both ways; requests pass beside them."""
        wire = self.opened()
        self.rig.frame("1", 1, b"hi")
        self.rig.frame("1", 2, b"\xff")
        self.rig.frame("other", 1, b"nobody's")
        self.rig.frame("1", 9, b"")
        self.assertEqual(unmasked(wire.taken()), [(0x81, b"hi"), (0x82, b"\xff")])
        self.rig.ask("2")
        self.rig.reply(b"HTTP/1.1 204 No\r\n\r\n")
        self.assertEqual(self.rig.sent[0].code, 204)
        self.rig.reply(b"\x81\x02yo\x02\x01\x00\x80\x01\x01\x89\x01p", 0)
        self.assertEqual(self.rig.heard(), [("frame", 1, "eW8="), ("frame", 2, "AAE=")])
        self.assertEqual(unmasked(wire.taken()), [(0x8A, b"p")])

    def test_destination_closes(self) -> None:
        """The server is told with which code; or that there was none."""
        wire = self.opened()
        self.rig.reply(b"\x88\x05\x0f\xa1bye")
        self.assertEqual(self.rig.heard(), [("frame", 8, "D6FieWU="), ("close", 4001, "bye")])
        self.rig.frame("1", 1, b"late")
        self.assertEqual([first for first, _ in unmasked(wire.taken())], [0x88])
        self.rig.clock.pump([1.0] * 2)
        self.assertTrue(wire.disconnected)
        self.opened("3")
        self.rig.reply(b"\x88\0")
        self.assertEqual(self.rig.heard(), [("frame", 8, ""), ("close", 1005, "")])
        wire = self.opened("2")
        wire.end(ConnectionDone())
        self.assertEqual([each[:2] for each in self.rig.heard()], [("close", 1006)])
        self.assertEqual(len(self.rig.exchanges), 0)

    def test_visitor_closes(self) -> None:
        """The destination gets a close frame with the visitor's code, where there is one."""
        for number, (code, reason, said) in enumerate(
            (
                (1006, "websocket: close 4001: bye", b"\x0f\xa1bye"),
                (1000, "", b"\x03\xe8"),
                (1006, "websocket: close 1005 (no status)", b""),
                (1006, "unexpected EOF", b"\x03\xe9"),
            )
        ):
            wire = self.opened(str(number))
            self.rig.tell("close", connection_id=str(number), code=code, reason=reason)
            self.assertEqual(unmasked(wire.taken()), [(0x88, said)])
            self.rig.clock.pump([1.0] * 5)
            self.assertTrue(wire.disconnected)
            self.assertEqual((self.rig.heard(), len(self.rig.exchanges)), ([], 0))

    def test_visitor_closes_early(self) -> None:
        """One that another client took, and that is over before the destination here has answered
        or is connected, is not opened here any more."""
        self.rig.upgrade("1")
        self.rig.tell("close", connection_id="1", code=1000, reason="")
        self.assertTrue(self.rig.wires[0].disconnected)
        never: Deferred[Any] = Deferred()
        self.rig.connecting = never
        self.rig.upgrade("2")
        self.rig.upgrade("2")
        self.rig.frame("2", 8, b"\x03\xe8")
        self.assertTrue(never.called)
        self.rig.clock.advance(REFUSAL_WAIT)
        found = [(data["id"], data["accepted"]) for _, data in self.rig.websockets]
        self.assertEqual(found, [("1", False), ("2", False), ("2", False)])
        self.assertEqual(len(self.rig.exchanges), 0)

    def test_refused(self) -> None:
        """A destination that takes none, or is not there, is a refusal; not before another
        client's destination has had time to take it."""
        self.rig.upgrade("1")
        self.rig.reply(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        self.rig.fault = ConnectionRefusedError()
        self.rig.upgrade("2")
        self.rig.fault = None
        self.rig.upgrade("3", **{"X-Bad": "a\nb"})
        self.assertEqual(self.rig.websockets, [])
        self.rig.clock.advance(REFUSAL_WAIT)
        found = {(kind, data["id"], data["accepted"]) for kind, data in self.rig.websockets}
        self.assertEqual(found, {("upgrade_response", id, False) for id in "123"})
        self.assertEqual((self.rig.told.count("failed"), len(self.rig.exchanges)), (3, 0))

    def test_limits(self) -> None:
        """There are so many at once, and one with an id."""
        self.patch(exchanges, "MAX_WEBSOCKETS", 2)
        for id in ("1", "1", "2", "3"):
            self.rig.upgrade(id)
        self.assertEqual(len(self.rig.wires), 2)
        self.rig.clock.advance(REFUSAL_WAIT)
        self.assertEqual([data["id"] for _, data in self.rig.websockets], ["1", "3"])

    def test_one_id_twice(self) -> None:
        """Of two with one id, of which the first is not connected yet, the second is refused."""
        self.rig.waiting = []
        self.rig.upgrade("1")
        self.rig.upgrade("1")
        for connect in self.rig.waiting:
            connect()
        self.assertEqual([wire.disconnected for wire in self.rig.wires], [False])
        self.assertEqual(len(self.rig.exchanges), 1)
        self.rig.exchanges.lost("gone")
        self.assertTrue(self.rig.wires[0].disconnected)

    def test_connection_is_lost(self) -> None:
        """With the server go its websockets; the destination is told goodbye."""
        wire = self.opened()
        self.rig.upgrade("2")
        self.rig.exchanges.lost("gone")
        self.assertEqual(
            unmasked(wire.taken()), [(0x88, b"\x03\xe9the connection to the server is lost")]
        )
        self.assertTrue(self.rig.wires[1].disconnected)
        self.rig.clock.pump([1.0] * 5)
        self.assertTrue(wire.disconnected)
        self.assertEqual(self.rig.websockets, [])

    def test_client_ends(self) -> None:
        """As above, and the server is told."""
        wire = self.opened()
        self.assertEqual(len(self.rig.exchanges), 1)
        self.rig.exchanges.give_up()
        self.assertEqual(unmasked(wire.taken()), [(0x88, b"\x03\xe9the client ends")])
        self.assertEqual(self.rig.heard(), [("close", 1001, "the client ends")])

    def test_slow_destination(self) -> None:
        """One that does not read loses its websocket, once too much waits for it."""
        self.patch(destinations, "MAX_UNREAD", 1000)
        wire = self.opened()
        producer: Any = wire.producer
        producer.pauseProducing()
        for _ in range(10):
            self.rig.frame("1", 1, bytes(100))
        self.assertFalse(wire.disconnected)
        self.rig.frame("1", 1, b"x")
        self.assertTrue(wire.disconnected)
        self.assertEqual([each[0] for each in self.rig.heard()], ["close"])
        wire = self.opened("2")
        for _ in range(4):
            producer = wire.producer
            producer.pauseProducing()
            self.rig.frame("2", 1, bytes(400))
            producer.resumeProducing()
        self.assertFalse(wire.disconnected)

    def test_slow_server(self) -> None:
        """While what is said to the server waits, destinations are not read."""
        wire = self.opened()
        self.rig.has_room = False
        self.rig.reply(b"\x81\x01a")
        self.assertEqual(wire.producerState, "paused")
        self.rig.exchanges.room()
        self.assertEqual(wire.producerState, "producing")

    def test_recorded(self) -> None:
        """A recorder sees its bytes, as those of any exchange."""
        self.opened()
        self.rig.frame("1", 1, b"hi")
        self.rig.reply(b"\x81\x02yo\x88\x02\x03\xe8")
        self.rig.wires[-1].end(ConnectionDone())
        (ended,) = self.rig.watching.ends
        assert ended.response is not None
        self.assertEqual((ended.request.method, ended.response.status), ("GET", 101))
