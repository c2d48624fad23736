"""What a tunnel is, what may be asked to change about it, and how it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from exposr_tx.errors import BadInput

__all__ = [
    "TUNNEL_ID",
    "Change",
    "HttpIngress",
    "SniIngress",
    "TcpIngress",
    "Tunnel",
    "check_tunnel_id",
    "from_json",
    "is_tunnel_id",
    "merge",
    "to_json",
]

T = TypeVar("T")

#: protocols/exposr.md I.2. Nothing is normalised: upper case is an error.
TUNNEL_ID = r"^(?:[a-z0-9]{4,63}|[a-z0-9][a-z0-9-]{4,63}[a-z0-9])$"

_TUNNEL_ID = re.compile(TUNNEL_ID[1:-1])


def is_tunnel_id(text: str) -> bool:
    """Whether a tunnel could be called so."""
    return _TUNNEL_ID.fullmatch(text) is not None


def check_tunnel_id(text: str) -> None:
    """Raises BadInput, in the words that today's clients show, when no tunnel can be called so."""
    if not is_tunnel_id(text):
        raise BadInput(
            f'"tunnel_id" with value "{text}" fails to match the required pattern: /{TUNNEL_ID}/'
        )


@dataclass(frozen=True, slots=True)
class HttpIngress:
    """HTTP by sub-domain.

    :ivar alt_names: further host names; always empty in this version.
    :ivar host_header: the Host that the target gets: ``"target"`` for its own,
        ``"preserve"`` for the visitor's, anything else literally.
    """

    enabled: bool = False
    alt_names: tuple[str, ...] = ()
    host_header: str = "target"


@dataclass(frozen=True, slots=True)
class SniIngress:
    """TLS by server name."""

    enabled: bool = False


@dataclass(frozen=True, slots=True)
class TcpIngress:
    """A raw TCP port.

    :ivar port: the tunnel's own port, kept while the tunnel lives, enabled or
        not; 0 before it has been given one.
    """

    enabled: bool = False
    port: int = 0


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel. Times are epoch milliseconds.

    :ivar account: the number of the account that owns it. A secret.
    :ivar target_url: what the client connects to; empty when there is none.
    :ivar policy: the package that decides on visitors; empty for the server's own.
    :ivar seen_at: when it was last known to be connected, else made.
    :ivar version: the stored record's.
    """

    id: str
    account: str = field(repr=False)
    created_at: int
    updated_at: int
    seen_at: int
    http: HttpIngress = HttpIngress()
    sni: SniIngress = SniIngress()
    tcp: TcpIngress = TcpIngress()
    ws_enabled: bool = False
    ssh_enabled: bool = False
    target_url: str = ""
    policy: str = ""
    version: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """What to change about a tunnel; None leaves a thing as it is.

    :ivar alt_names: ``()`` clears them.
    :ivar tcp_port: 0 leaves the choice to the server.
    :ivar target_url: ``""`` removes the target.
    :ivar policy: ``""`` goes back to the server's own.
    """

    http_enabled: bool | None = None
    alt_names: tuple[str, ...] | None = None
    host_header: str | None = None
    sni_enabled: bool | None = None
    tcp_enabled: bool | None = None
    tcp_port: int | None = None
    ws_enabled: bool | None = None
    ssh_enabled: bool | None = None
    target_url: str | None = None
    policy: str | None = None


def merge(tunnel: Tunnel, change: Change) -> Tunnel:
    """The tunnel with a change made to it; the TCP port is the collection's affair."""
    http = HttpIngress(
        _or(change.http_enabled, tunnel.http.enabled),
        _or(change.alt_names, tunnel.http.alt_names),
        _or(change.host_header, tunnel.http.host_header),
    )
    return replace(
        tunnel,
        http=http,
        sni=SniIngress(_or(change.sni_enabled, tunnel.sni.enabled)),
        tcp=TcpIngress(_or(change.tcp_enabled, tunnel.tcp.enabled), tunnel.tcp.port),
        ws_enabled=_or(change.ws_enabled, tunnel.ws_enabled),
        ssh_enabled=_or(change.ssh_enabled, tunnel.ssh_enabled),
        target_url=_or(change.target_url, tunnel.target_url),
        policy=_or(change.policy, tunnel.policy),
    )


def to_json(tunnel: Tunnel) -> dict[str, Any]:
    """The record that is stored."""
    return {
        "account": tunnel.account,
        "created_at": tunnel.created_at,
        "updated_at": tunnel.updated_at,
        "seen_at": tunnel.seen_at,
        "http": {
            "enabled": tunnel.http.enabled,
            "alt_names": list(tunnel.http.alt_names),
            "host_header": tunnel.http.host_header,
        },
        "sni": {"enabled": tunnel.sni.enabled},
        "tcp": {"enabled": tunnel.tcp.enabled, "port": tunnel.tcp.port},
        "ws_enabled": tunnel.ws_enabled,
        "ssh_enabled": tunnel.ssh_enabled,
        "target_url": tunnel.target_url,
        "policy": tunnel.policy,
    }


def from_json(tunnel_id: str, value: Mapping[str, Any], version: int) -> Tunnel:
    """The tunnel of a stored record."""
    http = value["http"]
    return Tunnel(
        id=tunnel_id,
        account=value["account"],
        created_at=value["created_at"],
        updated_at=value["updated_at"],
        seen_at=value["seen_at"],
        http=HttpIngress(http["enabled"], tuple(http["alt_names"]), http["host_header"]),
        sni=SniIngress(value["sni"]["enabled"]),
        tcp=TcpIngress(value["tcp"]["enabled"], value["tcp"]["port"]),
        ws_enabled=value["ws_enabled"],
        ssh_enabled=value["ssh_enabled"],
        target_url=value["target_url"],
        policy=value.get("policy", ""),  # records of earlier versions have none
        version=version,
    )


def _or(new: T | None, old: T) -> T:
    return old if new is None else new
