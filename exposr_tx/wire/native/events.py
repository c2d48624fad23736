"""What happens on a connection that speaks the native dialect.

``Data`` and ``Reply`` are those of :mod:`exposr_tx.wire.mux.events`. A stream's
number is called *channel*, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from exposr_tx.wire.mux.events import Data, Reply
from exposr_tx.wire.native.codes import GoAwayCode, ResetCode
from exposr_tx.wire.native.metadata import Metadata

__all__ = [
    "Attached",
    "Attaching",
    "Closed",
    "Credited",
    "Detached",
    "Ended",
    "Event",
    "GoingAway",
    "Opened",
    "Pinged",
    "Ponged",
    "Refused",
]


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream; it may be written to at once, or reset."""

    channel: int
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer sends no more DATA on a stream; our half goes on."""

    channel: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer reset a stream: both halves are over.

    What came before an END is complete all the same, and is to be handed on.
    """

    channel: int
    code: ResetCode
    reason: str


@dataclass(frozen=True, slots=True)
class Credited:
    """More may be sent on a stream; channel 0 is the connection, so perhaps on any."""

    channel: int


@dataclass(frozen=True, slots=True)
class Pinged(Reply):
    """The peer pings; ``message`` is the answer, to be sent before all else."""


@dataclass(frozen=True, slots=True)
class Ponged:
    """The peer answered a ping, of these eight bytes."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The peer will close the connection: no more streams can be opened on it."""

    code: GoAwayCode
    reason: str


@dataclass(frozen=True, slots=True)
class Attaching:
    """The client asks for a further tunnel; answer with ``attached`` or ``refused``."""

    attachment: int
    tunnel_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attached:
    """The server has attached a further tunnel."""

    attachment: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The server refused to attach a further tunnel; ``error`` is a code of the REST API."""

    attachment: int
    error: str


@dataclass(frozen=True, slots=True)
class Detached:
    """The peer has detached a tunnel: no more streams are opened for it.

    :ivar code: the close code that a connection for this tunnel alone would have ended with.
    """

    attachment: int
    code: int = 1000
    reason: str = ""


Event = (
    Opened
    | Data
    | Ended
    | Closed
    | Credited
    | Pinged
    | Ponged
    | GoingAway
    | Attaching
    | Attached
    | Refused
    | Detached
    | Reply
)
