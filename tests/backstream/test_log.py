"""backstream's log lines: its words, its forms, no credentials."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.log import AccessLines, Journal, Log, Observer, log_output

PEER = IPv4Address("TCP", "203.0.113.9", 51234)


class LogTests(SynchronousTestCase):
    """Lines."""

    def setUp(self) -> None:
        self.lines: list[bytes] = []

    def make(self, level: str = "info", text: bool = True, stack: bool = False) -> Log:
        return Log(self.lines.append, level, text, stack, lambda: 1714532400.25)

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def test_text(self) -> None:
        """A time, a level, the message, fields with strings in quotes, and a space."""
        self.make().info("sending response", id='a"b', code=200)
        self.assertRegex(
            self.lines[0].decode(),
            r'^\d\d:\d\d:\d\d\.250 INFO sending response id="a\\"b" code=200 \n$',
        )

    def test_quotes(self) -> None:
        """What is not printable is escaped as Go does, so that Go's own readers understand it."""
        self.make().sent(b"1", b"GET", 'é"\\\x7f\x1b\0\a\n\x85\u202e\U000e0001😀')
        self.assertIn(
            'path="é\\"\\\\\\x7f\\x1b\\x00\\a\\n\\u0085\\u202e\\U000e0001😀" \n',
            self.lines[0].decode(),
        )

    def test_debug(self) -> None:
        """At the level debug the place of the call stands before the message."""
        self.make("debug").debug("waiting")
        self.assertRegex(self.lines[0].decode(), r" DEBUG \[test_log\.py:\d+\] waiting \n$")

    def test_json(self) -> None:
        """One object a line, with time, level, source and msg."""
        self.make(text=False).warn("hello", n=1)
        (line,) = self.json()
        self.assertEqual(list(line), ["time", "level", "source", "msg", "n"])
        self.assertEqual((line["level"], line["msg"], line["n"]), ("WARN", "hello", 1))
        self.assertEqual(line["time"], "2024-05-01T03:00:00.250000Z")
        self.assertEqual(list(line["source"]), ["function", "file", "line"])

    def test_levels(self) -> None:
        """What is below the level is not written."""
        log = self.make("warn")
        log.info("no")
        log.error("yes")
        self.assertEqual(len(self.lines), 1)

    def test_secrets(self) -> None:
        """Credentials are redacted by their names, and in URLs and messages."""
        log = self.make(text=False)
        log.info("x", Authorization="Bearer s3cret", cookie="s3cret", url="ws://h/?token=s3cret")
        log.error("Authorization: Bearer s3cret")
        for name in ("access_token", "api_key", "key", "sig", "X-Amz-Signature", "password"):
            log.info("x", url=f"wss://h/?a=b&{name}=s3cret&c=d")
        log.error("failed", error="no answer from http://user:s3cret@h/")
        self.assertNotIn(b"s3cret", b"".join(self.lines))
        self.assertEqual(self.json()[0]["Authorization"], "[REDACTED]")
        self.assertEqual(self.json()[2]["url"], "wss://h/?a=b&access_token=[redacted]&c=d")

    def test_id(self) -> None:
        """A request's id stays whole, even one that looks like an account's number."""
        id = "4648ae9e-d46b-4de3-82d8-c63793b062d2"
        self.make().info("sending response", id=id)
        self.assertIn(f'id="{id}"'.encode(), self.lines[0])

    def test_one_line(self) -> None:
        """Whatever a field holds, it is one line."""
        self.make().info("a\nb", x="c\nd\x1b[1m")
        self.assertEqual(self.lines[0].count(b"\n"), 1)
        self.assertNotIn(b"\x1b", self.lines[0])

    def test_answered(self) -> None:
        """The line of every request, which is made by hand, is as any other one."""
        for text in (True, False):
            self.lines.clear()
            log = self.make(text=text)
            for id, method in ((b"7fx1", b"GET"), (b'a"b', b"M-SEARCH")):
                AccessLines(log).write(method, b"", b"/", 200, 0, 0, 0, 0, b"", id)
                log.info("sent HTTP response", id=id.decode(), method=method.decode(), code=200)
            if text:
                self.assertEqual(self.lines[0], self.lines[1])
                self.assertEqual(self.lines[2], self.lines[3])
            else:
                found = [{**line, "source": ""} for line in self.json()]
                self.assertEqual(found[0], found[1])
                self.assertEqual(found[2], found[3])

    def test_each_request(self) -> None:
        """So are the other lines of every request."""
        paths = ("/", '/a "b" ü\n\x9b', "/?token=s3cret", "/" + "x" * 1000)
        for text in (True, False):
            for id, method in ((b"7fx1", b"GET"), (b'a"b', b"M-SEARCH")):
                for path in paths:
                    self.lines.clear()
                    log = self.make(text=text)
                    names = {"id": id.decode(), "method": method.decode()}
                    log.sent(id, method, path)
                    log.info("sent message", **names, path=path)
                    log.answering(id, 200, path, method)
                    log.info(
                        "sending response",
                        id=id.decode(),
                        code=200,
                        path=path,
                        method=method.decode(),
                    )
                    if text:
                        self.assertEqual(self.lines[::2], self.lines[1::2])
                        self.assertNotIn("\x9b", self.lines[2].decode())
                    else:
                        found = [{**line, "source": ""} for line in self.json()]
                        self.assertEqual(found[::2], found[1::2])
                    self.assertNotIn(b"s3cret", b"".join(self.lines))

    def test_words(self) -> None:
        """The messages that scripts watch for."""
        log = self.make(text=False)
        publisher = LogPublisher(Observer(log))
        Logger("exposr_tx.service", observer=publisher).info(
            "listening on {address}", event="listening", address="127.0.0.1:8080"
        )
        Journal(log).connected("backstream", PEER, 1)
        Journal(log).asked("an-id", "GET", "/")
        AccessLines(log).write(b"GET", b"", b"/", 204, 0, 0, 0, 0, b"", b"an-id")
        found = [{**line, "time": "", "source": "", "level": ""} for line in self.json()]
        none = {"time": "", "source": "", "level": ""}
        self.assertEqual(
            found,
            [
                {**none, "msg": "Start server", "addr": "127.0.0.1:8080"},
                {
                    **none,
                    "msg": "connected to WebSocket server",
                    "remote": {"IP": "203.0.113.9", "Port": 51234, "Zone": ""},
                    "clients": 1,
                },
                {**none, "msg": "sent message", "id": "an-id", "method": "GET", "path": "/"},
                {**none, "msg": "sent HTTP response", "id": "an-id", "method": "GET", "code": 204},
            ],
        )

    def test_peer(self) -> None:
        """A peer's address stands in text without quotes, as there."""
        Journal(self.make()).connected("backstream", PEER, 1)
        self.assertIn(b" server remote=203.0.113.9:51234 clients=1 \n", self.lines[0])

    def test_stack(self) -> None:
        """With --log-stack the text of an error is followed by where it comes from."""
        for stack in (False, True):
            self.lines.clear()
            logger = Logger("exposr_tx.x", observer=LogPublisher(Observer(self.make(stack=stack))))
            try:
                raise ValueError("broken")
            except ValueError:
                logger.failure("it failed")
            self.assertIn(b'error="broken"', self.lines[0])
            self.assertEqual(b"Traceback" in self.lines[0], stack)

    def test_file(self) -> None:
        """A file is appended to, stays open, and is its owner's only, after a rotation too."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "a.log")
        output = log_output(str(path))
        for word in ("one", "two"):
            Log(output.write, "info", True).info(word)
        self.assertEqual(path.read_text().count("\n"), 2)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        path.rename(folder.name + "/a.log.1")
        output.reopen()
        output.write(b"three\n")
        self.assertEqual((path.read_text(), os.stat(path).st_mode & 0o777), ("three\n", 0o600))
        with self.assertRaises(OSError):
            log_output(folder.name + "/none/a.log")
