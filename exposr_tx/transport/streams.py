"""The streams of one connection, whatever dialect is spoken on it.

Between a :class:`~exposr_tx.transport.session.Session`, which hands over the
events of its messages, and each :class:`~exposr_tx.transport.stream.Stream`,
whose calls become frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.interfaces import IReusable
from exposr_tx.transport.turns import Turns

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import (
        IAddress,
        IProtocol,
        IProtocolFactory,
        IReactorTime,
    )

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.connection import MessageConnection
    from exposr_tx.transport.stream import Stream

__all__ = ["Streams"]


class Streams:
    """What the dialects' kinds of them share.

    :param connection: carries the messages.
    :param factory: builds the protocol for each stream that the peer opens; None
        on the side that opens them.
    :param max_streams: further ones fail with StreamLimit.
    :param fewer: called whenever there is a stream less.

    :ivar turns: whether the transport below is full, and which streams wait for it.
    :ivar streams_opened: streams ever opened.
    :cvar acts: what is to be called with the streams and an event, by the event's class.
    """

    _log = Logger()

    acts: ClassVar[dict[type, Callable[[Any, Any], None]]]
    _streams: dict[int, Any]

    def __init__(
        self,
        connection: MessageConnection,
        clock: IReactorTime,
        factory: IProtocolFactory | None,
        max_streams: int,
        fewer: Callable[[], None],
    ) -> None:
        self.turns = Turns()
        self.streams_opened = 0
        self._connection = connection
        self._clock = clock
        self._factory = factory
        self._max_streams = max_streams
        self._fewer = fewer
        self._over = False

    def __len__(self) -> int:
        """Streams that are open or being opened."""
        raise NotImplementedError

    def __repr__(self) -> str:
        state = "LOST" if self._over else "OPEN"
        return f"<{type(self).__name__} {state} {len(self)} streams>"

    def open(
        self, factory: IProtocolFactory, origin: Origin, attachment: int = 0
    ) -> Deferred[IProtocol]:
        """Ask the peer for a stream; see ``Session.open_stream``."""
        raise NotImplementedError

    def close_all(self) -> None:
        """Tell the peer that every stream is closed; :meth:`end` follows."""
        raise NotImplementedError

    def end(self, reason: str) -> None:
        """The connection is over, and every stream with it."""
        raise NotImplementedError

    def end_idle(self, attachment: int | None = None) -> None:
        """End the streams, all or a tunnel's, that are only kept for further use."""
        for stream in list(self._streams.values()):
            kept = IReusable(stream.protocol, None)
            if kept is not None and attachment in (None, stream.attachment):
                kept.end_idle()

    def _end_streams(self, streams: dict[int, Any], reason: str) -> None:
        self._over = True
        self.turns.end()
        failure = Failure(ConnectionLost(reason))
        for stream in streams.values():
            stream.session_lost(failure)

    def act(self, event: object) -> None:
        """Act on an event that :attr:`acts` does not name."""

    def _run(self, stream: Stream, factory: IProtocolFactory | None, peer: IAddress) -> bool:
        """Run a protocol on a stream that the peer has opened; False where there is none."""
        protocol = None
        if factory is not None:
            try:
                protocol = factory.buildProtocol(peer)
            except Exception:
                self._log.failure("no protocol for a stream that the peer has opened")
        if protocol is None:
            return False
        self.streams_opened += 1
        stream.start(protocol)
        return True

    # What streams ask for --------------------------------------------------

    def send_data(self, channel: int, data: bytes) -> None:
        raise NotImplementedError

    def send_close(self, channel: int) -> None:
        raise NotImplementedError

    def soon(self, call: Callable[..., object], *args: object) -> None:
        """Call outside of whatever is being called now."""
        self._clock.callLater(0, call, *args)

    def get_peer(self) -> IAddress:
        return self._connection.get_peer()

    def get_host(self) -> IAddress:
        return self._connection.get_host()
