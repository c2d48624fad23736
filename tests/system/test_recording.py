"""HAR files of real programs: what is in them, what is not, and what becomes of a full disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.inspection.har_schema import faults
from tests.inspection.test_recorder import frame
from tests.system.harness import (
    Client,
    ForClass,
    Process,
    Server,
    Target,
    Visitor,
    temporary_folder,
    wait_until,
)
from tests.system.targets import PAGE, digest_of, pieces, site
from tests.system.test_backstream import PLAIN, JsonServer, Serve, command, connect, until_served
from tests.system.websockets import open_websocket

NAME = re.compile(r"\d{8}-\d{6}\.\d{3}-[0-9a-f]{8}-([A-Z]+)-127\.0\.0\.1-\d+-(.*)\.har")

#: A program that uses the library, with a recorder of its own.
PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.web.server import Site
from twisted.web.static import Data
from exposr_tx.client import connect, listen
from exposr_tx.inspection.folder import HarFolder
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.redaction import Redaction

server, account, target, path = sys.argv[1:]
folder = HarFolder(path, Redaction(), print)
folder.open()
recorder = Recorder([folder])
more = {"server": server, "account": account, "recorder": recorder, "grace": 0.1}
joined = connect(target, "joined", **more)
page = Data(b"here", "text/plain")
page.isLeaf = True
joined.addCallback(lambda _: listen(Site(page), "listening", **more))
joined.addCallbacks(lambda _: print("ready", flush=True), print)
reactor.addSystemEventTrigger("after", "shutdown", folder.close)
reactor.run()
"""


class Full(Client):
    """A client that can write only small files."""

    script: ClassVar[str] = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200)); " + Client.script
    )


class Files:
    """A folder for HAR files."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.path = Path(temporary_folder(test)) / "new" / "har"

    def names(self) -> list[str]:
        """Those that are there, by age."""
        return sorted(name for name in os.listdir(self.path) if name.endswith(".har"))

    def entries(self, count: int) -> list[dict[str, Any]]:
        """The entries of so many files, once they are there."""
        wait_until(lambda: self.path.exists() and len(self.names()) >= count, "the files")
        return [self.entry(name) for name in self.names()]

    def entry(self, name: str) -> dict[str, Any]:
        file = json.loads((self.path / name).read_bytes())
        assert not faults(file), faults(file)
        (entry,) = file["log"]["entries"]
        return dict(entry)


class RecordTests(SynchronousTestCase):
    """``exposr tunnel connect --record DIR``."""

    server: ClassVar[Server]
    target: ClassVar[Target]

    @classmethod
    def setUpClass(cls) -> None:
        whole = ForClass(cls)
        cls.server = Server(whole, "--allow-registration")
        cls.target = Target(whole, site)

    def setUp(self) -> None:
        self.files = Files(self)
        self.name = f"tunnel-{self.id().rpartition('.')[2].replace('_', '-')}"

    def client(self, *words: str, kind: type[Client] = Client, path: str = "") -> Client:
        path = path or str(self.files.path)
        words = ("tunnel", "connect", self.name, self.target.url, "--record", path, *words)
        client = kind(self, self.server, *words)
        client.wait_connected(2)
        return client

    def visit(self) -> Visitor:
        return self.server.visit(self.name)

    def test_files(self) -> None:
        """A file for each exchange, whole when the client ends; modes, names and contents."""
        client = self.client()
        with self.visit() as visitor:
            visitor.get(b"/page/?a=1&token=t0k3n", b"Authorization: Bearer b34r3r")
            self.assertEqual(visitor.get(b"/down/3000000").status, 200)
            visitor.get(b"/status/304")
            visitor.send(b"POST /up HTTP/1.1\r\nHost: %b\r\n" % visitor.host)
            visitor.send(b"Content-Length: 100000\r\n\r\n")
            for piece in pieces(100_000):
                visitor.send(piece)
            self.assertEqual(visitor.answer().body.decode(), digest_of(100_000))
        self.assertEqual(client.stop(SIGTERM), 0)
        self.files.entries(4)
        self.assertEqual(self.files.path.stat().st_mode & 0o777, 0o750)
        for name in self.files.names():
            self.assertEqual((self.files.path / name).stat().st_mode & 0o777, 0o600)
        # Names of one millisecond are in any order.
        found = {
            match.groups() if (match := NAME.fullmatch(name)) else (name,): self.files.entry(name)
            for name in self.files.names()
        }
        asked = [("GET", "page"), ("GET", "down-3000000"), ("GET", "status-304"), ("POST", "up")]
        self.assertEqual(sorted(found), sorted(asked))
        page, down, not_modified, up = (found[each] for each in asked)
        self.assertEqual(page["response"]["content"]["text"].encode(), PAGE)
        self.assertEqual(page["request"]["url"].partition("?")[2], "a=1&token=[redacted]")
        self.assertEqual(page["_visitor"], "127.0.0.1")
        self.assertGreater(page["timings"]["connect"], 0)
        self.assertEqual(down["response"]["bodySize"], 3_000_000)
        self.assertIn("of 3000000 bytes", down["response"]["content"]["comment"])
        self.assertEqual(not_modified["response"]["status"], 304)
        self.assertEqual(up["request"]["bodySize"], 100_000)
        text = "".join(path.read_text() for path in self.files.path.iterdir())
        self.assertNotIn("t0k3n", text)
        self.assertNotIn("b34r3r", text)

    def test_websocket(self) -> None:
        """A websocket is one exchange with its messages."""
        self.client()
        with self.visit() as visitor:
            open_websocket(visitor, b"/ws")
            visitor.send(frame(b"hello", 1, True, b"mask"))
            self.assertEqual(len(visitor.read(11)), 11)
        (entry,) = self.files.entries(1)
        self.assertEqual(entry["response"]["status"], 101)
        found = [(m["type"], m["data"]) for m in entry["_webSocketMessages"]]
        self.assertEqual(found, [("send", "hello"), ("receive", "hello")])

    def test_options(self) -> None:
        """The list of secrets, the length of bodies and the number of files can be changed."""
        client = self.client(
            *("--record-redact", "-authorization,x-pin", "--record-max-body", "10"),
            *("--record-max-files", "3"),
        )
        fields = (b"Authorization: Bearer b34r3r", b"X-Pin: 1234")
        with self.visit() as visitor:
            for number in range(6):
                visitor.get(b"/page/?%d" % number, *fields)
        self.assertEqual(client.stop(SIGTERM), 0)
        entries = self.files.entries(3)
        # Names of one millisecond are in any order.
        self.assertEqual(sorted(e["request"]["url"][-1] for e in entries), ["3", "4", "5"])
        headers = {h["name"]: h["value"] for h in entries[0]["request"]["headers"]}
        found = (headers["Authorization"], headers["X-Pin"])
        self.assertEqual(found, ("Bearer b34r3r", "[redacted]"))
        self.assertEqual(entries[0]["response"]["content"]["text"].encode(), PAGE[:10])

    def served(self, count: int) -> None:
        """So many requests, each answered."""
        with self.visit() as visitor:
            for _ in range(count):
                self.assertEqual(visitor.get(b"/page").status, 200)

    def test_file_too_large(self) -> None:
        """When a file cannot be written, recording ends with one line, and traffic goes on."""
        client = self.client(kind=Full)
        self.served(20)
        client.wait_for_line("recording to .* has ended")
        self.served(20)
        self.assertEqual(client.stop(), 0)
        self.assertEqual(os.listdir(self.files.path), [])
        self.assertEqual(len(client.err), 1, client.report())

    def test_full_disk(self) -> None:
        """The same with a disk that is full: whole files stay, and no piece of one."""
        path = self.mktemp()
        os.makedirs(path)
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path]
        if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
            raise SkipTest("may not mount a small disk")
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=True)
        client = self.client(path=os.path.abspath(path))
        self.served(40)
        client.wait_for_line("recording to .* has ended: No space left on device")
        self.served(20)
        self.assertEqual(client.stop(), 0)
        self.files.path = Path(path)
        self.assertGreater(len(self.files.entries(5)), 5)
        self.assertEqual(sorted(os.listdir(path)), self.files.names())
        self.assertEqual(len(client.err), 1, client.report())

    def test_killed(self) -> None:
        """A client that is killed leaves whole files only."""
        client = self.client()
        stop = threading.Event()

        def busy() -> None:
            try:
                with self.visit() as visitor:
                    while not stop.is_set():
                        visitor.get(b"/down/30000")
            except (OSError, EOFError, ValueError):
                pass  # it was killed

        visitors = [threading.Thread(target=busy) for _ in range(4)]
        for thread in visitors:
            thread.start()
        self.files.entries(10)
        client.process.send_signal(SIGKILL)
        client.wait()
        stop.set()
        for thread in visitors:
            thread.join()
        self.assertGreaterEqual(len(self.files.entries(10)), 10)

    def test_unusable_folder(self) -> None:
        """A folder that cannot be written to is a wrong line: status 2, one line."""
        words = ("tunnel", "connect", "http://localhost:1", "--record", "/proc/none/such")
        client = Client(self, self.server, *words)
        self.assertEqual(client.wait(), 2)
        self.assertEqual(len(client.err), 1, client.report())
        self.assertIn("--record '/proc/none/such'", client.err[0])

    def test_library(self) -> None:
        """Programs that use the library record in the same way, with a target or without."""
        account = self.server.account()
        words = (self.server.url, account, self.target.url, str(self.files.path))
        program = Process(self, [*command()[:2], PROGRAM, *words])
        program.wait_for_line("ready")
        for name, body in (("joined", PAGE), ("listening", b"here")):
            with self.server.visit(name) as visitor:
                self.assertEqual(visitor.get(b"/page" if name == "joined" else b"/").body, body)
        program.stop(SIGTERM)
        self.assertEqual([e["_tunnel"] for e in self.files.entries(2)], ["joined", "listening"])


class BackstreamTests(SynchronousTestCase):
    """``backstream client -o DIR``."""

    def setUp(self) -> None:
        self.files = Files(self)
        self.target = Target(self, site)

    def test_ours(self) -> None:
        """With a server of ours."""
        serve = Serve(self)
        client = connect(self, serve.port, self.target, "-o", str(self.files.path))
        until_served(serve)
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/page/?x=1", b"Cookie: c00k13=1").status, 200)
        self.assertEqual(client.stop(), 0)
        (entry,) = self.files.entries(1)
        self.assertEqual(entry["request"]["url"], f"{self.target.url.rstrip('/')}/page/?x=1")
        self.assertEqual(entry["response"]["content"]["text"].encode(), PAGE)
        self.assertNotIn("c00k13=1", json.dumps(entry["request"]["headers"]))

    def test_json(self) -> None:
        """With a server that speaks JSON."""
        server = JsonServer(self)
        words = ("--output", str(self.files.path), "--output-max-body", "4")
        client = connect(self, server.target.port, self.target, *words)
        server.ask(id="1", path="/a b", remote="192.0.2.7:1234")
        self.assertEqual(server.answer()["code"], 200)
        (entry,) = self.files.entries(1)
        self.assertEqual(entry["request"]["url"], f"{self.target.url.rstrip('/')}/a%20b")
        self.assertEqual(entry["response"]["content"]["text"], "GET ")
        self.assertEqual(client.stop(), 0)

    def test_unusable_folder(self) -> None:
        """A folder that cannot be written to is a wrong line: status 1, one line."""
        words = ("client", "-s", "http://localhost:1", "-d", "http://localhost:1", "-o", "/proc/x")
        client = Process(self, command(*words), PLAIN)
        self.assertEqual(client.wait(), 1)
        self.assertEqual(len(client.err), 1, client.report())
        self.assertIn("--output '/proc/x'", client.err[0])
