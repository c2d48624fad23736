"""Streams on their way: from OPEN to the peer's ACK, and to a protocol that runs on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, fail

from exposr_tx.errors import LocalProtocolError, StreamLimit, TargetFailed, UpstreamGone
from exposr_tx.transport.overdue import Overdue

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.stream import Stream
    from exposr_tx.wire.mux import Dialect

__all__ = ["ACK_TIMEOUT", "Opening", "Openings"]

#: Seconds for the ACK of an OPEN. The client gives it before it connects to the target.
ACK_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream that waits for its ACK."""

    factory: IProtocolFactory
    origin: Origin
    opened: Deferred[IProtocol]

    def accepted(self, stream: Stream) -> None:
        """The peer has accepted: run a protocol on the stream."""
        try:
            protocol = self.factory.buildProtocol(self.origin.peer)
        except Exception:
            stream.abortConnection()
            self.opened.errback()
            return
        if protocol is None:
            stream.abortConnection()
            self.opened.errback(TargetFailed("nobody wants the stream any more"))
            return
        stream.start(protocol)
        self.opened.callback(protocol)


class Openings:
    """The streams of a session that wait for their ACK.

    :param send: sends a message.
    :param gone: called whenever one is given up, without having become a stream.

    :ivar waiting: the openings by channel.
    """

    def __init__(
        self,
        clock: IReactorTime,
        mux: Dialect,
        send: Callable[[bytes], None],
        gone: Callable[[], None],
    ) -> None:
        self._mux = mux
        self._send = send
        self._gone = gone
        self.waiting: dict[int, Opening] = {}
        self._overdue: Overdue[int] = Overdue(clock, ACK_TIMEOUT, self._too_late)

    def __repr__(self) -> str:
        return f"<Openings {len(self.waiting)} waiting>"

    def begin(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Ask the peer for a stream; see ``Session.open_stream``."""
        try:
            channel, message = self._mux.open()
        except LocalProtocolError as error:
            return fail(StreamLimit(str(error)))

        def cancelled(_: Deferred[IProtocol]) -> None:
            # Its ACK, should it come, is answered with CLOSE by the mux.
            if self.pop(channel) is not None:
                self._mux.forget(channel)
                self._gone()

        opened: Deferred[IProtocol] = Deferred(cancelled)
        self.waiting[channel] = Opening(factory, origin, opened)
        self._overdue.add(channel)
        self._send(message)
        return opened

    def pop(self, channel: int) -> Opening | None:
        """The peer has answered: what waited for that, if anything does."""
        opening = self.waiting.pop(channel, None)
        if opening is not None:
            self._overdue.discard(channel)
        return opening

    def rejected(self, channel: int, reason: str) -> None:
        """The peer has refused."""
        self._fail(channel, TargetFailed(f"the client refuses a stream: {reason}"))

    def end(self, reason: str) -> None:
        """The connection is over."""
        self._overdue.clear()
        waiting, self.waiting = self.waiting, {}
        for opening in waiting.values():
            opening.opened.errback(UpstreamGone(reason))

    def _too_late(self, channel: int) -> None:
        self._mux.forget(channel)
        self._fail(channel, TargetFailed("the client did not answer in time"))

    def _fail(self, channel: int, error: TargetFailed) -> None:
        opening = self.pop(channel)
        if opening is not None:
            opening.opened.errback(error)
            self._gone()
