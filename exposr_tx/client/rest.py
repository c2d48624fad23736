"""The server's REST API as the client calls it.

Works against this project's server and the existing exposrd (protocol page A
and B): accounts, their token, and tunnels. Every call has five seconds.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.python.url import URL
from twisted.web.http_headers import Headers

import exposr_tx
from exposr_tx.bodies import Body, body_of
from exposr_tx.client.answers import (
    AccountRefused,
    RegistrationClosed,
    ServerRefusal,
    ServerUnreachable,
    Tunnel,
    TunnelTaken,
    unreachable,
)

if TYPE_CHECKING:
    from twisted.web.iweb import IAgent

__all__ = ["RestClient"]

#: Seconds for a call, its body included (protocol page B.1).
TIMEOUT = 5.0
USER_AGENT = f"exposr-tx/{exposr_tx.__version__}"
#: An answer larger than this is not the API's.
LONGEST_ANSWER = 8 * 1024 * 1024
#: How servers tell of a name that they do not take, in the words of exposrd.
_WRONG_NAME = re.compile(r'"tunnel_id" with value "(.*)" fails to match')
UNKNOWN_ACCOUNT = (
    "the server does not know the account (PERMISSION_DENIED); give one that it knows with "
    "--account, or register one with: exposr account create"
)
#: What a proxy in front of the server says when there is no server behind it.
GATEWAY_STATUSES = frozenset({429, 502, 503, 504})


class RestClient:
    """Calls of one server for one account.

    :param server: the base URL; what stands in its path is kept.
    :param http: makes them.
    :param clock: times them out.
    :ivar account: the account number, empty until one is known.
    """

    def __init__(self, server: str, http: IAgent, clock: Any) -> None:
        self.server = server if server.endswith("/") else server + "/"
        self.account = ""
        self._http = http
        self._clock = clock
        self._token = ""

    def __repr__(self) -> str:
        return f"<RestClient {self.server}>"

    # Accounts

    async def create_account(self) -> str:
        """Register an account; gives its number in groups of four and uses it from now on."""
        try:
            answer = await self._call("POST", "v1/account", {})
        except ServerRefusal as refusal:
            if refusal.error_code == "TUNNEL_NOT_FOUND":  # the host is a tunnel's, or nobody's
                raise self._not_the_api(refusal.http_status) from None
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
        except ServerRefusal as refusal:
            if refusal.http_status != 404:
                raise
            raise self._not_the_api(404) from None
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
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json, text/plain, */*"}
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
        content = None
        if body is not None:
            content = Body(json.dumps(body).encode("utf-8"))
            headers["Content-Type"] = "application/json"
        response = await self._http.request(
            method.encode("ascii"),
            self._uri(path),
            Headers({name: [value] for name, value in headers.items()}),
            content,
        )
        text = await body_of(response, LONGEST_ANSWER)
        if 300 <= response.code < 400:
            location = response.headers.getRawHeaders("location", [""])[0]
            meant = self._meant(location, path)
            raise ServerRefusal(
                f"the server {self.server} answers with a redirect to {meant}; "
                f"if that is where it is now, give --server {meant}",
                "",
                response.code,
                meant,
            )
        return response.code, text

    def _uri(self, path: str) -> bytes:
        url = URL.fromText(self.server + path)
        if ":" not in url.host:
            return url.asURI().asText().encode("ascii")
        # An address of IPv6 is no name, which asURI() takes it for.
        return url.replace(host="").asURI().replace(host=url.host).asText().encode("ascii")

    def _meant(self, location: str, path: str) -> str:
        """The server that a redirect leads to; what follows may hold the account's number."""
        url = URL.fromText(self.server + path).click(location)
        text = url.to_text()
        if text.endswith(f"/{path}"):
            return text.removesuffix(path)
        return f"{url.scheme}://{url.authority()}/"

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
                "the account has no such tunnel (TUNNEL_NOT_FOUND); make it with: exposr tunnel "
                "create, or see what there is with: exposr tunnel list",
                "TUNNEL_NOT_FOUND",
                status,
                detail,
            )
        if detail == "ingress_administratively_disabled":
            raise ServerRefusal(
                "the server does not run this kind of ingress; leave it out, or ask its operator "
                "for it (--ingress)",
                code,
                status,
                detail,
            )
        if code == "BAD_INPUT" and (wrong := _WRONG_NAME.match(detail)):
            raise ServerRefusal(
                f"{wrong[1]!r} cannot be a tunnel's name; use 4 to 63 lower-case letters and "
                "digits, or 6 to 65 with dashes between them",
                code,
                status,
                detail,
            )
        said = ": ".join(part for part in (code or f"HTTP status {status}", detail) if part)
        raise ServerRefusal(f"the server answers {said}", code, status, detail)

    def _not_the_api(self, status: int) -> ServerRefusal:
        return ServerRefusal(
            f"what answers at {self.server} is not an exposr server's API; look at --server",
            "",
            status,
            "",
        )


def _tunnel(tunnel_id: str) -> str:
    return "v1/tunnel/" + quote(tunnel_id, safe="")
