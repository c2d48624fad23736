"""What a server's REST API answers: tunnels, and refusals as errors.

Read with care, as servers of other versions leave things out (protocol page A.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
    TimeoutError,
)

from exposr_tx.errors import ExposrError
from exposr_tx.wire.native import SUBPROTOCOL

__all__ = [
    "AccountRefused",
    "NotTrusted",
    "RegistrationClosed",
    "ServerRefusal",
    "ServerUnreachable",
    "Tunnel",
    "TunnelTaken",
    "unreachable",
]


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
    elif isinstance(reason, ConnectionDone | ConnectionLost):
        said = "closed the connection without an answer"
        if server.startswith("http:"):
            said += " (if it speaks TLS, write https:)"
    elif type(reason).__name__ in ("VerificationError", "CertificateError"):  # service-identity's
        return NotTrusted(
            f"the certificate of the server {server} is not for this name ({reason}); "
            "give a name that stands in it with --server, or use --insecure-server"
        )
    elif "erif" in f"{type(reason).__name__} {reason!r}":  # OpenSSL's
        return NotTrusted(
            f"the certificate of the server {server} is not trusted ({reason}); "
            "name its authority with --server-ca FILE, or use --insecure-server"
        )
    elif type(reason).__module__.startswith("OpenSSL."):
        said = f"does not speak TLS with us: {reason} (if it speaks none at all, write http:)"
    elif isinstance(reason, ConnectError):
        said = f"cannot be reached: {reason}"
    else:
        said = f"cannot be reached: {type(reason).__name__}: {reason}"
    return ServerUnreachable(f"the server {server} {said}")
