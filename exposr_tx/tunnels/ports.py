"""TCP ports: which tunnel has which, in a table of its own that is keyed by the port.

A port is claimed before it is written into its tunnel, and let go after it was
taken out. A crash in between leaves a claim that no tunnel knows of; whoever
needs the port takes such a claim over once it is old enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from exposr_tx.errors import BadInput, Conflict

if TYPE_CHECKING:
    from exposr_tx.interfaces import IStorage

__all__ = ["Ports"]

#: Seconds after which a claim that its tunnel does not know of is given up on;
#: between the two writes of a living server lie milliseconds.
ABANDONED = 60.0

_TABLE = "tcp_port"
_PAGE = 1000


class Ports:
    """The claims on a range of ports.

    :param now: the time in seconds since the epoch.
    :param first: the first port of the range, and ``last`` the last.
    :param holds: whether a tunnel's stored record has a port.
    """

    def __init__(
        self,
        storage: IStorage,
        now: Callable[[], float],
        first: int,
        last: int,
        holds: Callable[[str, int], Awaitable[bool]],
    ) -> None:
        self._storage = storage
        self._now = now
        self._first = first
        self._last = last
        self._holds = holds

    def __contains__(self, port: int) -> bool:
        return self._first <= port <= self._last

    async def claim(self, tunnel_id: str, asked: int) -> int:
        """Take the port that is asked for, or for 0 the next free one.

        :raises BadInput: it is out of range or somebody else's, or none is free.
        """
        if asked == 0:
            return await self._next_free(tunnel_id)
        if asked not in self:
            raise BadInput(
                f'"ingress.tcp.port" with value {asked} must be from {self._first} to {self._last}'
            )
        if not await self._take(tunnel_id, asked):
            raise BadInput(
                f'"ingress.tcp.port" with value {asked} belongs to another tunnel;'
                " choose another one, or leave it out to get the next free one"
            )
        return asked

    async def release(self, tunnel_id: str, port: int) -> None:
        """Let go of a port that a tunnel has no more."""
        record = await self._storage.get(_TABLE, _key(port))
        if record is None or record.value["tunnel"] != tunnel_id:
            return
        if not await self._holds(tunnel_id, port):
            with suppress(Conflict):
                await self._storage.delete(_TABLE, _key(port), record.version)

    async def _next_free(self, tunnel_id: str) -> int:
        claimed = await self._claimed()
        free = (port for port in range(self._first, self._last + 1) if port not in claimed)
        for port in (*free, *sorted(claimed)):  # abandoned ones last
            if await self._take(tunnel_id, port):
                return port
        raise BadInput(
            f'"ingress.tcp.port": all ports from {self._first} to {self._last} are taken;'
            " delete a tunnel that has one, or let the server have more (--ingress-tcp-ports)"
        )

    async def _claimed(self) -> set[int]:
        claimed: set[int] = set()
        after = _key(self._first - 1)
        while True:
            page = await self._storage.list(_TABLE, after, _PAGE)
            claimed.update(int(key) for key, _ in page if int(key) in self)
            if len(page) < _PAGE or int(page[-1][0]) >= self._last:
                return claimed
            after = page[-1][0]

    async def _take(self, tunnel_id: str, port: int) -> bool:
        record = await self._storage.get(_TABLE, _key(port))
        version = None
        if record is not None:
            owner, since = record.value["tunnel"], record.value["claimed_at"]
            if owner != tunnel_id and (
                self._now() * 1000 - since < ABANDONED * 1000 or await self._holds(owner, port)
            ):
                return False
            version = record.version
        claim = {"tunnel": tunnel_id, "claimed_at": int(self._now() * 1000)}
        try:
            await self._storage.put(_TABLE, _key(port), claim, version)
        except Conflict:
            return False
        return True


def _key(port: int) -> str:
    """Keys are in the order of the ports."""
    return f"{port:05}"
