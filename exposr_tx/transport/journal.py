"""Which clients came, went and were refused: the lines that an operator reads at night.

One line for each connection of a client, none for a stream or a request. Tunnels
that were lost are remembered, so that a line tells how long one was away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from exposr_tx.addresses import host_port

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime

    from exposr_tx.errors import ExposrError

__all__ = ["Journal"]

#: Tunnels that were lost and are remembered; beyond that the oldest are forgotten.
MAX_LOST: Final = 65536
#: Lines about refused connections in a minute; the others are only counted, as
#: anybody can cause them.
MAX_REFUSALS: Final = 60
WINDOW: Final = 60.0
#: Letters of a refused tunnel id, which may be anything, that are written down.
MAX_ID: Final = 64


def _shown(address: IAddress) -> str:
    """``host:port``, or what the address is where it has none."""
    return host_port(address) if hasattr(address, "host") else type(address).__name__


class Journal:
    """The comings and goings of clients.

    :param clock: tells how long a tunnel was away.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._lost_at: dict[str, float] = {}
        self._window = 0.0
        self._refusals = 0

    def connected(self, tunnel_id: str, peer: IAddress, connections: int) -> None:
        """A connection is in service; ``connections``: of the tunnel, with this one."""
        lost_at = self._lost_at.pop(tunnel_id, None)
        if lost_at is None:
            self.log.info(
                "tunnel {tunnel} is connected from {peer}, connections: {connections}",
                event="client-connected",
                tunnel=tunnel_id,
                peer=_shown(peer),
                connections=connections,
            )
        else:
            self.log.info(
                "tunnel {tunnel} is connected again from {peer}, after {away} s",
                event="client-connected-again",
                tunnel=tunnel_id,
                peer=_shown(peer),
                connections=connections,
                away=round(self._clock.seconds() - lost_at, 1),
            )

    def lost(
        self, tunnel_id: str, peer: IAddress, connections: int, clean: bool, code: int, reason: str
    ) -> None:
        """A connection that was in service is over.

        :param connections: how many the tunnel has left.
        :param clean: whether one of the sides said goodbye.
        :param code: the websocket's close code.
        """
        if not connections:
            self._lost_at[tunnel_id] = self._clock.seconds()
            while len(self._lost_at) > MAX_LOST:
                del self._lost_at[next(iter(self._lost_at))]
        self.log.info(
            "tunnel {tunnel} has lost its connection from {peer}, connections left: {connections}"
            " (clean: {clean}, code {code}, reason: {reason})",
            event="client-lost",
            tunnel=tunnel_id,
            peer=_shown(peer),
            connections=connections,
            clean=clean,
            code=code,
            reason=reason,
        )

    def refused(self, tunnel_id: str, peer: IAddress, error: ExposrError) -> None:
        """A connection was not taken."""
        now = self._clock.seconds()
        if now - self._window >= WINDOW or not self._refusals:
            unsaid = self._refusals - MAX_REFUSALS
            if unsaid > 0:
                self.log.warn(
                    "{count} more connections of clients were refused",
                    event="client-refused",
                    count=unsaid,
                )
            self._window, self._refusals = now, 0
        self._refusals += 1
        if self._refusals <= MAX_REFUSALS:
            self.log.warn(
                "a connection from {peer} to tunnel {tunnel} is refused: {reason}",
                event="client-refused",
                tunnel=tunnel_id[:MAX_ID],
                peer=_shown(peer),
                code=error.code,
                reason=str(error) or error.code,
            )
