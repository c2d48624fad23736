"""What a tunnel's streams are connected to: a target as its user writes it.

A URL, ``host:port``, a port, ``unix:/path`` or any Twisted client endpoint
string becomes a :class:`Target`, and that a Twisted endpoint, which
``client/forward.py`` connects once for each stream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import idna
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)

from exposr_tx.client.named import Named
from exposr_tx.client.trust import Trust
from exposr_tx.errors import BadInput

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

__all__ = ["Target", "ascii_host", "is_host", "looks_like_target", "parse_target"]

#: Ports that need not be written, by scheme (protocol page C.10). None: must be written.
SCHEMES: dict[str, int | None] = {
    "http": 80,
    "https": 443,
    "tcp": None,
    "tls": None,
    "tcps": None,
    "ws": None,
    "wss": None,
    "ftp": 21,
    "ssh": 22,
    "telnet": 23,
    "smtp": 25,
    "pop3": 110,
    "imap": 143,
    "ldap": 389,
    "rtsp": 554,
    "mqtt": 1883,
    "mysql": 3306,
    "rdp": 3389,
    "postgres": 5432,
    "postgresql": 5432,
    "amqp": 5672,
    "vnc": 5900,
    "redis": 6379,
    "mongodb": 27017,
}
#: Seconds between the attempts at a name's addresses, also after a refusal: Twisted's 0.3 is
#: what every stream to ``localhost`` would wait where only 127.0.0.1 listens and ::1 comes first.
ATTEMPT_DELAY = 0.02
TLS_SCHEMES = frozenset({"https", "tls", "tcps", "wss"})
HTTP_SCHEMES = frozenset({"http", "https", "ws", "wss"})
#: Endpoint strings that may come from a server: those that only make a
#: connection. Others are plug-ins that may do anything, so only a user names them.
PLAIN_ENDPOINTS = frozenset({"tcp", "tcp4", "tcp6", "ssl", "tls", "unix"})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST_PORT = re.compile(r"(\[[^\]]+\]|[^:/\\=\s]+):([0-9]+)")
#: A host name; underscores are no DNS but common among containers.
_NAME = re.compile(r"(?=.{1,253}\.?$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_ENDPOINT = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.*)", re.DOTALL)
#: Characters that stand in a URI as they are; the rest is percent-encoded.
_URI_SAFE = ":/?#[]@!$&'()*+,;=%~-._"


def looks_like_target(text: str) -> bool:
    """Whether a word is a target and not a tunnel id, which holds no colon."""
    return ":" in text or (text.isascii() and text.isdigit())


@dataclass(frozen=True, slots=True)
class Target:
    """Where streams go.

    :ivar url: how the server is told, a URI.
    :ivar scheme: the URL's, ``"unix"``, or ``"endpoint"``.
    :ivar host: a name or an address without brackets; a path for ``unix``; the
        whole description for ``endpoint``.
    :ivar port: 0 where there is none.
    """

    url: str
    scheme: str
    host: str
    port: int = 0

    @property
    def is_http(self) -> bool:
        """Whether HTTP ingress is what its user expects."""
        return self.scheme in HTTP_SCHEMES or self.scheme in ("unix", "endpoint")

    @property
    def authority(self) -> str:
        """``host[:port]``, without the scheme's default port; empty where there is no host."""
        if not self.port:
            return ""
        host = f"[{self.host}]" if ":" in self.host else ascii_host(self.host)
        return host if SCHEMES.get(self.scheme) == self.port else f"{host}:{self.port}"

    def endpoint(self, reactor: Any, trust: Trust) -> IStreamClientEndpoint:
        """The Twisted endpoint; BadInput when the description makes none."""
        if self.scheme == "unix":
            return UNIXClientEndpoint(reactor, self.host)
        if self.scheme == "endpoint":
            trust.prepare()
            try:
                return clientFromString(reactor, self.host)
            except Exception as error:  # any plug-in's parser
                raise _bad(self.host, f"is no Twisted client endpoint: {error}") from None
        plain = self._plain(reactor)
        if self.scheme not in TLS_SCHEMES:
            return plain
        return trust.secured(plain, self.host)

    def _plain(self, reactor: Any) -> IStreamClientEndpoint:
        # An address needs no look-up, and its refusal no wait for another attempt.
        if isIPAddress(self.host):
            return TCP4ClientEndpoint(reactor, self.host, self.port)
        if isIPv6Address(self.host.partition("%")[0]):
            return TCP6ClientEndpoint(reactor, self.host, self.port)
        return Named(reactor, self.host, self.port, attemptDelay=ATTEMPT_DELAY)


def _bad(text: str, problem: str) -> BadInput:
    return BadInput(f"target {text!r} {problem}")


def parse_target(text: str, from_server: bool = False) -> Target:
    """Read a target as a user writes it.

    :param from_server: it comes from the tunnel's JSON and not from the user.
    Raises BadInput, which says what is missing.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return _of_host("localhost", _port(text, text))
    if match := _URL.match(text):
        return _of_url(text, match[1].lower())
    if (match := _HOST_PORT.fullmatch(text)) and match[1].lower() not in (
        SCHEMES.keys() | PLAIN_ENDPOINTS
    ):
        return _of_host(match[1].strip("[]"), _port(match[2], text))
    if match := _ENDPOINT.fullmatch(text):
        return _of_endpoint(text, match[1], match[2], from_server)
    raise _bad(text, "is not understood; write it like http://localhost:3000 or localhost:3000")


def _port(digits: str, text: str) -> int:
    if len(digits) > 5 or not 0 < int(digits) < 65536:
        raise _bad(text, "has no valid port; it must be from 1 to 65535")
    return int(digits)


def _of_host(host: str, port: int) -> Target:
    shown = f"[{host}]" if ":" in host else host
    return _of_url(f"http://{shown}:{port}/", "http")


def _of_url(text: str, scheme: str) -> Target:
    if scheme not in SCHEMES:
        raise _bad(
            text, f"has the unknown scheme {scheme!r}; use http, https, tcp, tls or unix:/path"
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _bad(text, f"is not a valid URL: {error}") from None
    if not host or not is_host(host):
        raise _bad(text, f"names no valid host; write it like {scheme}://localhost:3000")
    if port == 0:
        raise _bad(text, "has no valid port; it must be from 1 to 65535")
    port = port or SCHEMES[scheme]
    if port is None:
        raise _bad(text, f"needs a port; write it like {scheme}://{parts.netloc}:3000")
    return Target(_normal(parts, scheme), scheme, host, port)


def ascii_host(host: str) -> str:
    """A name as DNS has it; raises ValueError."""
    return idna.encode(host).decode("ascii") if not host.isascii() else host


def is_host(host: str) -> bool:
    """Whether a host can be one: an address without brackets, or a name."""
    if isIPAddress(host) or isIPv6Address(host.partition("%")[0]):
        return True
    try:
        return _NAME.fullmatch(ascii_host(host)) is not None
    except ValueError:
        return False


def _normal(parts: SplitResult, scheme: str) -> str:
    """The URL as the Node client normalises it: lower case, no default port, a path of /."""
    user, at, _ = parts.netloc.rpartition("@")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else ascii_host(host)
    port = "" if parts.port in (None, SCHEMES[scheme]) else f":{parts.port}"
    path = parts.path or ("/" if scheme in HTTP_SCHEMES else "")
    url = f"{scheme}://{user}{at}{host}{port}{path}"
    url += f"?{parts.query}" if parts.query else ""
    return quote(url, safe=_URI_SAFE)


def _of_endpoint(text: str, name: str, rest: str, from_server: bool) -> Target:
    if from_server:
        text = unquote(text)
        name, _, rest = text.partition(":")
        if name not in PLAIN_ENDPOINTS:
            raise _bad(text, "comes from the server; give such a target on the command line")
    if name == "unix" and rest.startswith("/") and "\\" not in rest and ":" not in rest:
        return Target(quote(f"unix:{rest}", safe=_URI_SAFE), "unix", rest)
    if name in SCHEMES and name not in PLAIN_ENDPOINTS:
        raise _bad(text, f"lacks its slashes; write it like {name}://localhost:3000")
    if not rest:
        raise _bad(text, "is not complete; write it like http://localhost:3000")
    return Target(quote(text, safe=_URI_SAFE.replace("%", "")), "endpoint", text)
