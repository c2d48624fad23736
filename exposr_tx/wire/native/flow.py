"""What one stream may still send, and what its receiver holds and grants.

Source: docs/protocols/exposr-tx-1.md, "Credit". The window of a stream is what
its peer may have sent without our consumer's having taken it; it is what memory
a stream can cost. It grows while the consumer keeps up, and shrinks when it lags.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CONNECTION_WINDOW",
    "GROWN_WINDOWS",
    "MAX_CREDIT",
    "MAX_HELD",
    "MAX_WINDOW",
    "NEAR",
    "STREAM_WINDOW",
    "Flow",
]

#: Bytes that each end may send on a new stream ("Credit").
STREAM_WINDOW: Final = 256 * 1024

#: Bytes that each end may send on a new connection, on all streams together. Enough for
#: 160 MB/s at 100 ms.
CONNECTION_WINDOW: Final = 16 * 1024 * 1024

#: Credit is counted with 31 bits.
MAX_CREDIT: Final = 2**31 - 1

#: The largest window that we give to a stream: 40 MB/s at 100 ms.
MAX_WINDOW: Final = 4 * 1024 * 1024

#: Bytes by which all windows of a connection may have grown together. Where that is used up,
#: by consumers that were fast and then stopped, other streams keep what they have.
GROWN_WINDOWS: Final = 16 * 1024 * 1024

#: Bytes that all streams of a connection may hold together before we withhold the connection's
#: credit: a thousand stopped readers. Up to there none of them hinders the others.
MAX_HELD: Final = 256 * 1024 * 1024

#: Windows that a consumer has to take, keeping up, before the window doubles. With one, what a
#: slow visitor's socket buffers swallow at first (2.6 MB on loopback) would look fast enough
#: for 2 MiB; so it comes to 1 MiB, and 4 MiB is reached after eight round trips.
PATIENCE: Final = 2

#: Seconds to a peer and back up to which the first window is enough to begin with: 50 MB/s.
NEAR: Final = 0.005

#: Bytes that the consumer of what a near peer sends takes in so many seconds when he is quick; only
#: then his window grows. They are more than what the socket buffers of somebody slow swallow at
#: first, up to 9 MB on loopback. That he has taken everything now and then says little: those
#: buffers take a megabyte at full speed whenever they have room again. A visitor of 4 MB/s came to
#: a window of 2 MiB by it. Without any growth a near peer's download has half its speed.
PROOF: Final = 16 * 1024 * 1024
PROOF_TIME: Final = 1.0


class Flow:
    """One stream's, both ways.

    :ivar credit: bytes that we may send; 0 once we have ended.
    :ivar room: bytes that the peer may send; 0 once it has ended.
    :ivar held: bytes received that the consumer has not taken.
    :ivar window: what ``room`` and ``held`` come to after a grant.
    :ivar sending: whether our half is open; ``receiving``: whether the peer's is.
    :ivar drained: whether the consumer had taken everything at some time since the last grant.
    """

    __slots__ = (
        "_granted",
        "_kept",
        "_quick",
        "_since",
        "credit",
        "drained",
        "held",
        "receiving",
        "room",
        "sending",
        "window",
    )

    def __init__(self) -> None:
        self.credit = STREAM_WINDOW
        self.room = STREAM_WINDOW
        self.held = 0
        self.window = STREAM_WINDOW
        self.sending = True
        self.receiving = True
        self.drained = True
        self._kept = 0  # bytes granted since the window changed or the consumer lagged
        self._since = 0.0  # seconds
        self._granted = 0  # bytes since then
        self._quick = False

    def __repr__(self) -> str:
        return f"<Flow may send {self.credit}, holds {self.held} of {self.window}>"

    @property
    def gone(self) -> bool:
        """Both halves are over; what is held may still be handed on."""
        return not (self.sending or self.receiving)

    def take(self, size: int) -> bool:
        """The consumer has taken bytes: whether a grant is due, half of the window missing."""
        held = self.held - size
        self.held = held
        if not held:
            self.drained = True
        return (held + self.room) * 2 <= self.window

    def end_sending(self) -> None:
        self.sending = False
        self.credit = 0

    def end_receiving(self) -> None:
        self.receiving = False
        self.room = 0

    def grant(self, spare: int, near: bool, now: float) -> int:
        """Bytes to grant, now that at least half of the window is missing; perhaps none.

        :param spare: bytes by which the window may grow.
        :param near: whether the peer is.
        :param now: seconds of any clock.
        """
        window = self.window
        if self.drained and (self._quick or not near):
            self._kept += window - self.room - self.held
            if self._kept >= PATIENCE * window and window < MAX_WINDOW and spare > 0:
                self.window += min(window, MAX_WINDOW - window, spare)
                self._kept = 0
        else:
            # Not more than what is missing is taken away: half of it at most.
            self.window = max(STREAM_WINDOW, window // 2)
            self._kept = 0
        self.drained = not self.held
        size = self.window - self.room - self.held
        self.room += size
        self._time(size, now)
        return size

    def _time(self, size: int, now: float) -> None:
        """Find out whether the consumer is quick, again and again."""
        if not self._granted:
            self._since = now
        self._granted += size
        late = now - self._since > PROOF_TIME
        if late or self._granted >= PROOF:
            self._quick = not late
            self._granted = 0
