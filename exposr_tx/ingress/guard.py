"""Policies at ingress: asked before anything of a request reaches a client.

A :class:`GuardedExchange` is a :class:`~exposr_tx.ingress.tunnelled.TunnelExchange`
that asks first, a :class:`GuardedTakeover` lets a client's request to connect be
judged. Without policies neither is in the data path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import BadInput, IngressDisabled, PolicyDenied
from exposr_tx.ingress.exchange import Trailers
from exposr_tx.ingress.trust import host_text
from exposr_tx.ingress.tunnelled import TunnelExchange
from exposr_tx.interfaces import Decision, IPolicy, ITakeover, Origin, Question, VirtualHost
from exposr_tx.wire.http1 import Request
from exposr_tx.wire.http1.fields import referring

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol

    from exposr_tx.ingress.visitor import VisitorConnection
    from exposr_tx.interfaces import IRoutes

__all__ = [
    "VISITORS",
    "Guard",
    "GuardedExchange",
    "GuardedTakeover",
    "tcp_question",
    "unclear_path",
]

#: The package that decides on visitors where a tunnel has chosen none.
VISITORS: Final = "auth.server"

#: What a target may read as another path than the policy did: a slash or backslash that is
#: encoded, a backslash, an empty segment (with parameters, too: ``/;/admin``), an encoding of no
#: octet, of a control character, or longer than need be.
_UNCLEAR: Final = re.compile(
    rb"(?i)%2f|%5c|\\|/(?:/|;|%3b)|%[01]|%7f|%c[01]|%e0%[89]|%f0%8|%(?![0-9a-f]{2})"
)
#: A segment of one dot or two, with parameters or without.
_DOTS: Final = re.compile(rb"(?i)/(?:\.|%2e){1,2}(?:[;/]|%3b|\Z)")


def unclear_path(path: bytes) -> str:
    """Why a path is not to be judged; empty where it is plain."""
    if _DOTS.search(path):
        return "the path has a segment of dots"
    if _UNCLEAR.search(path):
        return "the path has a backslash, an empty segment or an encoding that is not plain"
    return ""


class Guard:
    """Makes exchanges that ask first.

    :param policy: whom to ask.
    :param raw_paths: whether paths that can be read in two ways are judged all the same.
    """

    def __init__(self, policy: IPolicy, raw_paths: bool = False) -> None:
        self.policy = policy
        self.raw_paths = raw_paths

    def exchange(
        self,
        visitor: VisitorConnection,
        request: Request,
        request_id: bytes,
        routes: IRoutes,
        found: VirtualHost | Deferred[VirtualHost],
    ) -> TunnelExchange:
        """As TunnelExchange's constructor."""
        exchange = GuardedExchange(visitor, request, request_id, routes, found)
        exchange.guard = self
        return exchange


class GuardedExchange(TunnelExchange):
    """A request that a policy decides on. Its body waits, unread, until there is a decision.

    :ivar guard: set by whoever makes it, before it begins.
    """

    guard: Guard
    _said: frozenset[bytes] = frozenset()  # names of fields of which the policy says all there is

    def _routed(self, vhost: VirtualHost) -> None:
        self._connecting = None
        self._vhost = vhost
        request, guard = self.request, self.guard
        if not vhost.enabled:
            self.refuse(IngressDisabled(vhost.tunnel_id))
            return
        # A request that comes again on its connection is the same object: so is the question.
        asked = self._visitor.asked
        if asked is None or asked[0] is not request or asked[1] is not vhost:
            if not guard.raw_paths and (why := unclear_path(request.path)):
                error = BadInput(why)
                error.detail = f"{why}; with a policy on, only plain paths are served"
                self.refuse(error)
                return
            asked = (request, vhost, question_of(self._visitor, request, vhost))
            self._visitor.asked = asked
        decision = guard.policy.decide(vhost.policy or VISITORS, asked[2])
        if isinstance(decision, Decision):
            self._decided(decision)
            return
        self._connecting = decision
        decision.addBoth(self._answered)

    def _answered(self, decision: Decision | Failure) -> None:
        """Each callback of a Deferred costs 2 µs: this is the only one."""
        if isinstance(decision, Failure):
            self._failed(decision)
            return
        try:
            self._decided(decision)
        except Exception:
            self._failed(Failure())

    def _decided(self, decision: Decision) -> None:
        self._connecting = None
        if self._gone:
            return
        if not decision.allow:
            self.refuse(PolicyDenied(decision.status, decision.reason, decision.headers))
            return
        pairs, unset = decision.set_request_headers, decision.unset_request_headers
        if pairs or unset:
            self._said = frozenset(map(_twin, (*unset, *(name for name, _ in pairs))))
            self.request = with_fields(self.request, pairs, self._said)
            self._trailers = without(self._trailers, self._said)
        assert self._vhost is not None
        super()._routed(self._vhost)

    def request_end(self, trailers: Trailers) -> None:
        super().request_end(without(trailers, self._said) if self._said else trailers)


def question_of(visitor: VisitorConnection, request: Request, vhost: VirtualHost) -> Question:
    """What a policy is asked about a request."""
    who, transport = visitor.believed(request), visitor.transport
    peer = transport.getPeer()
    fields = request.fields
    if framing := request.framing():
        said = [line.partition(b": ") for line in framing.split(b"\r\n")[:-1]]
        fields = [*fields, *((name, value) for name, _, value in said)]
    return Question(
        request.method.decode("latin-1"),
        request.target,
        fields,
        request.host.decode("latin-1"),
        who.ip,
        getattr(peer, "port", 0) if who.ip == who.peer else 0,
        who.scheme or ("https" if ISSLTransport.providedBy(transport) else "http"),
        vhost.tunnel_id,
        vhost.account,
        "websocket" if request.websocket else "http",
    )


def tcp_question(origin: Origin, tunnel_id: str, account: str) -> Question:
    """What a policy is asked about a TCP visitor, of whom only the address is known."""
    ip, port = _address(origin)
    return Question("", b"", (), "", ip, port, "tcp", tunnel_id, account, "tcp")


def _address(origin: Origin) -> tuple[str, int]:
    peer = origin.peer
    port = peer.port if isinstance(peer, IPv4Address | IPv6Address) else 0
    return host_text(peer), port


def _twin(name: bytes) -> bytes:
    """A name as CGI-like targets see it, to whom underscores stand for dashes."""
    return name.lower().replace(b"_", b"-")


def without(fields: Iterable[tuple[bytes, bytes]], names: Set[bytes]) -> Trailers:
    """Fields but for those of some names, or of their twins."""
    return tuple(pair for pair in fields if _twin(pair[0]) not in names)


def with_fields(request: Request, pairs: Trailers, names: Set[bytes]) -> Request:
    """A request with fields in place of its own of certain names."""
    fields = [*without(request.fields, names), *pairs]
    return replace(request, fields=fields, referring=referring(fields), written=[])


@implementer(ITakeover)
class GuardedTakeover:
    """The websocket transport, whose admission gets to see a client's request."""

    def __init__(self, inner: ITakeover) -> None:
        self._inner = inner

    def claims(self, path: bytes) -> bool:
        return self._inner.claims(path)

    def admit(
        self, target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin
    ) -> Deferred[IProtocol]:
        ip, port = _address(origin)
        base = urlsplit(origin.base_url)
        question = Question(
            "GET",
            # Without the query: the token in it is nobody's to judge.
            target.partition(b"?")[0],
            [*fields, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")],
            (base.hostname or "").removesuffix("."),
            ip,
            port,
            base.scheme,
            transport="websocket",
        )
        return self._inner.admit(target, fields, replace(origin, asked=question))
