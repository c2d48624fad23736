"""When each tunnel was last connected, and so which ones have expired.

This process knows it to the millisecond; the store has a stamp, written now and
then, which is what counts after a restart.
"""

from __future__ import annotations

from collections.abc import Callable

from exposr_tx.tunnels.values import Tunnel

__all__ = ["Sightings"]

#: How often, in parts of the time to expiry, "still connected" is written down.
STAMPS = 10
#: Seconds between two such stamps at least.
STAMP_INTERVAL = 5.0
#: Seconds that clients get to come back after a restart before anything expires.
RETURN = 60.0


class Sightings:
    """What this process has seen of tunnels' connections.

    :param now: the time, in seconds since the epoch.
    :param expire: seconds after which an unconnected tunnel has expired; 0 is never.
    """

    def __init__(self, now: Callable[[], float], expire: float) -> None:
        self._now = now
        self._expire = expire
        self._started = now()
        self._seen: dict[str, int] = {}  # epoch ms; exact, where the stored time is coarse
        self._stamp_interval = max(expire / STAMPS, STAMP_INTERVAL)

    def __repr__(self) -> str:
        return f"<Sightings of {len(self._seen)} tunnels>"

    def saw(self, tunnel_id: str) -> int:
        """The tunnel is connected, or was just made; gives the time in epoch milliseconds."""
        time = self._seen[tunnel_id] = int(self._now() * 1000)
        return time

    def forget(self, tunnel_id: str) -> None:
        """The tunnel is gone."""
        self._seen.pop(tunnel_id, None)

    def stamp_due(self, tunnel: Tunnel) -> bool:
        """Whether it is to be written down that the tunnel, which is connected, is so."""
        return self._now() * 1000 - tunnel.seen_at >= self._stamp_interval * 1000

    def has_expired(self, tunnel: Tunnel) -> bool:
        """Whether the tunnel, which is not connected, was not for too long."""
        return self._expire > 0 and self._idle(tunnel) >= self._expire

    def _idle(self, tunnel: Tunnel) -> float:
        """Seconds for which the tunnel is not connected, never too many."""
        since = self._seen.get(tunnel.id)
        if since is None:  # not seen by this process
            coarse = self._stamp_interval if tunnel.seen_at > tunnel.created_at else 0.0
            since = tunnel.seen_at + int(coarse * 1000)
            if self._now() - self._started < min(RETURN, self._expire):
                return 0.0
        return self._now() - since / 1000
