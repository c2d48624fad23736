"""Whether the peer of a session is alive: pings, their answers, and the verdict.

Both sides ping every 6 s. A server gives up a client that says nothing at all;
a client gives up a server that sends it neither pings nor messages, for one
that merely answers may have stopped serving the connection (protocol page,
section D.5). Whoever was asleep itself judges nobody before it has listened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from exposr_tx.transport.beats import TOGETHER, beats_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["LAST_LOOK", "PING_INTERVAL", "PROBE_TIMEOUT", "SERVER_SILENCE", "Liveness"]

#: Seconds between pings. Two without any sign of life end the session: at most 18 s.
PING_INTERVAL: Final = 6.0

#: Unanswered pings after which the peer is dead.
MISSES: Final = 2

#: A timer this late, in seconds, means that this process stood still (SIGSTOP,
#: suspend): what the peer sent meanwhile is unread, so nothing may be judged yet.
JUMP: Final = 3.0

#: Seconds between the last miss and the verdict: what lies unread in the socket
#: is read meanwhile.
LAST_LOOK: Final = 0.02

#: Seconds without a ping or a message after which a client gives its server up.
#: Servers ping every 6 s or 10 s.
SERVER_SILENCE: Final = 21.0

#: Seconds in which a probed peer must answer.
PROBE_TIMEOUT: Final = 1.0

#: Seconds until who measures the delay pings once more: the first ping finds both sides busy with
#: the start. On loopback one in five took 5 to 40 ms, the second one 0.5 ms.
SECOND_LOOK: Final = 1.0

_COUNTER: Final = Struct(">I")
_BEAT: Final = Struct(">II")


@lru_cache(maxsize=4)
def _ping_of(beat: int) -> bytes:
    """The payload of all pings of a beat: what carries them is made once. Longer than a counter."""
    return _BEAT.pack(1, beat & 0xFFFFFFFF)


class Liveness:
    """The signs of life of one peer.

    :param ping: sends a ping with a payload.
    :param dead: called with the reason when the peer is given up.
    :param watches_server: whether silence of the peer's *pings* is death
        (the client's side) or silence altogether (the server's).
    :param wall_clock: epoch seconds, for ``alive_at``.
    :param regular: whether to ping again and again, rather than at the start and when asked.
    :param measures: whether ``delay`` is looked at, which takes a second ping.

    :ivar heard_at: when anything was received last, in the clock's seconds.
    :ivar delay: seconds from a ping to its answer, the least so far: the way there and back without
        what waits in queues.
    :ivar sign_at: when a ping or a message was; whoever receives a message sets it.
    """

    __slots__ = (
        "_asked",
        "_asked_at",
        "_barriers",
        "_beat",
        "_beats",
        "_clock",
        "_dead",
        "_heard",
        "_measures",
        "_missed",
        "_ping",
        "_pings",
        "_pongs",
        "_regular",
        "_stopped",
        "_tick_call",
        "_wall_clock",
        "_watch_call",
        "_watch_due",
        "_watches_server",
        "delay",
        "heard_at",
        "sign_at",
    )

    def __init__(
        self,
        clock: IReactorTime,
        ping: Callable[[bytes], None],
        dead: Callable[[str], None],
        watches_server: bool = False,
        wall_clock: Callable[[], float] = time.time,
        regular: bool = True,
        measures: bool = False,
    ) -> None:
        self._clock = clock
        self._ping = ping
        self._dead = dead
        self._watches_server = watches_server
        self._wall_clock = wall_clock
        self._regular = regular
        self._measures = measures
        self._asked: bytes | None = None  # what its answer has to bring back
        self._asked_at = 0.0
        self.delay = math.inf
        self._pings = 0
        self._pongs = 0
        self._barriers: list[tuple[int, Callable[[], object]]] = []  # few, the oldest first
        self.heard_at = self.sign_at = clock.seconds()
        self._heard = False
        self._missed = 0
        self._stopped = False
        self._beats = beats_of(clock)
        self._beat = -1
        self._tick_call: IDelayedCall | None = None
        self._watch_due = 0.0
        self._watch_call: IDelayedCall | None = None

    def __repr__(self) -> str:
        silent = self._clock.seconds() - self.heard_at
        return f"<Liveness {'STOPPED' if self._stopped else f'{silent:.1f} s silent'}>"

    @property
    def alive_at(self) -> int:
        """Epoch milliseconds when the peer was last heard."""
        silent = self._clock.seconds() - self.heard_at
        return int((self._wall_clock() - silent) * 1000)

    def start(self) -> None:
        """Begin to ping, and to listen."""
        self.heard()
        self.sign()
        self._send_ping()
        if self._measures:
            self._tick_call = self._clock.callLater(SECOND_LOOK, self._send_ping)
        if self._regular:
            self._tick_later(self._clock.seconds())
        if self._watches_server:
            self._watch_later(SERVER_SILENCE)

    def stop(self) -> None:
        """The connection is over: nobody will answer."""
        self._stopped = True
        self._beats.remove(self._beat, self._tick)
        for call in (self._tick_call, self._watch_call):
            if call is not None and call.active():
                call.cancel()
        barriers, self._barriers = self._barriers, []
        for _, callback in barriers:
            callback()

    # What is received ------------------------------------------------------

    def heard(self) -> None:
        """Something was received."""
        self._heard = True
        self.heard_at = self._clock.seconds()

    def sign(self) -> None:
        """What was heard last is a ping or a message."""
        self.sign_at = self.heard_at

    def pong(self, payload: bytes) -> None:
        """A pong was received; those that nobody asked for are none."""
        if payload == self._asked:
            self.answered()
        if len(payload) != _COUNTER.size:
            return
        (number,) = _COUNTER.unpack(payload)
        if self._pongs < number <= self._pings:
            self._pongs = number
            while self._barriers and self._barriers[0][0] <= number:
                self._barriers.pop(0)[1]()

    def answered(self) -> float:
        """What was received last answers the ping that was sent last; gives the delay."""
        self.delay = min(self.delay, self._clock.seconds() - self._asked_at)
        self._asked = None
        return self.delay

    # What is asked ---------------------------------------------------------

    def barrier(self, callback: Callable[[], object]) -> None:
        """Call when the peer has seen everything sent so far, as its pong tells, or is gone."""
        if not self._stopped:
            self._barriers.append((self._send_ping(), callback))

    def probe(self) -> Deferred[bool]:
        """Whether the peer answers a ping within :data:`PROBE_TIMEOUT`."""
        answer: Deferred[bool] = Deferred()

        def decide(alive: bool) -> None:
            if call.active():
                call.cancel()
            if not answer.called:
                answer.callback(alive)

        call = self._clock.callLater(PROBE_TIMEOUT, decide, False)
        self.barrier(lambda: decide(not self._stopped))
        return answer

    # The verdict -----------------------------------------------------------

    def _send_ping(self) -> int:
        self._pings += 1
        self._ask(_COUNTER.pack(self._pings & 0xFFFFFFFF), self._clock.seconds())
        return self._pings

    def _ask(self, payload: bytes, now: float) -> None:
        self._asked, self._asked_at = payload, now
        self._ping(payload)

    def _tick_later(self, now: float) -> None:
        self._beat = self._beats.add(self._clock, now, PING_INTERVAL, self._tick)

    def _tick(self) -> None:
        # With 10,000 peers a ping and its answer take 23 µs, 9 of them in the system, and much of
        # the rest for memory that is far away: what is the same for all is made once, and little
        # of each peer is touched.
        if self._stopped:
            return
        now = self._clock.seconds()
        if self._heard or now - self._beat * TOGETHER > JUMP:
            self._missed = 0
        else:
            self._missed += 1
        self._heard = False
        if self._missed < MISSES or self._watches_server:
            self._ask(_ping_of(self._beat), now)
            self._tick_later(now)
        else:
            self._tick_call = self._clock.callLater(LAST_LOOK, self._judge)

    def _judge(self) -> None:
        if self._heard:
            self._missed = 0
            self._send_ping()
            self._tick_later(self._clock.seconds())
        else:
            self._dead("the peer answers no pings")

    def _watch_later(self, delay: float) -> None:
        self._watch_due = self._clock.seconds() + delay
        self._watch_call = self._clock.callLater(delay, self._watch)

    def _watch(self) -> None:
        now = self._clock.seconds()
        if now - self._watch_due > JUMP:
            self._watch_later(MISSES * PING_INTERVAL)
            return
        silent = now - self.sign_at
        if silent < SERVER_SILENCE:
            self._watch_later(SERVER_SILENCE - silent)
        else:
            self._watch_call = self._clock.callLater(LAST_LOOK, self._judge_server)

    def _judge_server(self) -> None:
        if self._clock.seconds() - self.sign_at < SERVER_SILENCE:
            self._watch_later(PING_INTERVAL)
        else:
            self._dead("the server sends no pings")
