"""Addresses as they are compared and shown.

IPv4 that came by a socket of IPv6 is IPv4, and a port that goes without saying is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.address import IPv4Address, IPv6Address

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

__all__ = ["DEFAULT_PORTS", "authority", "host_port", "tcp_address", "unwrapped"]

#: Ports that go without saying, by a URL's scheme.
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def unwrapped(host: str) -> str:
    """A host without what says that it is IPv4 over IPv6."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def host_port(address: IAddress) -> str:
    """``host:port``, with brackets around IPv6; ``:0`` for an address that has neither."""
    host, port = unwrapped(getattr(address, "host", "")), getattr(address, "port", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tcp_address(host: str, port: int) -> IPv4Address | IPv6Address:
    """The address of a TCP port, of whichever kind the host's is."""
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


def authority(scheme: str, host: str, port: int | None) -> str:
    """``host[:port]`` of a URL, with brackets around IPv6, without the scheme's own port."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port in (None, DEFAULT_PORTS.get(scheme)) else f"{shown}:{port}"
