"""Many byte streams in the messages of one connection: events, and the dialects that make them."""

from __future__ import annotations

from exposr_tx.wire.mux.events import (
    Accepted,
    Closed,
    Data,
    Dialect,
    Event,
    Opened,
    Paused,
    Rejected,
    Reply,
    Resumed,
)
from exposr_tx.wire.mux.v2 import MAX_CHANNELS, TOLD_SIZE, MuxV2

__all__ = [
    "MAX_CHANNELS",
    "TOLD_SIZE",
    "Accepted",
    "Closed",
    "Data",
    "Dialect",
    "Event",
    "MuxV2",
    "Opened",
    "Paused",
    "Rejected",
    "Reply",
    "Resumed",
]
