"""The client's side of a tunnel, for programs: see docs/reference/library.md.

``listen`` runs any Factory behind a public address, ``connect`` joins one with
a service; both give a :class:`PublicPort`. The names are looked up when they are
used: the script's ``--help`` imports this package too, and is to be quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exposr_tx.client.access import Access
    from exposr_tx.client.address import TunnelAddress
    from exposr_tx.client.answers import (
        AccountRefused,
        NotTrusted,
        RegistrationClosed,
        ServerRefusal,
        ServerUnreachable,
        Tunnel,
        TunnelTaken,
    )
    from exposr_tx.client.endpoint import TunnelEnded
    from exposr_tx.client.events import Events
    from exposr_tx.client.inspecting import start_inspector
    from exposr_tx.client.listening import PublicEndpoint, PublicPort
    from exposr_tx.client.publishing import connect, listen
    from exposr_tx.client.sharing import SharedConnections

__all__ = [
    "Access",
    "AccountRefused",
    "Events",
    "NotTrusted",
    "PublicEndpoint",
    "PublicPort",
    "RegistrationClosed",
    "ServerRefusal",
    "ServerUnreachable",
    "SharedConnections",
    "Tunnel",
    "TunnelAddress",
    "TunnelEnded",
    "TunnelTaken",
    "connect",
    "listen",
    "start_inspector",
]

_HOMES = {
    "Access": "access",
    "Events": "events",
    "PublicEndpoint": "listening",
    "PublicPort": "listening",
    "SharedConnections": "sharing",
    "TunnelAddress": "address",
    "TunnelEnded": "endpoint",
    "connect": "publishing",
    "listen": "publishing",
    "start_inspector": "inspecting",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES.get(name, 'answers')}")
    return getattr(home, name)
