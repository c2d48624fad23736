"""The newest exchanges, and who hears of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.recording import Recording
from exposr_tx.inspection.ring import Ring


class RingTests(SynchronousTestCase):
    """Ring."""

    def setUp(self) -> None:
        self.ring = Ring(3, 100_000)
        self.recorder = Recorder([self.ring])
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def request(self, path: str = "/", body: bytes = b"") -> Recording:
        recording = self.recorder.recording("my-tunnel", "http://localhost:3000/")
        recording.connected()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        recording.sent(head.encode() + body)
        return recording

    def answer(self, recording: Recording) -> None:
        recording.received(b"HTTP/1.1 204 No Content\r\n\r\n")

    def paths(self) -> list[str]:
        return [exchange.request.target for exchange in self.ring]

    def test_number(self) -> None:
        """Of more exchanges than there is room for, the newest are kept."""
        for path in ("/a", "/b", "/c", "/d", "/e"):
            self.request(path)
        self.assertEqual((self.paths(), self.ring.dropped), (["/c", "/d", "/e"], 2))

    def test_size(self) -> None:
        """Bodies count: the oldest go when all together are too large."""
        for path in ("/a", "/b", "/c"):
            self.answer(self.request(path, b"x" * 40_000))
        self.assertEqual(self.paths(), ["/b", "/c"])

    def test_what_has_gone_changes_unseen(self) -> None:
        """An exchange that had to go while it ran does not come back when it ends."""
        old = self.request("/a")
        for path in ("/b", "/c", "/d"):
            self.request(path)
        self.answer(old)
        self.assertEqual(self.paths(), ["/b", "/c", "/d"])

    def test_subscriber(self) -> None:
        """A subscriber is woken once, and finds what has changed since he looked."""
        subscription = self.ring.subscribe(self.wake)
        recording = self.request("/a")
        self.request("/b")
        self.answer(recording)
        exchanges, missed, cleared = subscription.take()
        self.assertEqual([exchange.request.target for exchange in exchanges], ["/a", "/b"])
        self.assertEqual((self.woken, missed, cleared), (1, 0, False))
        self.answer(self.request("/c"))
        self.assertEqual((self.woken, len(subscription.take()[0])), (2, 1))

    def test_slow_subscriber(self) -> None:
        """Who does not look has no queue; he is told how many he has missed."""
        subscription = self.ring.subscribe(self.wake)
        for number in range(1000):
            self.answer(self.request(f"/{number}"))
        exchanges, missed, _ = subscription.take()
        self.assertEqual([exchange.request.target for exchange in exchanges], self.paths())
        self.assertEqual((missed, self.woken), (997, 1))

    def test_clear(self) -> None:
        """Clearing forgets all, and subscribers hear of it before what comes next."""
        subscription = self.ring.subscribe(self.wake)
        running = self.request("/a")
        self.ring.clear()
        self.request("/b")
        self.answer(running)
        exchanges, missed, cleared = subscription.take()
        self.assertEqual([exchange.request.target for exchange in exchanges], ["/b"])
        self.assertEqual((missed, cleared, self.paths()), (0, True, ["/b"]))

    def test_closing_while_woken(self) -> None:
        """A subscriber may leave when he is woken; he is not woken again."""

        def wake() -> None:
            self.woken += 1
            subscription.close()

        subscription = self.ring.subscribe(wake)
        self.ring.subscribe(self.wake)
        self.request("/a")
        subscription.take()
        self.request("/b")
        self.assertEqual((self.woken, self.paths()), (2, ["/a", "/b"]))
