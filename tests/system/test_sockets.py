"""What is done with sockets beside the reactor: written at once, read in rounds."""

from __future__ import annotations

import gc
import itertools
import resource
import socket
import tempfile
import weakref
from collections.abc import Callable
from threading import Thread
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.pollreactor import PollReactor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.arrivals import Accepted, accept_in_rounds
from exposr_tx.direct import close_directly, read_directly, writer_of
from exposr_tx.lead import lead
from exposr_tx.rounds import FIRST_SIZE, rounds_of
from tests.system.harness import PATIENCE


class Kept(Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        if data == b"fail":
            raise ValueError("a protocol that fails")
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Collecting(Factory):
    """Keeps the protocols of its connections, and their transports."""

    def __init__(self) -> None:
        self.protocols: list[Kept] = []

    @property
    def transports(self) -> list[Any]:
        return [protocol.transport for protocol in self.protocols if protocol.transport]

    def buildProtocol(self, addr: Any) -> Protocol:
        self.protocols.append(Kept())
        return self.protocols[-1]


class SocketTests(SynchronousTestCase):
    """Real sockets on every kind of reactor, whose turns are the test's."""

    def reactors(self) -> list[Any]:
        """One of each kind."""
        kinds: list[Callable[[], Any]] = [SelectReactor, PollReactor, EPollReactor]
        made = [kind() for kind in (*kinds, AsyncioSelectorReactor, EPollReactor)]
        self.assertEqual([lead(reactor) for reactor in made[-2:]], [False, True])
        for reactor in made:
            self.addCleanup(self._end, reactor)
        return made

    @staticmethod
    def _end(reactor: Any) -> None:
        for reader in reactor.removeAll():
            reader.connectionLost(Failure(ConnectionDone()))
        if isinstance(reactor, AsyncioSelectorReactor):
            reactor._asyncioEventloop.close()

    def connect(self, reactor: Any, peer: socket.socket, port: Any, factory: Collecting) -> Any:
        """A transport of Twisted's whose other end is ``peer``."""
        where = port.getHost()
        peer.settimeout(PATIENCE)
        self.addCleanup(peer.close)
        name = getattr(where, "name", None)
        peer.connect(name if name is not None else (where.host, where.port))
        while not factory.transports:
            reactor.iterate(0.01)
        port.stopListening()
        return factory.transports[0]


class DirectWriteTests(SocketTests):
    """Writing to a socket without waiting for the reactor: what has arrived before its next turn
    did not need one."""

    def assert_writes(self, reactor: Any, transport: Any, peer: socket.socket) -> None:
        """What fits arrives at once, the rest in its turn and in order."""
        write = writer_of(transport)
        write(b"hello")
        self.assertEqual(peer.recv(100), b"hello")
        sent = b"".join(bytes([number]) * 1_000_000 for number in range(4))
        write(sent)
        write(b"end")
        received = b""
        peer.settimeout(0)
        while len(received) < len(sent) + 3:
            reactor.iterate(0)
            try:
                received += peer.recv(1 << 20)
            except BlockingIOError:
                pass
        self.assertEqual(received, sent + b"end")

    def test_tcp(self) -> None:
        """TCP, on every reactor."""
        for reactor in self.reactors():
            factory = Collecting()
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            peer = socket.socket()
            self.assert_writes(reactor, self.connect(reactor, peer, port, factory), peer)

    def test_unix(self) -> None:
        """UNIX sockets, on every reactor."""
        for reactor in self.reactors():
            factory = Collecting()
            with tempfile.TemporaryDirectory() as folder:
                port = reactor.listenUNIX(f"{folder}/socket", factory)
                peer = socket.socket(socket.AF_UNIX)
                self.assert_writes(reactor, self.connect(reactor, peer, port, factory), peer)


class RoundsTests(SocketTests):
    """Connections that are read in rounds, on every reactor."""

    def both(self, reactor: Any, accepted: bool) -> tuple[socket.socket, Any, Kept]:
        """A peer's socket, and a connection that is read in rounds, from its beginning or later."""
        factory = Collecting()
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        if accepted:
            accept_in_rounds(port)
        peer = socket.socket()
        transport = self.connect(reactor, peer, port, factory)
        self.assertIs(isinstance(transport, Accepted), accepted)
        read_directly(transport, factory.protocols[0].dataReceived)
        return peer, transport, factory.protocols[0]

    def each(self) -> list[tuple[Any, socket.socket, Any, Kept]]:
        """One connection of each kind on each reactor."""
        kinds = [(reactor, accepted) for reactor in self.reactors() for accepted in (True, False)]
        return [(reactor, *self.both(reactor, accepted)) for reactor, accepted in kinds]

    def until(self, reactor: Any, holds: Callable[[], object]) -> None:
        for _ in range(200):
            if holds():
                return
            reactor.iterate(0.01)
        self.fail("it does not come to pass")

    def test_received(self) -> None:
        """What the peer sends arrives, and its end is a clean one; then nothing is left behind."""
        connections = self.each()
        for reactor, peer, _, protocol in connections:
            peer.sendall(b"hello")
            self.until(reactor, lambda p=protocol: p.received == b"hello")  # type: ignore[misc]
            peer.close()
            self.until(reactor, lambda p=protocol: p.lost)  # type: ignore[misc]
            assert protocol.lost is not None
            self.assertTrue(protocol.lost.check(ConnectionDone))
        for reactor, *_ in connections:
            self.assertEqual(repr(rounds_of(reactor)), "<Rounds 0 of 0 connections read>")
            self.assertNotIn(rounds_of(reactor), reactor.getReaders())

    def test_keep_alive(self) -> None:
        """An accepted connection finds out by itself, in minutes, that its peer has vanished."""
        for reactor in self.reactors():
            _, transport, _ = self.both(reactor, accepted=True)
            self.assertTrue(transport.getTcpKeepAlive())
            self.assertTrue(transport.getTcpNoDelay())
            option = transport.socket.getsockopt
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            self.assertEqual([option(socket.IPPROTO_TCP, name) for name in names], [60, 15, 4])

    def test_reset(self) -> None:
        """A peer that resets the connection has not ended it."""
        for reactor, peer, _, protocol in self.each():
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            self.until(reactor, lambda p=protocol: p.lost)  # type: ignore[misc]
            assert protocol.lost is not None
            self.assertTrue(protocol.lost.check(ConnectionLost))

    def test_paused(self) -> None:
        """A transport that is paused is not read, until it goes on."""
        for reactor, peer, transport, protocol in self.each():
            transport.pauseProducing()
            peer.sendall(b"later")
            for _ in range(5):
                reactor.iterate(0.01)
            self.assertEqual(protocol.received, b"")
            transport.resumeProducing()
            self.until(reactor, lambda p=protocol: p.received == b"later")  # type: ignore[misc]

    def test_handed_over(self) -> None:
        """Who takes a connection over gets what comes from then on."""
        for reactor, peer, transport, protocol in self.each():
            other = Kept()
            read_directly(transport, other.dataReceived)
            peer.sendall(b"yours")
            self.until(reactor, lambda o=other: o.received == b"yours")  # type: ignore[misc]
            self.assertEqual(protocol.received, b"")

    def test_failing_protocol(self) -> None:
        """A protocol that fails loses its connection; another one goes on."""
        for reactor in self.reactors():
            bad, _, failing = self.both(reactor, accepted=True)
            good, _, going_on = self.both(reactor, accepted=True)
            bad.sendall(b"fail")
            self.until(reactor, lambda p=failing: p.lost)  # type: ignore[misc]
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
            good.sendall(b"hello")
            self.until(reactor, lambda p=going_on: p.received == b"hello")  # type: ignore[misc]

    def test_end_of_round(self) -> None:
        """What is asked for in a round happens at its end, outside of one in the next turn."""
        for reactor, peer, transport, _ in self.each():
            rounds, calls = rounds_of(reactor), list[str]()

            def received(data: bytes, rounds: Any = rounds, calls: Any = calls) -> None:
                rounds.at_end(lambda: calls.append("end"))
                calls.append("received")

            read_directly(transport, received)
            peer.sendall(b"x")
            self.until(reactor, lambda c=calls: len(c) == 2)  # type: ignore[misc]
            self.assertEqual(calls, ["received", "end"])
            rounds.at_end(lambda c=calls: c.append("later"))  # type: ignore[misc]
            self.assertEqual(len(calls), 2)
            self.until(reactor, lambda c=calls: len(c) == 3)  # type: ignore[misc]

    def test_dear(self) -> None:
        """While it costs much to receive, and before that is known, others have their turns soon:
        less is read at once."""
        for reactor in self.reactors():
            sizes, price = list[int](), [1e-6, 1e-6, 0.0]
            rounds_of(reactor).spent = lambda s=sizes, p=price: sum(s) * p[0]  # type: ignore[misc]
            peer, transport, _ = self.both(reactor, accepted=True)
            read_directly(transport, lambda data, s=sizes: s.append(len(data)))  # type: ignore[misc]
            parts = list[list[int]]()
            while price:
                sizes.clear()
                peer.sendall(bytes(60_000))
                self.until(reactor, lambda s=sizes: sum(s) == 60_000)  # type: ignore[misc]
                parts.append(sizes.copy())
                del price[0]
            if rounds_of(reactor).possible:
                self.assertLessEqual(parts[0][0], FIRST_SIZE)
                self.assertLess(max(parts[1]), 5_100)
                self.assertGreater(max(parts[2]), 50_000)

    def test_closed_directly(self) -> None:
        """What was written arrives before the end, and the end is a clean one."""
        for reactor, peer, transport, protocol in self.each():
            writer_of(transport)(b"goodbye")
            self.assertTrue(close_directly(transport))
            self.assertFalse(close_directly(transport))
            self.assertIsNone(protocol.lost)
            self.until(reactor, lambda p=protocol: p.lost)  # type: ignore[misc]
            self.assertEqual(peer.recv(100) + peer.recv(100), b"goodbye")

    def test_not_closed_directly(self) -> None:
        """While something waits for room, a connection is closed the usual way."""
        for _, _, transport, _ in self.each():
            writer_of(transport)(bytes(32 << 20))
            self.assertFalse(close_directly(transport))

    def test_over(self) -> None:
        """What is left of a connection that is over goes at once: nothing leads to itself, and
        waits for the collector. With many that are closed, that took an eighth of all time."""
        gc.disable()
        self.addCleanup(gc.enable)
        for ends in (lambda peer, _: peer.close(), lambda _, transport: close_directly(transport)):
            for reactor, accepted in itertools.product(self.reactors(), (True, False)):
                peer, transport, protocol = self.both(reactor, accepted)
                ends(peer, transport)
                self.until(reactor, lambda p=protocol: p.lost)  # type: ignore[misc]
                left = weakref.ref(transport)
                protocol.transport = None
                del transport
                self.assertIsNone(left(), f"{reactor!r} {accepted}")

    def test_reactor_stops(self) -> None:
        """When the reactor ends, so do the connections that it did not know of."""
        for reactor, _, _, protocol in self.each():
            if rounds_of(reactor) in reactor.getReaders():
                reactor.removeReader(rounds_of(reactor))
                rounds_of(reactor).connectionLost(Failure(ConnectionLost()))
                assert protocol.lost is not None


class Failing(Protocol):
    """Fails when its connection is made."""

    def connectionMade(self) -> None:
        raise ValueError("a protocol that fails to begin")


class Particular(Collecting):
    """Takes some connections only: turns the first one away, and fails with two."""

    turns = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.turns += 1
        self.host = addr.host
        if self.turns == 1:
            return None
        if self.turns == 2:
            raise ValueError("a factory that fails")
        return Failing() if self.turns == 3 else super().buildProtocol(addr)


class ArrivalTests(SocketTests):
    """Connections that are accepted in rounds, on every reactor."""

    def test_not_taken(self) -> None:
        """Who is turned away, or whose protocol cannot be made, is closed; the next one is not."""
        for reactor in self.reactors():
            for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
                factory = Particular()
                port = reactor.listenTCP(0, factory, interface=host)
                accept_in_rounds(port)
                peers = [socket.socket(family) for _ in range(4)]
                for peer in peers:
                    self.addCleanup(peer.close)
                    peer.connect((host, port.getHost().port))
                while not factory.transports:
                    reactor.iterate(0.01)
                reactor.iterate(0.01)
                self.assertEqual([peer.recv(1) for peer in peers[:2]], [b"", b""])
                self.assertRaises(ConnectionResetError, peers[2].recv, 1)
                self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
                self.assertEqual(factory.host, host)
                transport = factory.transports[0]
                writer_of(transport)(b"hello")
                self.assertEqual(peers[3].recv(100), b"hello")
                self.assertEqual(transport.getPeer().host, host)
                self.assertIn(host, repr(transport))
                port.stopListening()

    def test_no_descriptors(self) -> None:
        """Without a descriptor left for it, a connection is refused, and the next ones are not; the
        log tells so once, and what to do."""
        events = list[LogEvent]()
        globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, events.append)  # type: ignore[arg-type]
        for reactor in self.reactors():
            factory = Collecting()
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            accept_in_rounds(port)
            gc.collect()  # or what another test has left gives descriptors back meanwhile
            waiting, served = socket.socket(), socket.socket()
            waiting.connect(("127.0.0.1", port.getHost().port))
            waiting.settimeout(PATIENCE)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (served.fileno(), limits[1]))
            try:
                for _ in range(5):
                    reactor.iterate(0.01)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            self.assertEqual(factory.protocols, [])
            self.assertEqual(waiting.recv(1), b"")
            (told,) = [formatEvent(e) for e in events if e.get("event") == "no-descriptors"]
            self.assertIn(f"{served.fileno()} files may be open: raise that", told)
            events.clear()
            waiting.close()
            self.connect(reactor, served, port, factory)
            self.assertEqual(len(factory.protocols), 1)


class LeadTests(SocketTests):
    """A reactor that runs, and whose poll is led by the rounds."""

    def setUp(self) -> None:
        self.reactor: Any = EPollReactor()
        self.addCleanup(self._end, self.reactor)
        self.calls: list[str] = []

    def run_with(self, received: Callable[[socket.socket], object]) -> Kept:
        """Run until stopped: what comes on a connection is for ``received``, told its peer."""
        self.assertTrue(lead(self.reactor))
        factory = Collecting()
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        accept_in_rounds(port)
        peer = socket.socket()
        transport = self.connect(self.reactor, peer, port, factory)
        read_directly(transport, lambda _: received(peer))
        patience = self.reactor.callLater(PATIENCE, self.reactor.crash)
        peer.send(b"x")
        self.reactor.run(installSignalHandlers=False)
        self.assertTrue(patience.active())
        patience.cancel()
        return factory.protocols[0]

    def test_timers(self) -> None:
        """Timers come while a connection is never silent: set before, set or moved meanwhile."""
        later = self.reactor.callLater(PATIENCE, self.calls.append, "moved")
        self.reactor.callLater(0, self.calls.append, "before")

        turns = itertools.count()

        def received(peer: socket.socket) -> None:
            peer.send(b"x")
            if next(turns) > 100_000:
                self.reactor.crash()
            elif self.calls == ["before"]:
                self.calls.append("set")
                self.reactor.callLater(0, self.calls.append, "meanwhile")
            elif len(self.calls) == 3 and later.active():
                later.reset(0)
            elif "moved" in self.calls and self.reactor.running:
                self.reactor.stop()

        self.run_with(received)
        self.assertEqual(self.calls, ["before", "set", "meanwhile", "moved"])

    def test_threads(self) -> None:
        """Another thread's call comes while nothing else happens."""

        def received(peer: socket.socket) -> None:
            self.calls.append("received")
            Thread(target=self.reactor.callFromThread, args=[self.reactor.stop]).start()

        self.run_with(received)
        self.assertEqual(self.calls, ["received"])

    def test_stopped(self) -> None:
        """Stopped by what was read, the reactor ends, and its connections do."""
        protocol = self.run_with(lambda _: self.reactor.stop())
        assert protocol.lost is not None
        self.assertTrue(protocol.lost.check(ConnectionLost))
