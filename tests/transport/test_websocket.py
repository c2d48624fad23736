"""Websockets with sessions, against an independent websocket implementation (wsproto)."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from zope.interface import implementer
from zope.interface.verify import verifyObject

from exposr_tx.errors import (
    Draining,
    ExposrError,
    NoToken,
    PermissionDenied,
    StreamLimit,
    TooManyConnections,
    TooManyFailures,
    UpstreamGone,
)
from exposr_tx.interfaces import IAdmission, ITakeover, IUpstream, Origin
from exposr_tx.transport.liveness import LAST_LOOK
from exposr_tx.transport.websocket import (
    MAX_MESSAGE,
    ClientConnection,
    ConnectFailed,
    Lost,
    UpgradeRefused,
    WebsocketEndpoint,
    WebsocketUpstream,
    connect,
)
from tests.transport.pair import ORIGIN, Recorder, Recorders, drain

DATA, OPEN, ACK, CLOSE = 1, 2, 3, 4
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def message(kind: int, dst: int, src: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHIII", 2, kind, dst, src, len(payload)) + payload


def head(*fields: str) -> bytes:
    lines = (
        "GET /v1/tunnel/my-tunnel/ws-endpoint?t=good HTTP/1.1",
        "Host: tun.test:8080",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *fields,
    )
    return "\r\n".join((*lines, "", "")).encode()


@implementer(IAdmission)
class Admission:
    """Admits the token ``good``; what it is told is written down."""

    def __init__(self) -> None:
        self.plugging: Deferred[None] = succeed(None)
        self.plugged: list[IUpstream] = []
        self.unplugged: list[bool] = []

    def admit(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        if (tunnel_id, token) == ("my-tunnel", "good"):
            return succeed(None)
        return fail(PermissionDenied("wrong token"))

    def plug(self, upstream: IUpstream) -> Deferred[None]:
        self.plugged.append(upstream)
        return self.plugging

    def unplug(self, upstream: IUpstream, clean: bool) -> None:
        self.unplugged.append(clean)


class Wire(StringTransport):
    """A transport that tells when it is dropped."""

    dropped = False
    producer: Any

    def abortConnection(self) -> None:
        self.dropped = True

    def taken(self) -> bytes:
        data: bytes = self.value()
        self.clear()
        return data


class Server(SynchronousTestCase):
    """The server's endpoint, with a client made by wsproto."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission()
        self.endpoint = WebsocketEndpoint(self.admission, self.clock)
        self.visitors = Recorders()

    def admitted(self) -> Any:
        return self.successResultOf(
            self.endpoint.admit(b"/v1/tunnel/my-tunnel/ws-endpoint?t=good", [], ORIGIN)
        )

    def shake_hands(self, *fields: str, early: bytes = b"") -> tuple[Any, Wire, bytes]:
        """The protocol, its transport, and its answer's head."""
        protocol, wire = self.admitted(), Wire()
        protocol.makeConnection(wire)
        protocol.dataReceived(head(*fields) + early)
        answer, _, rest = wire.taken().partition(b"\r\n\r\n")
        self.client = Connection(ConnectionType.CLIENT)
        self.client.receive_data(rest)
        return protocol, wire, answer

    def opened(self) -> tuple[Any, Wire, WebsocketUpstream]:
        protocol, wire, _ = self.shake_hands()
        upstream = self.admission.plugged[-1]
        assert isinstance(upstream, WebsocketUpstream)
        self.events(wire)
        return protocol, wire, upstream

    def events(self, wire: Wire) -> list[Any]:
        self.client.receive_data(wire.taken())
        return list(self.client.events())

    def messages(self, wire: Wire) -> list[bytes]:
        return [bytes(e.data) for e in self.events(wire) if isinstance(e, BytesMessage)]

    def lose(self, protocol: Any) -> None:
        protocol.connectionLost(Failure(ConnectionLost()))

    def stream(self, protocol: Any, wire: Wire, upstream: WebsocketUpstream) -> Any:
        upstream.connect(self.visitors, ORIGIN)
        (opened,) = self.messages(wire)
        number = int.from_bytes(opened[8:12], "big")
        protocol.dataReceived(self.client.send(BytesMessage(message(ACK, number, number))))
        return self.visitors.built[-1]

    # Admission

    def test_interfaces(self) -> None:
        """The endpoint is what ingress asks, its upstreams are what routing chooses."""
        verifyObject(ITakeover, self.endpoint)
        _, _, upstream = self.opened()
        verifyObject(IUpstream, upstream)
        self.assertEqual((upstream.tunnel_id, upstream.peer), ("my-tunnel", ORIGIN.peer))
        self.assertTrue(upstream.accepting)
        self.assertIn("my-tunnel", repr(upstream))

    def test_claims(self) -> None:
        """The endpoint's path is tolerant of case and a slash, and nothing else."""
        for path in (b"/v1/tunnel/a-b/ws-endpoint", b"/V1/Tunnel/A/WS-endpoint/"):
            self.assertTrue(self.endpoint.claims(path))
        for path in (
            b"/v1/tunnel/ws-endpoint",
            b"/v1/tunnel/a/b/ws-endpoint",
            b"/",
            b"/v1/tunnel/a",
        ):
            self.assertFalse(self.endpoint.claims(path))

    def test_refused(self) -> None:
        """Without a token, with a wrong one, and while draining, nobody comes in."""
        path = b"/v1/tunnel/my-tunnel/ws-endpoint"
        self.failureResultOf(self.endpoint.admit(path, [], ORIGIN), NoToken)
        self.failureResultOf(self.endpoint.admit(path + b"?t=", [], ORIGIN), NoToken)
        self.failureResultOf(self.endpoint.admit(path + b"?t=bad", [], ORIGIN), PermissionDenied)
        self.successResultOf(self.endpoint.admit(b"http://x" + path + b"?t=good", [], ORIGIN))
        drain(self.endpoint)
        self.failureResultOf(self.endpoint.admit(path + b"?t=good", [], ORIGIN), Draining)

    # Handshake

    def test_handshake(self) -> None:
        """What a client offers besides a websocket is declined, nothing of ours is told."""
        offers = (
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            "Sec-WebSocket-Protocol: chat, chat",
            "Origin: what is this",
        )
        _, _, answer = self.shake_hands(*offers)
        lines = answer.lower().split(b"\r\n")
        self.assertEqual(lines[0], b"http/1.1 101 switching protocols")
        self.assertIn(b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=", lines)
        for name in (b"server", b"sec-websocket-extensions", b"sec-websocket-protocol"):
            self.assertNotIn(name + b":", answer.lower())
        self.assertEqual(len(self.admission.plugged), 1)

    def test_bad_handshake(self) -> None:
        """A refused handshake says why in JSON: without a body existing clients wait for ever."""
        protocol, wire = self.admitted(), Wire()
        protocol.makeConnection(wire)
        protocol.dataReceived(head().replace(b"Version: 13", b"Version: 12"))
        answer, _, body = wire.value().partition(b"\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
        told = json.loads(body)
        self.assertEqual(told["error"], "BAD_INPUT")
        self.assertIn("version", told["field"])
        self.lose(protocol)
        self.assertEqual(self.admission.plugged, [])

    def test_slow_handshake(self) -> None:
        """A handshake that is never completed is dropped."""
        protocol, wire = self.admitted(), Wire()
        protocol.makeConnection(wire)
        protocol.dataReceived(head()[:50])
        self.clock.advance(5)
        self.assertTrue(wire.dropped)
        self.lose(protocol)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_early_frames(self) -> None:
        """Frames that arrive together with the handshake are not lost."""
        early = Connection(ConnectionType.CLIENT).send(Ping(b"early"))
        protocol, wire = self.admitted(), Wire()
        protocol.makeConnection(wire)
        protocol.dataReceived(head() + early)
        self.assertIn(b"\x8a\x05early", wire.value())

    # Service

    def test_streams(self) -> None:
        """Data goes both ways, in one message each."""
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        visitor.stream.write(b"GET")
        self.assertEqual(self.messages(wire), [message(DATA, 1, 1, b"GET")])
        protocol.dataReceived(self.client.send(BytesMessage(message(DATA, 1, 1, b"200"))))
        self.assertEqual(visitor.received, b"200")
        for size in (109, 110, 65519, 65520, 65536):
            visitor.stream.write(bytes(size))
            self.assertEqual(self.messages(wire), [message(DATA, 1, 1, bytes(size))])

    def test_text_is_binary(self) -> None:
        """Text messages are read like binary ones."""
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        text = message(DATA, 1, 1, b"text").decode("latin-1")
        protocol.dataReceived(self.client.send(TextMessage(text)))
        self.assertEqual(visitor.received, b"text")

    def test_pings(self) -> None:
        """Pings are answered; ours are sent at once and every six seconds."""
        protocol, wire, _ = self.opened()
        self.clock.advance(6)
        self.assertEqual([type(event) for event in self.events(wire)], [Ping])
        protocol.dataReceived(self.client.send(Ping(b"hello")))
        self.assertEqual([bytes(e.payload) for e in self.events(wire)], [b"hello"])

    def test_probe(self) -> None:
        """A probe is answered by the pong."""
        protocol, wire, upstream = self.opened()
        probe = upstream.probe()
        (ping,) = self.events(wire)
        protocol.dataReceived(self.client.send(Pong(ping.payload)))
        self.assertTrue(self.successResultOf(probe))

    def test_dead_client(self) -> None:
        """A client that falls silent is dropped, and unplugged as lost; the log says why."""
        self.listen_to_log()
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        for _ in range(4):
            self.clock.advance(6)
        self.assertTrue(wire.dropped)
        self.assertFalse(upstream.accepting)
        self.assertEqual(self.admission.unplugged, [False])
        self.assertEqual(visitor.reasons, [ConnectionLost])
        self.lose(protocol)
        self.assertEqual(self.admission.unplugged, [False])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("answers no pings", self.lines()[-1]["reason"])

    def test_streams_of_a_tunnel(self) -> None:
        """The limit of streams holds for all connections of a tunnel together."""
        self.endpoint = WebsocketEndpoint(self.admission, self.clock, max_streams=3)
        first, _, one = self.opened()
        _, _, two = self.opened()
        opening = [upstream.connect(self.visitors, ORIGIN) for upstream in (one, two, two)]
        for upstream in (one, two):
            self.failureResultOf(upstream.connect(self.visitors, ORIGIN), StreamLimit)
        opening[1].addErrback(lambda reason: reason.trap(CancelledError))
        opening[1].cancel()
        opening.append(one.connect(self.visitors, ORIGIN))
        self.failureResultOf(two.connect(self.visitors, ORIGIN), StreamLimit)
        self.lose(first)
        for lost in (opening[0], opening[3]):
            self.failureResultOf(lost, UpstreamGone)
        self.assertNoResult(two.connect(self.visitors, ORIGIN))
        self.assertEqual(len(two.session), 2)

    def test_streams_of_another_tunnel(self) -> None:
        """Another tunnel's streams do not count."""
        self.endpoint = WebsocketEndpoint(self.admission, self.clock, max_streams=1)
        _, _, mine = self.opened()
        _, _, other = self.opened()
        self.endpoint.remove(other)
        other.tunnel_id = "other"
        self.endpoint.add(other)
        self.assertNoResult(mine.connect(self.visitors, ORIGIN))
        self.assertEqual(len(self.endpoint.upstreams_of("other")), 1)
        self.endpoint.remove(other)
        self.assertEqual(len(self.endpoint.upstreams_of("other")), 0)

    def test_full_transport(self) -> None:
        """When the transport is full, the streams' producers pause."""
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        self.assertTrue(wire.streaming)
        wire.producer.pauseProducing()
        visitor.stream.write(b"later")
        self.assertEqual(self.messages(wire), [])
        wire.producer.resumeProducing()
        self.assertEqual(self.messages(wire), [message(DATA, 1, 1, b"later")])

    # Ending

    def test_goodbye(self) -> None:
        """A client's close frame is answered, and its tunnel unplugged at once, cleanly."""
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        protocol.dataReceived(self.client.send(CloseConnection(1000, "bye")))
        self.assertEqual(self.admission.unplugged, [True])
        self.assertEqual(len(visitor.reasons), 1)
        self.assertIsInstance(self.events(wire)[-1], CloseConnection)
        self.assertTrue(wire.disconnecting)
        self.clock.advance(1)
        self.assertTrue(wire.dropped)  # it would not take what we wrote

    def test_closed_by_us(self) -> None:
        """Closing says why, and waits a second for the client at most."""
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        upstream.close(1008, "deleted")
        self.assertEqual(self.admission.unplugged, [True])
        self.assertEqual(len(visitor.reasons), 1)
        closed, goodbye = self.events(wire)
        self.assertEqual(bytes(closed.data), message(CLOSE, 1, 1))
        self.assertEqual((goodbye.code, goodbye.reason), (1008, "deleted"))
        self.clock.advance(1)
        self.assertTrue(wire.dropped)
        self.lose(protocol)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ending_stream_asks_for_another(self) -> None:
        """When the client goes, whoever has a stream is not given one on the same connection."""
        protocol, wire, upstream = self.opened()
        seen: list[bool] = []

        class Asks(Recorder):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                upstream.connect(Recorders(), ORIGIN).addErrback(lambda failure: None)
                seen.append(upstream.accepting)

        self.visitors.protocol = Asks
        self.stream(protocol, wire, upstream)
        self.lose(protocol)
        self.assertEqual(seen, [False])

    def test_over_the_limit(self) -> None:
        """A connection too many is told to stop, in the words that clients know."""
        self.admission.plugging = fail(TooManyConnections("full"))
        protocol, wire, _ = self.shake_hands()
        self.events(wire)
        self.assertEqual(self.client.state, ConnectionState.REMOTE_CLOSING)
        self.assertEqual(self.admission.unplugged, [])
        self.lose(protocol)

    def one_too_many(self) -> tuple[Any, Wire, Any]:
        """A connection that got a stream while it was not known that it is one too many."""
        self.admission.plugging = Deferred()
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        self.admission.plugging.errback(TooManyConnections("full"))
        self.assertFalse(upstream.accepting)
        return protocol, wire, visitor

    def test_over_the_limit_and_in_use(self) -> None:
        """What a connection too many was given before that was known ends first."""
        protocol, wire, visitor = self.one_too_many()
        self.clock.advance(1)
        self.assertEqual((self.events(wire), visitor.reasons), ([], []))
        protocol.dataReceived(self.client.send(BytesMessage(message(DATA, 1, 1, b"whole"))))
        protocol.dataReceived(self.client.send(BytesMessage(message(CLOSE, 1, 1))))
        self.assertEqual(visitor.received, b"whole")
        goodbye = self.events(wire)[-1]
        self.assertEqual((goodbye.code, goodbye.reason), (1008, "unable to establish tunnel"))

    def test_over_the_limit_for_good(self) -> None:
        """It does not stay for a stream without end."""
        _, wire, visitor = self.one_too_many()
        self.clock.advance(30)
        self.assertEqual(len(visitor.reasons), 1)
        self.assertEqual(self.events(wire)[-1].code, 1008)

    def closing(self, error: Exception) -> tuple[int, str | None]:
        self.admission.plugging = Deferred()
        _, wire, _ = self.shake_hands()
        self.events(wire)
        self.admission.plugging.errback(error)
        (event,) = self.events(wire)
        return event.code, event.reason

    def test_not_plugged(self) -> None:
        """Each reason for not serving a connection has its close code."""
        full = self.closing(TooManyConnections("full"))
        self.assertEqual(full, (1008, "unable to establish tunnel"))
        self.assertEqual(self.closing(Draining("bye"))[0], 1001)
        self.assertEqual(self.closing(RuntimeError("a bug"))[0], 1011)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.admission.unplugged, [])

    def test_lost_while_plugging(self) -> None:
        """A connection that goes while it is put into service is taken out again."""
        plugging: Deferred[None] = Deferred()
        self.admission.plugging = plugging
        protocol, _, _ = self.shake_hands()
        self.lose(protocol)
        self.assertEqual(self.admission.unplugged, [])
        plugging.callback(None)
        self.assertEqual(self.admission.unplugged, [False])

    def test_drain(self) -> None:
        """Draining waits for the last stream, then lets the client go elsewhere."""
        protocol, wire, upstream = self.opened()
        visitor = self.stream(protocol, wire, upstream)
        drained = drain(self.endpoint)
        self.assertFalse(upstream.accepting)
        self.assertNoResult(drained)
        visitor.stream.loseConnection()
        self.successResultOf(drained)
        self.assertEqual(self.events(wire)[-1].code, 1001)
        self.assertEqual(self.endpoint.upstreams, set())

    def test_drain_hurried(self) -> None:
        """When the grace period is over, draining ends at once."""
        protocol, wire, upstream = self.opened()
        self.stream(protocol, wire, upstream)
        drained = drain(self.endpoint)
        self.endpoint.close()
        self.successResultOf(drained)
        self.assertEqual(self.events(wire)[-1].code, 1001)

    # What the operator reads

    def lines(self) -> list[dict[str, Any]]:
        """What has been logged about clients since."""
        found = [event for event in self.logged if "event" in event]
        self.logged.clear()
        return found

    def listen_to_log(self) -> None:
        self.logged: list[Any] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_comings_and_goings(self) -> None:
        """Each connection of a client is written down when it comes, goes, and comes again."""
        self.listen_to_log()
        first, _, _ = self.opened()
        second, _, upstream = self.opened()
        came = [(e["event"], e["tunnel"], e["peer"], e["connections"]) for e in self.lines()]
        here = ("client-connected", "my-tunnel", "192.0.2.7:4711")
        self.assertEqual(came, [(*here, 1), (*here, 2)])
        self.lose(first)
        upstream.close(1001, "Server shutting down")
        self.lose(second)
        went = [
            (e["event"], e["connections"], e["clean"], e["code"], e["reason"] == "")
            for e in self.lines()
        ]
        self.assertEqual(
            went, [("client-lost", 1, False, 1006, False), ("client-lost", 0, True, 1001, False)]
        )
        self.clock.advance(90)
        third, _, _ = self.opened()
        third.dataReceived(self.client.send(CloseConnection(1000)))
        again, gone = self.lines()
        self.assertEqual((gone["clean"], gone["code"], gone["reason"]), (True, 1000, ""))
        self.assertEqual((again["event"], again["away"]), ("client-connected-again", 90.0))

    def test_refusals_are_written_down(self) -> None:
        """A refused client is a warning with its address and the reason, without its token."""
        self.listen_to_log()
        for query in (b"", b"?t=hush"):
            refused = self.endpoint.admit(b"/v1/tunnel/my-tunnel/ws-endpoint" + query, [], ORIGIN)
            self.failureResultOf(refused)
        lines = self.lines()
        self.assertEqual(
            [(e["event"], e["log_level"].name, e["code"], e["peer"]) for e in lines],
            [
                ("client-refused", "warn", "AUTH_NO_TOKEN", "192.0.2.7:4711"),
                ("client-refused", "warn", "PERMISSION_DENIED", "192.0.2.7:4711"),
            ],
        )
        self.assertNotIn("hush", "".join(map(str, lines)))
        self.admission.plugging = fail(TooManyConnections("full"))
        self.shake_hands()
        self.assertEqual([e["code"] for e in self.lines()], ["TUNNEL_ALREADY_CONNECTED"])

    def test_refusals_that_were_told_of(self) -> None:
        """An address that is shut out was told of once, and a server that ends has said so:
        each client that tries again writes no further line."""
        self.listen_to_log()
        self.patch(self.admission, "admit", lambda *_: fail(TooManyFailures(60)))
        for draining in (False, True):
            self.endpoint.draining = draining
            refused = self.endpoint.admit(b"/v1/tunnel/my-tunnel/ws-endpoint?t=x", [], ORIGIN)
            self.failureResultOf(refused, Draining if draining else TooManyFailures)
        self.assertEqual(self.lines(), [])

    # Abuse

    def test_abuse(self) -> None:
        """Frames that are none end the connection."""
        mask = b"\x80\x00\x00\x00\x00"
        for frame in (
            b"\x82\x03abc",  # not masked
            b"\xc2" + mask,  # a reserved bit
            b"\x83" + mask,  # a reserved opcode
            b"\x80" + mask,  # a continuation of nothing
            b"\x02" + mask + b"\x82" + mask,  # a message inside a message
            b"\x82\xfe\x00\x7d" + bytes(4),  # a length that is not minimal
            b"\x82\xff" + struct.pack(">Q", 65535) + bytes(4),
            b"\x82\xff" + struct.pack(">Q", 1 << 63) + bytes(4),
            b"\x89\xfe\x00\x7e" + bytes(4),  # a large ping
        ):
            protocol, wire, upstream = self.opened()
            protocol.dataReceived(frame)
            self.assertTrue(wire.dropped, frame[:20])
            self.assertFalse(upstream.session.is_open)
            protocol.dataReceived(frame)  # what follows is nobody's
            self.lose(protocol)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_messages_that_cannot_be(self) -> None:
        """Who sends what is too large or of another version is told with which code it ends."""
        too_large = b"\x82\xff" + struct.pack(">Q", MAX_MESSAGE + 1) + bytes(4)
        whole = b"\x02\xff" + struct.pack(">Q", MAX_MESSAGE) + bytes(4)
        whole += b"\x00\x02" + bytes(MAX_MESSAGE - 2)
        another = self.client_frame(b"\x00\x03" + bytes(14))
        for frame, code in (
            (too_large, 1009),
            (whole + b"\x80\x81" + bytes(5), 1009),  # in two fragments
            (another, 1002),
        ):
            protocol, wire, upstream = self.opened()
            protocol.dataReceived(frame)
            self.assertFalse(upstream.session.is_open)
            (told,) = self.events(wire)
            self.assertEqual(code, told.code)
            protocol.dataReceived(frame)  # what follows is nobody's
            self.clock.advance(1)
            self.assertTrue(wire.dropped)
            self.lose(protocol)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def client_frame(self, payload: bytes) -> bytes:
        return bytes(Connection(ConnectionType.CLIENT).send(BytesMessage(payload)))


FRAGMENTS = st.lists(
    st.one_of(
        st.binary(max_size=200).map(lambda data: [data]),
        st.lists(st.binary(max_size=150), min_size=1, max_size=4),
        st.integers(60_000, 70_000).map(lambda size: [bytes(size)]),
        st.just("ping"),
    ),
    min_size=1,
    max_size=6,
)


class Frames(SynchronousTestCase):
    """Our way of reading data frames, against what wsproto sends and reads."""

    def pair(self, server: bool) -> tuple[Any, Wire, Connection]:
        """Our side of an open websocket, and wsproto's."""
        wire = Wire()
        if server:
            endpoint = WebsocketEndpoint(Admission(), Clock())
            target = b"/v1/tunnel/my-tunnel/ws-endpoint?t=good"
            protocol: Any = self.successResultOf(endpoint.admit(target, [], ORIGIN))
            protocol.makeConnection(wire)
            protocol.dataReceived(head())
            peer = Connection(ConnectionType.CLIENT)
        else:
            protocol, _ = dialled(self, wire)
            peer = Connection(ConnectionType.SERVER)
        wire.clear()
        seen: list[bytes] = []
        pieces: list[bytes] = []
        session = protocol.session
        session.message = seen.append
        session.message_begin = pieces.clear
        session.message_data = pieces.append
        session.message_end = lambda: seen.append(b"".join(pieces))
        protocol.seen = seen
        return protocol, wire, peer

    def assert_read(self, server: bool, script: list[Any], cuts: list[int]) -> None:
        protocol, wire, peer = self.pair(server)
        stream, expected, pings = b"", [], 0
        for step in script:
            if step == "ping":
                stream += peer.send(Ping(b"between"))
                pings += 1
                continue
            for i, fragment in enumerate(step):
                last = i == len(step) - 1
                stream += peer.send(BytesMessage(fragment, message_finished=last))
                if not last and i == 0:
                    stream += peer.send(Ping(b"inside"))
                    pings += 1
            expected.append(b"".join(step))
        edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
        for start, stop in zip(edges, edges[1:], strict=False):
            protocol.dataReceived(stream[start:stop])
        self.assertEqual(protocol.seen, expected)
        peer.receive_data(wire.taken())
        self.assertEqual(len([e for e in peer.events() if isinstance(e, Pong)]), pings)

    @settings(max_examples=100)
    @given(st.booleans(), FRAGMENTS, st.lists(st.integers(0, 1 << 17), max_size=6))
    def test_any_frames(self, server: bool, script: list[Any], cuts: list[int]) -> None:
        """Messages, fragments and pings are read the same however they are cut."""
        self.assert_read(server, script, cuts)

    def test_every_split(self) -> None:
        """A few frames, cut once at every position, and byte by byte."""
        script = [[b"whole"], "ping", [b"", b"frag", b"ments"], [b"x" * 130], [b""]]
        for server in (True, False):
            for cut in range(260):
                self.assert_read(server, script, [cut])
            self.assert_read(server, script, list(range(260)))

    @settings(max_examples=60)
    @given(st.booleans(), st.lists(st.one_of(st.binary(max_size=300), st.integers(0, 70_000))))
    def test_sending(self, server: bool, payloads: list[bytes | int]) -> None:
        """What we send, wsproto reads, in one unfragmented message each."""
        protocol, wire, peer = self.pair(server)
        sent = [each if isinstance(each, bytes) else b"m" * each for each in payloads]
        for payload in sent:
            protocol.send(payload)
        peer.receive_data(wire.taken())
        received: list[Any] = list(peer.events())
        self.assertTrue(all(event.message_finished for event in received))
        self.assertEqual([bytes(event.data) for event in received], sent)


class Dialling:
    """A client endpoint that connects to a given transport."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.protocol: Any = None
        self.waiting: Deferred[Any] | None = None

    def connect(self, factory: Any) -> Deferred[Any]:
        address: IAddress = IPv4Address("TCP", "198.51.100.1", 443)
        self.protocol = factory.buildProtocol(address)
        self.protocol.makeConnection(self.wire)
        return self.waiting if self.waiting is not None else succeed(self.protocol)


URL = "ws://tun.test/v1/tunnel/my%2Dtunnel/ws-endpoint?t=a+b%20c"


def accept(wire: Wire) -> bytes:
    """A server's answer to the handshake that lies in a transport."""
    import base64
    import hashlib

    request = wire.taken()
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def dialled(case: SynchronousTestCase, wire: Wire, clock: Clock | None = None) -> tuple[Any, Any]:
    """Our client's protocol and connection, after its handshake."""
    endpoint: Any = Dialling(wire)
    connecting = connect(endpoint, URL, Recorders(), clock or Clock())
    endpoint.protocol.dataReceived(accept(wire))
    return endpoint.protocol, case.successResultOf(connecting)


class Client(SynchronousTestCase):
    """The client's connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.targets = Recorders()
        self.endpoint: Any = Dialling(self.wire)

    def dial(self, url: str = URL, **options: Any) -> Deferred[ClientConnection]:
        return connect(self.endpoint, url, self.targets, self.clock, **options)

    def opened(self) -> ClientConnection:
        connecting = self.dial()
        self.receive(accept(self.wire))
        self.server = Connection(ConnectionType.SERVER)
        return self.successResultOf(connecting)

    def receive(self, data: bytes) -> None:
        self.endpoint.protocol.dataReceived(data)

    def lose(self, reason: type[Exception] = ConnectionLost) -> None:
        self.endpoint.protocol.connectionLost(Failure(reason()))

    def refused(self, *chunks: bytes) -> ExposrError:
        connecting = self.dial()
        for chunk in chunks:
            self.receive(chunk)
        if not self.wire.dropped:
            self.lose(ConnectionDone)
        else:
            self.wire.dropped = False
            self.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        failure = self.failureResultOf(connecting, ConnectFailed)
        assert isinstance(failure.value, ExposrError)
        return failure.value

    def test_request(self) -> None:
        """The URL is used verbatim; no extension, subprotocol or name of a program is sent."""
        self.dial(headers={"X-Extra": "1"})
        lines = self.wire.value().split(b"\r\n")
        self.assertEqual(lines[0], b"GET /v1/tunnel/my%2Dtunnel/ws-endpoint?t=a+b%20c HTTP/1.1")
        self.assertIn(b"Host: tun.test", lines)
        self.assertIn(b"X-Extra: 1", lines)
        names = {line.partition(b":")[0].lower() for line in lines[1:] if line}
        self.assertEqual(
            names,
            {
                b"host",
                b"upgrade",
                b"connection",
                b"sec-websocket-version",
                b"sec-websocket-key",
                b"x-extra",
            },
        )

    def test_hosts(self) -> None:
        """Ports and IPv6 addresses stand in Host as in the URL."""
        self.dial("wss://[::1]:8443")
        self.assertIn(b"GET / HTTP/1.1\r\nHost: [::1]:8443\r\n", self.wire.value())
        for url in ("http://x/", "ws:///path", "tun.test"):
            with self.assertRaises(ValueError):
                self.dial(url)

    def test_streams(self) -> None:
        """A stream that the server opens gets a protocol; frames are masked."""
        connection = self.opened()
        self.server.receive_data(self.wire.taken())
        self.assertIsInstance(next(self.server.events()), Ping)
        self.receive(self.server.send(BytesMessage(message(OPEN, 0, 1))))
        self.receive(self.server.send(BytesMessage(message(DATA, 1, 1, b"GET"))))
        self.assertEqual(self.targets.built[0].received, b"GET")
        self.targets.built[0].stream.write(b"200")
        self.server.receive_data(self.wire.taken())
        answers: list[Any] = list(self.server.events())
        self.assertEqual(
            [bytes(event.data) for event in answers],
            [message(ACK, 1, 1), message(DATA, 1, 1, b"200")],
        )
        self.assertEqual(len(connection.session), 1)

    def test_refusals(self) -> None:
        """A refusal tells its status and code, in whatever shape it comes."""
        body = b'{"error":"PERMISSION_DENIED"}'
        for chunks in (
            (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 29\r\n\r\n", body),
            (b"HTTP/1.1 401 Unauthorized\r\n\r\n", body[:12], body[12:]),
            (b"HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\n\r\n1d\r\n" + body,),
        ):
            error = self.refused(*chunks)
            assert isinstance(error, UpgradeRefused)
            self.assertEqual((error.http_status, error.error), (401, "PERMISSION_DENIED"))
        for chunks in (
            (b"HTTP/1.1 401 Unauthorized\r\n\r\n",),  # then closed, as an exposrd does
            (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",),
            (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\n", b"sorry"),
            (b"HTTP/1.1 401 Unauthorized\r\n\r\n", b"x" * 20_000),
        ):
            error = self.refused(*chunks)
            assert isinstance(error, UpgradeRefused)
            self.assertEqual((error.http_status, error.error), (401, ""))

    def test_refusal_in_chunks(self) -> None:
        """A refusal is told as soon as it is complete, though the server keeps the connection."""
        for last in (b"0\r\n\r\n", b"5\r\nsorry\r\n0\r\n\r\n"):
            self.wire.dropped = False
            connecting = self.dial()
            self.receive(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.receive(last[:-1])
            self.assertFalse(self.wire.dropped)
            self.receive(last[-1:])
            self.assertTrue(self.wire.dropped)
            self.lose()
            error = self.failureResultOf(connecting, UpgradeRefused).value
            self.assertEqual(error.http_status, 403)

    def test_silent_refusal(self) -> None:
        """A refusal whose body never comes does not hang."""
        connecting = self.dial()
        self.receive(b"HTTP/1.1 503 Busy\r\n\r\n")
        self.clock.advance(5)
        self.assertTrue(self.wire.dropped)
        self.lose()
        self.assertEqual(self.failureResultOf(connecting, UpgradeRefused).value.http_status, 503)

    def test_no_websocket(self) -> None:
        """Answers that are no websocket handshake fail, whatever they are."""
        for chunks in (
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n",),
            (b"HTTP/1.1 101 \xff\xff\r\nUpgrade: \xff\r\n\r\n",),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n",),
            (b"x" * 40_000,),
            (),
        ):
            self.assertNotIsInstance(self.refused(*chunks), UpgradeRefused)

    def test_extras_are_refused(self) -> None:
        """A server that selects what was not offered is not spoken to."""
        for extra in (
            b"Sec-WebSocket-Protocol: chat",
            b"Sec-WebSocket-Extensions: permessage-deflate",
        ):
            connecting = self.dial()
            self.receive(accept(self.wire)[:-2] + extra + b"\r\n\r\n")
            self.lose()
            self.failureResultOf(connecting, ConnectFailed)

    def test_cancelled(self) -> None:
        """Who does not wait any more leaves no connection behind."""
        connecting = self.dial()
        connecting.addErrback(lambda _: None)
        connecting.cancel()
        self.assertTrue(self.wire.dropped)
        self.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """Without a close frame a loss is unclean."""
        connection = self.opened()
        self.receive(self.server.send(BytesMessage(message(OPEN, 0, 1))))
        self.lose()
        lost = self.successResultOf(connection.lost)
        self.assertEqual((lost.code, lost.clean), (1006, False))
        self.assertEqual(self.targets.built[0].reasons, [ConnectionLost])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_by_the_server(self) -> None:
        """A close frame's code and reason are told; a server that does not drop is dropped."""
        connection = self.opened()
        self.receive(self.server.send(BytesMessage(message(OPEN, 0, 1))))
        self.receive(self.server.send(CloseConnection(1008, "deleted")))
        self.assertEqual(len(self.targets.built[0].reasons), 1)
        self.assertNoResult(connection.lost)
        self.clock.advance(1)
        self.assertTrue(self.wire.dropped)
        self.lose()
        self.assertEqual(self.successResultOf(connection.lost), Lost(1008, "deleted", True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_by_us(self) -> None:
        """Closing ends the streams, says goodbye, and waits a second at most."""
        connection = self.opened()
        self.receive(self.server.send(BytesMessage(message(OPEN, 0, 1))))
        self.wire.clear()
        connection.close()
        self.server.receive_data(self.wire.taken())
        events: list[Any] = list(self.server.events())
        closed, goodbye = events
        self.assertEqual(bytes(closed.data), message(CLOSE, 1, 1))
        self.assertEqual(goodbye.code, 1000)
        self.clock.advance(1)
        self.assertTrue(self.wire.dropped)
        self.lose()
        self.assertTrue(self.successResultOf(connection.lost).clean)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_version(self) -> None:
        """What the server did wrong is the reason, also where it does not answer the goodbye."""
        connection = self.opened()
        self.receive(self.server.send(BytesMessage(b"\x00\x03" + bytes(14))))
        self.clock.advance(1)
        self.assertTrue(self.wire.dropped)
        self.lose()
        lost = self.successResultOf(connection.lost)
        self.assertEqual((lost.code, lost.reason), (1002, "multiplex version 3 is not spoken here"))

    def test_silent_server(self) -> None:
        """A server that sends no pings for 21 s is given up."""
        connection = self.opened()
        for _ in range(4):
            self.clock.advance(5.5)
        self.clock.advance(LAST_LOOK)
        self.assertTrue(self.wire.dropped)
        self.lose()
        lost = self.successResultOf(connection.lost)
        self.assertEqual((lost.clean, lost.reason), (False, "the server sends no pings"))

    def test_masked_frames(self) -> None:
        """A server that masks its frames breaks the protocol."""
        connection = self.opened()
        self.receive(b"\x82\x80\x00\x00\x00\x00")
        self.assertTrue(self.wire.dropped)
        self.lose()
        self.assertFalse(self.successResultOf(connection.lost).clean)
