"""How a server stops without anybody noticing: the order of things after SIGTERM.

Health goes red, doors close, clients are told, visitors finish. Nothing here
knows a protocol; it asks the rooms and waits. What has not ended by the end of
the grace period is cut, which is also how a server stops that has no time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

__all__ = ["Draining", "Drains", "Transport", "Transports"]

#: Seconds between two looks at what is still running.
LOOK: Final = 0.05
#: Seconds in which idle visitor connections may send one more request: until then every
#: client keeps its slots. Ingress gives them 1 s and looks twice a second.
LAST_REQUEST: Final = 1.5
#: Seconds for the last bytes, such as websocket close frames, to leave their buffers.
FLUSH: Final = 0.1


class Drains(Protocol):
    """An ingress, as far as its end is concerned."""

    def drain(self) -> None:
        """Take no more connections, and end each that is there, and whatever is
        kept for it, at its next good moment. May be called again."""

    def abort(self) -> None:
        """End all of them."""


class Slot(Protocol):
    """A client's connection."""

    tunnel_id: str
    accepting: bool

    def drain(self) -> Deferred[None]:
        """Take no new streams, and end with the last one."""


class Transport(Protocol):
    """The clients' side of the server."""

    draining: bool

    @property
    def upstreams(self) -> Collection[Slot]:
        """The clients' connections."""

    def go_away(self) -> None:
        """Tell all clients that can be told, so that they connect elsewhere; nothing else
        changes for them yet."""

    def close(self) -> None:
        """End them all, with code 1001."""


class Transports:
    """Several kinds of clients' connections as one."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        self._transports = transports

    @property
    def draining(self) -> bool:
        return any(transport.draining for transport in self._transports)

    @draining.setter
    def draining(self, value: bool) -> None:
        for transport in self._transports:
            transport.draining = value

    @property
    def upstreams(self) -> Collection[Slot]:
        return [upstream for transport in self._transports for upstream in transport.upstreams]

    def go_away(self) -> None:
        for transport in self._transports:
            transport.go_away()

    def close(self) -> None:
        for transport in self._transports:
            transport.close()


class Draining:
    """One server's end.

    :param red: makes /health say that the server is draining.
    :param close_doors: takes what has connected already, and stops listening.
    :param visitors: how many visitors ingress has.
    :param delay: seconds from red health to closed doors, for balancers to notice.
    :param grace: seconds for what is running then.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        red: Callable[[], object],
        close_doors: Callable[[], Deferred[Any]],
        ingresses: Sequence[Drains],
        visitors: Callable[[], int],
        transport: Transport,
        delay: float,
        grace: float,
    ) -> None:
        self._clock = clock
        self._red = red
        self._close_doors = close_doors
        self._ingresses = ingresses
        self._visitors = visitors
        self._transport = transport
        self._delay = delay
        self._grace = grace

    async def run(self) -> None:
        """Drain; returns when nothing is left, or the grace period is over."""
        self.log.info("draining for up to {grace} s", event="draining", grace=self._grace)
        self._red()
        if self._delay:
            await self._pause(self._delay)
        await self._close_doors()
        self._transport.draining = True
        # At once: nobody loses anything by it, and what comes next has its connections sooner.
        self._transport.go_away()
        started = self._clock.seconds()
        served = bool(self._visitors() or self._transport.upstreams)
        while (waited := self._clock.seconds() - started) < self._grace:
            # Again and again: what ended since may have left a stream idle for the next request.
            for ingress in self._ingresses:
                ingress.drain()
            visitors = self._visitors()
            if not (visitors or self._transport.upstreams):
                break
            self._release(last=not visitors, spare=waited >= LAST_REQUEST)
            await self._pause(LOOK)
        visitors = self._visitors()
        if visitors or self._transport.upstreams:
            self.log.warn(
                "the grace period is over; {visitors} visitors and {clients} clients' connections"
                " are cut off",
                event="drained",
                visitors=visitors,
                clients=len(self._transport.upstreams),
            )
        self.cut()
        if served:
            await self._pause(FLUSH)

    def cut(self) -> None:
        """End everything at once."""
        for ingress in self._ingresses:
            ingress.abort()
        self._transport.close()

    def _release(self, *, last: bool, spare: bool) -> None:
        """Give clients' connections up slot by slot, each when its last stream has ended.

        :param last: all of them. Otherwise one of each tunnel's stays, for requests on
            connections that visitors still have, and
        :param spare: says whether the others go.
        """
        if not (last or spare):
            return
        kept: set[str] = set()
        for slot in list(self._transport.upstreams):
            if not slot.accepting:
                continue
            if last or slot.tunnel_id in kept:
                # Closes by itself; a failure would be the session's, which logs it.
                slot.drain().addErrback(lambda failure: self.log.failure("drain", failure))
            kept.add(slot.tunnel_id)

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._clock, seconds, lambda: None)
