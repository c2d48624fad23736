"""The newest exchanges in memory, for the inspector, and those who want to hear of changes.

A watcher on the data path, so that it does next to nothing: it keeps the exchange
and marks it as changed for each subscriber. A subscriber who is slow costs a mark
for each exchange, whatever happens to it meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from exposr_tx.inspection.exchanges import Exchange

__all__ = ["Ring", "Subscription"]

#: Exchanges that are kept, unless told otherwise.
MOST: Final = 500
#: Bytes that all of them may take, unless told otherwise.
MOST_BYTES: Final = 64 * 1024 * 1024


class Subscription:
    """What somebody has not seen yet of a ring.

    :param wake: called when there is something after there was nothing; not again before
        :meth:`take`. Runs on the data path, so it puts off what it wants to do.
    """

    def __init__(self, ring: Ring, wake: Callable[[], object]) -> None:
        self._ring = ring
        self._wake = wake
        self._changed: dict[str, None] = {}
        self._missed = 0
        self._cleared = False

    def __repr__(self) -> str:
        return f"<Subscription {len(self._changed)} changed, {self._missed} missed>"

    @property
    def _has_news(self) -> bool:
        return bool(self._changed or self._missed or self._cleared)

    def take(self) -> tuple[list[Exchange], int, bool]:
        """What has changed since the last time, the oldest first; how many came and went
        meanwhile unseen; and whether the ring was cleared before that."""
        changed, missed, cleared = self._changed, self._missed, self._cleared
        self._changed, self._missed, self._cleared = {}, 0, False
        return [self._ring[name] for name in changed], missed, cleared

    def close(self) -> None:
        """Hear no more."""
        self._ring.unsubscribe(self)

    def mark(self, name: str) -> None:
        """An exchange has changed."""
        woken = self._has_news
        self._changed[name] = None
        if not woken:
            self._wake()

    def forget(self, name: str) -> None:
        """An exchange is kept no more."""
        if name in self._changed:
            del self._changed[name]
            self._missed += 1

    def clear(self) -> None:
        """All exchanges are gone, as somebody wished."""
        woken = self._has_news
        self._changed, self._missed, self._cleared = {}, 0, True
        if not woken:
            self._wake()


class Ring:
    """Keeps exchanges up to a number and a size; the oldest go first.

    :param most: exchanges.
    :param most_bytes: bytes that those which have ended take together; what passes is in memory
        for its recording anyway.
    :ivar dropped: how many have gone to make room.
    """

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        # A plain dict would look through the places of those that have gone for its first.
        self._kept: OrderedDict[str, Exchange] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._subscriptions: set[Subscription] = set()
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Ring {len(self._kept)} exchanges, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Exchange]:
        """The exchanges, the oldest first."""
        return iter(self._kept.values())

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def __getitem__(self, name: str) -> Exchange:
        """The exchange with an id; KeyError where it is kept no more."""
        return self._kept[name]

    def subscribe(self, wake: Callable[[], object]) -> Subscription:
        """Hear of changes from now on."""
        subscription = Subscription(self, wake)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def clear(self) -> None:
        """Forget all exchanges; those that still run are not seen again."""
        self._kept.clear()
        self._sizes.clear()
        self._bytes = 0
        for subscription in tuple(self._subscriptions):
            subscription.clear()

    # A watcher

    def began(self, exchange: Exchange) -> None:
        kept = self._kept
        kept[exchange.id] = exchange
        if len(kept) > self._most:
            self._drop(next(iter(kept)))
        if self._subscriptions:
            self._mark(exchange)

    def changed(self, exchange: Exchange) -> None:
        if self._subscriptions and exchange.id in self._kept:
            self._mark(exchange)

    def ended(self, exchange: Exchange) -> None:
        if exchange.id not in self._kept:
            return
        size = self._sizes[exchange.id] = exchange.size
        self._bytes += size
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))
        self.changed(exchange)

    def _mark(self, exchange: Exchange) -> None:
        for subscription in tuple(self._subscriptions):  # who wakes up may close his
            subscription.mark(exchange.id)

    def _drop(self, name: str) -> None:
        del self._kept[name]
        self._bytes -= self._sizes.pop(name, 0)
        self.dropped += 1
        for subscription in self._subscriptions:
            subscription.forget(name)
