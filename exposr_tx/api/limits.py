"""How often one address may show wrong credentials before it has to wait."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import TYPE_CHECKING

from twisted.logger import Logger

from exposr_tx.errors import TooManyFailures

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

__all__ = ["FailedCredentials"]

#: Seconds in which failures are counted, from the first of them on.
WINDOW = 60.0
#: Addresses that are remembered; beyond that the oldest are forgotten.
ADDRESSES = 65536
#: An IPv6 customer has this many bits of prefix to himself, and the rest to choose from.
IPV6_PREFIX = 64


class FailedCredentials:
    """Failures by address.

    :param now: the time in seconds.
    :param limit: failures in a minute; 0 is any number.
    :param loopback: whether loopback addresses are counted as well. Unix
        sockets have no address and are never counted.
    """

    log = Logger()

    def __init__(self, now: Callable[[], float], limit: int = 60, loopback: bool = False) -> None:
        self._now = now
        self._limit = limit
        self._loopback = loopback
        self._windows: dict[str, tuple[float, int]] = {}  # key -> start, failures

    def check(self, peer: IAddress) -> None:
        """To be asked before credentials are looked at.

        :raises TooManyFailures: they are not to be looked at.
        """
        if not self._windows:
            return
        start, failures = self._windows.get(self._key(peer), (0.0, 0))
        left = start + WINDOW - self._now()
        if self._limit and failures >= self._limit and left > 0:
            raise TooManyFailures(ceil(left))

    def count(self, peer: IAddress) -> None:
        """Credentials from this address were wrong."""
        key = self._key(peer)
        if not key or not self._limit:
            return
        now = self._now()
        start, failures = self._windows.get(key, (now, 0))
        if now - start >= WINDOW:
            start, failures = now, 0
        self._windows.pop(key, None)  # the last one counted stands last
        self._windows[key] = (start, failures + 1)
        if failures + 1 == self._limit:
            self.log.warn(
                "{address} has shown {count} wrong credentials and has to wait",
                event="credentials-limited",
                address=key,
                count=self._limit,
            )
        while len(self._windows) > ADDRESSES:
            del self._windows[next(iter(self._windows))]

    def _key(self, peer: IAddress) -> str:
        """What stands for all addresses that one person has; empty when nothing is counted."""
        try:
            address = ip_address(str(getattr(peer, "host", "")).partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if address.is_loopback and not self._loopback:
            return ""
        if isinstance(address, IPv6Address):
            return str(ip_network((address, IPV6_PREFIX), strict=False))
        return str(address)
