"""Addresses as they are compared and shown: IPv4 that came by a socket of IPv6 is IPv4."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

__all__ = ["host_port", "unwrapped"]


def unwrapped(host: str) -> str:
    """A host without what says that it is IPv4 over IPv6."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def host_port(address: IAddress) -> str:
    """``host:port``, with brackets around IPv6; ``:0`` for an address that has neither."""
    host, port = unwrapped(getattr(address, "host", "")), getattr(address, "port", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
