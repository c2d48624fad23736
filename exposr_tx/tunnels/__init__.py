"""Tunnels: the frozen values, and the collection that owns them.

The data path only peeks into a dictionary here; everything else is asked for
by the API, by client connections and by the service's clock. The modules:
:mod:`~exposr_tx.tunnels.values` (what a tunnel is),
:mod:`~exposr_tx.tunnels.collection` (keeping them),
:mod:`~exposr_tx.tunnels.sightings` (when each was last connected),
:mod:`~exposr_tx.tunnels.tokens` (what clients connect with) and
:mod:`~exposr_tx.tunnels.ports` (who has which TCP port).
"""

from __future__ import annotations

from exposr_tx.tunnels.collection import Tunnels
from exposr_tx.tunnels.values import (
    Change,
    HttpIngress,
    SniIngress,
    TcpIngress,
    Tunnel,
    check_tunnel_id,
    is_tunnel_id,
)

__all__ = [
    "Change",
    "HttpIngress",
    "SniIngress",
    "TcpIngress",
    "Tunnel",
    "Tunnels",
    "check_tunnel_id",
    "is_tunnel_id",
]
