"""Clients that take requests as JSON messages: backstream's Go program, on the server's side.

Ingress writes a request in HTTP/1.1 as to any target; :mod:`exchange` reads and gathers
it, and writes back in HTTP/1.1 what the client answers. So neither ingress nor routing
knows that there is no byte stream behind it, nor behind a visitor's websocket.
:mod:`upstream` is one such client, :mod:`clients` are all clients of one server, native
ones too.
"""

from __future__ import annotations

from exposr_tx.transport.backstream.clients import Clients
from exposr_tx.transport.backstream.upstream import QUEUE, TUNNEL, JsonUpstream

__all__ = ["QUEUE", "TUNNEL", "Clients", "JsonUpstream"]
