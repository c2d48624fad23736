"""What a session stands on: a connection that carries messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IPushProducer

__all__ = ["SHUTTING_DOWN", "Lost", "MessageConnection"]

#: What clients are told when the server stops.
SHUTTING_DOWN: Final = "Server shutting down"


@dataclass(frozen=True, slots=True)
class Lost:
    """How a connection ended.

    :ivar code: the close code; 1006 without a close frame.
    :ivar clean: whether one of the sides said goodbye.
    """

    code: int
    reason: str
    clean: bool

    @property
    def why(self) -> str:
        """The reason, for people; the code where there is none."""
        return self.reason or f"closed with code {self.code}"


class MessageConnection(Protocol):
    """What carries a session's messages: a websocket, say.

    It tells its :class:`~exposr_tx.transport.session.Session` what it receives
    (``heard``, ``message`` and its like, ``ping_received``, ``pong_received``) and
    when it is over (``lost``).
    """

    def send(self, head: bytes, payload: bytes = b"") -> None:
        """Queue one message, in two parts so that a large payload need not be copied."""

    def send_now(self, message: bytes) -> None:
        """One message that holds all there is to say for now: it need not wait for others."""

    def send_same(self, message: bytes) -> None:
        """A short message, as :meth:`send_now`, that many connections send at the same time."""

    def ping(self, payload: bytes) -> None:
        """Queue a ping; its answer is told by the session's ``pong_received``."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye and drop the connection, within a second."""

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""

    def register(self, producer: IPushProducer) -> None:
        """Pause the producer while the transport below is full."""

    def get_peer(self) -> IAddress: ...

    def get_host(self) -> IAddress: ...
