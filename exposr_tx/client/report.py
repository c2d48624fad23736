"""What becomes of a tunnel that a program listens at: lines for its log, and calls for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.client.events import Events
from exposr_tx.errors import ExposrError

if TYPE_CHECKING:
    from exposr_tx.client.answers import Tunnel
    from exposr_tx.transport.websocket import Lost

__all__ = ["Report"]


class Report(Events):
    """A port's events.

    :param up: called whenever a connection is open.
    :param listener: whoever else wants to know.
    """

    log = Logger()

    def __init__(self, up: Callable[[], object], listener: Events) -> None:
        self._up = up
        self._listener = listener
        self._urls: list[str] = []
        self._lost: set[int] = set()  # numbers of connections
        self._said = ""

    def connected(self, tunnel: Tunnel, number: int, total: int) -> None:
        self._said = ""
        urls = [url for _kind, url in tunnel.ingress_urls()]
        for url in urls:
            if url not in self._urls:
                self._line(tunnel, "public", "is public at {url}", url=url)
                self.tell("url", url)
        self._urls = urls
        if number in self._lost:
            self._lost.discard(number)
            self._line(tunnel, "connected", "has its connection {number} again", number=number)
        self._up()
        self.tell("connected", tunnel, number, total)

    def lost(self, tunnel: Tunnel, number: int, lost: Lost) -> None:
        self._lost.add(number)
        text = "lost its connection {number}: {reason}; connecting again"
        self._line(tunnel, "lost", text, number=number, reason=lost.why)
        self.tell("lost", tunnel, number, lost)

    def waiting(self, error: Exception, seconds: float) -> None:
        # Once for each kind of failure, not for each attempt.
        if str(error) != self._said:
            self._said = str(error)
            self.log.warn("{problem}; trying again", event="waiting", problem=self._said)
        self.tell("waiting", error, seconds)

    def ended(self, error: Exception | None) -> None:
        if isinstance(error, ExposrError):
            self.log.error("the tunnel has ended: {problem}", event="ended", problem=str(error))
        elif error is not None:
            self.log.failure("the tunnel has ended", Failure(error), event="ended")
        self.tell("ended", error)

    def _line(self, tunnel: Tunnel, event: str, text: str, **fields: object) -> None:
        self.log.info(f"tunnel {{tunnel}} {text}", event=event, tunnel=tunnel.tunnel_id, **fields)

    def tell(self, name: str, *arguments: object) -> None:
        """Call the listener's method; what it raises is its own affair."""
        try:
            getattr(self._listener, name)(*arguments)
        except Exception:
            self.log.failure("a listener's {method} failed", method=name)
