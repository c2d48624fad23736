"""Policies in processes of their own: both ends of what passes between them and the server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.interfaces import Decision
from exposr_tx.policy.compiled import Outline
from exposr_tx.policy.worker import STUCK_COMPILING, Frames, frame, serve
from exposr_tx.policy.workers import PATIENCE, SHARE, Workers, load
from tests.policy.folder import SKIP, Folder

BUDGET = 0.05
TEXT = """package auth.server

allow if input.path == "/a"

allow := {"allow": false, "status": 402, "reason": "pay"} if input.path == "/p"
"""


class FramesTests(SynchronousTestCase):
    """Messages on a stream of bytes."""

    def test_split_anywhere(self) -> None:
        """Messages that come in pieces are those that were sent."""
        sent = [[1, "a", {"b": [True, 1.5]}], [], "x" * 300]
        data = b"".join(map(frame, sent))
        for size in (1, 2, 5, 100, len(data)):
            frames = Frames()
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            self.assertEqual([m for piece in pieces for m in frames.receive(piece)], sent)


class Connection:
    """A socket whose peer has said all it has to say."""

    def __init__(self, *messages: Any) -> None:
        self._data = b"".join(map(frame, messages))
        self.sent = b""

    def recv(self, size: int) -> bytes:
        data, self._data = self._data[:7], self._data[7:]
        return data

    def sendall(self, data: bytes) -> None:
        self.sent += data


class ServeTests(SynchronousTestCase):
    """The process' own side."""

    skip = SKIP

    def serve(self, text: str, *messages: Any) -> list[Any]:
        connection: Any = Connection(([("p.rego", text)], []), *messages)
        self.limits: list[float] = []
        serve(connection, self.limits.append, lambda: None)
        return [*Frames().receive(connection.sent)]

    def test_answers(self) -> None:
        """It tells what it has compiled, and then decides on each question."""
        ready, *told = self.serve(
            TEXT,
            (
                float("inf"),
                [(n, "auth.server", {"path": path}) for n, path in enumerate(("/a", "/b", "/p"))]
                + [(3, "nowhere", {})],
            ),
        )
        self.assertEqual(ready, ("ready", ["auth.server"], ["path"], False))
        # A slow machine tells them in several messages.
        self.assertEqual(
            [answer for answers in told for answer in answers],
            [
                (0, "allowed"),
                (1, "denied"),
                (2, "denied", 402, "pay", (), (), ()),
                (3, "undefined"),
            ],
        )
        self.assertEqual(self.limits[0], STUCK_COMPILING)
        self.assertEqual(self.limits[-1], 0)

    def test_too_late(self) -> None:
        """What nobody waits for any more is not evaluated."""
        _, answers = self.serve(TEXT, (0.0, [(7, "auth.server", {"path": "/a"})]))
        self.assertEqual(answers, [(7, "timeout")])

    def test_invalid(self) -> None:
        """Policies that cannot be used end it with a line that says why."""
        ((kind, text),) = self.serve("package auth.server\nallow if not f(1)", (0.0, []))
        self.assertEqual(kind, "invalid")
        self.assertIn("p.rego:2: the embedded engine has no function f", text)


class Process:
    """A process that does what the test says."""

    def __init__(self) -> None:
        self.connection: Any = self
        self.stopped = False

    def setblocking(self, blocking: bool) -> None:
        """As a socket has it."""

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        """As a socket has it."""

    def stop(self) -> int:
        self.stopped = True
        return -9


class LoadTests(SynchronousTestCase):
    """Processes that compile, given up."""

    def test_given_up_before(self) -> None:
        """Loading that is given up before a thread has begun with it starts no process."""
        reactor, path = Threads(), Folder(self, p=TEXT).path
        loading = load(reactor, [path], BUDGET)
        loading.cancel()
        self.failureResultOf(loading, CancelledError)
        ((begin, told),) = reactor.work
        problem = self.assertRaises(CancelledError, begin)
        told(False, Failure(problem))
        self.assertEqual(reactor.adopted, [])

    def test_given_up_behind(self) -> None:
        """Processes that had just compiled when loading was given up are ended."""
        reactor, path = Threads(), Folder(self, p=TEXT).path
        loading = load(reactor, [path], BUDGET)
        ((begin, told),) = reactor.work
        found = begin()
        loading.cancel()
        self.failureResultOf(loading, CancelledError)
        told(True, found)
        self.assertEqual(reactor.adopted, [])

    test_given_up_behind.skip = SKIP  # type: ignore[attr-defined]


class Adopted(StringTransport):
    """A connection that was adopted."""

    protocol: Any


class Reactor(Clock):
    """A clock on which connections are adopted."""

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[Adopted] = []

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        transport = Adopted()
        transport.protocol = factory.buildProtocol(None)
        self.adopted.append(transport)
        transport.protocol.makeConnection(transport)


class Threads(Reactor):
    """A reactor whose threads do what the test lets them.

    :ivar work: what to do, and whom to tell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work: list[tuple[Any, Any]] = []

    def getThreadPool(self) -> Any:
        return self

    def callInThreadWithCallback(self, told: Any, function: Any) -> None:
        self.work.append((function, told))

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class WorkersTests(SynchronousTestCase):
    """The server's side."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.processes: Any = [Process(), Process()]
        self.workers = Workers(self.reactor, [], self.processes, Outline(), BUDGET)

    def ask(self, package: str) -> Deferred[Decision]:
        deciding: Deferred[Decision] = Deferred()
        self.workers.ask(package, {}, deciding.callback)
        return deciding

    def asked(self, place: int) -> list[list[Any]]:
        """What a process was asked since the last look: packages of each message."""
        transport = self.reactor.adopted[place]
        messages = [*Frames().receive(transport.value())]
        transport.clear()
        return [[package for _, package, _ in questions] for _, questions in messages]

    def answer(self, place: int, *answers: Any) -> None:
        self.reactor.adopted[place].protocol.dataReceived(frame([*answers]))

    def turn(self) -> None:
        self.reactor.advance(0)

    def test_asked_together(self) -> None:
        """What is asked in one turn goes in one message, and each gets its own decision."""
        one, two, three = (self.ask(name) for name in "abc")
        self.assertEqual(self.asked(0), [])
        self.turn()
        self.assertEqual((self.asked(0), self.asked(1)), ([["a", "b", "c"]], []))
        self.answer(0, (1, "allowed"), (2, "denied", 402, "pay", ((b"A", b"b"),), ()))
        self.assertEqual(self.successResultOf(one), Decision("allowed"))
        self.assertEqual(self.successResultOf(two), Decision("denied", 402, "pay", ((b"A", b"b"),)))
        self.assertNoResult(three)
        self.answer(0, (3, "undefined"))
        self.assertEqual(self.successResultOf(three).outcome, "undefined")

    def test_busy(self) -> None:
        """What is asked while one works is gathered for it; if it takes long, the other one is
        asked; while both work, whoever has answered first is."""
        self.ask("a")
        self.turn()
        for name in "bc":
            self.ask(name)
            self.turn()
        self.assertEqual((self.asked(0), self.asked(1)), ([["a"]], []))
        self.answer(0, (1, "allowed"))
        self.assertEqual((self.asked(0), self.asked(1)), ([["b", "c"]], []))
        self.ask("d")
        self.reactor.advance(PATIENCE)
        self.assertEqual((self.asked(0), self.asked(1)), ([], [["d"]]))
        for name in "ef":
            self.ask(name)
            self.reactor.advance(PATIENCE)
        self.answer(1, (4, "allowed"))
        self.assertEqual((self.asked(0), self.asked(1)), ([], [["e", "f"]]))

    def test_many(self) -> None:
        """A message has so many questions; what is left waits for an answer, not for long."""
        for _ in range(SHARE + 1):
            self.ask("a")
        self.turn()
        self.assertEqual([len(message) for message in self.asked(0)], [SHARE])
        self.reactor.advance(PATIENCE)
        self.assertEqual([len(message) for message in self.asked(1)], [1])

    def test_late(self) -> None:
        """What has no answer in time is late, asked or still waiting to be; a later answer changes
        nothing, and the process is asked again."""
        asked = [self.ask("a")]
        self.turn()
        asked.append(self.ask("b"))
        self.reactor.advance(PATIENCE)
        asked.append(self.ask("c"))
        self.reactor.advance(BUDGET)
        self.assertEqual([self.successResultOf(d).outcome for d in asked], ["timeout"] * 3)
        self.assertEqual((self.asked(0), self.asked(1)), ([["a"]], [["b"]]))
        self.answer(0, (1, "allowed"))
        self.assertEqual(self.asked(0), [])
        after = self.ask("d")
        self.reactor.advance(PATIENCE)
        self.assertEqual(self.asked(0), [["d"]])
        self.answer(0, (4, "allowed"))
        self.assertEqual(self.successResultOf(after).outcome, "allowed")

    def test_behind_what_is_late(self) -> None:
        """What is late does not take the place of what is not in the next message."""
        for name in "ab":
            self.ask(name)
            self.reactor.advance(PATIENCE)
        for _ in range(SHARE):
            self.ask("late")
        self.reactor.advance(BUDGET / 2)
        asked = self.ask("c")
        self.reactor.advance(BUDGET / 2)
        self.assertEqual((self.asked(0), self.asked(1)), ([["a"]], [["b"]]))
        self.answer(0, (1, "allowed"))
        self.assertEqual(self.asked(0), [["c"]])
        self.answer(0, (SHARE + 3, "allowed"))
        self.assertEqual(self.successResultOf(asked).outcome, "allowed")

    def test_each_has_its_time(self) -> None:
        """A question that comes later has its whole time."""
        first = self.ask("a")
        self.reactor.advance(BUDGET / 2)
        second = self.ask("b")
        self.reactor.advance(BUDGET / 2)
        self.assertEqual(self.successResultOf(first).outcome, "timeout")
        self.assertNoResult(second)
        self.reactor.advance(BUDGET / 2)
        self.assertEqual(self.successResultOf(second).outcome, "timeout")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_process_ends(self) -> None:
        """A process that ends denies what it was asked; the other one goes on. With none, all is
        denied."""
        asked = self.ask("a")
        self.turn()
        for transport in self.reactor.adopted:
            transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(asked).outcome, "error")
        self.assertTrue(self.processes[0].stopped)
        self.assertEqual(self.successResultOf(self.ask("b")).outcome, "error")

    def test_close(self) -> None:
        """Closed, it ends its processes and starts no others."""
        self.workers.close()
        self.assertTrue(all(transport.disconnected for transport in self.reactor.adopted))
        for transport in self.reactor.adopted:
            transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(all(process.stopped for process in self.processes))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
