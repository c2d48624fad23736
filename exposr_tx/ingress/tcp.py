"""TCP ingress: a port of the server's for each tunnel that wants one.

Whatever a visitor sends goes to the tunnel's target unread, and back: a
:class:`~exposr_tx.splice.Splice` of the visitor's connection and a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.arrivals import accept_in_rounds
from exposr_tx.errors import ExposrError, StreamLimit, TunnelNotConnected, UpstreamGone
from exposr_tx.interfaces import IAccessLog, IUpstream, Origin
from exposr_tx.splice import Side, Splice

__all__ = ["TCPIngress"]

#: Whether a visitor of a tunnel may come in.
Admit = Callable[[str, Origin], "Deferred[None]"]

#: Connections that may wait to be accepted.
BACKLOG = 1024
#: Bytes of a visitor's that are kept for another try: what one says before it hears an answer.
EARLY = 16384


class _StreamSide(Side):
    """The stream to the target, for as long as a visitor has this one."""

    def __init__(self, visitor: _VisitorSide) -> None:
        self._visitor = visitor

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        unbegun = not self.received and reason.check(StreamLimit, UpstreamGone)
        if unbegun and self._visitor.alive:
            self.alive = False
            self._visitor.refused_by_client(reason)
        else:
            super().connectionLost(reason)


class _Streams(Factory):
    """Builds the far side of a splice."""

    noisy = False

    def __init__(self, visitor: _VisitorSide) -> None:
        self._visitor = visitor

    def buildProtocol(self, addr: object) -> Side:
        return _StreamSide(self._visitor)


class _VisitorSide(Side):
    """A visitor's connection, from its beginning to the splice.

    A client that has not even begun with a stream says so; then another connection of the
    tunnel gets what the visitor has sent so far.
    """

    _origin: Origin
    _upstream: IUpstream | None = None

    def __init__(self, port: _Port) -> None:
        self._port = port
        self._admitting: Deferred[None] | None = None
        self._opening: Deferred[IProtocol] | None = None
        self._started = 0.0
        self._early: bytes | None = b""  # what was sent; None: too much, or tried already

    def connectionMade(self) -> None:
        super().connectionMade()
        self._started = self._port.clock.seconds()
        self.transport.setTcpKeepAlive(1)
        self._port.sides.add(self)
        self._origin = Origin("tcp", self.transport.getPeer(), host=self.transport.getHost())
        if self._port.admit is None:
            self._open()
            return
        admitting = self._admitting = self._port.admit(self._port.tunnel_id, self._origin)
        admitting.addCallback(lambda _: self._open()).addErrback(self._not_opened)

    def _open(self) -> None:
        self._admitting = None
        before = self._upstream
        try:
            upstream = self._upstream = self._port.choose(self._port.tunnel_id)
        except ExposrError as error:
            self._refuse(error.status)
            return
        if upstream is before:
            self._refuse(TunnelNotConnected.status)
            return
        opening = self._opening = upstream.connect(_Streams(self), self._origin)
        opening.addCallbacks(self._opened, self._not_opened)
        opening.addErrback(self._not_opened)

    def dataReceived(self, data: bytes) -> None:
        early = self._early
        if early is not None:
            self._early = early + data if len(early) + len(data) <= EARLY else None
        super().dataReceived(data)

    def refused_by_client(self, reason: Failure) -> None:
        """The stream is gone, and not a byte of it has reached the target."""
        if self._peer is not None:
            self._peer = self._on_lost = None
            self.transport.unregisterProducer()
            self.transport.pauseProducing()
        self._not_opened(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._port.sides.discard(self)
        admitting, self._admitting = self._admitting, None
        opening, self._opening = self._opening, None
        if admitting is not None:
            admitting.cancel()
        if opening is not None:
            opening.cancel()
        super().connectionLost(reason)

    def _opened(self, protocol: IProtocol) -> None:
        self._opening = None
        stream = cast(Side, protocol)

        def ended() -> None:
            self._log(200, stream.received)

        Splice(self, stream, ended, halves=True).start()

    def _not_opened(self, failure: Failure) -> None:
        self._admitting = self._opening = None
        if failure.check(CancelledError):
            self._log(499, 0)
            return
        if failure.check(StreamLimit, UpstreamGone) and self._early is not None:
            self._held, self._early = self._early, None
            self._open()
            return
        if not failure.check(ExposrError):
            self._port.log.failure("A TCP visitor could not be connected", failure)
        self._refuse(getattr(failure.value, "status", 502))

    def _refuse(self, status: int) -> None:
        self._log(status, 0)
        if self.alive:
            self.transport.abortConnection()

    def _log(self, status: int, sent: int) -> None:
        port = self._port
        if port.access_log is None:
            return
        lasted = (port.clock.seconds() - self._started) * 1000
        path = b":%d" % port.number
        port.access_log.write(
            b"TCP",
            b"",
            path,
            status,
            self.received,
            sent,
            0.0,
            lasted,
            port.tunnel_id.encode(),
            b"",
        )


class _Port(Factory):
    """The visitors of one tunnel's port."""

    noisy = False
    log = Logger()

    def __init__(
        self,
        tunnel_id: str,
        number: int,
        choose: Callable[[str], IUpstream],
        clock: IReactorTime,
        access_log: IAccessLog | None,
        admit: Admit | None,
    ) -> None:
        self.tunnel_id = tunnel_id
        self.number = number
        self.choose = choose
        self.clock = clock
        self.access_log = access_log
        self.admit = admit
        self.sides: set[_VisitorSide] = set()
        self.listening: IListeningPort | None = None

    def buildProtocol(self, addr: IAddress | None) -> _VisitorSide:
        return _VisitorSide(self)

    def stop(self) -> Any:
        """Take no more visitors; fires when the port is free."""
        listening, self.listening = self.listening, None
        return listening.stopListening() if listening is not None else None


class TCPIngress:
    """Opens and closes tunnels' ports.

    :param reactor: provides IReactorTCP and IReactorTime.
    :param choose: gives an upstream of a tunnel; see IRoutes.
    :param interface: the address to listen on; ``::`` takes IPv4 too.
    :param admit: whether a visitor may come in; errbacks with an ExposrError. None: all may.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        choose: Callable[[str], IUpstream],
        access_log: IAccessLog | None,
        interface: str = "::",
        admit: Admit | None = None,
    ) -> None:
        self._reactor: IReactorTCP = reactor
        self._clock: IReactorTime = reactor
        self._choose = choose
        self._access_log = access_log
        self._interface = interface
        self._admit = admit
        self._ports: dict[str, _Port] = {}

    def publish(self, tunnel_id: str, number: int) -> None:
        """Listen for a tunnel's visitors; moves the tunnel where it has another port."""
        current = self._ports.get(tunnel_id)
        if current is not None and current.number == number:
            return
        self.withdraw(tunnel_id)
        port = _Port(tunnel_id, number, self._choose, self._clock, self._access_log, self._admit)
        try:
            port.listening = self._reactor.listenTCP(
                number,
                port,  # type: ignore[arg-type]
                backlog=BACKLOG,
                interface=self._interface,
            )
        except CannotListenError as error:
            self.log.error(
                "TCP port {port} of tunnel {tunnel} cannot be listened on: {error}. Free it, or "
                "give the tunnel another one.",
                event="tcp-port",
                port=number,
                tunnel=tunnel_id,
                error=error.socketError,
            )
        else:
            accept_in_rounds(port.listening)
            self._ports[tunnel_id] = port

    def withdraw(self, tunnel_id: str) -> None:
        """Take no more visitors for a tunnel, and end those that are there."""
        port = self._ports.pop(tunnel_id, None)
        if port is not None:
            port.stop()
            for side in list(port.sides):
                side.transport.abortConnection()

    def drain(self) -> None:
        """Take no more visitors; those that are there go on."""
        for port in self._ports.values():
            port.stop()

    @property
    def visitors(self) -> int:
        """How many are connected."""
        return sum(len(port.sides) for port in self._ports.values())

    def abort(self) -> None:
        """End everything."""
        for tunnel_id in list(self._ports):
            self.withdraw(tunnel_id)
