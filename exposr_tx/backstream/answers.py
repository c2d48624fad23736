"""What ``backstream client`` says of each response where its server is one of ours.

There streams carry HTTP as it is, and messages, of which it would speak otherwise,
there are none. A watcher of recordings: it sees what passes and changes nothing.
"""

from __future__ import annotations

import re
from typing import Final

from exposr_tx.backstream.log import Log, path_of
from exposr_tx.inspection.exchanges import Exchange, Watcher

__all__ = ["Answers"]

_ID: Final = re.compile(rb"\r\nx-request-id: ([^\r]*)\r\n", re.IGNORECASE)


class Answers(Watcher):
    """Lines as scripts know them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._said: set[str] = set()  # of those that run: whose response has begun

    def __repr__(self) -> str:
        return f"<Answers {len(self._said)} running>"

    def changed(self, exchange: Exchange) -> None:
        """See the base class."""
        if exchange.id not in self._said:
            self._said.add(exchange.id)
            self._say(exchange)

    def ended(self, exchange: Exchange) -> None:
        """See the base class."""
        if exchange.id in self._said:
            self._said.remove(exchange.id)
        elif exchange.response is not None:
            self._say(exchange)

    def _say(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        raw = exchange.request.raw
        method, target, _ = raw.split(b" ", 2)
        id = _ID.search(raw)
        self._log.answering(
            id[1] if id else b"",
            exchange.response.status,
            path_of(target),
            method,
        )
