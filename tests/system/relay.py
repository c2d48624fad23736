"""A TCP relay that misbehaves on demand: between a client and a server, or a visitor and a server.

It makes most of the faults that system tests look at, and the slow line of the
benchmark: pass, delay, limit the rate, slice, stall with both sockets kept,
swallow the FIN, close after so many bytes, reset; each direction on its own.

In a process of its own::

    python -m tests.system.relay --to 127.0.0.1:8080 --delay 0.05

prints the port it listens on and relays until it is stopped. Inside a test::

    relay = Relay(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
    number = await relay.listen()
    relay.change(up=Way(stalled=True))

*Up* is from whoever connects to the relay, *down* is back to it.
"""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IListeningPort,
    IPushProducer,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

# What one direction holds before it pauses its source: the content of a line
# of 50 ms at 640 MB/s, so that the relay is never the window that limits.
QUEUE_LIMIT = 32 * 1024 * 1024
# With a rate, what is written at once: a hundredth of a second's worth.
RATE_TICK = 0.01
# Sums of floating-point seconds are not exact; less than this is due now.
CLOCK_GRAIN = 1e-6


@dataclass(frozen=True, slots=True)
class Way:
    """How one direction is treated. The default passes everything at once.

    :ivar delay: seconds that every byte, and the end, is held back.
    :ivar rate: bytes per second; 0 is unlimited.
    :ivar slice: bytes per write, one write per reactor turn; 0 is as they come.
    :ivar stalled: nothing is read or forwarded, and both sockets stay open.
    :ivar drop_fin: the end of the source is not passed on.
    :ivar close_after: both sockets are closed when so many bytes have gone; -1 is never.
    """

    delay: float = 0.0
    rate: int = 0
    slice: int = 0
    stalled: bool = False
    drop_fin: bool = False
    close_after: int = -1


PASS = Way()


@implementer(IPushProducer)
class Pump:
    """One direction of one connection: a queue of what is due when."""

    def __init__(self, clock: Any, source: End, sink: End, way: Way) -> None:
        self._clock = clock
        self._source = source
        self._sink = sink
        self._way = way
        self._queue: deque[tuple[float, memoryview | None]] = deque()
        self._queued = 0
        self._blocked = False
        self._free_at = 0.0
        self._call: Any = None
        self.forwarded = 0

    def change(self, way: Way) -> None:
        """From now on, treat this direction in another way."""
        self._way = way
        self._regulate()
        self._schedule(0)

    def receive(self, data: bytes | None) -> None:
        """Bytes of the source, or None for its end."""
        view = None if data is None else memoryview(data)
        self._queue.append((self._clock.seconds() + self._way.delay, view))
        self._queued += 0 if view is None else len(view)
        self._regulate()
        self._flow()

    def stop(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def pauseProducing(self) -> None:
        self._blocked = True

    def resumeProducing(self) -> None:
        self._blocked = False
        self._schedule(0)

    def stopProducing(self) -> None:
        self.stop()

    def _regulate(self) -> None:
        self._source.read(not self._way.stalled and self._queued < QUEUE_LIMIT)

    def _schedule(self, wait: float) -> None:
        if self._call is None or not self._call.active():
            self._call = self._clock.callLater(wait, self._flow)

    def _flow(self) -> None:
        while self._queue and not self._blocked and not self._way.stalled:
            due, view = self._queue[0]
            wait = max(due, self._free_at) - self._clock.seconds()
            if wait > CLOCK_GRAIN:
                return self._schedule(wait)
            self._queue.popleft()
            if view is None:
                if not self._way.drop_fin:
                    self._sink.finish(whole=self._source.lost)
                return None
            piece = view[: self._share(len(view))]
            if len(piece) < len(view):
                self._queue.appendleft((due, view[len(piece) :]))
            self._forward(bytes(piece))
            if self._way.slice:
                return self._schedule(0)
        return None

    def _share(self, size: int) -> int:
        """How many of the bytes that are due may go now."""
        way = self._way
        if way.rate:
            size = min(size, max(1, int(way.rate * RATE_TICK)))
        if way.slice:
            size = min(size, way.slice)
        if way.close_after >= 0:
            size = min(size, max(0, way.close_after - self.forwarded))
        return size

    def _forward(self, piece: bytes) -> None:
        self.forwarded += len(piece)
        self._queued -= len(piece)
        if self._way.rate:
            start = max(self._free_at, self._clock.seconds())
            self._free_at = start + len(piece) / self._way.rate
        if piece:
            self._sink.write(piece)
        self._regulate()
        if 0 <= self._way.close_after <= self.forwarded:
            self._sink.finish(whole=True)
            self._source.finish(whole=True)
            self.stop()


@implementer(IHalfCloseableProtocol)
class End(Protocol):
    """One of the two sockets of a relayed connection."""

    outward: Pump
    lost = False
    _reading = True
    _early: list[bytes | None]

    def __init__(self) -> None:
        self._early = []
        self.made: Deferred[End] = Deferred()

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self.made.callback(self)

    def attach(self, outward: Pump, inward: Pump) -> None:
        """Bytes that arrive here go to ``outward``; ``inward`` writes here."""
        self.outward = outward
        if not self.lost:
            cast(Any, self.transport).registerProducer(inward, True)
        for data in self._early:
            outward.receive(data)
        self._early = []

    def read(self, wanted: bool) -> None:
        """Read from the socket, or stop doing so."""
        if wanted != self._reading and not self.lost:
            self._reading = wanted
            transport = cast(Any, self.transport)
            (transport.resumeProducing if wanted else transport.pauseProducing)()

    def write(self, data: bytes) -> None:
        if not self.lost:
            cast(Any, self.transport).write(data)

    def finish(self, whole: bool = False) -> None:
        """Send a FIN; ``whole`` ends reading too."""
        transport = cast(Any, self.transport)
        if self.lost:
            return
        transport.unregisterProducer()
        if whole or not hasattr(transport, "loseWriteConnection"):
            transport.loseConnection()
        else:
            transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self._deliver(data)

    def readConnectionLost(self) -> None:
        self._deliver(None)

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.lost = True
        if not reason.check(ConnectionDone):
            self._deliver(None)

    def _deliver(self, data: bytes | None) -> None:
        if hasattr(self, "outward"):
            self.outward.receive(data)
        else:
            self._early.append(data)


class Relayed:
    """A connection that is being relayed: two ends and two pumps."""

    def __init__(self, clock: Any, near: End, far: End, up: Way, down: Way) -> None:
        self.near, self.far = near, far
        self.up = Pump(clock, near, far, up)
        self.down = Pump(clock, far, near, down)
        near.attach(outward=self.up, inward=self.down)
        far.attach(outward=self.down, inward=self.up)
        self.up.change(up)
        self.down.change(down)

    def reset(self) -> None:
        """Break both sockets off with an RST."""
        for pump, end in ((self.up, self.near), (self.down, self.far)):
            pump.stop()
            if not end.lost:
                cast(Any, end.transport).abortConnection()


class Relay(Factory):
    """Listens, dials the destination for every connection, and relays between the two."""

    noisy = False

    def __init__(
        self, reactor: Any, to: IStreamClientEndpoint, up: Way = PASS, down: Way = PASS
    ) -> None:
        self._reactor = reactor
        self._to = to
        self._up = up
        self._down = down
        self._port: IListeningPort | None = None
        self.connections: list[Relayed] = []

    async def listen(self, port: int = 0) -> int:
        """Listen on loopback; gives the port number."""
        endpoint = TCP4ServerEndpoint(self._reactor, port, interface="127.0.0.1")
        listening = await endpoint.listen(self)
        self._port = listening
        return int(cast(Any, listening.getHost()).port)

    def change(self, up: Way | None = None, down: Way | None = None) -> None:
        """Treat the connections that are open, and those to come, in another way."""
        self._up = up or self._up
        self._down = down or self._down
        for relayed in self.connections:
            relayed.up.change(self._up)
            relayed.down.change(self._down)

    def reset(self) -> None:
        """Break every connection off with an RST."""
        connections, self.connections = self.connections, []
        for relayed in connections:
            relayed.reset()

    async def stop(self) -> None:
        """Stop listening and break every connection off."""
        if self._port is not None:
            await cast("Deferred[None]", self._port.stopListening())
        self.reset()

    def buildProtocol(self, addr: Any) -> End:
        near = End()
        near.made.addCallback(self._accepted)
        near.made.addErrback(lambda failure: cast(Any, near.transport).abortConnection())
        return near

    def _accepted(self, near: End) -> Deferred[None]:
        dialled = self._to.connect(Factory.forProtocol(End))

        def join(far: Any) -> None:
            relayed = Relayed(self._reactor, near, far, self._up, self._down)
            self.connections = [c for c in self.connections if not (c.near.lost and c.far.lost)]
            self.connections.append(relayed)

        return dialled.addCallback(join)


def main() -> None:
    """Relay from the command line until stopped."""
    from twisted.internet import reactor

    parser = argparse.ArgumentParser(prog="python -m tests.system.relay")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, each way")
    parser.add_argument("--rate", type=int, default=0, help="bytes per second, each way")
    parser.add_argument("--slice", type=int, default=0, help="bytes per write, each way")
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    way = Way(delay=options.delay, rate=options.rate, slice=options.slice)
    relay = Relay(reactor, HostnameEndpoint(reactor, host, int(port)), way, way)

    async def start() -> None:
        print(await relay.listen(options.port), flush=True)

    Deferred.fromCoroutine(start()).addErrback(lambda failure: failure.printTraceback())
    cast(Any, reactor).run()


if __name__ == "__main__":
    main()
