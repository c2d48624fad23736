"""What becomes of a tunnel, told to whoever wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exposr_tx.client.answers import Tunnel
    from exposr_tx.transport.connection import Lost

__all__ = ["Events"]


class Events:
    """What a program may want to know of a tunnel; does nothing unless a subclass does.

    :meth:`url` and :meth:`ended` are told by :mod:`exposr_tx.client.listening`.
    """

    def connected(self, tunnel: Tunnel, number: int, total: int) -> None:
        """Connection ``number`` of ``total`` is open."""

    def lost(self, tunnel: Tunnel, number: int, lost: Lost) -> None:
        """That connection is gone; it will be tried again."""

    def waiting(self, error: Exception, seconds: float) -> None:
        """An attempt failed and the next one is due."""

    def url(self, url: str) -> None:
        """The tunnel has a public URL that it did not have before."""

    def ended(self, error: Exception | None) -> None:
        """A tunnel that was connected is closed: because it was asked to, or by an error."""
