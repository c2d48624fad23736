"""HAR files in a folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import BadInput
from exposr_tx.inspection.exchanges import Exchange, RequestHead
from exposr_tx.inspection.folder import HarFolder, file_name
from exposr_tx.inspection.redaction import Redaction
from tests.inspection.har_schema import faults
from tests.inspection.test_recorder import GET, OK, started


def exchanges(count: int, path: bytes = b"/a") -> list[Exchange]:
    watching, recording = started()
    for _ in range(count):
        recording.sent(GET.replace(b"/a", path))
        recording.received(OK)
    return watching.ends


class FolderTests(SynchronousTestCase):
    """A folder that is written to by a thread of its own."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.warnings: list[str] = []

    def folder(self, **more: int) -> HarFolder:
        folder = HarFolder(str(self.path), Redaction(), self.warnings.append, **more)
        folder.open()
        return folder

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def test_files(self) -> None:
        """One file for each exchange; the folder for its group, files for their owner only."""
        folder = self.folder()
        for exchange in exchanges(3):
            folder.ended(exchange)
        folder.close()
        names = self.names()
        self.assertEqual(len(names), 3)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o750 & ~umask())
        for name in names:
            file = self.path / name
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
            self.assertEqual(faults(json.loads(file.read_bytes())), [])
        self.assertEqual(self.warnings, [])

    def test_names(self) -> None:
        """Names tell when, which method, host and path; what no name may hold is a dash."""
        for path, expected in (
            (b"/a", "GET-t-80-a"),
            (b"/", "GET-t-80-"),
            (b"/..//a%20b:c*d?token=s", "GET-t-80-..-a-b-c-d"),
        ):
            (exchange,) = exchanges(1, path)
            name = file_name(exchange)
            head, rest = name[:29], name[29:]
            self.assertTrue(re.fullmatch(r"19700101-001640\.000-[0-9a-f]{8}-", head), head)
            self.assertEqual(rest, f"{expected}.har")
        (exchange,) = exchanges(1, b"/" + b"x" * 3000)
        exchange.target = "unix:/x"
        exchange.request = RequestHead(b"GET /\xff HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"\xe9" * 999))
        self.assertLess(len(file_name(exchange).encode()), 240)
        exchange.request = RequestHead(b"GET /a HTTP/1.1\r\nHost: [x\r\n\r\n")
        self.assertTrue(file_name(exchange).endswith("-GET-localhost-a.har"))

    def test_caps(self) -> None:
        """Above the cap the oldest go, and nothing but what this run has written."""
        self.path.mkdir()
        (self.path / "20000101-000000.000-00000000-GET-t-.har").write_text("of another run")
        for cap in ({"max_files": 2}, {"max_bytes": 2 * self.size() + 10}):
            folder = self.folder(**cap)
            written = []
            for exchange in exchanges(5):
                folder._put(exchange)
                written.append(folder._files[-1].name)
            self.assertEqual(sorted(written[-2:]), [n for n in self.names() if n in written])
            folder.close()
        self.assertIn("20000101-000000.000-00000000-GET-t-.har", self.names())

    def size(self) -> int:
        other = HarFolder(self.mktemp(), Redaction(), self.warnings.append)
        other.open()
        other._put(exchanges(1)[0])
        return other._bytes

    def test_larger_than_all(self) -> None:
        """An exchange that is larger than the cap by itself gets no file, and that is told."""
        folder = self.folder(max_bytes=100)
        folder.ended(exchanges(1)[0])
        folder.close()
        self.assertEqual(self.names(), [])
        self.assertIn("1 exchanges were not recorded", self.warnings[0])

    def test_replaced_file(self) -> None:
        """A file that somebody has put in the place of one of ours is not removed."""
        folder = self.folder(max_files=1)
        one, two = exchanges(2)
        folder._put(one)
        (name,) = self.names()
        (self.path / "mine").write_text("precious")
        os.replace(self.path / "mine", self.path / name)
        folder._put(two)
        self.assertEqual((self.path / name).read_text(), "precious")

    def test_removed_file(self) -> None:
        """Files may be taken away."""
        folder = self.folder(max_files=1)
        one, two = exchanges(2)
        folder._put(one)
        os.unlink(self.path / self.names()[0])
        folder._put(two)
        self.assertEqual(len(self.names()), 1)

    def test_cannot_be_made(self) -> None:
        """A folder that cannot be made, or is none, is told at the start."""
        self.path.write_text("a file")
        for path in (self.path, self.path / "below"):
            with self.assertRaises(BadInput) as caught:
                HarFolder(str(path), Redaction(), self.warnings.append).open()
            self.assertIn(str(path), str(caught.exception))

    def test_broken(self) -> None:
        """When a file cannot be written recording ends, with one warning and no piece of a file."""
        folder = self.folder()
        (one, two, three, four) = exchanges(4)
        folder._put(one)
        whole = self.names()

        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        with patch("exposr_tx.inspection.folder.os.write", full):
            folder.ended(two)
            folder.ended(three)
            folder.close()
        folder.ended(four)
        self.assertEqual(self.names(), whole)
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("No space left on device", self.warnings[0])

    def test_folder_removed(self) -> None:
        """A folder that is removed meanwhile ends recording in the same way."""
        folder = self.folder()
        shutil.rmtree(self.path)
        for exchange in exchanges(2):
            folder.ended(exchange)
        folder.close()
        self.assertEqual(len(self.warnings), 1)

    def test_links_are_not_followed(self) -> None:
        """A link in the place of a file is no way out of the folder."""
        outside = Path(self.mktemp())
        folder = self.folder()
        with patch("exposr_tx.inspection.folder.file_name", return_value="name.har"):
            os.symlink(outside.absolute(), self.path / ".name.har.part")
            folder.ended(exchanges(1)[0])
            folder.close()
        self.assertFalse(outside.exists())
        self.assertEqual(len(self.warnings), 1)

    def test_slow_disk(self) -> None:
        """Exchanges that a slow disk has no time for are counted; nobody waits for it."""
        folder = self.folder()
        going_on = threading.Event()
        put = folder._put

        def slow(exchange: Exchange) -> None:
            going_on.wait(10)
            put(exchange)

        many = exchanges(9)
        with (
            patch.object(folder, "_put", slow),
            patch("exposr_tx.inspection.folder.MAX_WAITING", 4 * many[0].size),
        ):
            for exchange in many:
                folder.ended(exchange)
            self.assertEqual(len(self.warnings), 1)
            going_on.set()
            folder.close()
        lost = int(self.warnings[-1].split()[0])
        self.assertEqual(len(self.names()) + lost, 9)
        self.assertIn(lost, (4, 5))


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
