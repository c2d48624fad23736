"""Odd and malformed messages meet the real server and the real client.

For each entry of :mod:`tests.system.corpus`: what the visitor gets, what the
target got, and that the next visitor is served as if nothing had been.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import h11
from twisted.trial.unittest import SynchronousTestCase

from tests.system.corpus import REQUESTS, RESPONSES, Request, Response
from tests.system.corpus_server import Corpus

# Seconds that an answer, or the close after it, may take; deadlines of the
# server's own (10 s for a head) must not pass for a prompt refusal.
PATIENCE = 8.0
SLOW_PATIENCE = 20.0
# Entries that wait for a deadline are tried with bin/test --long.
LONG = bool(os.environ.get("LONG_TESTS"))


@dataclass
class Answer:
    """A response as the visitor reads it."""

    status: int
    head: bytes
    body: bytes = b""
    complete: bool = False
    interim: list[int] = field(default_factory=list)


class Visitor:
    """A connection to the ingress, and a strict reader of its responses."""

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.seen = b""
        self.ended = False

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send; a server that has closed already is no error."""
        try:
            self._socket.sendall(data)
        except OSError:
            pass

    def finish(self) -> None:
        """Send a FIN."""
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes:
        """The next bytes; empty at the end, by FIN or by reset. Raises TimeoutError."""
        if not self.ended:
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                data = b""
            self.ended = not data
            self.seen += data
            return data
        return b""

    def interim(self) -> int:
        """The status of an answer that is expected before the request's body."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.receive()
            if not data:
                break
            self._buffer += data
        found = re.match(rb"HTTP/1\.1 (\d\d\d)", self._buffer)
        return int(found[1]) if found else 0

    def answer(self, method: bytes) -> Answer | None:
        """The next final response; None when the server closed before one began."""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        # Proposed, so that the parser lets a 101 pass and the test can judge it.
        headers = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        parser.send(h11.Request(method=method, target="/", headers=headers))
        parser.send(h11.EndOfMessage())
        interim: list[int] = []
        answer: Answer | None = None
        begin = len(self.seen) - len(self._buffer)
        if self._buffer:
            parser.receive_data(self._buffer)
            self._buffer = b""
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as fault:
                mine = self.seen[begin:]
                if answer is None and mine:
                    raise AssertionError(f"{fault}: {mine[:500]!r}") from None
                return answer
            if event is h11.NEED_DATA:
                parser.receive_data(self.receive())
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
                if event.status_code == 101:
                    return Answer(101, head(event), complete=True, interim=interim)
            elif isinstance(event, h11.Response):
                answer = Answer(event.status_code, head(event), interim=interim)
            elif isinstance(event, h11.Data) and answer is not None:
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and answer is not None:
                answer.complete = True
                self._buffer = parser.trailing_data[0]
                return answer
            elif isinstance(event, h11.ConnectionClosed):
                return answer


def head(event: h11.Response | h11.InformationalResponse) -> bytes:
    """The fields of a response, lower-case names, one a line."""
    return b"".join(name + b": " + value + b"\r\n" for name, value in event.headers)


class CorpusTests(SynchronousTestCase):
    """One server, one client and one target for the whole corpus."""

    corpus: Corpus

    @classmethod
    def setUpClass(cls) -> None:
        cls.corpus = Corpus()
        cls.corpus.start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.corpus.stop()

    def still_serving(self, name: str) -> None:
        """A new visitor gets his own answer, whole."""
        visitor = Visitor(self.corpus.port)
        path = b"/next-visitor-" + re.sub(rb"\W", b"-", name.encode())
        visitor.send(b"GET " + path + b" HTTP/1.1\r\nHost: corpus.localhost\r\n\r\n")
        answer = visitor.answer(b"GET")
        visitor.close()
        assert answer is not None, "the next visitor got no answer"
        self.assertEqual((answer.status, answer.body), (200, path), "the next visitor")

    def check_request(self, entry: Request) -> None:
        """Send an entry and look at all sides."""
        self.corpus.target.forget()
        visitor = Visitor(self.corpus.port, SLOW_PATIENCE if entry.slow else PATIENCE)
        try:
            answers = self.converse(visitor, entry)
            statuses = [answer.status for answer in answers]
            if not (entry.absent and not answers):
                self.assertEqual(len(answers), len(entry.answers), f"answers: {statuses}")
            for answer, expected in zip(answers, entry.answers, strict=False):
                self.assertIn(answer.status, expected)
                self.assertTrue(answer.complete, "the answer is cut short")
                if entry.interim is False:
                    self.assertNotIn(100, answer.interim)
            if entry.bodies:
                bodies = tuple(a.body if a.status == 200 else b"" for a in answers)
                self.assertEqual(bodies, entry.bodies)
            self.check_connection(visitor, entry)
        finally:
            visitor.close()
        self.still_serving(entry.name)
        self.check_target(entry)

    def converse(self, visitor: Visitor, entry: Request) -> list[Answer]:
        """Send the pieces and read the answers."""
        for number, piece in enumerate(entry.pieces):
            if number == 1 and entry.interim:
                self.assertEqual(visitor.interim(), 100, "the interim answer")
            visitor.send(piece)
        if entry.ends:
            visitor.finish()
        answers = []
        for number in range(len(entry.answers)):
            method = entry.methods[number] if entry.methods else b"GET"
            answer = visitor.answer(method)
            if answer is None:
                break
            answers.append(answer)
        return answers

    def check_connection(self, visitor: Visitor, entry: Request) -> None:
        """Closed, with nothing more sent; or kept, and good for one more request."""
        if entry.closed is True:
            rest = visitor.answer(b"GET")
            self.assertIsNone(rest, "one more answer than requests")
        elif entry.closed is False:
            visitor.send(b"GET /afterwards HTTP/1.1\r\nHost: corpus.localhost\r\n\r\n")
            answer = visitor.answer(b"GET")
            assert answer is not None, "the connection was closed"
            self.assertEqual((answer.status, answer.body), (200, b"/afterwards"), "afterwards")

    def check_target(self, entry: Request) -> None:
        """The target got what it may have, and nothing else."""
        received = self.corpus.target.received()
        self.assertEqual([r.fault for r in received if r.fault], [], "what the target got is bad")
        complete = [r for r in received if r.complete]
        if entry.forwarded is not None:
            self.assertEqual(len(complete), entry.forwarded, f"complete requests: {complete}")
        text = b"".join(r.text for r in received).lower()
        for wanted in entry.has:
            self.assertIn(wanted, text)
        for unwanted in entry.lacks:
            self.assertNotIn(unwanted, text)

    def check_response(self, entry: Response) -> None:
        """Let the target answer with an entry and look at what the visitor gets."""
        path = self.corpus.target.script(entry)
        visitor = Visitor(self.corpus.port)
        try:
            visitor.send(entry.request.replace(b"{path}", path))
            answer = visitor.answer(entry.request.split(b" ")[0])
            assert answer is not None, "no answer at all"
            self.assertIn((answer.status, answer.complete), entry.outcomes, answer.body[:200])
            whole = answer.complete and answer.status != 502
            if whole and entry.body is not None:
                self.assertEqual(answer.body, entry.body)
            for wanted in entry.has:
                self.assertIn(wanted, answer.head.lower())
            if entry.dropped:
                dropped = self.corpus.target.dropped(path, PATIENCE)
                self.assertTrue(dropped, "the target's connection is kept")
            self.still_serving(entry.name)
            if whole and answer.status != 101 and not visitor.ended:
                visitor.send(b"GET /own HTTP/1.1\r\nHost: corpus.localhost\r\n\r\n")
                after = visitor.answer(b"GET")
                if after is not None:
                    self.assertEqual((after.status, after.body), (200, b"/own"), "his next answer")
            for unwanted in entry.lacks:
                self.assertNotIn(unwanted, visitor.seen.lower())
        finally:
            visitor.close()


def request_test(entry: Request) -> Callable[[CorpusTests], None]:
    def test(self: CorpusTests) -> None:
        self.check_request(entry)

    test.__doc__ = f"A visitor's odd bytes: {entry.name}."
    return test


def response_test(entry: Response) -> Callable[[CorpusTests], None]:
    def test(self: CorpusTests) -> None:
        self.check_response(entry)

    test.__doc__ = f"A target's odd bytes: {entry.name}."
    return test


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).lower().strip("_")


for _request in REQUESTS:
    if LONG or not _request.slow:
        setattr(CorpusTests, f"test_request_{slug(_request.name)}", request_test(_request))
for _response in RESPONSES:
    setattr(CorpusTests, f"test_response_{slug(_response.name)}", response_test(_response))
