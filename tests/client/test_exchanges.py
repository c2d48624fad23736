"""Requests of a server that speaks JSON: each is answered once, whatever the destination does."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client import exchanges
from exposr_tx.client.exchanges import MAX_AT_ONCE, PIECE, TIME_LIMIT, Destination, Exchanges
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.wire.backstream import RequestMessage, ResponseMessage
from tests.ingress.visiting import Wire
from tests.inspection.test_recorder import Watching


class Rig:
    """A connection with a destination behind it.

    :ivar websockets: what was told of visitors' websockets.
    """

    has_room = True

    def __init__(self) -> None:
        self.clock = Clock()
        self.sent: list[ResponseMessage] = []
        self.websockets: list[tuple[str, dict[str, Any]]] = []
        self.closed: int | None = None
        self.paused = False
        self.told: list[str] = []
        self.wires: list[Wire] = []
        self.fault: Exception | None = None
        self.connecting: Deferred[Any] | None = None
        self.newer: list[Deferred[bool]] = []
        self.watching = Watching()
        recorder = Recorder([self.watching], seconds=self.clock.seconds)
        self.exchanges = Exchanges(
            self,
            Destination(self._connect, "app:3000", "d=1"),
            self.clock,
            self,
            self._newer,
            lambda visitor: recorder.recording("", "http://app:3000/", visitor),
        )

    def _connect(self, factory: Any) -> Deferred[Any]:
        if self.fault is not None:
            return fail(self.fault)
        if self.connecting is not None:
            return self.connecting
        wire = Wire()
        wire.protocol = factory.buildProtocol(None)
        wire.protocol.makeConnection(wire)
        self.wires.append(wire)
        return succeed(wire.protocol)

    def _newer(self) -> Deferred[bool]:
        self.newer.append(Deferred())
        return self.newer[-1]

    # The connection
    def send_text(self, message: bytes) -> None:
        if b'"type"' in message:
            found = json.loads(message)
            self.websockets.append((found["type"].removeprefix("websocket_"), found["data"]))
        else:
            self.sent.append(ResponseMessage.decode(message))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = code

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    # The events
    def asked(self, message: RequestMessage) -> None:
        self.told.append("asked")

    def answering(self, message: RequestMessage, code: int) -> None:
        self.told.append(f"answering {code}")

    def failed(self, message: RequestMessage, error: str) -> None:
        self.told.append("failed")

    def ask(self, id: str = "1", **members: Any) -> None:
        message = {"id": id, "path": "/", "method": "GET", **members}
        self.exchanges.message(json.dumps(message).encode())

    def reply(self, data: bytes, wire: int = -1) -> None:
        self.wires[wire].protocol.dataReceived(data)


class ExchangeTests(SynchronousTestCase):
    """Requests and answers."""

    def setUp(self) -> None:
        self.rig = Rig()

    def test_as_the_go_server_asks(self) -> None:
        """The path is encoded anew, the destination's query kept, framing and Host are ours."""
        self.rig.ask(
            method="POST",
            path="/a b",
            body="aGVsbG8=",
            header={"X-A": "1", "Content-Length": "99", "Connection": "Upgrade", "Upgrade": "x"},
        )
        self.assertEqual(
            self.rig.wires[0].value(),
            b"POST /a%20b?d=1 HTTP/1.1\r\nHost: app:3000\r\nX-A: 1\r\nContent-Length: 5\r\n"
            b"Connection: close\r\n\r\nhello",
        )
        self.rig.reply(
            b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\nX-B: 1\r\nX-B: 2\r\nConnection: x\r\n\r\nok"
        )
        (answer,) = self.rig.sent
        self.assertEqual((answer.id, answer.code, answer.body), ("1", 201, b"ok"))
        self.assertEqual(answer.fields, (("X-B", "1"), ("X-B", "2"), ("Content-Length", "2")))
        self.assertEqual(self.rig.told, ["asked", "answering 201"])

    def test_long_request(self) -> None:
        """A long request is written as the destination takes it, and all of it."""
        body = bytes(range(256)) * 1024
        self.rig.ask(method="POST", body=b64encode(body).decode())
        (wire,) = self.rig.wires
        self.assertEqual(wire.value(), b"")
        before = 0
        while wire.producer is not None:
            wire.producer.resumeProducing()
            self.assertLessEqual(len(wire.value()) - before, PIECE)
            before = len(wire.value())
        head, _, written = wire.value().partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: %d" % len(body), head)
        self.assertEqual(written, body)
        self.rig.reply(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.rig.sent[0].code, 200)

    def test_question_mark(self) -> None:
        """A ? in the path begins a query where the server is a newer one, else it is one that the
        visitor had encoded; nobody asks where the path has none, or nothing behind it."""
        for newer, target in ((True, b"/a%20b?x=%2F?y"), (False, b"/a%20b%3Fx=%252F%3Fy?d=1")):
            rig = Rig()
            rig.ask(path="/a b?x=%2F?y")
            rig.ask("2", path="/plain")
            self.assertTrue(rig.wires[0].value().startswith(b"GET /plain?d=1 "))
            (found,) = rig.newer
            found.callback(newer)
            self.assertTrue(rig.wires[1].value().startswith(b"GET %b HTTP/1.1\r\n" % target))
        for members in ({"path": "/a?"}, {"path": "/a?b", "raw_path": "/a%3Fb"}):
            rig = Rig()
            rig.ask(**members)
            self.assertEqual((rig.newer, rig.wires[0].value()[:7]), ([], b"GET /a%"))

    def test_bodies(self) -> None:
        """A body may come with a length, in chunks or until the end; HEAD and 304 have none."""
        for method, reply, end, body in (
            ("GET", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 0, b"ok"),
            ("GET", b"200 OK\r\n\r\nok", 1, b"ok"),
            ("HEAD", b"200 OK\r\nContent-Length: 7\r\n\r\n", 0, b""),
            ("GET", b"304 Not Modified\r\n\r\n", 0, b""),
            ("GET", b"100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", 0, b""),
        ):
            rig = Rig()
            rig.ask(method=method)
            rig.reply(b"HTTP/1.1 " + reply)
            if end:
                rig.wires[0].end(ConnectionDone())
            self.assertEqual([answer.body for answer in rig.sent], [body], reply)
        self.assertEqual(len(rig.sent), 1)

    def test_long_response(self) -> None:
        """A response that is longer than a message may be is a 502, before it has come whole."""
        self.patch(exchanges, "MAX_RESPONSE_BODY", 1000)
        self.rig.ask()
        self.rig.reply(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1000))
        self.assertEqual(self.rig.sent, [])
        self.rig.reply(b"x")
        self.assertEqual([answer.code for answer in self.rig.sent], [502])

    def test_redirect(self) -> None:
        """A redirect is passed on, not followed."""
        self.rig.ask()
        self.rig.reply(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.rig.sent[0].code, 302)
        self.assertIn(("Location", "/x"), self.rig.sent[0].fields)
        self.assertEqual(len(self.rig.wires), 1)

    def test_failures(self) -> None:
        """Whatever goes wrong is a 502, once."""
        replies: list[tuple[bytes, Exception | None]] = [
            (b"nonsense\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", ConnectionDone()),
            (b"HTTP/1.1 200 OK\r\n\r\nhel", ConnectionLost()),
            (b"", ConnectionDone()),
            (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", None),
        ]
        for reply, end in replies:
            rig = Rig()
            rig.ask()
            if reply:
                rig.reply(reply)
            if end is not None and not rig.wires[0].disconnected:
                rig.wires[0].end(end)
            self.assertEqual([answer.code for answer in rig.sent], [502], reply)
            self.assertTrue(rig.wires[0].disconnected)

    def test_cannot_connect(self) -> None:
        """A destination that refuses is a 502, and the next request is tried again."""
        self.rig.fault = ConnectionRefusedError()
        self.rig.ask("1")
        self.rig.fault = None
        self.rig.ask("2")
        self.rig.reply(b"HTTP/1.1 204 No\r\n\r\n")
        self.assertEqual([(a.id, a.code) for a in self.rig.sent], [("1", 502), ("2", 204)])

    def test_cannot_be_written(self) -> None:
        """A method or a field that would break the request is a 502; nothing is written."""
        self.rig.ask("1", method="GET / HTTP/1.1\r\nX:")
        self.rig.ask("2", header={"A": "x\r\nB: y"})
        self.assertEqual([answer.code for answer in self.rig.sent], [502, 502])
        self.assertEqual(self.rig.wires, [])

    def test_overlap(self) -> None:
        """Requests run beside each other and are answered as they are done."""
        self.rig.ask("1")
        self.rig.ask("2")
        self.rig.reply(b"HTTP/1.1 204 No\r\n\r\n", 1)
        self.rig.reply(b"HTTP/1.1 204 No\r\n\r\n", 0)
        self.assertEqual([answer.id for answer in self.rig.sent], ["2", "1"])

    def test_too_many(self) -> None:
        """While as many run as may, no message is read."""
        for number in range(MAX_AT_ONCE):
            self.assertFalse(self.rig.paused)
            self.rig.ask(str(number))
        self.assertTrue(self.rig.paused)
        self.rig.reply(b"HTTP/1.1 204 No\r\n\r\n")
        self.assertFalse(self.rig.paused)

    def test_too_slow(self) -> None:
        """A destination that never answers is a 502 in the end."""
        self.rig.ask()
        self.rig.clock.advance(TIME_LIMIT + 1)
        self.assertEqual([answer.code for answer in self.rig.sent], [502])
        self.assertTrue(self.rig.wires[0].disconnected)

    def test_lost(self) -> None:
        """When the server is gone the destination's work is stopped, and nobody is answered."""
        self.rig.ask()
        self.rig.exchanges.lost("gone")
        self.assertTrue(self.rig.wires[0].disconnected)
        self.assertEqual(self.rig.sent, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_gives_up(self) -> None:
        """When the client ends, what is not answered yet is answered with 502."""
        self.rig.ask("1")
        self.rig.ask("2")
        self.rig.reply(b"HTTP/1.1 204 No\r\n\r\n")
        self.assertEqual(len(self.rig.exchanges), 1)
        self.rig.exchanges.give_up()
        self.assertEqual([(a.id, a.code) for a in self.rig.sent], [("2", 204), ("1", 502)])
        self.assertTrue(self.rig.wires[0].disconnected)

    def test_lying_server(self) -> None:
        """A message that is none, or an id in use, ends the connection."""
        self.rig.exchanges.message(b"nonsense")
        self.assertEqual(self.rig.closed, 1002)
        rig = Rig()
        rig.ask("1")
        rig.ask("1")
        self.assertEqual(rig.closed, 1002)

    def test_failure_is_handled(self) -> None:
        """A destination that fails in an odd way is a 502 too."""
        self.rig.fault = RuntimeError("odd")
        self.rig.ask()
        self.assertEqual(self.rig.sent[0].code, 502)


class RecordedTests(SynchronousTestCase):
    """What passes between here and the destination is recorded."""

    def setUp(self) -> None:
        self.rig = Rig()

    def test_answered(self) -> None:
        """An exchange as the destination sees it, with its visitor."""
        self.rig.ask(path="/a b", remote="[2001:db8::7]:51234")
        self.rig.reply(b"HTTP/1.1 200 OK\r\n\r\nok")
        self.assertEqual(self.rig.watching.ends, [])
        self.rig.wires[0].end(ConnectionDone())
        (exchange,) = self.rig.watching.ends
        self.assertEqual((exchange.url, exchange.state), ("http://app:3000/a%20b?d=1", "complete"))
        self.assertEqual(exchange.visitor, "2001:db8::7")
        self.assertEqual(exchange.response_body.data, b"ok")
        self.assertIsNotNone(exchange.connected)

    def test_failed(self) -> None:
        """What the destination does wrong is told: it refuses, breaks off, is too slow."""
        self.rig.fault = ConnectionRefusedError("nobody there")
        self.rig.ask("1")
        self.rig.fault = None
        self.rig.ask("2")
        self.rig.wires[0].end(ConnectionLost())
        self.rig.ask("3")
        self.rig.clock.advance(TIME_LIMIT)
        found = [exchange.error for exchange in self.rig.watching.ends]
        for error, said in zip(found, ("nobody there", "ended before", "no answer"), strict=True):
            self.assertIn(said, error)
