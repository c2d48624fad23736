"""The log: what its lines hold, and that writing them holds up nobody."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from exposr_tx.logs import MAX_WAITING, LogObserver, LogOutput, redact


class LogOutputTests(SynchronousTestCase):
    """Where lines go."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "log")

    def test_order(self) -> None:
        """Lines come out in the order in which they went in, before, with and after the thread."""
        output = LogOutput(str(self.path))
        output.write(b"0\n")
        output.start()
        for number in range(1, 1000):
            output.write(b"%d\n" % number)
        output.stop()
        output.write(b"1000\n")
        self.assertEqual(self.path.read_text().split(), [str(n) for n in range(1001)])

    def test_several_threads(self) -> None:
        """Lines of other threads are whole."""
        output = LogOutput(str(self.path))
        output.start()

        def write() -> None:
            for _ in range(500):
                output.write(b"abcdef\n")

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        output.stop()
        self.assertEqual(self.path.read_bytes(), b"abcdef\n" * 2000)

    def test_reopen(self) -> None:
        """After a rotation lines go to the new file."""
        output = LogOutput(str(self.path))
        output.write(b"old\n")
        self.path.rename(f"{self.path}.1")
        output.reopen()
        output.write(b"new\n")
        self.assertEqual(self.path.read_bytes(), b"new\n")

    def test_torn(self) -> None:
        """A line that a full disk has cut spoils neither the one after it nor another file's."""
        output = LogOutput(str(self.path))
        write, room = os.write, [3, 0]

        def full(fd: int, data: bytes) -> int:
            if left := room.pop(0):
                return write(fd, data[:left])
            raise OSError(errno.ENOSPC, "No space left on device")

        with patch("os.write", full):
            output.write(b"one\n")
        self.path.rename(f"{self.path}.1")
        output.reopen()
        output.write(b"two\n")
        self.assertEqual(Path(f"{self.path}.1").read_bytes(), b"one")
        self.assertEqual(self.path.read_bytes()[:4], b"two\n")

    def test_nobody_reads(self) -> None:
        """A pipe that nobody reads takes what fits; the rest is counted, and the writer goes on."""
        reading, writing = os.pipe()
        output = LogOutput(str(self.path))
        os.dup2(writing, output._fd)
        os.close(writing)
        output.start()
        line = b"x" * 1023 + b"\n"
        for _ in range(MAX_WAITING + 5000):
            output.write(line)
        self.assertIn("lost", repr(output))
        self.assertGreater(output._lost, 0)
        os.close(reading)  # the stuck write fails, and the thread may end
        output.stop()

    def test_full_disk(self) -> None:
        """A disk that is full costs lines; their number is written down once there is room."""
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full on this system")
        output = LogOutput(str(self.path))
        kept = os.dup(output._fd)
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        self.addCleanup(os.close, kept)
        os.dup2(full, output._fd)
        output.write(b"one\n")
        output.write(b"two\n")
        os.dup2(kept, output._fd)
        output.write(b"three\n")
        line, count = self.path.read_text().splitlines()
        self.assertEqual(line, "three")
        self.assertEqual(json.loads(count), {"event": "log_lines_lost", "count": 2})


class LogObserverTests(SynchronousTestCase):
    """What a line holds."""

    def observed(self, text: bool = False, level: str = "info") -> tuple[Logger, list[bytes]]:
        lines: list[bytes] = []
        observer = LogObserver(lines.append, level, text)
        self.assertTrue(verifyObject(ILogObserver, observer))
        return Logger("exposr_tx.test", observer=LogPublisher(observer)), lines

    def entry(self, message: str, **fields: Any) -> dict[str, Any]:
        log, lines = self.observed()
        log.warn(message, **fields)
        entry: dict[str, Any] = json.loads(lines[0])
        return entry

    def test_fields(self) -> None:
        """An event's name, message and plain fields; objects stay out."""
        entry = self.entry("{number} of {name}", event="test", number=3, name="x", thing=object())
        entry.pop("time")
        self.assertEqual(
            entry,
            {"level": "warn", "event": "test", "message": "3 of x", "number": 3, "name": "x"},
        )

    def test_failure(self) -> None:
        """A failure comes with its trace, without values of variables."""
        log, lines = self.observed()
        try:
            secret = "hidden-value"
            raise ValueError(f"bad {len(secret)}")
        except ValueError:
            log.failure("it failed")
        entry = json.loads(lines[0])
        self.assertEqual(entry["level"], "fatal")
        self.assertIn("ValueError: bad 12", entry["failure"])
        self.assertNotIn("secret", entry["failure"].replace("len(secret)", ""))

    def test_levels(self) -> None:
        """--log-level leaves out what is below it, and "off" everything."""
        for level, kept in (
            ("all", 5),
            ("info", 4),
            ("warn", 3),
            ("error", 2),
            ("fatal", 1),
            ("off", 0),
        ):
            log, lines = self.observed(level=level)
            for each in LogLevel.iterconstants():
                log.emit(each, "x")
            self.assertEqual(len(lines), kept, level)

    def test_one_line(self) -> None:
        """Nothing that an event holds makes a second line, in either format."""
        for text in (False, True):
            log, lines = self.observed(text)
            log.info("{x}", x="a\nb\r\x1b[31m\u2028\u202e\u0085c")
            self.assertEqual(lines[0].count(b"\n"), 1)
            self.assertEqual(len(lines[0].decode().splitlines()), 1)
            self.assertNotIn("\x1b", lines[0].decode())

    def test_secrets(self) -> None:
        """Tokens, credentials and account numbers are taken out of messages and fields."""
        for secret in (
            "MNF4-P6Y6-M2MR-RVCT",
            "mnf4p6y6m2mrrvct",
            "ws://h/v1/tunnel/x/ws-endpoint?t=AbC-_d",
            "Authorization: Bearer TU5GNFA2WTZNMk1SUlZDVA==",
            "Cookie: session=1234",
        ):
            shown = json.dumps(self.entry("seen: {it}", it=secret))
            self.assertIn("[redacted]", shown)
            for part in ("MNF4", "mnf4", "AbC", "TU5G", "1234"):
                self.assertNotIn(part, shown)

    def test_innocent(self) -> None:
        """Ordinary words stay as they are."""
        text = (
            "listening on [::]:8080 for api,ingress; 3 visitors of my-tunnel-1234, 0123456789abcdef"
        )
        self.assertEqual(redact(text), text)
