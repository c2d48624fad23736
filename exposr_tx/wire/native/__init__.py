"""The native dialect, exposr-tx.1: several frames in a message, credit, half-close, metadata.

Specified in docs/protocols/exposr-tx-1.md; the names of its sections stand as
sources in the modules here.
"""

from __future__ import annotations

from exposr_tx.wire.mux.events import Data, Reply
from exposr_tx.wire.native.codes import GoAwayCode, ResetCode
from exposr_tx.wire.native.events import (
    Attached,
    Attaching,
    Closed,
    Credited,
    Detached,
    Ended,
    Event,
    GoingAway,
    Opened,
    Pinged,
    Ponged,
    Refused,
)
from exposr_tx.wire.native.flow import (
    CONNECTION_WINDOW,
    GROWN_WINDOWS,
    MAX_HELD,
    MAX_WINDOW,
    STREAM_WINDOW,
    Flow,
)
from exposr_tx.wire.native.frames import JSON_SIZE, MESSAGE_SIZE, REASON_SIZE
from exposr_tx.wire.native.metadata import KINDS, Metadata, Tls
from exposr_tx.wire.native.mux import MAX_STREAMS, NativeMux
from exposr_tx.wire.native.negotiation import (
    DIALECT,
    DIALECT_FIELD,
    SUBPROTOCOL,
    is_native,
    offers_native,
)

__all__ = [
    "CONNECTION_WINDOW",
    "DIALECT",
    "DIALECT_FIELD",
    "GROWN_WINDOWS",
    "JSON_SIZE",
    "KINDS",
    "MAX_HELD",
    "MAX_STREAMS",
    "MAX_WINDOW",
    "MESSAGE_SIZE",
    "REASON_SIZE",
    "STREAM_WINDOW",
    "SUBPROTOCOL",
    "Attached",
    "Attaching",
    "Closed",
    "Credited",
    "Data",
    "Detached",
    "Ended",
    "Event",
    "Flow",
    "GoAwayCode",
    "GoingAway",
    "Metadata",
    "NativeMux",
    "Opened",
    "Pinged",
    "Ponged",
    "Refused",
    "Reply",
    "ResetCode",
    "Tls",
    "is_native",
    "offers_native",
]
