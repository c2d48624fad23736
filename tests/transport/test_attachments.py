"""Several tunnels on one connection: a server's endpoint and a client, joined in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from exposr_tx.errors import PermissionDenied, StreamLimit, TooManyConnections, UpstreamGone
from exposr_tx.interfaces import IAdmission, IUpstream, Origin
from exposr_tx.testing import MemoryEndpoint
from exposr_tx.transport.session import MAX_UNREAD_REPLIES
from exposr_tx.transport.websocket import (
    AttachFailed,
    Attachment,
    AttachRefused,
    ClientConnection,
    Lost,
    WebsocketEndpoint,
    WebsocketUpstream,
    connect,
)
from tests.transport.pair import ORIGIN, Kept, Recorder, Recorders, drain

CLIENT = IPv4Address("TCP", "198.51.100.7", 40001)
SERVER = IPv4Address("TCP", "192.0.2.1", 80)
OFFER = (b"sec-websocket-protocol", b"exposr-tx.1")


@implementer(IAdmission)
class Admission:
    """Admits tokens ``good-<tunnel>``, once each is awaited or at once; who is in service."""

    def __init__(self) -> None:
        self.admitting: Deferred[None] | None = None
        self.plugging: Deferred[None] | None = None
        self.origins: list[Origin] = []
        self.plugged: dict[str, WebsocketUpstream] = {}
        self.gone: list[tuple[str, bool]] = []

    def admit(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        self.origins.append(origin)
        if token != f"good-{tunnel_id}":
            return fail(PermissionDenied("wrong token"))
        admitting, self.admitting = self.admitting, None
        return admitting or succeed(None)

    def plug(self, upstream: IUpstream) -> Deferred[None]:
        assert isinstance(upstream, WebsocketUpstream)
        self.plugged[upstream.tunnel_id] = upstream
        plugging, self.plugging = self.plugging, None
        return plugging or succeed(None)

    def unplug(self, upstream: IUpstream, clean: bool) -> None:
        self.gone.append((upstream.tunnel_id, clean))


class Handing(Factory):
    """Gives out one protocol."""

    def __init__(self, protocol: Any) -> None:
        self._given = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._given


class AttachmentTests(SynchronousTestCase):
    """Tunnels ``one``, which opened the connection, and ``two``, which shares it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission()
        self.endpoint = WebsocketEndpoint(self.admission, self.clock, max_streams=4)
        self.targets = {"one": Recorders(), "two": Recorders()}
        self.visitors = Recorders()
        self.ends: set[Any] = set()
        self.connection = self.connected()

    def pump(self) -> None:
        for _ in range(20):
            self.clock.advance(0)

    def connected(self, native: bool = True) -> ClientConnection:
        path = "/v1/tunnel/one/ws-endpoint?t=good-one"
        protocol = self.successResultOf(
            self.endpoint.admit(path.encode(), [OFFER] if native else [], ORIGIN)
        )
        wire = MemoryEndpoint(self.clock, Handing(protocol), CLIENT, SERVER, self.ends)
        opening = connect(
            wire, f"ws://h{path}", self.targets["one"], self.clock, offers_native=native
        )
        self.pump()
        return self.successResultOf(opening)

    def attach(self, tunnel_id: str = "two", token: str = "good-two") -> Deferred[Attachment]:
        attaching = self.connection.attach(tunnel_id, token, self.targets["two"])
        self.pump()
        return attaching

    def attached(self) -> Attachment:
        return self.successResultOf(self.attach())

    def open(self, tunnel_id: str) -> tuple[Recorder, Recorder]:
        """A stream's visitor and target."""
        self.successResultOf(self.admission.plugged[tunnel_id].connect(self.visitors, ORIGIN))
        self.pump()
        return self.visitors.built[-1], self.targets[tunnel_id].built[-1]

    def assert_flows(self, visitor: Recorder, target: Recorder) -> None:
        visitor.stream.write(b"?")
        self.pump()
        target.stream.write(b"!")
        self.pump()
        self.assertEqual((visitor.received[-1:], target.received[-1:]), (b"!", b"?"))

    # Attaching

    def test_streams(self) -> None:
        """Each tunnel is a way of its own, and its streams go to its own factory."""
        attachment = self.attached()
        one, two = self.admission.plugged["one"], self.admission.plugged["two"]
        verifyObject(IUpstream, two)
        self.assertEqual((two.tunnel_id, two.accepting, two.peer), ("two", True, ORIGIN.peer))
        for tunnel_id in ("one", "two", "two"):
            self.assert_flows(*self.open(tunnel_id))
        self.assertEqual([len(self.targets[name].built) for name in ("one", "two")], [1, 2])
        self.assertEqual((one.streams, two.streams, attachment.streams), (1, 2, 2))
        self.assertEqual((self.connection.first.streams, self.connection.streams), (1, 3))
        alive = two.probe()
        self.pump()
        self.assertTrue(self.successResultOf(alive))

    def test_limit(self) -> None:
        """The limit of streams is each tunnel's."""
        self.attached()
        for tunnel_id in ("one", "one", "one", "one", "two"):
            self.open(tunnel_id)
        full = self.admission.plugged["one"].connect(self.visitors, ORIGIN)
        self.failureResultOf(full, StreamLimit)

    def test_refused(self) -> None:
        """A wrong token gets the API's error code, and harms nobody."""
        failure = self.failureResultOf(self.attach(token="guessed"), AttachRefused)
        self.assertEqual(failure.value.error, "PERMISSION_DENIED")
        self.assertEqual(failure.value.args, AttachRefused("PERMISSION_DENIED").args)
        self.failureResultOf(self.attach(token=""), AttachRefused)
        self.assertNotIn("two", self.admission.plugged)
        self.assertEqual(self.admission.origins, [ORIGIN, ORIGIN])
        self.assert_flows(*self.open("one"))

    def test_answers_that_nobody_reads(self) -> None:
        """A client that asks without end, and reads no answer, is given up."""
        session = self.admission.plugged["one"].session
        session.pauseProducing()
        session._unread_replies = MAX_UNREAD_REPLIES - 1000
        asked = [self.connection.attach("two", "guessed", self.targets["two"]) for _ in range(100)]
        self.pump()
        self.assertFalse(session.is_open)
        for attaching in asked:
            self.failureResultOf(attaching, AttachFailed)

    def test_refused_while_draining(self) -> None:
        """A server that is about to go attaches nobody."""
        self.endpoint.draining = True
        failure = self.failureResultOf(self.attach(), AttachRefused)
        self.assertEqual(failure.value.error, "TUNNEL_TRANSPORT_CON_TIMEOUT")

    def test_a_fault_of_the_server(self) -> None:
        """An admission that breaks is an answer too."""
        self.admission.admitting = fail(ZeroDivisionError())
        failure = self.failureResultOf(self.attach(), AttachRefused)
        self.assertEqual(failure.value.error, "UNKNOWN_ERROR")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_too_many(self) -> None:
        """A tunnel that has enough connections loses this one, when what it was given meanwhile
        has ended, and no other."""
        plugging = self.admission.plugging = Deferred()
        attachment = self.attached()
        visitor, target = self.open("two")
        self.visitors.protocol = Kept
        self.open("two")
        plugging.errback(TooManyConnections("two"))
        self.clock.pump([1, 1])
        self.assert_flows(visitor, target)
        self.assertNoResult(attachment.lost)
        target.stream.loseConnection()
        self.clock.pump([1, 1])
        self.assertEqual([reason is ConnectionDone for reason in visitor.reasons], [True])
        self.assertEqual(
            self.successResultOf(attachment.lost), Lost(1008, "unable to establish tunnel", True)
        )
        self.assert_flows(*self.open("one"))

    def test_version_2(self) -> None:
        """A connection of the other dialect takes no further tunnels."""
        self.connection = self.connected(native=False)
        self.failureResultOf(self.attach(), AttachFailed)

    def test_cancelled(self) -> None:
        """Who does not wait for the answer has no tunnel attached."""
        admitting = self.admission.admitting = Deferred()
        attaching = self.attach()
        attaching.cancel()
        self.failureResultOf(attaching, CancelledError)
        admitting.callback(None)
        self.pump()
        self.assertEqual(self.admission.gone, [("two", True)])
        self.assert_flows(*self.open("one"))

    def test_lost_meanwhile(self) -> None:
        """When the connection is lost who waits for an answer knows."""
        admitting: Deferred[None] = Deferred()
        self.admission.admitting = admitting
        attaching = self.attach()
        self.cut()
        self.failureResultOf(attaching, AttachFailed)
        admitting.callback(None)
        self.pump()
        self.assertNotIn("two", self.admission.plugged)

    # Ending

    def cut(self) -> None:
        """Lose the connection as a network does."""
        next(iter(self.ends)).abortConnection()
        self.pump()

    def test_lost(self) -> None:
        """A lost connection is lost for all its tunnels."""
        attachment = self.attached()
        streams = self.open("one") + self.open("two")
        self.cut()
        for lost in (attachment.lost, self.connection.first.lost, self.connection.lost):
            self.assertEqual(self.successResultOf(lost).code, 1006)
        self.assertEqual(self.admission.gone, [("one", False), ("two", False)])
        self.assertEqual([len(recorder.reasons) for recorder in streams], [1, 1, 1, 1])
        self.assertEqual(len(self.endpoint.upstreams), 0)

    def test_ended_by_the_server(self) -> None:
        """A tunnel that is deleted loses its streams, and its client knows why; others go on."""
        for deleted, kept in (("two", "one"), ("one", "two")):
            self.setUp()
            attachments = {"one": self.connection.first, "two": self.attached()}
            going, staying = self.open(deleted), self.open(kept)
            upstream = self.admission.plugged[deleted]
            upstream.close(1008, "deleted")
            self.assertEqual(self.admission.gone, [(deleted, True)])
            self.failureResultOf(upstream.connect(self.visitors, ORIGIN), UpstreamGone)
            self.pump()
            lost = self.successResultOf(attachments[deleted].lost)
            self.assertEqual(lost, Lost(1008, "deleted", True))
            self.assertEqual([r.reasons for r in going], [[ConnectionLost]] * 2)
            self.assertNoResult(self.connection.lost)
            self.assert_flows(*staying)
            self.assert_flows(*self.open(kept))
            # The last one takes the connection with it, and is told the same way.
            self.admission.plugged[kept].close(1008, "disabled")
            self.pump()
            lost = self.successResultOf(attachments[kept].lost)
            self.assertEqual((lost.code, lost.reason), (1008, "disabled"))
            self.successResultOf(self.connection.lost)

    def test_a_verdict_that_is_nobodys(self) -> None:
        """A 1008 for the whole connection ends none of several tunnels for good."""
        attachment = self.attached()
        upstream = self.admission.plugged["one"]
        upstream.session.close(1008, "deleted")
        self.clock.pump([0.1] * 30)
        for told in (self.connection.first, attachment):
            self.assertEqual(self.successResultOf(told.lost).code, 1001)

    def test_nothing_left(self) -> None:
        """A connection whose last tunnel the server has ended is closed."""
        attachment = self.attached()
        self.connection.first.close()
        self.pump()
        native = self.admission.plugged["two"].session.native
        assert native is not None
        native.detach(attachment.number, 1008, "deleted")
        self.clock.pump([0.1] * 30)
        self.assertEqual(self.successResultOf(attachment.lost).reason, "deleted")
        self.assertEqual(self.successResultOf(self.connection.lost).code, 1000)

    def test_closed_while_another_comes(self) -> None:
        """The connection stays for a tunnel that is just being attached."""
        attaching = self.connection.attach("two", "good-two", self.targets["two"])
        self.connection.first.close()
        self.pump()
        self.successResultOf(attaching)
        self.assert_flows(*self.open("two"))

    def test_closed_by_the_client(self) -> None:
        """Closing one tunnel ends its streams; closing the last one the connection."""
        attachment, first = self.attached(), self.connection.first
        going, staying = self.open("one"), self.open("two")
        first.close()
        first.close()
        self.assertEqual(self.successResultOf(first.lost), Lost(1000, "", True))
        self.pump()
        self.assertEqual(self.admission.gone, [("one", True)])
        self.assertFalse(self.admission.plugged["one"].accepting)
        self.assertEqual([r.reasons for r in going], [[ConnectionLost]] * 2)
        self.assert_flows(*staying)
        attachment.close()
        self.pump()
        self.assertEqual(self.successResultOf(attachment.lost).code, 1000)
        self.successResultOf(self.connection.lost)
        self.assertEqual(self.admission.gone[1:], [("two", True)])

    def test_number_is_free(self) -> None:
        """A tunnel can come back after it has gone."""
        for _ in range(3):
            attachment = self.attached()
            self.assert_flows(*self.open("two"))
            attachment.close()
            self.pump()
        self.assertEqual(self.admission.gone, [("two", True)] * 3)

    def test_leaving(self) -> None:
        """A tunnel that leaves gets no new streams, and its old ones end by themselves."""
        attachment = self.attached()
        running, other = self.open("two"), self.open("one")
        attachment.leave()
        self.pump()
        self.assertFalse(self.admission.plugged["two"].accepting)
        self.assertTrue(self.admission.plugged["one"].accepting)
        self.assert_flows(*running)
        self.assertEqual(attachment.streams, 1)
        attachment.close()
        self.pump()
        self.assertEqual(running[1].reasons, [ConnectionLost])
        self.assert_flows(*other)

    def test_the_last_one_leaves(self) -> None:
        """Then the server hears that the whole connection goes; what runs is finished."""
        running = self.open("one")
        self.connection.first.leave()
        self.pump()
        self.assertFalse(self.admission.plugged["one"].accepting)
        self.assert_flows(*running)
        self.failureResultOf(self.attach(), AttachFailed)

    # Draining

    def test_server_goes(self) -> None:
        """All tunnels hear of it at once; streams may still be opened, until the last has ended."""
        attachment = self.attached()
        leaving = [attachment.leaving, self.connection.first.leaving, self.connection.leaving]
        self.endpoint.go_away()
        self.endpoint.go_away()
        self.pump()
        for told in leaving:
            self.successResultOf(told)
        self.failureResultOf(self.attach("three", "good-three"), AttachFailed)
        running = self.open("two")
        drained = drain(self.endpoint)
        self.pump()
        self.assertNoResult(drained)
        self.assert_flows(*running)
        running[0].stream.loseConnection()
        self.pump()
        self.successResultOf(drained)
        self.assertEqual(self.successResultOf(attachment.lost).code, 1001)

    def test_server_goes_meanwhile(self) -> None:
        """A tunnel that is attached when the news is on its way hears of it as well."""
        attaching = self.connection.attach("two", "good-two", self.targets["two"])
        self.endpoint.go_away()
        self.pump()
        self.successResultOf(self.successResultOf(attaching).leaving)

    def test_kept_streams_end(self) -> None:
        """Streams on which nothing runs end with the tunnel that they are for; others go on."""
        attachment = self.attached()
        running, target = self.open("two")
        self.visitors.protocol = Kept
        for tunnel_id in ("one", "two"):
            self.open(tunnel_id)
        kept, other = self.visitors.built[-1], self.visitors.built[-2]
        attachment.leave()
        self.pump()
        self.assertEqual((kept.reasons, other.reasons), ([ConnectionDone], []))
        self.assert_flows(running, target)

    def test_numbers_run_out(self) -> None:
        """A connection that has given all its numbers to streams ends with the last of them, and
        the client, which is told at once, connects anew."""
        attachment = self.attached()
        mux: Any = self.admission.plugged["two"].session._mux
        mux._next = 2**32 - 3
        running = self.open("two")
        self.visitors.protocol = Kept
        self.open("one")
        upstream = self.admission.plugged["one"]
        self.failureResultOf(upstream.connect(Recorders(), ORIGIN), UpstreamGone)
        self.pump()
        self.successResultOf(attachment.leaving)
        self.assertFalse(upstream.accepting)
        self.assert_flows(*running)
        self.assertNoResult(attachment.lost)
        running[0].stream.loseConnection()
        self.pump()
        lost = Lost(1001, "all stream numbers are used", True)
        self.assertEqual(self.successResultOf(attachment.lost), lost)

    def test_drained_one_by_one(self) -> None:
        """The connection stays as long as one of its tunnels takes streams."""
        self.attached()
        self.successResultOf(self.admission.plugged["one"].drain())
        self.pump()
        self.assertNoResult(self.connection.lost)
        self.assert_flows(*self.open("two"))
