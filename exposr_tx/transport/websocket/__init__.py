"""Websockets that carry sessions: the server's endpoint and the client's connection.

The only place that knows autobahn, which does the handshakes, control frames
and violations. Data frames, which are nearly all there is, are read and written
by :mod:`exposr_tx.wire.frames`, and their bytes go to the session as they
arrive: no message is gathered, but with backstream's Go programs
(:mod:`backstream`, :mod:`visitors`, :mod:`destinations`). The names are looked up
when they are used: a client does without the server's half, and the other way
round.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exposr_tx.transport.websocket.attachment import (
        AttachFailed,
        Attachment,
        AttachRefused,
        ClientConnection,
    )
    from exposr_tx.transport.websocket.backstream import (
        BackstreamEndpoint,
        JsonConnection,
        connect_backstream,
    )
    from exposr_tx.transport.websocket.carrier import Lost
    from exposr_tx.transport.websocket.client import ConnectFailed, UpgradeRefused, connect
    from exposr_tx.transport.websocket.destinations import (
        DestinationWebsocket,
        DestinationWebsockets,
    )
    from exposr_tx.transport.websocket.server import WebsocketEndpoint
    from exposr_tx.transport.websocket.settings import MAX_MESSAGE
    from exposr_tx.transport.websocket.upstream import WebsocketUpstream
    from exposr_tx.transport.websocket.visitors import VisitorWebsocket, visitor_websocket

__all__ = [
    "MAX_MESSAGE",
    "AttachFailed",
    "AttachRefused",
    "Attachment",
    "BackstreamEndpoint",
    "ClientConnection",
    "ConnectFailed",
    "DestinationWebsocket",
    "DestinationWebsockets",
    "JsonConnection",
    "Lost",
    "UpgradeRefused",
    "VisitorWebsocket",
    "WebsocketEndpoint",
    "WebsocketUpstream",
    "connect",
    "connect_backstream",
    "visitor_websocket",
]

_HOMES = {
    "BackstreamEndpoint": "backstream",
    "ConnectFailed": "client",
    "DestinationWebsocket": "destinations",
    "DestinationWebsockets": "destinations",
    "JsonConnection": "backstream",
    "Lost": "carrier",
    "MAX_MESSAGE": "settings",
    "UpgradeRefused": "client",
    "VisitorWebsocket": "visitors",
    "WebsocketEndpoint": "server",
    "WebsocketUpstream": "upstream",
    "connect": "client",
    "connect_backstream": "backstream",
    "visitor_websocket": "visitors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES.get(name, 'attachment')}")
    return getattr(home, name)
