"""The server's REST API as the client calls it.

Works against this project's server and the existing exposrd (protocol page A
and B): accounts, their token, and tunnels. Every call has five seconds.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from exposr_tx.client.trust import Trust, https_policy
from exposr_tx.errors import ExposrError
from exposr_tx.wire.native import SUBPROTOCOL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory

__all__ = [
    "AccountRefused",
    "NotTrusted",
    "RegistrationClosed",
    "RestClient",
    "ServerRefusal",
    "ServerUnreachable",
    "Tunnel",
    "TunnelTaken",
    "http_client",
    "unreachable",
]

#: Seconds for a call, its body included (protocol page B.1).
TIMEOUT = 5.0
#: An answer larger than this is not the API's.
LONGEST_ANSWER = 8 * 1024 * 1024
UNKNOWN_ACCOUNT = (
    "the server does not know the account (PERMISSION_DENIED); give one that it knows with "
    "--account, or register one with: exposr account create"
)
#: What a proxy in front of the server says when there is no server behind it.
GATEWAY_STATUSES = frozenset({429, 502, 503, 504})


class ServerUnreachable(ExposrError):
    """The server does not answer, or a gateway in front of it says so."""


class NotTrusted(ServerUnreachable):
    """The server's certificate is not one that we trust."""


class AccountRefused(ExposrError):
    """The server does not know the account, or what it asks for is not the account's."""

    code, status = "PERMISSION_DENIED", 401


class TunnelTaken(ExposrError):
    """The tunnel is somebody else's."""

    code, status = "PERMISSION_DENIED", 403


class RegistrationClosed(ExposrError):
    """The server does not let clients register accounts."""

    status = 404


class ServerRefusal(ExposrError):
    """The server answered with an error.

    :ivar error_code: the API's code, or empty.
    :ivar http_status: the answer's status.
    :ivar detail: what the answer says besides.
    """

    def __init__(self, message: str, error_code: str, http_status: int, detail: str) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.http_status = http_status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel as the server tells it: its JSON, read with care.

    Members may be missing (protocol page A.4).
    """

    json: Mapping[str, Any]

    def part(self, *names: str) -> Any:
        """A member of a member …, or None."""
        value: Any = self.json
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    @property
    def tunnel_id(self) -> str:
        return str(self.part("id") or "")

    @property
    def websocket_url(self) -> str:
        """Where a client connects, token included; empty where there is none."""
        return str(self.part("transport", "ws", "url") or "")

    @property
    def speaks_native(self) -> bool:
        """Whether the server knows the native dialect."""
        protocols = self.part("transport", "ws", "protocols")
        return isinstance(protocols, list) and SUBPROTOCOL in protocols

    @property
    def max_connections(self) -> int:
        value = self.part("transport", "max_connections")
        return value if isinstance(value, int) and value > 0 else 1

    @property
    def target_url(self) -> str:
        return str(self.part("target", "url") or "")

    @property
    def runs_tcp(self) -> bool:
        """Whether the server offers TCP ingress, which exposrd does not know."""
        return isinstance(self.part("ingress", "tcp"), dict)

    @property
    def host_header(self) -> str:
        """What the target gets as its Host; empty where the server does not say."""
        return str(self.part("ingress", "http", "host_header") or "")

    def ingress_urls(self) -> list[tuple[str, str]]:
        """Public URLs with the name of their ingress, as ``("HTTP", "http://…")``."""
        found = []
        for kind in ("http", "sni", "tcp"):
            ingress = self.part("ingress", kind)
            if not isinstance(ingress, dict) or ingress.get("enabled") is False:
                continue
            urls = ingress.get("urls") or [ingress.get("url")]
            found += [(kind.upper(), str(url)) for url in urls if url]
        return found


@implementer(IBodyProducer)
class Body:
    """A small body, sent at once. Twisted's own takes turns of the installed reactor."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is sent."""

    def resumeProducing(self) -> None:
        """It is sent."""

    def stopProducing(self) -> None:
        """It is sent."""


def _body(data: Any) -> IBodyProducer:
    return Body(data) if isinstance(data, bytes) else IBodyProducer(data)


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Where calls go. In other people's programs they leave no lines in the log."""

    def __init__(
        self, trust: Trust, connector: Callable[[str, int], IStreamClientEndpoint]
    ) -> None:
        self._policy = https_policy(trust)
        self._connector = connector

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = self._connector(uri.host.decode("ascii").strip("[]"), uri.port)
        if uri.scheme == b"https":
            creator = self._policy.creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(creator, endpoint)
        return Quiet(endpoint)


@implementer(IStreamClientEndpoint)
class Quiet:
    """Connects without "Starting factory" and "Stopping factory"."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if isinstance(protocolFactory, Factory):
            protocolFactory.noisy = False
        return self._endpoint.connect(protocolFactory)


def http_client(
    reactor: Any,
    trust: Trust,
    connector: Callable[[str, int], IStreamClientEndpoint] | None = None,
) -> HTTPClient:
    """What :class:`RestClient` makes its calls with.

    :param connector: makes the endpoint for a host and a port, without TLS;
        the reactor's connections unless given.
    """
    if trust.ca_file is not None:
        trust.roots()  # a bad file is told before the first call

    def by_name(host: str, port: int) -> IStreamClientEndpoint:
        return HostnameEndpoint(reactor, host, port, timeout=TIMEOUT)

    agent: Any = Agent.usingEndpointFactory(reactor, Endpoints(trust, connector or by_name))
    return HTTPClient(agent, data_to_body_producer=_body)


class RestClient:
    """Calls of one server for one account.

    :param server: the base URL; what stands in its path is kept.
    :param clock: times the calls out.
    :param agent: the User-Agent.
    :ivar account: the account number, empty until one is known.
    """

    def __init__(self, server: str, http: HTTPClient, clock: Any, agent: str = "exposr-tx") -> None:
        self.server = server if server.endswith("/") else server + "/"
        self.account = ""
        self._http = http
        self._clock = clock
        self._agent = agent
        self._token = ""

    def __repr__(self) -> str:
        return f"<RestClient {self.server}>"

    # Accounts

    async def create_account(self) -> str:
        """Register an account; gives its number in groups of four and uses it from now on."""
        try:
            answer = await self._call("POST", "v1/account", {})
        except ServerRefusal as refusal:
            if refusal.http_status not in (403, 404, 405):
                raise
            raise RegistrationClosed(
                f"the server {self.server} does not register accounts; ask its operator for an "
                "account (exposr admin account create --storage-url …) and give it with "
                "--account, or have the server started with --allow-registration"
            ) from None
        number, shown = answer.get("account_id"), answer.get("account_id_hr")
        if not isinstance(number, str):
            raise self._not_the_api(201)
        self.use(number)
        return str(shown or number)

    def use(self, account: str) -> None:
        """Make all further calls as this account."""
        self.account, self._token = account, ""

    async def authorise(self) -> None:
        """Ask for the account's token; raises AccountRefused where the server does not know it."""
        try:
            answer = await self._call("GET", f"v1/account/{quote(self.account, safe='')}/token")
        except TunnelTaken:
            raise AccountRefused(UNKNOWN_ACCOUNT) from None
        token = answer.get("token")
        if not isinstance(token, str) or not token:
            raise self._not_the_api(201)
        self._token = token

    # Tunnels

    async def read(self, tunnel_id: str) -> Tunnel:
        """The tunnel with a token that connects once."""
        return Tunnel(await self._authorised("GET", _tunnel(tunnel_id)))

    async def create(self, tunnel_id: str) -> Tunnel:
        """Make the tunnel, or read it where it exists."""
        return Tunnel(await self._authorised("PUT", _tunnel(tunnel_id), {}))

    async def patch(self, tunnel_id: str, body: Mapping[str, Any]) -> Tunnel:
        """Change what ``body`` holds."""
        return Tunnel(await self._authorised("PATCH", _tunnel(tunnel_id), body))

    async def delete(self, tunnel_id: str) -> None:
        await self._authorised("DELETE", _tunnel(tunnel_id))

    async def disconnect(self, tunnel_id: str) -> bool:
        """Whether no client is connected any more."""
        answer = await self._authorised("POST", _tunnel(tunnel_id) + "/disconnect", {})
        return answer.get("result") is True

    async def tunnels(self) -> list[Tunnel]:
        """All tunnels of the account; a server that has no list raises ServerRefusal."""
        found: list[Tunnel] = []
        cursor = ""
        while True:
            query = f"?cursor={quote(cursor, safe='')}" if cursor else ""
            answer = await self._authorised("GET", "v1/tunnel" + query)
            found += [
                Tunnel(item) for item in answer.get("tunnels") or () if isinstance(item, dict)
            ]
            following = answer.get("cursor")
            if not isinstance(following, str) or not following or following == cursor:
                return found
            cursor = following

    async def is_ours(self, tunnel: Tunnel) -> bool:
        """Whether the server is this project's and knows more settings than exposrd.

        What an exposrd does not know is not to be sent to it, so this asks for
        something that it answers 404.
        """
        if tunnel.runs_tcp or tunnel.host_header:
            return True
        try:
            await self._authorised("GET", "v1/tunnel?count=1")
        except ServerRefusal:
            return False
        return True

    async def admin_tunnels(self, api_key: str, count: int, verbose: bool) -> list[Any]:
        """The first tunnels of everybody, from exposrd's administration API."""
        path = f"v1/admin/tunnel?count={count}&verbose={'true' if verbose else 'false'}"
        token = b64encode(api_key.encode()).decode("ascii")
        answer = await self._call("GET", path, token=token)
        return list(answer.get("tunnels") or ())

    # The call

    async def _authorised(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        if not self._token:
            await self.authorise()
        return await self._call(method, path, body, self._token)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str = ""
    ) -> dict[str, Any]:
        headers = {"User-Agent": self._agent, "Accept": "application/json, text/plain, */*"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        exchange = Deferred.fromCoroutine(self._exchange(method, path, headers, body))
        exchange.addTimeout(TIMEOUT, self._clock)
        try:
            status, text = await exchange
        except Exception as error:
            raise unreachable(self.server, error) from None
        return self._understand(status, text)

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        content: dict[str, Any] = {}
        if body is not None:
            content["data"] = json.dumps(body).encode("utf-8")
            headers["Content-Type"] = "application/json"
        response = await self._http.request(
            method,
            self.server + path,
            headers=Headers({name: [value] for name, value in headers.items()}),
            # A redirect would carry the token to wherever it points.
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
            **content,
        )
        pieces: list[bytes] = []
        length = 0

        def collect(data: bytes) -> None:
            nonlocal length
            length += len(data)
            if length <= LONGEST_ANSWER:
                pieces.append(data)

        await response.collect(collect)
        location = response.headers.getRawHeaders("location", [""])[0]
        if 300 <= response.code < 400:
            raise ServerRefusal(
                f"the server {self.server} answers with a redirect to {location}; "
                "give the URL it means with --server",
                "",
                response.code,
                location,
            )
        return response.code, b"".join(pieces)

    def _understand(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(text) if text else {}
        except ValueError:
            answer = None
        if 200 <= status < 300:
            if not isinstance(answer, dict):
                raise self._not_the_api(status)
            return answer
        fields = answer if isinstance(answer, dict) else {}
        code = str(fields.get("error") or "")
        detail = str(fields.get("field") or fields.get("detailed") or fields.get("details") or "")
        if status == 401:
            raise AccountRefused(UNKNOWN_ACCOUNT)
        if code == "PERMISSION_DENIED":
            raise TunnelTaken(
                "permission denied: the tunnel belongs to another account; "
                "choose another name, or give its account with --account"
            )
        if status in GATEWAY_STATUSES and code in ("", "UNKNOWN_ERROR"):
            raise ServerUnreachable(f"the server {self.server} answers {status}; try again later")
        if code == "TUNNEL_NOT_FOUND" or detail == "no_such_tunnel":
            raise ServerRefusal(
                "the account has no such tunnel (TUNNEL_NOT_FOUND)",
                "TUNNEL_NOT_FOUND",
                status,
                detail,
            )
        if detail == "ingress_administratively_disabled":
            raise ServerRefusal(
                "the server does not run this kind of ingress", code, status, detail
            )
        said = ": ".join(part for part in (code or f"HTTP status {status}", detail) if part)
        raise ServerRefusal(f"the server answers {said}", code, status, detail)

    def _not_the_api(self, status: int) -> ServerRefusal:
        return ServerRefusal(
            f"what answers at {self.server} is not an exposr server; look at --server",
            "",
            status,
            "",
        )


def unreachable(server: str, error: BaseException) -> ExposrError:
    """What went wrong with a connection to a server, in words that name a remedy."""
    if isinstance(error, ExposrError):
        return error
    reasons = [failure.value for failure in getattr(error, "reasons", ())] or [error]
    reason = reasons[0]
    if isinstance(reason, TimeoutError | CancelledError):
        said = "did not answer in time"
    elif isinstance(reason, DNSLookupError):
        said = f"cannot be found: no address for {urlsplit(server).hostname}"
    elif isinstance(reason, ConnectionLost):
        said = "closed the connection without an answer"
    elif "erif" in f"{type(reason).__name__} {reason!r}":  # OpenSSL's and service-identity's
        return NotTrusted(
            f"the certificate of the server {server} is not trusted ({reason}); "
            "name its authority with --server-ca FILE, or use --insecure-server"
        )
    elif isinstance(reason, ConnectError):
        said = f"cannot be reached: {reason}"
    else:
        said = f"cannot be reached: {type(reason).__name__}: {reason}"
    return ServerUnreachable(f"the server {server} {said}")


def _tunnel(tunnel_id: str) -> str:
    return "v1/tunnel/" + quote(tunnel_id, safe="")
