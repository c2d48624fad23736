"""A stand-in for the existing exposrd 0.12, as strict and as quirky as it is (REST only)."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Request

from exposr_tx.client.rest import RestClient

ALLOWED: dict[str, Any] = {
    "ingress": {"http": {"enabled": bool, "alt_names": list}, "sni": {"enabled": bool}},
    "target": {"url": str},
    "transport": {"ws": {"enabled": bool}, "ssh": {"enabled": bool}},
}


class Exposrd(Resource):
    """A resource that answers every path.

    :ivar calls: method, path and body of each call.
    """

    isLeaf = True

    def __init__(self, registration: bool = True) -> None:
        super().__init__()
        self.registration = registration
        self.accounts: list[str] = []
        self.tunnels: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, str] = {}
        self.calls: list[str] = []

    def client(self, account: str = "") -> RestClient:
        client = RestClient("http://tun.test/prefix/", RequestTraversalAgent(self), Clock())
        if account:
            client.use(account)
        return client

    def render(self, request: Request) -> bytes:
        path = request.path.decode()
        assert path.startswith("/prefix/v1/"), path
        assert request.content is not None
        body = request.content.read().decode()
        method = request.method.decode()
        self.calls.append(f"{method} {path[8:]} {body}".rstrip())
        status, answer = self.answer(method, path[11:].split("/"), body, request)
        request.setResponseCode(status)
        if isinstance(answer, str):
            request.setHeader("content-type", "text/plain; charset=utf-8")
            return answer.encode()
        return b"" if answer is None else json.dumps(answer).encode()

    def answer(self, method: str, words: list[str], body: str, request: Request) -> tuple[int, Any]:
        if (method, words) == ("POST", ["account"]):
            if not self.registration:
                return 404, "Not Found"
            account = "CDEFHJKMNPRTVWX" + "23456789"[len(self.accounts)]
            self.accounts.append(account)
            shown = "-".join(account[i : i + 4] for i in range(0, 16, 4))
            return 201, {"account_id": account, "account_id_hr": shown}
        if method == "GET" and words[0] == "account":
            account = words[1].replace("-", "")
            if account not in self.accounts:
                return 403, {"error": "PERMISSION_DENIED"}
            return 201, {"token": b64encode(account.encode()).decode()}
        if words[0] != "tunnel" or len(words) < 2:
            return 404, "Not Found"
        return self.tunnel(method, words[1], words[2:], body, request)

    def tunnel(
        self, method: str, name: str, rest: list[str], body: str, request: Request
    ) -> tuple[int, Any]:
        change = json.loads(body) if body else {}
        if method in ("PUT", "PATCH") and (wrong := unknown(change, ALLOWED)):
            return 400, {"error": "BAD_INPUT", "field": f'"{wrong}" is not allowed'}
        header = request.getHeader("authorization") or ""
        account = b64decode(header.partition(" ")[2]).decode()
        if account not in self.accounts:
            return 401, {"error": "PERMISSION_DENIED"}
        mine = self.owners.get(name) == account
        if method == "PUT" and name not in self.tunnels:
            self.owners[name], mine = account, True
            self.tunnels[name] = {
                "id": name,
                "connection": {"connected": False, "connections": 0},
                "transport": {
                    "max_connections": 2,
                    "ws": {"enabled": False, "url": f"ws://tun.test/v1/tunnel/{name}?t=t0"},
                },
                "ingress": {"http": {}, "sni": {}},
                "target": {},
                "created_at": "2024-02-10T10:00:00.000Z",
            }
        if method in ("PUT", "PATCH"):
            if name not in self.tunnels:
                return 500, {"error": "UNKNOWN_ERROR", "detailed": "no_such_tunnel"}
            if not mine:
                return 403, {"error": "PERMISSION_DENIED"}
            names = change.get("ingress", {}).get("http", {}).get("alt_names")
            if names:  # not one has a CNAME record
                return 500, {"error": "UNKNOWN_ERROR", "detailed": ", ".join(names)}
            merge(self.tunnels[name], change)
            http = self.tunnels[name]["ingress"]["http"]
            if http.get("enabled"):
                http["url"] = f"http://{name}.tun.test/"
                http["urls"] = [http["url"]]
            return 200, self.tunnels[name]
        if not mine:
            return 404, {"error": "TUNNEL_NOT_FOUND"}
        if rest == ["disconnect"]:
            return 200, {"result": True}
        if method == "DELETE":
            del self.tunnels[name], self.owners[name]
            return 204, None
        return 200, self.tunnels[name]


def unknown(value: Any, allowed: Any) -> str:
    for key in value:
        if key not in allowed:
            return str(key)
        if isinstance(allowed[key], dict) and (found := unknown(value[key], allowed[key])):
            return f"{key}.{found}"
    return ""


def merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value
