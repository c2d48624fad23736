"""A stream of the exposr dialect, version 2: PAUSE, RESUME, and a CLOSE that hurries nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from exposr_tx.transport.stream import HIGH_WATER, RECEIVE_LIMIT, Stream

if TYPE_CHECKING:
    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.channels import Channels

__all__ = ["V2Stream"]

#: A peer may hold this much without having said PAUSE (its high-water mark is
#: 16 KiB on Node 20), and loses it when CLOSE arrives; see :meth:`V2Stream._finish`.
UNHEARD: Final = 16 * 1024


class V2Stream(Stream):
    """One channel."""

    #: A connection carries one tunnel.
    attachment: Final = 0

    __slots__ = ("_peer_paused",)

    _channels: Channels

    def __init__(self, channels: Channels, channel: int, origin: Origin | None) -> None:
        super().__init__(channels, channel, origin)
        self._peer_paused = False  # we have paused the peer

    def _finish(self) -> None:
        """Everything is written: close, when that cannot hurt what was written.

        A peer throws away what it has not consumed when CLOSE arrives. So while
        it pauses us we wait; after much data we wait for an answer to a ping,
        since a PAUSE may be on its way; and then a moment (section C.6).
        """
        if not self._open or self._held:
            return
        if not self._sent:
            self.close_now()
        elif self._sent > UNHEARD:
            self._sent = 1
            self._channels.barrier(self._finish)
        else:
            self._channels.linger(self)

    def close_now(self) -> None:
        """Send CLOSE; called when the moment after the last data is over."""
        if self._open and not self._held:
            self._open = False
            self._discard()
            self._channels.send_close(self._channel)
            self._end_soon(connectionDone)

    def _all_delivered(self) -> None:
        if self._peer_paused and self._open:
            self._peer_paused = False
            self._channels.send_resume(self._channel)

    # What the channels tell ------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._open:
            return
        if not (self._paused or self._delivering or self._received):
            self._give(data)
            return
        self._received.append(data)
        self._received_size += len(data)
        if self._received_size > HIGH_WATER and not self._peer_paused:
            self._peer_paused = True
            self._channels.send_pause(self._channel)
        if self._received_size > RECEIVE_LIMIT:
            self._log.warn("a stream is ended: its peer ignores PAUSE")
            self._abort(ConnectionLost("the peer ignores PAUSE"))

    def peer_paused(self) -> None:
        self._held = True
        try:
            self._pause_producer()
        except Exception as error:
            self._failed(error)

    def peer_resumed(self) -> None:
        self._held = False
        # It has taken what came before its PAUSE; only a moment is due now.
        self._sent = min(self._sent, 1)
        self._wait()

    def peer_closed(self, reason: str) -> None:
        """The peer has closed, for a reason if not in the ordinary way."""
        self._open = False
        self._stop_sending()
        failure = Failure(ConnectionLost(reason)) if reason else connectionDone
        if self._lost:
            return
        if self._received and not self.disconnecting:
            self._ending = failure  # what has arrived is delivered first
        else:
            self._discard()
            self._end(failure)
