"""What makes the recordings of a program's connections, and tells of their exchanges."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from urllib.parse import urlsplit

from twisted.logger import Logger

from exposr_tx.inspection import MAX_BODY
from exposr_tx.inspection.exchanges import Exchange, Watcher
from exposr_tx.inspection.recording import Recording

__all__ = ["Recorder"]


class Recorder:
    """Makes the recordings of one program, and tells watchers of their exchanges.

    :param watchers: told of each exchange, in this order.
    :param max_body: bytes that are kept of each body, and of a websocket's messages together.
    :param now: the time of day, in seconds since 1970.
    :param seconds: the monotonic clock.
    """

    log = Logger()

    def __init__(
        self,
        watchers: Sequence[Watcher],
        *,
        max_body: int = MAX_BODY,
        now: Callable[[], float] = time.time,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_body = max_body
        self.now = now
        self.seconds = seconds
        self._watchers = tuple(watchers)
        # Whom to tell what; who does not want to hear it is left out.
        self.began = [w.began for w in watchers if type(w).began is not Watcher.began]
        self.changed = [w.changed for w in watchers if type(w).changed is not Watcher.changed]
        self.ended = [w.ended for w in watchers if type(w).ended is not Watcher.ended]
        self._ids = count(1)

    def __repr__(self) -> str:
        return f"<Recorder for {len(self._watchers)} watchers>"

    def telling_also(self, watcher: Watcher) -> Recorder:
        """A recorder with one more watcher; the exchanges of both are counted together."""
        other = Recorder(
            (*self._watchers, watcher), max_body=self.max_body, now=self.now, seconds=self.seconds
        )
        other._ids = self._ids
        return other

    def recording(
        self, tunnel: str, target: str, visitor: str = "", replay_of: str = ""
    ) -> Recording:
        """A recording of one connection to a target; made when it is about to be connected.

        :param target: its URL; "" where the program itself is the target.
        :param visitor: the address where the tunnel's stream comes from.
        :param replay_of: the id of the exchange that is repeated.
        """
        if "@" in target:
            parts = urlsplit(target)
            target = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return Recording(self, tunnel, target, visitor, replay_of)

    def new_id(self) -> str:
        """The next exchange's."""
        return str(next(self._ids))

    def tell(self, calls: Sequence[Callable[[Exchange], object]], exchange: Exchange) -> None:
        """Tell watchers; what one of them fails with concerns nobody else."""
        for call in calls:
            try:
                call(exchange)
            except Exception:
                self.log.failure("a watcher of exchanges failed")
