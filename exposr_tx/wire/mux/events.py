"""What happens on a multiplexed connection, and what a dialect of it is.

The vocabulary between ``wire`` and ``transport.session``: every dialect turns
messages into these events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Accepted",
    "Closed",
    "Data",
    "Dialect",
    "Event",
    "Opened",
    "Paused",
    "Rejected",
    "Reply",
    "Resumed",
]


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a channel; it is open already, its ACK stands before this event."""

    channel: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer accepted the channel that we opened."""

    channel: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The peer refused the channel that we opened."""

    channel: int
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A channel is closed by the peer; an empty reason is an ordinary end."""

    channel: int
    reason: str


@dataclass(slots=True)
class Data:
    """Bytes of a channel, as they arrived: a message may give several of these.

    Not frozen like the others, as that costs 0.3 µs for each piece of every body.
    """

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Paused:
    """The peer wants no more DATA on a channel."""

    channel: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """The peer takes DATA again."""

    channel: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A message that must be sent back, before the events after it are acted upon."""

    message: bytes


Event = Opened | Accepted | Rejected | Closed | Data | Paused | Resumed | Reply


class Dialect(Protocol):
    """What a session needs of a multiplex protocol; one object for each websocket.

    The input is either whole messages (:meth:`receive`) or messages in pieces
    (``message_begin``, any number of ``message_data``, ``message_end``). The
    output methods return the bytes of one message, raise LocalProtocolError
    where the channel's state does not allow it, and do no I/O.
    """

    @property
    def used_up(self) -> bool:
        """Whether there is no number left for another channel."""

    def receive(self, message: bytes) -> Sequence[Event]: ...

    def message_begin(self) -> None: ...

    def message_data(self, chunk: bytes) -> Sequence[Event]: ...

    def message_end(self) -> Sequence[Event]: ...

    def open(self) -> tuple[int, bytes]: ...

    def data_head(self, channel: int, size: int) -> bytes: ...

    def close(self, channel: int) -> bytes: ...

    def pause(self, channel: int) -> bytes: ...

    def resume(self, channel: int) -> bytes: ...

    def forget(self, channel: int) -> None: ...
