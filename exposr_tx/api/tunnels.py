"""The API's routes of tunnels. Facts: protocols/exposr.md A.4; contract "REST"."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from exposr_tx.accounts import Account
from exposr_tx.api.answers import ConfigRefused, send_json
from exposr_tx.api.bodies import read_object
from exposr_tx.api.credentials import Credentials
from exposr_tx.api.settings import ApiSettings
from exposr_tx.api.validation import check_change, check_page
from exposr_tx.errors import BadInput
from exposr_tx.interfaces import Connection
from exposr_tx.tunnels import Change, Tunnel, Tunnels, check_tunnel_id

if TYPE_CHECKING:
    from klein import Klein
    from twisted.internet.defer import Deferred
    from twisted.web.server import Request

__all__ = ["Connections", "TunnelRoutes"]


class Connections(Protocol):
    """What the API asks about live connections, and of them."""

    def state(self, tunnel_id: str) -> Connection:
        """The connections that a tunnel has now."""

    def disconnect(self, tunnel_id: str, reason: str) -> Deferred[bool]:
        """End them; fires when they are gone, with whether they are, after 500 ms at most."""


class TunnelRoutes:
    """``/v1/tunnel`` and what is below it. What was sent is validated before who sent it."""

    def __init__(
        self,
        tunnels: Tunnels,
        connections: Connections,
        credentials: Credentials,
        settings: ApiSettings,
    ) -> None:
        self._tunnels = tunnels
        self._connections = connections
        self._credentials = credentials
        self._settings = settings

    def add_to(self, app: Klein) -> None:
        one = "/v1/tunnel/<tunnel_id>"
        app.route("/v1/tunnel", methods=["GET"])(self.list)
        app.route(one, methods=["GET"])(self.read)
        app.route(one, methods=["PUT"])(self.put)
        app.route(one, methods=["PATCH"])(self.patch)
        app.route(one, methods=["DELETE"])(self.delete)
        app.route(f"{one}/disconnect", methods=["POST"])(self.disconnect)

    async def list(self, request: Request) -> bytes:
        """The account's tunnels, in the order of their ids."""
        cursor, count = check_page(request.args or {})
        account = await self._credentials.of(request)
        tunnels, following = await self._tunnels.list(account.id, cursor, count)
        items = [self._shown(request, tunnel) for tunnel in tunnels]
        return send_json(request, 200, {"tunnels": items, "cursor": following})

    async def read(self, request: Request, tunnel_id: str) -> bytes:
        account = await self._checked(request, tunnel_id)
        return self._answer(request, await self._tunnels.get(tunnel_id, account.id))

    async def put(self, request: Request, tunnel_id: str) -> bytes:
        """Make a tunnel, or change the one that is there."""
        change, account = await self._changing(request, tunnel_id)
        return self._answer(request, await self._tunnels.put(tunnel_id, account.id, change))

    async def patch(self, request: Request, tunnel_id: str) -> bytes:
        change, account = await self._changing(request, tunnel_id)
        return self._answer(request, await self._tunnels.patch(tunnel_id, account.id, change))

    async def delete(self, request: Request, tunnel_id: str) -> bytes:
        """The id is free for others when the connections are gone."""
        account = await self._checked(request, tunnel_id)
        await self._tunnels.delete(
            tunnel_id, account.id, lambda: self._connections.disconnect(tunnel_id, "deleted")
        )
        request.setResponseCode(204)
        return b""

    async def disconnect(self, request: Request, tunnel_id: str) -> bytes:
        account = await self._checked(request, tunnel_id)
        await self._tunnels.get(tunnel_id, account.id)
        gone = await self._connections.disconnect(tunnel_id, "disconnected")
        return send_json(request, 200, {"result": gone})

    async def _checked(self, request: Request, tunnel_id: str) -> Account:
        check_tunnel_id(tunnel_id)
        return await self._credentials.of(request)

    async def _changing(self, request: Request, tunnel_id: str) -> tuple[Change, Account]:
        body = read_object(request)
        check_tunnel_id(tunnel_id)
        change = check_change(body)
        account = await self._credentials.of(request)
        if change.policy:
            self._check_policy(change.policy)
        asked = {
            "http": change.http_enabled,
            "sni": change.sni_enabled,
            "tcp": change.tcp_enabled or change.tcp_port,
        }
        if any(wanted and kind not in self._settings.ingress for kind, wanted in asked.items()):
            raise ConfigRefused("ingress_administratively_disabled")
        return change, account

    def _check_policy(self, package: str) -> None:
        if self._settings.policies is None:
            raise BadInput('"policy" must be null: the server runs without policies')
        packages = self._settings.policies()
        if package not in packages:
            names = ", ".join(sorted(packages))
            raise BadInput(f'"policy" must be null or one of [{names}]')

    def _answer(self, request: Request, tunnel: Tunnel) -> bytes:
        return send_json(request, 200, self._shown(request, tunnel))

    def _shown(self, request: Request, tunnel: Tunnel) -> dict[str, Any]:
        """A tunnel's JSON: what is not there is left out; null is the policy that is the server's
        own."""
        state = self._connections.state(tunnel.id)
        connection: dict[str, Any] = {
            "connected": state.connected,
            "connections": state.connections,
        }
        for name in ("connected_at", "disconnected_at", "alive_at"):
            time = getattr(state, name)
            if time is not None:
                connection[name] = time
        shown: dict[str, Any] = {
            "id": tunnel.id,
            "connection": connection,
            "transport": self._transport(request, tunnel),
            "ingress": self._ingress(tunnel),
            "target": {"url": tunnel.target_url} if tunnel.target_url else {},
            "created_at": _iso(tunnel.created_at),
        }
        if self._settings.policies is not None or tunnel.policy:
            shown["policy"] = tunnel.policy or None
        return shown

    def _transport(self, request: Request, tunnel: Tunnel) -> dict[str, Any]:
        transport: dict[str, Any] = {"max_connections": self._settings.max_connections}
        if "ws" in self._settings.transport:
            token = self._tunnels.token(tunnel.id)
            url = self._settings.ws_url(self._base_url(request), tunnel.id, token)
            transport["ws"] = {"enabled": tunnel.ws_enabled, "url": url}
            if self._settings.ws_protocols:
                transport["ws"]["protocols"] = [*self._settings.ws_protocols]
        return transport

    def _ingress(self, tunnel: Tunnel) -> dict[str, Any]:
        ingress: dict[str, Any] = {"http": {}, "sni": {}}
        runs = self._settings.ingress
        if "http" in runs and tunnel.http.enabled:
            url = self._settings.http_url(tunnel.id)
            ingress["http"] = {
                "enabled": True,
                "url": url,
                "urls": [url],
                "alt_names": [*tunnel.http.alt_names],
                "host_header": tunnel.http.host_header,
            }
        if "tcp" in runs:
            ingress["tcp"] = {}
            if tunnel.tcp.enabled:
                url = self._settings.tcp_url(tunnel.tcp.port)
                ingress["tcp"] = {
                    "enabled": True,
                    "port": tunnel.tcp.port,
                    "url": url,
                    "urls": [url],
                }
        return ingress

    def _base_url(self, request: Request) -> str:
        """``scheme://host[:port]`` under which the visitor reached the server."""
        origin = getattr(request.transport, "origin", None)
        base_url: str = "" if origin is None else origin.base_url
        if not base_url and not self._settings.api_url:
            raise BadInput('"host" is required')
        return base_url


def _iso(milliseconds: int) -> str:
    """``2024-02-10T10:00:00.000Z``"""
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
