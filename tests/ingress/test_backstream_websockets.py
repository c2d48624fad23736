"""Visitors' websockets and newer clients of a backstream server, from the socket to the message."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.transport.backstream import exchange, upstream
from exposr_tx.wire.backstream import MAX_REQUEST_BODY
from tests.ingress.test_backstream import Client, Server
from tests.ingress.visiting import Targets, Wire
from tests.system.websockets import accept_key, frame

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    b"GET /ws?x=1 HTTP/1.1\r\nHost: any.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, other\r\nCookie: k=v\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)


class NewerClient(Client):
    """A client that carries websockets."""

    def tell(self, kind: str, **data: Any) -> None:
        self.say({"type": f"websocket_{kind}", "data": data})

    def accept(self, **header: list[str]) -> str:
        """Accept the websocket that was asked for last; its id."""
        id: str = self.sent[-1]["data"]["id"]
        self.tell("upgrade_response", id=id, accepted=True, header=header)
        return id

    def frame(self, id: str, kind: int, data: bytes) -> None:
        self.tell("frame", connection_id=id, type=kind, data=b64encode(data).decode())

    def heard(self) -> list[tuple[str, Any, Any]]:
        """What it was told of websockets since the last call."""
        heard, self.sent = self.sent, []
        said = [(each["type"].removeprefix("websocket_"), each["data"]) for each in heard]
        return [
            (kind, data.get("type", data.get("code")), data.get("data", data.get("reason")))
            for kind, data in said
        ]


class NewerTests(SynchronousTestCase):
    """Requests to a newer client."""

    def test_query(self) -> None:
        """It is asked once more, with the query; the next request comes with it at once."""
        server = Server()
        client = NewerClient(server, "1")
        visitor = server.visit(
            b"POST /a%20b?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
        )
        error = 'failed to parse request path: parse ":": missing protocol scheme'
        id = client.sent[-1]["id"]
        client.tell("upgrade_response", id=id, accepted=False, error=error)
        asked = client.sent[-1]
        self.assertEqual((asked["path"], asked["body"], asked["id"]), ("/a%20b?q=1", "aGk=", id))
        client.answer()
        server.turn()
        self.assertIn(b" 200 OK\r\n", visitor.taken())
        server.visit()
        self.assertEqual((len(client.sent), client.sent[-1]["path"]), (3, "/a%20b?q=1"))

    def test_visitor_leaves(self) -> None:
        """Whose visitor has left meanwhile is not asked for once more; the next one is."""
        server = Server()
        client = NewerClient(server, "1")
        visitor = server.visit()
        server.visit(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
        visitor.loseConnection()
        client.tell("upgrade_response", id=client.sent[-1]["id"], accepted=False, error="")
        self.assertEqual([each["path"] for each in client.sent], ["/a b", "/next"])


class WebsocketTests(SynchronousTestCase):
    """A visitor's websocket."""

    def setUp(self) -> None:
        self.server = Server()
        self.client = NewerClient(self.server, "1")

    def opened(self) -> tuple[Wire, str]:
        """A websocket that is open, and its id."""
        visitor = self.server.visit(UPGRADE)
        id = self.client.accept()
        self.server.turn()
        self.assertTrue(visitor.taken().startswith(b"HTTP/1.1 101 "))
        self.client.sent = []
        return visitor, id

    def send(self, visitor: Wire, data: bytes) -> None:
        visitor.protocol.dataReceived(data)
        self.server.turn()

    def test_handshake(self) -> None:
        """The client is told path, query and fields; its target's choice is the visitor's answer.
        No extension is agreed on."""
        visitor = self.server.visit(UPGRADE)
        (asked,) = self.client.sent
        data = asked["data"]
        self.assertEqual((asked["type"], data["path"]), ("websocket_upgrade_request", "/ws?x=1"))
        self.assertEqual(data["remote"], "203.0.113.9:51234")
        header = {
            name for name in data["header"] if name.startswith(("Sec-", "Upg", "Conn", "Cook"))
        }
        self.assertEqual(header, {"Cookie", "Sec-Websocket-Protocol"})
        fields = {
            "Sec-Websocket-Protocol": ["chat"],
            "Set-Cookie": ["a=1", "b=2"],
            "Upgrade": ["x"],
        }
        bad = {"X-Bad": ["a\r\nb: c"], "Sec-Websocket-Extensions": ["y"]}
        self.client.accept(**fields, **bad)
        self.server.turn()
        lines = visitor.taken().split(b"\r\n")
        self.assertEqual(lines[0], b"HTTP/1.1 101 Switching Protocols")
        for line in (b"Sec-WebSocket-Accept: " + accept_key(KEY), b"Set-Cookie: b=2"):
            self.assertIn(line, lines)
        self.assertIn(b"Sec-WebSocket-Protocol: chat", lines)
        self.assertNotIn(b"b: c", lines)
        self.assertFalse([line for line in lines if b"Extensions" in line])

    def test_messages(self) -> None:
        """Text and binary messages pass both ways; pings are answered here."""
        visitor, id = self.opened()
        self.send(visitor, b"\x81\x82\0\0\0\0hi" + frame(b"\x00\xff"))
        self.assertEqual(self.client.heard(), [("frame", 1, "aGk="), ("frame", 2, "AP8=")])
        self.send(visitor, b"\x01\x81\0\0\0\0a\x80\x81\0\0\0\0b\x89\x81\0\0\0\0p")
        self.assertEqual(self.client.heard(), [("frame", 1, "YWI=")])
        self.assertEqual(visitor.taken(), b"\x8a\x01p")
        self.client.frame(id, 1, b"text")
        self.client.frame(id, 2, bytes(200))
        self.client.frame(id, 9, b"")
        self.client.frame("other", 1, b"nobody's")
        self.server.turn()
        self.assertEqual(visitor.taken(), b"\x81\x04text\x82\x7e\x00\xc8" + bytes(200))

    def test_beside_requests(self) -> None:
        """While it is open, the client gets requests; and other websockets."""
        visitor, id = self.opened()
        page = self.server.visit()
        self.client.answer()
        other, other_id = self.opened()
        self.client.frame(other_id, 1, b"2")
        self.client.frame(id, 1, b"1")
        self.server.turn()
        self.assertIn(b" 200 OK\r\n", page.taken())
        self.assertEqual((visitor.taken(), other.taken()), (b"\x81\x011", b"\x81\x012"))

    def test_target_closes(self) -> None:
        """The visitor gets the code that the target gave, however the client puts it."""
        for kind, data, said in (
            (
                "close",
                {"code": 1006, "reason": "websocket: close 4001: see"},
                b"\x88\x05\x0f\xa1see",
            ),
            ("close", {"code": 1000, "reason": ""}, b"\x88\x02\x03\xe8"),
            ("frame", {"type": 8, "data": "D6Fy"}, b"\x88\x03\x0f\xa1r"),
            ("close", {"code": 1006, "reason": "websocket: close 1005 (no status)"}, b"\x88\0"),
            ("frame", {"type": 8, "data": ""}, b"\x88\0"),
            ("frame", {"type": 8, "data": "A/Q="}, b"\x88\x02\x03\xf4"),
            ("close", {"code": 1006, "reason": "EOF"}, b""),
        ):
            visitor, id = self.opened()
            self.client.tell(kind, connection_id=id, **data)
            self.server.turn(3)
            self.assertEqual(visitor.taken(), said, data)
            self.assertTrue(visitor.disconnected)
            self.assertEqual(self.client.heard(), [])
            self.assertEqual(self.client.upstream.streams, 0)

    def test_last_words(self) -> None:
        """What a target says before it closes without a code, as most programs do, or ends without
        closing, arrives."""
        for reason, said in (("websocket: close 1005 (no status)", b"\x88\0"), ("EOF", b"")):
            visitor, id = self.opened()
            self.client.frame(id, 1, b"done")
            self.client.tell("close", connection_id=id, code=1006, reason=reason)
            self.server.turn(3)
            self.assertEqual(visitor.taken(), b"\x81\x04done" + said)
            self.assertTrue(visitor.disconnected)

    def test_greeting(self) -> None:
        """What a target says at once may come before the client's answer; not without a limit."""
        visitor = self.server.visit(UPGRADE)
        id = self.client.sent[-1]["data"]["id"]
        self.client.frame(id, 1, b"hello")
        self.client.tell("close", connection_id=id, code=1006, reason="EOF")
        self.client.accept()
        self.server.turn(3)
        self.assertTrue(visitor.taken().endswith(b"\r\n\r\n\x81\x05hello"))
        self.assertTrue(visitor.disconnected)
        self.patch(upstream, "MAX_EARLY", 1000)
        visitor = self.server.visit(UPGRADE)
        self.client.frame(self.client.sent[-1]["data"]["id"], 2, bytes(1000))
        self.server.turn()
        self.assertIn(b"HTTP/1.1 502 ", visitor.taken())
        assert self.client.closed is not None
        self.assertEqual(self.client.closed[0], 1002)

    def test_visitor_closes(self) -> None:
        """The target is told with which code, or that there is none; who vanishes leaves it without
        a word."""
        visitor, _ = self.opened()
        self.send(visitor, b"\x88\x85\0\0\0\0\x0f\xa1bye")
        self.assertEqual(self.client.heard(), [("frame", 8, "D6FieWU="), ("close", 4001, "bye")])
        self.assertTrue(visitor.disconnected)
        visitor, _ = self.opened()
        self.send(visitor, b"\x88\x80\0\0\0\0")
        self.assertEqual(self.client.heard(), [("frame", 8, ""), ("close", 1005, "")])
        visitor, _ = self.opened()
        visitor.loseConnection()
        self.server.turn()
        ((kind, code, _),) = self.client.heard()
        self.assertEqual((kind, code), ("close", 1006))

    def test_breaks_the_protocol(self) -> None:
        """A visitor that sends what is no websocket's is told so; the target hears of the end."""
        visitor, _ = self.opened()
        self.send(visitor, b"\xff\x80\0\0\0\0")
        self.server.turn(3)
        self.assertTrue(visitor.taken().startswith(b"\x88"))
        self.assertTrue(visitor.disconnected)
        self.assertEqual(self.client.heard()[-1][0], "close")

    def test_refused(self) -> None:
        """A target that takes none is a 502; so it goes on."""
        visitor = self.server.visit(UPGRADE)
        id = self.client.sent[-1]["data"]["id"]
        self.client.tell("upgrade_response", id=id, accepted=False, error="bad handshake")
        self.server.turn()
        self.assertIn(b"HTTP/1.1 502 ", visitor.taken())
        self.opened()

    def test_older(self) -> None:
        """An older client works on it as on any request, without the upgrade. Then there are no
        websockets with it: 501, and it is not asked again."""
        visitor = self.server.visit(UPGRADE)
        self.assertEqual(self.client.sent[-1]["path"], "/ws")
        self.assertNotIn("Upgrade", self.client.sent[-1]["header"])
        self.client.answer(426)
        self.server.turn()
        self.assertIn(b"HTTP/1.1 501 ", visitor.taken())
        self.assertIn(b"HTTP/1.1 501 ", self.server.visit(UPGRADE).taken())
        self.assertEqual(len(self.client.sent), 1)

    def test_older_and_newer(self) -> None:
        """Of two clients the one that can gets it, though the other one is free; where nobody can
        any more, it is a 501."""
        self.server.visit()
        self.client.answer()
        newer = NewerClient(self.server, "2")
        for _ in range(3):
            visitor = self.server.visit(UPGRADE)
            newer.accept()
            self.server.turn()
            self.assertIn(b" 101 ", visitor.taken())
        self.server.visit()
        waiting = self.server.visit(UPGRADE)
        newer.upstream.lost("gone")
        self.server.turn()
        self.assertIn(b"HTTP/1.1 50", waiting.taken())
        self.client.answer()
        self.assertIn(b"HTTP/1.1 501 ", self.server.visit(UPGRADE).taken())

    def test_beside_ours(self) -> None:
        """Where a client carries streams, an older one gets no websocket and no long body."""
        self.server.visit()
        self.client.answer()
        native = Targets()
        self.server.clients.plug(native)
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
        for request in (UPGRADE, UPGRADE, head % (MAX_REQUEST_BODY + 1)) * 2:
            self.server.visit(request)
        self.assertEqual((len(self.client.sent), len(native.wires)), (1, 6))

    def test_visitor_leaves_first(self) -> None:
        """A websocket that nobody wants any more when it is there is closed again."""
        visitor = self.server.visit(UPGRADE)
        visitor.loseConnection()
        self.client.accept()
        self.assertEqual(self.client.heard()[-1][:2], ("close", 1001))
        self.opened()

    def test_client_leaves(self) -> None:
        """With the client go its websockets."""
        visitor, _ = self.opened()
        waiting = self.server.visit(UPGRADE)
        self.client.upstream.lost("gone")
        self.server.turn()
        self.assertTrue(visitor.disconnected)
        self.assertIn(b"HTTP/1.1 502 ", waiting.taken())

    def test_no_handshake(self) -> None:
        """A handshake that is none is refused, and the target's websocket given up."""
        visitor = self.server.visit(UPGRADE.replace(b"Version: 13", b"Version: 8"))
        self.client.accept()
        self.server.turn(3)
        self.assertIn(b"HTTP/1.1 400 ", visitor.taken())
        self.assertEqual(self.client.heard()[-1][0], "close")

    def test_slow_visitor(self) -> None:
        """Who does not read loses its websocket, and nobody else anything."""
        self.patch(exchange, "MAX_UNREAD", 10_000)
        visitor, id = self.opened()
        other, other_id = self.opened()
        producer: Any = visitor.producer
        producer.pauseProducing()
        for _ in range(12):
            self.client.frame(id, 2, bytes(1000))
            self.client.frame(other_id, 2, bytes(1000))
            self.server.turn()
        self.assertTrue(visitor.disconnected)
        self.assertEqual(len(other.taken()), 12 * 1004)
        self.assertEqual(self.client.heard()[-1][0], "close")

    def test_slow_client(self) -> None:
        """While what is said to the client waits, visitors are not read."""
        visitor, _ = self.opened()
        self.client.has_room = False
        self.send(visitor, frame(b"1"))
        self.assertEqual(visitor.producerState, "paused")
        self.client.has_room = True
        self.client.upstream.room()
        self.assertEqual(visitor.producerState, "producing")

    def test_drains(self) -> None:
        """A client that is to end does so when its websockets are over."""
        visitor, _ = self.opened()
        drained = self.client.upstream.drain()
        self.assertNoResult(drained)
        visitor.loseConnection()
        self.server.turn()
        self.successResultOf(drained)

    def test_same_id(self) -> None:
        """Each has an id of its own, whatever X-Request-Id says."""
        self.server.factory.trust = type(self.server.factory.trust)(["203.0.113.9"])
        ids = set()
        for _ in range(2):
            request = UPGRADE[:-2] + b"X-Request-Id: mine\r\n\r\n"
            self.server.visit(request)
            ids.add(self.client.accept())
        self.assertEqual(len(ids), 2)
        self.assertNotIn("mine", ids)
