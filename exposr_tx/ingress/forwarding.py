"""The heads that ingress writes: a request's for the target, a response's for the visitor.

Both are written anew from what the parser read. Requests get the fields that
tell the target of its visitor; where the target gets another Host than the
visitor wrote, Origin, Referer and Destination are brought to that name, and
Location, Content-Location and cookie domains back to the public one.
"""

from __future__ import annotations

import re
from typing import Final

from exposr_tx.addresses import DEFAULT_PORTS
from exposr_tx.ingress.trust import Visitor
from exposr_tx.interfaces import VirtualHost
from exposr_tx.wire.http1 import Fields, Request, Response, field_lines

__all__ = ["RequestWriter", "response_head"]

#: Visitors of whom the lines that tell of them are kept; some 400 bytes each.
MAX_KNOWN: Final = 4096

_URL: Final = re.compile(rb"(https?)://([^/?#]*)", re.IGNORECASE)
_DOMAIN: Final = re.compile(
    rb"(;[ \t]*domain[ \t]*=[ \t]*)\.?([^;]*?)([ \t]*(?:;|\Z))", re.IGNORECASE
)
_MOVING: Final = frozenset([b"MOVE", b"COPY"])
#: Names of one place. Some targets write an address of their own, whatever Host they get.
_LOOPBACK: Final = (b"localhost", b"127.0.0.1", b"[::1]")
_DEFAULT_PORTS: Final = {
    scheme.encode(): str(port).encode() for scheme, port in DEFAULT_PORTS.items()
}


def without_default_port(scheme: bytes, authority: bytes) -> bytes:
    """An authority in lower case, without the port that goes without saying."""
    host, colon, port = authority.lower().rpartition(b":")
    if colon and port.isdigit() and _DEFAULT_PORTS.get(scheme) == port:
        return host
    return authority.lower()


class RequestWriter:
    """Writes heads for targets.

    :param node_id: this server's name in ``exposr-via``; unguessable.
    :param scheme: the scheme of the public URLs, for ``X-Forwarded-Proto``.
    """

    def __init__(self, node_id: bytes, scheme: bytes) -> None:
        self._node_id = node_id
        self._scheme = scheme
        self._known: dict[tuple[str, bytes], bytes] = {}

    def looped(self, visitor: Visitor) -> bool:
        """Whether a request has been through this node before."""
        return bool(visitor.via) and self._node_id in visitor.via.replace(b" ", b"").split(b",")

    def about_peer(self, peer: Visitor, authority: bytes) -> bytes:
        """The same of a visitor that no proxy speaks for: made once for all its connections."""
        lines = self._known.get((peer.ip, authority))
        if lines is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            lines = self._known[peer.ip, authority] = self.about(peer, authority)
        return lines

    def about(self, visitor: Visitor, authority: bytes) -> bytes:
        """The lines that tell a target of its visitor; the same for a connection's whole life
        unless a proxy speaks for many visitors."""
        scheme = visitor.scheme.encode() if visitor.scheme else self._scheme
        host = without_default_port(scheme, visitor.asked(authority))
        ip, peer = visitor.ip.encode(), visitor.peer.encode()
        port = visitor.port or (
            host.rpartition(b":")[2] if b":" in host.rpartition(b"]")[2] else b""
        )
        node = b'"[%b]"' % peer if b":" in peer else peer
        element = b"by=_exposr;for=%b;host=%b;proto=%b" % (
            node or b"unknown",
            b'"%b"' % host if b":" in host else host,
            scheme,
        )
        # Who comes by a UNIX socket has no address.
        chain = b", ".join(filter(None, (visitor.chain, peer)))
        lines = [
            b"X-Forwarded-For: %b\r\n" % chain if chain else b"",
            b"X-Real-IP: %b\r\n" % ip if ip else b"",
            b"X-Forwarded-Host: %b\r\n" % host,
            b"X-Forwarded-Port: %b\r\n" % port if port else b"",
            b"X-Forwarded-Proto: %b\r\n" % scheme,
            b"Forwarded: %b\r\n"
            % (b"%b, %b" % (visitor.forwarded, element) if visitor.forwarded else element),
            b"Exposr-Via: %b\r\n"
            % (b"%b,%b" % (self._node_id, visitor.via) if visitor.via else self._node_id),
        ]
        return b"".join(lines)

    def head(self, request: Request, vhost: VirtualHost | None, about: bytes) -> bytes:
        """A request's head for the target, all but its end; ``vhost`` None is our own API."""
        host, lines = request.authority, b""
        if vhost is not None:
            if vhost.host_header is not None:
                host = vhost.host_header
            if request.referring and (vhost.host_header is not None or request.method in _MOVING):
                lines = field_lines(_referred(request, vhost, host)) + request.framing()
        if not lines:
            lines = request.lines()
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b" % (
            request.method,
            request.target,
            host,
            lines,
            about,
        )


def _own_scheme(vhost: VirtualHost) -> bytes:
    """The scheme by which the target is asked, as far as it knows."""
    return vhost.target[0] if vhost.target is not None else b"http"


def _referred(request: Request, vhost: VirtualHost, host: bytes) -> Fields:
    """Bring what names the public host to the target's, as it is known by ``host``.

    Where that is the visitor's own, only Destination (RFC 4918, section 10.3): it must be a URL of
    the target, which does not know of TLS in front of it; Origin may be compared with
    X-Forwarded-Proto.
    """
    fields = list(request.fields)
    for index in request.referring:
        name, value = fields[index]
        matched = _URL.match(value)
        if matched is None or (vhost.host_header is None and name.lower() != b"destination"):
            continue
        scheme = matched[1].lower()
        if without_default_port(scheme, matched[2]) == without_default_port(
            scheme, request.authority
        ):
            rest = value[matched.end() :]
            fields[index] = (name, b"%b://%b%b" % (_own_scheme(vhost), host, rest))
    return fields


def _located(response: Response, request: Request, vhost: VirtualHost) -> Fields:
    """Bring what names the target back to the public URL.

    A target calls itself by the Host that it gets, some with the port that they listen at; and by
    its own scheme or, where it believes X-Forwarded-Proto, by the public one. But from its own
    scheme to the public one, and to the same place: that is a target which believes nobody and
    wants TLS to itself. Its visitor would go round in circles.
    """
    fields = list(response.fields)
    own_scheme, host = _own_scheme(vhost), vhost.host_header or request.authority
    public_scheme, public = vhost.public[0], vhost.public[1] if vhost.host_header else host
    for index in response.locating:
        name, value = fields[index]
        if name.lower() == b"set-cookie":
            fields[index] = (name, _public_cookie(value, host, public))
            continue
        matched = _URL.match(value)
        if matched is None:
            continue
        scheme, rest = matched[1].lower(), value[matched.end() :]
        if scheme not in (own_scheme, public_scheme):
            continue
        if scheme != own_scheme and (rest or b"/") == request.target:
            continue
        if without_default_port(scheme, matched[2]) in _names(scheme, host, vhost):
            fields[index] = (name, b"%b://%b%b" % (public_scheme, public, rest))
    return fields


def _names(scheme: bytes, host: bytes, vhost: VirtualHost) -> tuple[bytes, ...]:
    """What the target may call itself, given that it gets ``host``."""
    own = without_default_port(scheme, host)
    if vhost.target is None:
        return (own,)
    port, name = vhost.target[1][len(_without_port(vhost.target[1])) :], _without_port(own)
    return own, *(each + port for each in (_LOOPBACK if name in _LOOPBACK else (name,)))


def _without_port(authority: bytes) -> bytes:
    host, colon, port = authority.rpartition(b":")
    return host if colon and b"]" not in port else authority


def _public_cookie(cookie: bytes, own: bytes, public: bytes) -> bytes:
    host, named = _without_port(own).lower(), _without_port(public)

    def replaced(matched: re.Match[bytes]) -> bytes:
        return matched[1] + named + matched[3] if matched[2].lower() == host else matched[0]

    return _DOMAIN.sub(replaced, cookie)


def response_head(
    response: Response,
    request: Request,
    vhost: VirtualHost | None,
    *,
    chunked: bool,
    close: bool,
) -> bytes:
    """A response's head for the visitor.

    :param request: what it answers.
    :param chunked: whether the body goes out in chunks.
    :param close: whether the connection ends with this response.
    """
    if response.locating and vhost is not None:
        located = _located(response, request, vhost)
        return response.head_with(located, chunked=chunked, close=close)
    return response.head(chunked=chunked, close=close)
