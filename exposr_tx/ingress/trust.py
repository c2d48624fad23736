"""Whom to believe: what proxies before us say of the visitor.

``X-Forwarded-*``, ``Forwarded``, ``X-Scheme`` and ``X-Request-Id`` count only
from peers in the operator's ``--trusted-proxy`` networks; anybody else's are
replaced. The first time an untrusted peer sends one, a warning names the option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from OpenSSL.SSL import Connection
from twisted.internet.address import IPv4Address
from twisted.internet.address import IPv6Address as TwistedIPv6Address
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from exposr_tx.addresses import unwrapped
from exposr_tx.interfaces import Tls

__all__ = ["Trust", "Visitor", "host_text", "tls_of"]

#: Visitors remembered, 200 bytes each.
MAX_KNOWN: Final = 4096
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)(?::[0-9]{1,5})?")
#: An element of ``X-Forwarded-For`` in brackets or with a port, as some balancers write it.
_NODE: Final = re.compile(r"\[([^]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_PAIR: Final = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,\s]+)')


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent a request, as far as it is believed.

    :ivar ip: the visitor's address.
    :ivar scheme: ``http`` or ``https``, where a trusted proxy said so.
    :ivar authority: the host, with a port, that a trusted proxy saw.
    :ivar chain: the ``X-Forwarded-For`` to pass on, without ``ip`` of the peer itself.
    :ivar forwarded: the ``Forwarded`` to append to.
    """

    ip: str
    peer: str
    scheme: str | None = None
    authority: bytes | None = None
    port: bytes | None = None
    chain: bytes = b""
    forwarded: bytes = b""
    via: bytes = b""
    request_id: bytes | None = None

    def asked(self, authority: bytes) -> bytes:
        """The host, with a port, that the visitor asked for.

        A port that a proxy tells apart counts unless it named one with the host: many pass on a
        Host without.

        :param authority: the request's own.
        """
        told = self.authority or authority
        if self.port is None:
            return told
        name, _, port = told.rpartition(b":")
        if not port.isdigit():
            return b"%b:%b" % (told, self.port)
        return told if self.authority else b"%b:%b" % (name, self.port)


def tls_of(transport: Any, told: bool) -> Tls:
    """How a visitor came over TLS.

    :param told: by a proxy, whose own connection to us may be anything.
    """
    handle: Any = None if told else transport.getHandle()
    if not isinstance(handle, Connection):
        return Tls()
    name = handle.get_servername() or b""
    return Tls(name.decode("ascii", "replace"), handle.get_protocol_version_name())


def host_text(address: IAddress) -> str:
    """The host of a peer's address; empty for one that has none, such as a UNIX socket's."""
    if isinstance(address, (IPv4Address, TwistedIPv6Address)):
        return unwrapped(address.host)
    return ""


class Trust:
    """Which peers are proxies of ours.

    :param networks: CIDR networks; peers on a UNIX socket are trusted where
        ``unix`` is among them.
    """

    log = Logger()

    def __init__(self, networks: Iterable[str] = ()) -> None:
        named = list(networks)
        self._unix = "unix" in named
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(network, strict=False) for network in named if network != "unix"
        ]
        self._warned = False
        self._known: dict[str, Visitor] = {}

    def visitor_without_proxy(self, peer: str) -> Visitor:
        """What to believe of requests from ``peer`` that carry no such fields: made once for
        all of a peer's connections."""
        visitor = self._known.get(peer)
        if visitor is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            visitor = self._known[peer] = self.visitor(peer, {})
        return visitor

    def trusts(self, host: str) -> bool:
        """Whether a peer's word counts."""
        if not self._networks and not self._unix:
            return False
        if not host:
            return self._unix
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

    def visitor(self, peer: str, forwarding: dict[bytes, list[bytes]]) -> Visitor:
        """What to believe of a request from ``peer`` that carries these fields."""
        if not self.trusts(peer):
            if not self._warned and forwarding.keys() - {b"x-request-id", b"exposr-via"}:
                self._warned = True
                self.log.warn(
                    "A peer that is no trusted proxy sends {names}; they are replaced. "
                    "Name your proxy's network with --trusted-proxy if it should be believed.",
                    event="untrusted-forwarding",
                    peer=peer,
                    names=", ".join(sorted(n.decode("ascii") for n in forwarding)),
                )
            # The loop mark counts from everybody: it holds an id that nobody else can know.
            return Visitor(peer, peer, via=b",".join(forwarding.get(b"exposr-via", [])))
        forwarded = b", ".join(forwarding.get(b"forwarded", []))
        said = self._said(forwarded)
        chain = b", ".join(forwarding.get(b"x-forwarded-for", []))
        request_ids = forwarding.get(b"x-request-id", [])
        host = said.get("host", "").encode("latin-1") or _first(forwarding, b"x-forwarded-host")
        return Visitor(
            self._rightmost_untrusted(chain.decode("latin-1").split(","), peer),
            peer,
            scheme=self._scheme(said, forwarding),
            authority=host if host and _AUTHORITY.fullmatch(host) else None,
            port=_port(_first(forwarding, b"x-forwarded-port")),
            chain=chain,
            forwarded=forwarded,
            via=b",".join(forwarding.get(b"exposr-via", [])),
            request_id=request_ids[0] if len(request_ids) == 1 else None,
        )

    @staticmethod
    def _said(forwarded: bytes) -> dict[str, str]:
        """The last element of ``Forwarded`` (RFC 7239): the one that our own proxy added."""
        last = forwarded.decode("latin-1").rpartition(",")[2]
        return {key.lower(): value.strip('"') for key, value in _PAIR.findall(last)}

    @staticmethod
    def _scheme(said: dict[str, str], forwarding: dict[bytes, list[bytes]]) -> str | None:
        for candidate in (
            said.get("proto", ""),
            (_first(forwarding, b"x-forwarded-proto") or b"").decode("latin-1"),
            (_first(forwarding, b"x-scheme") or b"").decode("latin-1"),
        ):
            if candidate.lower() in ("http", "https"):
                return candidate.lower()
        return None

    def _rightmost_untrusted(self, chain: list[str], peer: str) -> str:
        """The visitor's address in ``X-Forwarded-For``: what is left of it anybody can write."""
        found = peer
        for candidate in reversed(chain):
            text = candidate.strip()
            if node := _NODE.fullmatch(text):
                text = node[1] or node[2]
            try:
                address = ip_address(text)
            except ValueError:
                break
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            found = str(mapped or address)
            if not self.trusts(found):
                break
        return found


def _first(forwarding: dict[bytes, list[bytes]], name: bytes) -> bytes | None:
    values = forwarding.get(name)
    return values[0].partition(b",")[0].strip() if values else None


def _port(value: bytes | None) -> bytes | None:
    return value if value and _PORT.fullmatch(value) and 0 < int(value) < 65536 else None
