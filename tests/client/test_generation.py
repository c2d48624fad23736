"""Which Go servers put queries into paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.generation import PROBE, TIME_LIMIT, Generation
from exposr_tx.transport.connection import Lost
from exposr_tx.transport.websocket import JsonConnection

GONE = Lost(1006, "", False)


class Socket:
    """A websocket to a server that speaks JSON."""

    def __init__(self) -> None:
        self.remoteCloseCode: int | None = None
        self.said: list[bytes | int] = []

    def send_text(self, message: bytes) -> None:
        self.said.append(message)

    def close(self, code: int, reason: str) -> None:
        self.said.append(code)


class GenerationTests(SynchronousTestCase):
    """One server, asked about at most once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connecting: list[Deferred[Any]] = []
        self.generation = Generation(self.connect, self.clock)

    def connect(self, make_reader: Callable[[Any], Any]) -> Deferred[Any]:
        self.connecting.append(Deferred())
        return self.connecting[-1]

    def test_tried_once(self) -> None:
        """A server that answers the goodbye after the probe is a newer one; all who ask are told
        by one try, and who asks later at once."""
        for code, newer in ((1000, True), (None, False)):
            self.setUp()
            asked = [self.generation.is_newer(), self.generation.is_newer()]
            websocket, lost = Socket(), Deferred[Lost]()
            self.connecting[0].callback(JsonConnection(websocket, lost))
            self.assertEqual(websocket.said, [PROBE, 1000])
            self.assertNoResult(asked[0])
            websocket.remoteCloseCode = code
            lost.callback(GONE)
            asked.append(self.generation.is_newer())
            self.assertEqual([self.successResultOf(one) for one in asked], [newer] * 3)
            self.assertEqual(len(self.connecting), 1)

    def test_unknown(self) -> None:
        """Where it cannot be found out, the server counts as an older one."""
        asked = self.generation.is_newer()
        self.connecting[0].errback(ValueError("refused"))
        self.assertFalse(self.successResultOf(asked))
        silent = Generation(self.connect, self.clock)
        asked = silent.is_newer()
        self.clock.advance(TIME_LIMIT)
        self.assertFalse(self.successResultOf(asked))

    def test_who_asked_has_gone(self) -> None:
        """One who does not wait any more keeps nobody else from being told."""
        first, second = self.generation.is_newer(), self.generation.is_newer()
        first.addErrback(lambda _: None).cancel()
        self.connecting[0].errback(ValueError("refused"))
        self.assertFalse(self.successResultOf(second))
