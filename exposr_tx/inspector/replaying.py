"""Requests sent again: over a connection of their own to the same target, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from exposr_tx.errors import RemoteProtocolError, TargetFailed
from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.recording import Recording
from exposr_tx.inspection.replays import Edit, replay_bytes
from exposr_tx.wire.http1 import End, ResponseParser

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorTime

__all__ = ["Connect", "Replayer"]

#: An endpoint's ``connect``.
Connect = Callable[["IProtocolFactory"], Deferred[Any]]

#: Seconds for a replay, whatever the target sends: an event stream would go on for ever.
TIME_LIMIT: Final = 300.0


class _Connection(Protocol):
    """Sends one request, and reads until its response has ended."""

    transport: Any

    def __init__(self, request: bytes, recording: Recording, clock: IReactorTime) -> None:
        self._request = request
        self._recording = recording
        self._clock = clock
        self._parser = ResponseParser()
        self._parser.expect(request[: request.index(b" ")])
        self._limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._recording.connected()
        self._limit = self._clock.callLater(TIME_LIMIT, self._give_up)
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._recording.received(data)
        try:
            over = any(isinstance(event, End) for event in self._parser.receive(data))
        except RemoteProtocolError:  # which the recording tells of
            over = True
        if over:
            self.transport.loseConnection()

    def _give_up(self) -> None:
        self._recording.ended(f"the response has not ended within {TIME_LIMIT:g} s")
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self._recording.ended()


class _Connections(Factory):
    noisy = False

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> _Connection:
        return self._connection


class Replayer:
    """Sends requests again to the targets that they went to.

    :param recorder: records what happens.
    """

    def __init__(self, recorder: Recorder, clock: IReactorTime) -> None:
        self._recorder = recorder
        self._clock = clock
        self._targets: list[tuple[Callable[[], str], Connect]] = []

    def __repr__(self) -> str:
        return f"<Replayer for {len(self._targets)} tunnels>"

    def tunnels(self) -> list[str]:
        """Names of the tunnels that are known."""
        return [name() for name, _ in self._targets if name()]

    def add(self, tunnel: Callable[[], str], connect: Connect) -> Callable[[], None]:
        """Requests of a tunnel go by this connector; what is given back takes it out again.

        :param tunnel: gives its name, which may come to be known late.
        """
        entry = (tunnel, connect)
        self._targets.append(entry)
        return lambda: self._targets.remove(entry)

    async def replay(self, exchange: Exchange, edit: Edit | None = None) -> Exchange:
        """Send a request again; the new exchange, as soon as it has begun.

        :raises NotReplayable: it cannot be sent again.
        :raises BadInput: an edited part cannot stand in a request.
        :raises TargetFailed: the target cannot be connected, or its tunnel is gone.
        """
        request = replay_bytes(exchange, edit)
        connect = next((c for name, c in self._targets if name() == exchange.tunnel), None)
        if connect is None:
            raise TargetFailed(f"the tunnel {exchange.tunnel} is closed")
        recording = self._recorder.recording(
            exchange.tunnel, exchange.target, replay_of=exchange.id
        )
        recording.sent(request)  # so that it can be seen, and tried again, if nothing is connected
        connection = _Connection(request, recording, self._clock)
        try:
            await connect(_Connections(connection))
        except Exception as error:  # whatever the endpoint fails with
            why = str(error) or type(error).__name__
            recording.ended(f"cannot connect to the target: {why}")
            raise TargetFailed(f"cannot connect to the target: {why}") from None
        made = recording.replayed
        assert made is not None  # the request has been recorded
        return made
