"""Arrivals: connections that are accepted in rounds, and read in rounds from their beginning.

Twisted's port makes of each a context for logging, an address looked up by the system, a
name for its lines in logs and one for people, and asks what has been known since it
listens. Measured with 64 visitors that connect for each request: a tenth less CPU of the
server for one.
"""

from __future__ import annotations

import errno
import math
import resource
import socket
from typing import Any, Final

from twisted.internet.address import IPv6Address
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Port, Server
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.rounds import Reader, Rounds, rounds_of

__all__ = ["Accepted", "accept_in_rounds", "keep_alive"]

#: Connections accepted before others have their turn.
AT_ONCE: Final = 32
#: Seconds of silence after which a peer is asked whether it is there, seconds between two
#: questions, and how many may stay unanswered. Who has vanished, or has closed while his
#: half-closed connection was kept for an answer, is found out in two minutes; by the system's
#: figures, in hours.
KEEPALIVE: Final = (60, 15, 4)
#: What ``accept`` says when there are no descriptors left, and seconds until that is told again.
NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
TOLD_AGAIN: Final = 60.0
#: As a number: as a member of its enumeration it is looked up each time, 0.8 µs.
_STREAM: Final = int(socket.SOCK_STREAM)

_log = Logger()


class Accepted(Server):
    """An accepted connection.

    It has TCP_NODELAY and its keep-alive from its listening socket. That, and not to be
    handed from the reactor to the rounds first, makes 15 µs less for each.
    """

    __slots__ = ("_tempDataBuffer", "connected", "dataBuffer", "disconnecting")

    _reader: Reader | None = None

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        client: tuple[Any, ...],
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        # As Server and what it is made of do it, but for the names.
        self.reactor = reactor
        self.dataBuffer = b""
        self.disconnecting = False
        self._tempDataBuffer = []
        self._tempDataLen = 0
        self.socket = sock
        sock.setblocking(False)
        self.fileno = sock.fileno
        self.protocol = protocol
        if len(client) != 2:
            self._addressType = IPv6Address
        self.client = client
        self.server = server
        self.sessionno = sessionno
        self.startReading()
        self.connected = 1

    def __repr__(self) -> str:
        return f"<connection {self.sessionno} accepted from {self.peer_host}>"

    def logPrefix(self) -> str:
        return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.peer_host}"

    @property
    def peer_host(self) -> str:
        """The peer's host, without an address to be made for it."""
        return str(self.client[0])

    def startReading(self) -> None:
        if self._reader is None:
            rounds = rounds_of(self.reactor)
            self._reader = Reader(rounds, self, self.fileno(), self.protocol.dataReceived)
        self._reader.start()

    def stopReading(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def connectionLost(self, reason: Failure) -> None:
        if reason is not connectionDone or self.disconnected:
            super().connectionLost(reason)
            return
        # As there, without asking what the reason is.
        self.disconnected = 1
        self.connected = 0
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.stopReading()
        self.stopWriting()  # type: ignore[no-untyped-call]
        self.socket.close()
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)


class _Arrivals(Reader):
    """A listening port: what there is to read are connections."""

    __slots__ = ("_accept", "_family", "_told")

    def __init__(self, rounds: Rounds, port: Any) -> None:
        super().__init__(rounds, port, port.fileno(), lambda _: self._accept_all())
        self.recv = lambda _: b"."
        # What ``accept`` is made of, without asking the socket for its family and type.
        self._accept = port.socket._accept
        self._family = int(port.socket.family)
        self._told = -math.inf

    def _accept_all(self) -> None:
        accept, family = self._accept, self._family
        for _ in range(AT_ONCE):
            try:
                fd, client = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    self._tell(error)
                self.transport.doRead()  # Twisted refuses them then, and does not spin
                return
            self._welcome(socket.socket(family, _STREAM, 0, fd), client)

    def _tell(self, error: OSError) -> None:
        now = self.transport.reactor.seconds()
        if now >= self._told:
            self._told = now + TOLD_AGAIN
            _log.warn(
                "connections are refused: {reason}. {limit} files may be open: raise that, by "
                "LimitNOFILE= of a systemd unit or ulimit -n of a shell.",
                event="no-descriptors",
                reason=error.strerror,
                limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            )

    def _welcome(self, connection: socket.socket, client: tuple[Any, ...]) -> None:
        """One that fails is none of the others' business."""
        port = self.transport
        if len(client) == 4 and client[3]:  # an address of this network: its name has the link's
            host, _ = socket.getnameinfo(client, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            client = (host, *client[1:])
        transport: Any = None
        try:
            protocol = port.factory.buildProtocol(port._buildAddr(client))
            if protocol is None:
                connection.close()
                return
            number = port.sessionno
            port.sessionno = number + 1
            transport = Accepted(connection, protocol, client, port, number, port.reactor)
            protocol.makeConnection(transport)
        except Exception:
            _log.failure("a connection failed to begin")
            connection.close() if transport is None else transport.abortConnection()


def keep_alive(connection: socket.socket, figures: tuple[int, int, int]) -> None:
    """Let the system find out whether the peer's host is still there.

    :param figures: as :data:`KEEPALIVE`.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    for name, value in zip(names, figures, strict=True):
        connection.setsockopt(socket.IPPROTO_TCP, name, value)


def accept_in_rounds(port: Any) -> None:
    """Let a listening TCP port be read in rounds, and what it accepts be :class:`Accepted`; other
    ports stay as they are."""
    rounds = rounds_of(port.reactor) if type(port) is Port else None
    if rounds is not None and rounds.possible:
        port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(port.socket, KEEPALIVE)
        port.transport = Accepted
        rounds.take(_Arrivals(rounds, port))
