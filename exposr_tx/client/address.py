"""A tunnel's public address, as Twisted knows addresses."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from exposr_tx.addresses import DEFAULT_PORTS

__all__ = ["TunnelAddress"]


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class TunnelAddress:
    """Where a tunnel is reached from outside.

    :ivar urls: the public URLs.
    """

    tunnel_id: str
    urls: tuple[str, ...]

    def __str__(self) -> str:
        return self.url or f"tunnel {self.tunnel_id}"

    @property
    def url(self) -> str:
        """The first public URL; empty where there is none."""
        return self.urls[0] if self.urls else ""

    @property
    def host(self) -> str:
        """The public host, for programs that know of TCP addresses only."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The public port; 0 where there is none."""
        parts = urlsplit(self.url)
        return parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
