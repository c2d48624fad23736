"""The project's interfaces, and the frozen values that appear in them.

Rooms know each other through these only; the objects meet in
``tap.makeService`` and in the client script, by constructor arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory

__all__ = [
    "CloseCode",
    "Connection",
    "Decision",
    "IAccessLog",
    "IAdmission",
    "IPolicy",
    "IReusable",
    "IRoutes",
    "IStorage",
    "ITakeover",
    "IUpstream",
    "Origin",
    "Question",
    "Record",
    "Tls",
    "VirtualHost",
]


@dataclass(frozen=True, slots=True)
class Tls:
    """That a visitor came over TLS, and how; empty where that is not known.

    :ivar sni: the server name that he asked for.
    :ivar version: as ``"TLSv1.3"``.
    """

    sni: str = ""
    version: str = ""


@dataclass(slots=True)
class Question:
    """What a policy is asked about: a visitor's request, or a client that wants to connect. Not to
    be changed; not frozen only because that takes twice as long to make.

    :ivar target: the request's target as it is forwarded; empty where there is no head (TCP).
    :ivar fields: the header fields as they are forwarded, in their spelling; without Host.
    :ivar host: the host asked for: lower-case, no port, no trailing dot.
    :ivar remote_port: 0 where it is not known, behind a proxy.
    :ivar account: the number of the tunnel's account. A secret.
    :ivar transport: ``"http"``, ``"websocket"`` (a visitor's upgrade, or a client) or ``"tcp"``.
    """

    method: str
    target: bytes = field(repr=False)
    fields: Sequence[tuple[bytes, bytes]] = field(repr=False)
    host: str = ""
    remote_ip: str = ""
    remote_port: int = 0
    scheme: str = "http"
    tunnel: str = ""
    account: str = field(default="", repr=False)
    transport: str = "http"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy has decided.

    :ivar outcome: ``"allowed"``; ``"denied"``; and what is denied because there is no answer:
        ``"undefined"`` (no such package), ``"error"`` (the evaluation failed, or its result is
        no decision) and ``"timeout"``.
    :ivar status: the HTTP status of a denial.
    :ivar reason: a sentence for whoever is denied.
    :ivar headers: fields for the denial.
    :ivar set_request_headers: fields that an allowed request gets, in place of its own.
    :ivar unset_request_headers: names of fields that an allowed request loses.
    """

    outcome: str
    status: int = 403
    reason: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    set_request_headers: tuple[tuple[bytes, bytes], ...] = ()
    unset_request_headers: tuple[bytes, ...] = ()

    @property
    def allow(self) -> bool:
        return self.outcome == "allowed"

    @property
    def client_status(self) -> int:
        """The status for a client: that there is no answer is the server's fault there
        (protocols/backstream.md section 6)."""
        return self.status if self.outcome == "denied" else 500


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stream comes from: what ingress knows of the visitor.

    :ivar kind: ``"http"``, ``"tcp"``, ``"tls"`` or ``"api"``.
    :ivar peer: the visitor's address, as told by trusted proxies.
    :ivar base_url: ``scheme://host[:port]`` as the visitor wrote it; empty
        where the traffic has no such thing.
    :ivar host: the server's address that the visitor reached; None where it is not known.
    :ivar tls: None where the visitor came without TLS, or that is not known.
    :ivar asked: a client's request to connect, where policies are asked about clients.
    """

    kind: str
    peer: IAddress
    base_url: str = ""
    host: IAddress | None = None
    tls: Tls | None = None
    asked: Question | None = None


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """What HTTP ingress must know of a tunnel to forward a request to it.

    :ivar tunnel_id: whose streams to use.
    :ivar enabled: whether the tunnel takes HTTP at all.
    :ivar host_header: the Host that the target gets; None keeps the visitor's.
    :ivar target: ``(scheme, authority)`` of an ``http`` or ``https`` target,
        lower-case, default port left out; None where it is something else.
    :ivar public: ``(scheme, authority)`` of the tunnel's public URL.
    :ivar policy: the package that decides on its visitors; empty for the server's own.
    :ivar account: the number of the tunnel's account. A secret.
    """

    tunnel_id: str
    enabled: bool
    host_header: bytes | None
    target: tuple[bytes, bytes] | None
    public: tuple[bytes, bytes]
    policy: str = ""
    account: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """The live state of a tunnel's connections. Times are epoch milliseconds."""

    connections: int = 0
    connected_at: int | None = None
    disconnected_at: int | None = None
    alive_at: int | None = None

    @property
    def connected(self) -> bool:
        return self.connections > 0


@dataclass(frozen=True, slots=True)
class Record:
    """A stored value and the version it has, for compare-and-set."""

    value: Mapping[str, Any]
    version: int


class CloseCode:
    """Why a websocket is closed, as :meth:`IUpstream.close` is told it (RFC 6455 section 7.4.1)."""

    NORMAL: Final = 1000
    GOING_AWAY: Final = 1001
    PROTOCOL_ERROR: Final = 1002
    #: Not said, but what stands for a connection that ends without a close frame.
    ABNORMAL: Final = 1006
    #: Tells a client not to come back by itself.
    POLICY_VIOLATION: Final = 1008
    TOO_BIG: Final = 1009
    INTERNAL_ERROR: Final = 1011


class IUpstream(Interface):
    """One way to a tunnel's targets: a connected client, another node, a site in this process."""

    tunnel_id: str = Attribute("whose streams it carries")
    alive_at: int = Attribute("epoch milliseconds when something was last heard from it")
    accepting: bool = Attribute("whether it may be chosen for new streams")

    def connect(factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Open a stream and run a protocol of the factory's on it.

        Errbacks with TargetRefused, TargetFailed, StreamLimit or UpstreamGone.
        A cancelled Deferred leaves no stream behind.
        """

    def probe() -> Deferred[bool]:
        """Ask for a sign of life: True when it answered within a second."""

    def close(code: int, reason: str) -> None:
        """End the connection, with all its streams; the CloseCode and the reason say why."""


class IReusable(Interface):
    """A protocol that keeps its stream for further use. Optional for protocols on streams."""

    def end_idle() -> None:
        """There will be no further use: close the stream, unless something runs on it."""


class IRoutes(Interface):
    """From a host to a tunnel, and from a tunnel to one of its upstreams."""

    def virtual_host(host: str) -> VirtualHost | Deferred[VirtualHost] | None:
        """The tunnel that a host names; None where ingress does not claim the host.

        :param host: lower-case, without port and trailing dot.
        Raises, or errbacks with, TunnelNotFound.
        """

    def choose(tunnel_id: str) -> IUpstream:
        """The upstream for a new stream, round robin; raises TunnelNotConnected."""


class IStorage(Interface):
    """Records in tables, by key, with compare-and-set. Values are JSON objects.

    Every method errbacks with StorageUnavailable when the store does not answer.
    """

    def get(table: str, key: str) -> Deferred[Record | None]:
        """The record, or None."""

    def put(table: str, key: str, value: Mapping[str, Any], version: int | None) -> Deferred[int]:
        """Store a value; the Deferred fires with its new version.

        :param version: the version that is there now; None for "no record yet".
        Errbacks with Conflict when that is not so.
        """

    def delete(table: str, key: str, version: int | None) -> Deferred[bool]:
        """Remove a record; False when there was none. None removes any version;
        otherwise errbacks with Conflict when another one is there."""

    def list(table: str, after: str, count: int) -> Deferred[list[tuple[str, Record]]]:
        """Up to ``count`` records with keys greater than ``after``, in the order of their keys."""

    def close() -> Deferred[None]:
        """Write what is pending and let go of the store."""


class IAdmission(Interface):
    """Decides which client connections a server takes."""

    def admit(tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        """Check a transport token and replace it by a new one.

        :param origin: who shows it.
        Errbacks with NoToken, PermissionDenied or TunnelNotFound (all told to
        the outside as 401), TooManyFailures, StorageUnavailable or Draining.
        """

    def plug(upstream: IUpstream) -> Deferred[None]:
        """Take an admitted upstream into service; errbacks with TooManyConnections."""

    def unplug(upstream: IUpstream, clean: bool) -> None:
        """The upstream is gone."""


class ITakeover(Interface):
    """Takes a visitor's whole connection over when a request asks for it:
    the websocket transport."""

    def claims(path: bytes) -> bool:
        """Whether an upgrade request for this path is ours."""

    def admit(
        target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin
    ) -> Deferred[IProtocol]:
        """The protocol to hand the connection to, which is then fed the request's head.

        :param target: the request target, with its query.
        :param fields: the header fields, names in lower case.
        Errbacks with an ExposrError that the visitor gets as JSON.
        """


class IPolicy(Interface):
    """The operator's rules on who may do what. What they do not allow is denied."""

    packages: Collection[str] = Attribute("names of the packages that are loaded")

    def decide(package: str, question: Question) -> Decision | Deferred[Decision]:
        """What a package says. It always has an answer: the Deferred does not errback, and fires
        within the time that there is to decide.

        :param package: as ``"auth.server"`` for visitors, ``"auth.client"`` for clients.
        """


class IAccessLog(Interface):
    """Where finished requests are written down."""

    def write(
        method: bytes,
        host: bytes,
        path: bytes,
        status: int,
        bytes_in: int,
        bytes_out: int,
        first_byte_ms: float,
        last_byte_ms: float,
        tunnel: bytes,
        request_id: bytes,
    ) -> None:
        """One request: ``path`` without its query; times since the request's head was complete."""
