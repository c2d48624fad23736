"""The inspector of a client that runs: guarded, shown in a terminal and in a real Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import unittest
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.system.browser import CHROMIUM, Browser, Page
from tests.system.harness import (
    PATIENCE,
    Client,
    ForClass,
    Process,
    Server,
    Target,
    Visitor,
    environ,
    temporary_folder,
    wait_until,
)
from tests.system.websockets import accept, frame, open_websocket

HOSTILE = b"<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
PICTURE = b"<svg xmlns='http://www.w3.org/2000/svg' onload='top.hacked=1'></svg>"
#: Lets a test cut the connection of a page's feed.
CUTTABLE = """
const asked = fetch;
window.fetch = (path, options) => {
  if (!path.endsWith("/events")) return asked(path, options);
  window.cut = new AbortController();
  return asked(path, { ...options, signal: cut.signal });
};
"""
CHUNKED = b"003;e=f\r\nab\n\r\n1\r\nc\r\n0\r\nX-Trailer: t\r\n\r\n"


class Raw:
    """A target that keeps requests to the byte.

    :ivar requests: heads and what followed them.
    """

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def serve(self, connection: Visitor, _target: Target) -> None:
        while True:
            head = connection.read_until(b"\r\n\r\n")
            lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
            fields = {name.lower(): value for name, _, value in lines}
            body = connection.read(int(fields.get(b"content-length", b"0")))
            if b"transfer-encoding" in fields:
                body = connection.read_until(b"0\r\n")
                while not body.endswith(b"\r\n\r\n"):
                    body += connection.read_until(b"\r\n")
            self.requests.append(head + body)
            if b"upgrade" in fields:
                accept(connection, fields)
                size = connection.read(6)[1] & 0x7F
                connection.send(b"\x81\x05hello" + bytes([0x82, size]) + connection.read(size))
                connection.read_rest()
                return
            kind, text = b"text/plain", b"answer to " + head.split(b" ")[1]
            if b"/hostile" in head:
                kind, text = b"text/html\r\nX-Odd: " + HOSTILE, HOSTILE
            connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (kind, len(text), text)
            )


class Inspected(SynchronousTestCase):
    """A server, a target, and a client with an inspector, for all tests of a class."""

    home: ClassVar[str]
    server: ClassVar[Server]
    target: ClassVar[Target]
    raw: ClassVar[Raw]
    client: ClassVar[Client]
    url: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        scope = ForClass(cls)
        cls.home = temporary_folder(scope)
        cls.raw = Raw()
        cls.target = Target(scope, cls.raw.serve)
        cls.server = Server(scope, "--allow-registration")
        cls.client = Client(
            scope,
            cls.server,
            *("tunnel", cls.target.url, "my-tunnel", "--inspect", "--inspect-port", "0"),
            variables={"XDG_RUNTIME_DIR": cls.home},
        )
        cls.client.wait_connected()
        cls.url = cls.client.wait_for_line(r"^Inspector: (http://127\.0\.0\.1:\d+/\?token=\S+)$")[1]

    def pass_through(self, data: bytes) -> None:
        """Send a visitor's request through the tunnel."""
        with self.server.visit("my-tunnel") as visitor:
            head, _, body = data.partition(b"\r\n")
            answer = visitor.request(head + b" HTTP/1.1\r\nHost: " + visitor.host + b"\r\n" + body)
            self.assertEqual(answer.status, 200)

    def get(self, path: bytes) -> None:
        self.pass_through(b"GET " + path + b"\r\n\r\n")

    def ask(self, method: str, path: str, **changes: str | None) -> tuple[int, Any]:
        """A request to the inspector, by default one that is let in; None leaves a field out."""
        parts = urlsplit(self.url)
        fields = {
            "Host": parts.netloc,
            "Authorization": f"Bearer {parts.query.partition('=')[2]}",
            "Content-Type": "application/json",
        }
        given = fields | {name.replace("_", "-"): value for name, value in changes.items()}
        connection = HTTPConnection("127.0.0.1", parts.port or 0, timeout=PATIENCE)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def find(self, path: str) -> dict[str, Any]:
        """The summary of the newest exchange with a path."""

        def look() -> Any:
            found = self.ask("GET", "/api/exchanges")[1]["exchanges"]
            return next((x for x in reversed(found) if x["target"] == path), None)

        found: dict[str, Any] = wait_until(look, path)
        return found

    def command(self, *words: str) -> Process:
        """A command in another terminal of the same user."""
        variables = {"XDG_RUNTIME_DIR": self.home, "HOME": self.home}
        return Process(self, [sys.executable, "-c", Client.script, *words], variables)

    def lines(self, *words: str) -> tuple[int, list[str]]:
        """A command's status and output, errors included."""
        process = self.command(*words)
        return process.wait(), [*process.out, *process.err]


class GuardTests(Inspected):
    """Who may ask."""

    def test_refused(self) -> None:
        """Other names, other origins and strangers are told what is wrong; nobody else is."""
        for changes, status, why in (
            ({}, 200, ""),
            ({"Host": "rebound.example"}, 403, "Host 'rebound.example'"),
            ({"Origin": "https://evil.example"}, 403, "https://evil.example"),
            ({"Authorization": None}, 401, "token"),
            ({"Authorization": "Bearer guess"}, 401, "token"),
        ):
            got, answer = self.ask("GET", "/api/exchanges", **changes)
            self.assertEqual(got, status, (changes, answer))
            self.assertIn(why, answer.get("message", ""))
        status, answer = self.ask("DELETE", "/api/exchanges", Content_Type="text/plain")
        self.assertEqual((status, answer["error"]), (415, "NOT_ALLOWED"))

    def test_address(self) -> None:
        """The token is printed once, and is in a file for this user alone; loopback it is."""
        token = self.url.partition("=")[2]
        said = [line for line in [*self.client.out, *self.client.err] if token in line]
        self.assertEqual(len(said), 1)
        (path,) = Path(self.home, "exposr").iterdir()
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(path.parent.stat().st_mode), 0o700)
        self.assertEqual(json.loads(path.read_text())["token"], token)
        port = urlsplit(self.url).port
        with self.assertRaises(OSError), socket.create_connection(("127.0.0.2", port), 5):
            pass


class TerminalTests(Inspected):
    """exposr logs, exposr replay, and requests made by hand."""

    def test_logs(self) -> None:
        """What went by is listed, in lines or in JSON; one is shown whole, without credentials."""
        self.pass_through(
            b"POST /logs?token=sesame\r\nCookie: a=sesame\r\nX-A: \xc2\x9b1\r\n"
            b"Content-Length: 4\r\n\r\n\x1b[1A"
        )
        name = self.find("/logs?token=[redacted]")["id"]
        status, lines = self.lines("logs")
        self.assertEqual(status, 0)
        self.assertRegex(
            "\n".join(lines), rf"(?m)^{name}  [\d:]{{8}}  POST  /logs\?.*  200  \d+ ms"
        )
        status, lines = self.lines("logs", "--json")
        self.assertIn(name, [json.loads(line)["id"] for line in lines])
        status, lines = self.lines("logs", name)
        self.assertEqual((status, lines[0]), (0, "POST /logs?token=[redacted] HTTP/1.1"))
        self.assertIn("Cookie: [redacted]", lines)
        self.assertIn("?[1A", lines)  # the body, which a terminal would have obeyed
        self.assertTrue(all(line.isprintable() for line in lines), lines)
        self.assertIn("Cookie: a=sesame", self.lines("logs", name, "--show-secrets")[1])

    def test_terminal(self) -> None:
        """At a terminal there is a table, or where it has no room for paths the lines."""
        self.get(b"/shown")
        self.find("/shown")
        for columns, table in (("100", True), ("40", False)):
            terminal, end = pty.openpty()
            self.addCleanup(os.close, terminal)
            variables = {"XDG_RUNTIME_DIR": self.home, "COLUMNS": columns, "TERM": "dumb"}
            ran = subprocess.run(
                [sys.executable, "-c", Client.script, "logs"],
                env=environ(variables),
                stdout=end,
                timeout=PATIENCE,
            )
            os.close(end)
            shown = ""
            with contextlib.suppress(OSError):  # its end
                while True:
                    shown += os.read(terminal, 1 << 16).decode()
            self.assertEqual((ran.returncode, "Method" in shown), (0, table), shown)
            self.assertRegex(shown, r"  GET  +/shown  +200  ")

    def test_follow(self) -> None:
        """logs --follow --json shows a request as it happens, first running, then complete."""
        logs = self.command("logs", "--follow", "--json")
        self.get(b"/before")
        logs.wait_for_line(r'"target": "/before".*"state": "complete"')
        self.get(b"/after")
        logs.wait_for_line(r'"target": "/after".*"state": "complete", "status": 200')
        self.assertEqual(logs.stop(signal.SIGINT), 0)
        self.assertEqual(logs.err, [])

    def test_into_head(self) -> None:
        """Whoever reads may stop, as head does: nothing is said about it."""
        self.get(b"/head")
        self.find("/head")
        for words in (["logs"], ["logs", "--json"], ["logs", "--follow"]):
            reading, writing = os.pipe()
            os.close(reading)
            ran = subprocess.run(
                [sys.executable, "-c", Client.script, *words],
                env=environ({"XDG_RUNTIME_DIR": self.home}),
                cwd=temporary_folder(self),
                stdout=writing,
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
            )
            os.close(writing)
            self.assertEqual((ran.returncode, ran.stderr), (1, b""))

    def test_replay_is_exact(self) -> None:
        """A replay is the same request, to the byte; it is recorded too."""
        self.pass_through(
            b"POST /exact?a=%2F&b\r\nx-OdD:   1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED
        )
        found = self.find("/exact?a=%2F&b")
        status, lines = self.lines("replay", found["id"], "--json")
        self.assertEqual(status, 0, lines)
        again = json.loads(lines[0])
        self.assertEqual((again["replay_of"], again["status"]), (found["id"], 200))
        first, second = (sent for sent in self.raw.requests if b"POST /exact" in sent)
        self.assertEqual(first, second)
        self.assertIn(b"x-OdD: 1\r\n", first)

    def test_replay_edited(self) -> None:
        """A changed replay has what was asked for, and a length that fits."""
        self.pass_through(b"POST /edit\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 3\r\n\r\nold")
        name = self.find("/edit")["id"]
        changes = ("-H", "x-a: changed, twice", "-H", "X-B:", "--data", "longer", "--path", "/new")
        status, lines = self.lines("replay", name, *changes)
        self.assertEqual(status, 0, lines)
        self.assertRegex(lines[0], rf"  POST  /new  200  .*  replay of {name}$")
        (sent,) = (sent for sent in self.raw.requests if sent.startswith(b"POST /new "))
        self.assertIn(b"\r\nx-a: changed, twice\r\n", sent)
        self.assertNotIn(b"X-B", sent)
        self.assertTrue(sent.endswith(b"\r\nContent-Length: 6\r\n\r\nlonger"))

    def test_replay_of_bytes(self) -> None:
        """A body is sent as it was typed, be it UTF-8 or not."""
        self.get(b"/typed")
        name = self.find("/typed")["id"]
        status, lines = self.lines(
            "replay", name, "--method", "PUT", "--data", os.fsdecode(b"\xe9")
        )
        self.assertEqual(status, 0, lines)
        (sent,) = (sent for sent in self.raw.requests if sent.startswith(b"PUT /typed "))
        self.assertTrue(sent.endswith(b"\r\n\r\n\xe9"), sent)

    def test_errors(self) -> None:
        """What cannot be done is told in a line, with an exit status that says of what kind."""
        with self.server.visit("my-tunnel") as visitor:
            open_websocket(visitor, b"/refused")
            websocket = self.find("/refused")["id"]
            for words, status, why in (
                (("replay", "99999"), 1, "99999"),
                (("replay", websocket), 1, "opens a websocket"),
                (("replay", "one"), 2, "no id"),
                (("replay", websocket, "-H", "nonsense"), 2, "Name: value"),
                (("logs", "--inspector", "http://127.0.0.1:1"), 2, "has no token"),
                (("logs", "--inspector", "http://127.0.0.1:1/?token=x"), 4, "does not answer"),
                (("logs", "--inspector", self.url + "x"), 3, "token"),
                (("logs", "--inspector", f"{self.target.url}/?token=x"), 4, "no inspector"),
                (("logs", "-f", "--inspector", f"{self.target.url}/?token=x"), 4, "no inspector"),
            ):
                got, lines = self.lines(*words)
                self.assertEqual(got, status, (words, lines))
                self.assertEqual(len(lines), 1, lines)
                self.assertIn(why, lines[0])

    @unittest.skipUnless(Path("/usr/bin/curl").exists(), "curl is not installed")
    def test_curl(self) -> None:
        """The line for curl sends the same request, whatever stands in it."""
        body = b'it\'s "$HOME" `id` \\ \n!! %s'
        self.pass_through(
            b"PUT /curl?x=[1]'{2}\r\nX-Quote: a'b\"c\r\nUser-Agent: me\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.pass_through(b"POST /curl?bytes\r\nContent-Length: 6\r\n\r\n\0\x1b[201~"[:-1])
        self.pass_through(b"POST /curl?long\r\nContent-Length: 200000\r\n\r\n" + b"it's " * 40000)
        self.pass_through(b"POST /curl?empty\r\nContent-Length: 0\r\n\r\n")
        for path in ("/curl?x=[1]'{2}", "/curl?bytes", "/curl?long", "/curl?empty"):
            name = self.find(path)["id"]
            parts = urlsplit(self.url)
            asked = HTTPConnection("127.0.0.1", parts.port or 0, timeout=PATIENCE)
            fields = {"Authorization": f"Bearer {parts.query.partition('=')[2]}"}
            asked.request("GET", f"/api/exchanges/{name}/curl", headers=fields)
            line = asked.getresponse().read().decode()
            asked.close()
            self.assertTrue(line.isprintable() or body.decode() in line or "\n" in line, line)
            done = subprocess.run(
                ["sh"], input=line.encode(), env=environ(), capture_output=True, timeout=PATIENCE
            )
            self.assertEqual(done.stdout, b"answer to " + path.encode(), done.stderr)
            first, second = (
                sent for sent in self.raw.requests if sent.split(b" ")[1] == path.encode()
            )
            self.assertEqual(_sorted(first), _sorted(second))


def _sorted(request: bytes) -> tuple[bytes, set[bytes], bytes]:
    """A request without the order of its fields."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, set(fields), body


class RunTests(SynchronousTestCase):
    """When there is an inspector, and where."""

    def setUp(self) -> None:
        self.home = temporary_folder(self)
        self.server = Server(self, "--allow-registration")
        self.target = Target(self)

    def connect(self, *options: str, name: str = "my-tunnel") -> Client:
        words = ("tunnel", self.target.url, name, *options)
        return Client(self, self.server, *words, variables={"XDG_RUNTIME_DIR": self.home})

    def test_none(self) -> None:
        """Without a client that has one, logs says how to start one."""
        command = [sys.executable, "-c", Client.script, "logs"]
        logs = Process(self, command, {"XDG_RUNTIME_DIR": self.home, "HOME": self.home})
        self.assertEqual(logs.wait(), 4)
        self.assertEqual(len(logs.err), 1)
        self.assertIn("exposr tunnel TARGET --inspect", logs.err[0])

    def test_at_a_terminal(self) -> None:
        """At a terminal there is one, unasked; it goes with the client, and so does its file."""
        leader, follower = os.openpty()
        self.addCleanup(os.close, leader)
        command = [sys.executable, "-c", Client.script, "--server", self.server.url]
        process = subprocess.Popen(
            [*command, "tunnel", self.target.url, "my-tunnel"],
            env=environ({"XDG_RUNTIME_DIR": self.home, "HOME": self.home}),
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        text = ""
        while not (found := re.search(r"Inspector: http://127\.0\.0\.1:(\d+)/", text)):
            text += os.read(leader, 4096).decode()
        self.assertEqual(len(os.listdir(Path(self.home, "exposr"))), 1)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, "the client's end")
        self.assertEqual(process.returncode, 0)
        self.assertEqual(os.listdir(Path(self.home, "exposr")), [])
        self.assertGreaterEqual(int(found[1]), 1024)

    def test_ports(self) -> None:
        """A port that is asked for and taken ends the start; two clients have two ports."""
        port = str(self.target.port)
        client = self.connect("--inspect-port", port)
        self.assertEqual(client.wait(), 2)
        self.assertIn(f"port {port} cannot be listened on", client.err[0])
        self.assertEqual(len(client.err), 1)

    def test_killed(self) -> None:
        """A client that was killed leaves a file that misleads nobody; of several, one is named."""
        client = self.connect("--inspect-port", "0", name="killed")
        client.wait_for_line("^Inspector: ")
        client.kill()
        (left,) = os.listdir(Path(self.home, "exposr"))
        first = self.connect("--inspect-port", "0")
        second = self.connect("--inspect-port", "0", name="another")
        urls = [one.wait_for_line(r"^Inspector: (\S+)/\?token")[1] for one in (first, second)]
        first.wait_connected()
        second.wait_connected()
        variables = {"XDG_RUNTIME_DIR": self.home}
        logs = Process(self, [sys.executable, "-c", Client.script, "logs"], variables)
        self.assertEqual(logs.wait(), 2)
        self.assertIn("--inspector", logs.err[0])
        self.assertIn(f"{urls[1]} (another)", logs.err[0])
        words = [sys.executable, "-c", Client.script, "logs", "--inspector", urls[0]]
        self.assertEqual(Process(self, words, variables).wait(), 0)
        self.assertNotIn(left, os.listdir(Path(self.home, "exposr")))


PROGRAM = """
import os
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import Site
from exposr_tx.client import connect, listen, start_inspector

class Counted(Resource):
    isLeaf, visits = True, 0
    def render(self, request):
        self.visits += 1
        return b"visit %d of %b" % (self.visits, request.uri)

async def main():
    inspector = start_inspector(0)
    print(f"Inspector: {inspector.url}", flush=True)
    listening = await listen(Site(Counted()), inspector=inspector)
    await connect(os.environ["TARGET"], "connected", inspector=inspector, grace=0)
    print("public as", listening.tunnel_id, flush=True)

ensureDeferred(main()).addErrback(lambda why: (why.printTraceback(), reactor.stop()))
reactor.run()
"""


class OtherProgramTests(SynchronousTestCase):
    """Inspectors of programs other than exposr."""

    def setUp(self) -> None:
        folder = temporary_folder(self)
        self.home = {"HOME": folder, "XDG_RUNTIME_DIR": folder}
        self.target = Target(self)

    def lines(self, *words: str) -> list[str]:
        done = Process(self, [sys.executable, "-c", Client.script, *words], self.home)
        self.assertEqual(done.wait(), 0, done.report())
        return done.out

    def test_library(self) -> None:
        """A program that listens in public replays to itself, one that connects to its target."""
        server = Server(self, "--allow-registration")
        variables = {**self.home, "EXPOSR_SERVER": server.url, "TARGET": self.target.url}
        program = Process(self, [sys.executable, "-c", PROGRAM], variables)
        invented = program.wait_for_line("public as (.*)")[1]
        for name, path in ((invented, b"/listened"), ("connected", b"/connected")):
            with server.visit(name) as visitor:
                self.assertEqual(visitor.get(path).status, 200)
        self.assertEqual(
            [line.split()[3] for line in self.lines("logs")], ["/listened", "/connected"]
        )
        names = [json.loads(line)["tunnel"] for line in self.lines("logs", "--json")]
        self.assertEqual(names, [invented, "connected"])
        (made,) = self.lines("replay", "1")
        self.assertRegex(made, r"  GET  /listened  200  .*  replay of 1$")
        self.assertIn("visit 2 of /listened", self.lines("logs", made.split()[0]))
        self.lines("replay", "2")
        heads = [head for head, _ in self.target.requests]
        self.assertEqual((len(heads), heads[0]), (2, heads[1]))
        self.assertEqual(program.stop(), 0)
        self.assertEqual(os.listdir(Path(self.home["HOME"], "exposr")), [])

    def test_backstream(self) -> None:
        """backstream client --inspect has one; its address is not in the log."""
        script = [sys.executable, "-c", "from exposr_tx.scripts import backstream; backstream()"]
        serve = Process(self, [*script, "serve", "--addr", "localhost:0"], self.home)
        port = int(serve.wait_for_line(r'Start server addr="127\.0\.0\.1:(\d+)"')[1])
        urls = ("--src", f"http://127.0.0.1:{port}", "--dst", self.target.url)
        client = Process(self, [*script, "client", *urls, "--inspect-port", "0"], self.home)
        serve.wait_for_line("connected to WebSocket server")
        with Visitor(port) as visitor:
            self.assertEqual(visitor.get(b"/there").status, 200)
        self.assertIn("  GET  /there  200  ", self.lines("logs")[0])
        self.assertIn("replay of 1", self.lines("replay", "1")[0])
        self.assertEqual(len(self.target.requests), 2)
        self.assertEqual(client.stop(), 0)
        self.assertIn("Inspector: http://", client.err[0])
        self.assertNotIn("token=", "".join(client.out))


@unittest.skipIf(CHROMIUM is None, "Chromium is not installed")
class PageTests(Inspected):
    """The page, in a real Chromium."""

    browser: ClassVar[Browser]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.browser = Browser(ForClass(cls))

    def open(self) -> Page:
        page = self.browser.open(self.url)
        # A browser has six connections to an inspector, and each page needs one for its feed.
        self.addCleanup(page.close)
        page.wait_for("document.querySelector('#live').textContent == 'live'")
        return page

    def choose(self, page: Page, path: str) -> None:
        """Press the newest row with a path, and wait for its details."""
        row = (
            f"[...document.querySelectorAll('#list li')].find(r => r.innerText.includes({path!r}))"
        )
        page.wait_for(f"Boolean({row})")
        page.evaluate(f"{row}.click()")
        page.wait_for(f"document.querySelector('#details h2')?.innerText.includes({path!r})")

    def test_live_and_replay(self) -> None:
        """A request appears by itself, is opened, replayed, edited and filtered, by keys too."""
        page = self.open()
        self.assertNotIn("token", page.evaluate("location.href"))
        self.pass_through(
            b"POST /buy?n=1\r\nAuthorization: Bearer sesame\r\nContent-Type: application/json\r\n"
            b'Content-Length: 17\r\n\r\n{"tea":1.50,"a":[]}'[:-2]
        )
        self.choose(page, "/buy")
        text = page.text("#details")
        self.assertIn("200 OK", text)
        self.assertIn("[redacted]", text)
        self.assertNotIn("sesame", text)
        self.assertIn("answer to /buy?n=1", text)
        page.key("r")
        page.wait_for("document.querySelector('#details').innerText.includes('replay of')")

        def bought() -> list[bytes]:
            return [sent for sent in self.raw.requests if sent.startswith(b"POST /buy?n=1 ")]

        wait_until(lambda: len(bought()) == 2, "the replay at its target")
        first, second = bought()
        self.assertEqual(first, second)
        page.key("e")
        page.wait_for("document.querySelector('#editor').open")
        self.assertIn(
            "Bearer sesame", page.evaluate("document.querySelector('#edit-fields').value")
        )
        page.evaluate("document.querySelector('#edit-target').value = '/buy?n=2'")
        page.evaluate("document.querySelector('#edit-body').value = 'other'")
        page.click("#edit-send")
        page.wait_for("document.querySelector('#details').innerText.includes('answer to /buy?n=2')")
        (sent,) = (sent for sent in self.raw.requests if sent.startswith(b"POST /buy?n=2 "))
        self.assertTrue(sent.endswith(b"Content-Length: 5\r\n\r\nother"), sent)
        page.evaluate("document.querySelector('#filter').value = 'n=2'")
        page.evaluate("document.querySelector('#filter').dispatchEvent(new Event('input'))")
        shown = "[...document.querySelectorAll('#list li')].filter(r => !r.hidden)"
        page.wait_for(f"{shown}.length == 1")
        self.assertIn("/buy?n=2", page.evaluate(f"{shown}[0].innerText"))

    def test_filter_of_what_comes(self) -> None:
        """While there is a filter, what comes passes it by what is within as well; Escape takes it
        away again."""
        page = self.open()
        shown = "[...document.querySelectorAll('#list li')].filter(r => !r.hidden)"
        self.get(b"/hay")
        page.wait_for(f"{shown}.some(r => r.innerText.includes('/hay'))")
        for letter in "/needle":
            page.key(letter)
        page.wait_for("document.querySelector('#empty').innerText == 'Nothing passes the filter.'")
        self.pass_through(b"POST /found\r\nContent-Length: 6\r\n\r\nneedle")
        page.wait_for(f"{shown}.length == 1")
        self.assertIn("/found", page.evaluate(f"{shown}[0].innerText"))
        page.key("Escape")
        page.wait_for(f"{shown}.some(r => r.innerText.includes('/hay'))")
        self.assertEqual(page.evaluate("document.querySelector('#filter').value"), "")

    def test_held_key(self) -> None:
        """A request is replayed once for each press of the key, however long it is held."""
        page = self.open()
        self.get(b"/held")
        self.choose(page, "/held")

        def sent() -> int:
            return sum(request.startswith(b"GET /held ") for request in self.raw.requests)

        def more_than(count: int) -> bool:
            return sent() > count

        for replays in (1, 2):
            page.hold("r", 5)
            wait_until(partial(more_than, replays), "the replay")
            page.wait_for("document.querySelector('#details').innerText.includes('replay of')")
        self.assertEqual(sent(), 3)

    def test_sent_once(self) -> None:
        """An edited request is sent once, however often the button is pressed meanwhile; what is
        wrong with it is told where it is edited."""
        page = self.open()
        self.get(b"/unedited")
        self.choose(page, "/unedited")
        page.key("e")
        page.wait_for("document.querySelector('#editor').open")
        page.evaluate("document.querySelector('#edit-target').value = 'once'")
        page.click("#edit-send")
        page.wait_for("document.querySelector('#edit-problem').innerText.includes('a path')")
        page.evaluate("document.querySelector('#edit-target').value = '/once'")
        page.evaluate("for (let i = 0; i < 3; i += 1) document.querySelector('#edit-send').click()")
        page.wait_for("!document.querySelector('#editor').open")
        page.wait_for("document.querySelector('#details').innerText.includes('answer to /once')")
        self.assertFalse(page.evaluate("document.querySelector('#edit-send').disabled"))
        sent = [request for request in self.raw.requests if request.startswith(b"GET /once ")]
        self.assertEqual(len(sent), 1)

    def test_deep_json(self) -> None:
        """JSON that would fill a browser once it stands on many lines is shown as it came."""
        page = self.open()
        for name, size, lines in (("deep", 100_000, 1), ("short", 1000, 1999)):
            body = b"[" * size + b"]" * size
            head = b"POST /%b\r\nContent-Type: application/json\r\n" % name.encode()
            self.pass_through(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            self.choose(page, f"/{name}")
            shown = page.evaluate("document.querySelector('#details pre').textContent")
            self.assertEqual(shown.count("\n") + 1, lines)
            self.assertEqual("".join(shown.split()).encode(), body)

    def test_feed_anew(self) -> None:
        """When the feed was cut, what was chosen is chosen still once it is back."""
        page = self.browser.open("about:blank")
        self.addCleanup(page.close)
        page.call("Page.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=CUTTABLE)
        page.go(self.url)
        self.get(b"/chosen")
        self.choose(page, "/chosen")
        chosen = "document.querySelector('#list li[aria-selected=true]')"
        page.evaluate(f"{chosen}.title = 'before'")
        page.evaluate("cut.abort()")
        page.wait_for(f"{chosen}?.title === ''")
        self.assertIn("/chosen", page.evaluate(f"{chosen}.innerText"))

    def test_long_bytes(self) -> None:
        """Of many bytes the first are shown, and that there are more."""
        page = self.open()
        for size, told in ((16384, False), (16385, True)):
            head = b"PUT /bytes%d\r\nContent-Length: %d\r\n\r\n" % (size, size)
            self.pass_through(head + bytes(size))
            self.choose(page, f"/bytes{size}")
            self.assertEqual("The rest is not shown" in page.text("#details"), told)

    def test_json_of_dotnet(self) -> None:
        """JSON with a byte order mark stands on many lines as well."""
        page = self.open()
        head = b"POST /mark\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
        self.pass_through(head + b"\xef\xbb\xbf" + b'{"a":[1]}')
        self.choose(page, "/mark")
        shown = page.evaluate("document.querySelector('#details pre').textContent")
        self.assertEqual(shown, '{\n  "a": [\n    1\n  ]\n}')

    def test_client_ends(self) -> None:
        """When the client has ended, the page says so, and so does what is pressed then."""
        words = ("tunnel", self.target.url, "ending", "--inspect", "--inspect-port", "0")
        client = Client(self, self.server, *words)
        page = self.browser.open(client.wait_for_line(r"^Inspector: (\S+)$")[1])
        page.wait_for("document.querySelector('#live').textContent == 'live'")
        self.assertEqual(client.stop(), 0)
        page.wait_for("document.querySelector('#live').textContent == 'the client has ended'")
        page.click("#all-har")
        page.wait_for("document.querySelector('#notice').textContent == 'the client has ended'")
        self.assertEqual(page.text("#live"), "the client has ended")

    def test_hostile(self) -> None:
        """What a visitor or a target sends is shown as text and never runs."""
        page = self.open()
        self.pass_through(
            b"POST /hostile?<script>=<img/src=x/onerror=window.hacked=1>\r\nX-Bad: "
            + HOSTILE
            + b"\r\nContent-Type: image/svg+xml\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)
            + PICTURE
        )
        self.choose(page, "/hostile")
        page.wait_for("Boolean(document.querySelector('#details img.picture'))")
        self.assertEqual(page.evaluate("document.querySelectorAll('#details pre').length"), 1)
        self.assertIn(HOSTILE.decode(), page.text("#details pre"))
        self.assertEqual(page.text("#details").count("onerror"), 5)
        self.assertIsNone(page.evaluate("window.hacked"))
        self.assertEqual(page.evaluate("document.querySelectorAll('#details script').length"), 0)
        self.assertEqual(page.evaluate("document.querySelectorAll('img[onerror]').length"), 0)

    def test_websocket(self) -> None:
        """Messages of a websocket appear while it is open."""
        page = self.open()
        with self.server.visit("my-tunnel") as visitor:
            open_websocket(visitor, b"/socket")
            self.choose(page, "/socket")
            visitor.send(frame(b"\0\1\2"))
            page.wait_for("document.querySelectorAll('#messages tbody tr').length == 3")
            text = page.text("#messages")
        self.assertIn("to visitor", text)
        self.assertIn("hello", text)
        self.assertIn("00 01 02", text)
        self.assertTrue(page.evaluate("document.querySelector('#replay').disabled"))

    def test_secrets_of_websocket(self) -> None:
        """Credentials in messages are shown and hidden with all others."""
        page = self.open()
        messages = "document.querySelector('#messages').innerText"
        with self.server.visit("my-tunnel") as visitor:
            open_websocket(visitor, b"/secrets")
            visitor.send(b"\x81" + frame(b'{"token": "sesame"}')[1:])
            self.choose(page, "/secrets")
            page.wait_for(f"{messages}.includes('[redacted]')")
            page.click("#details [aria-pressed=false]")
            page.wait_for(f"{messages}.includes('sesame')")
            page.click("#details [aria-pressed=true]")
            page.wait_for(f"{messages}.includes('[redacted]')")

    def test_without_the_token(self) -> None:
        """Without the token there is only a page that says what is missing."""
        page = self.browser.open(self.url.partition("?")[0])
        page.wait_for("document.querySelector('#live').textContent.includes('token')")
        self.assertEqual(page.evaluate("document.querySelectorAll('#list li').length"), 0)
        self.assertEqual(page.evaluate("document.cookie"), "")
        asked = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
        self.assertEqual([name for name in asked if "/api/" in name], [])

    def test_clear_and_pause(self) -> None:
        """Clear empties the list; while it is paused it stays as it is."""
        page = self.open()
        self.get(b"/one")
        rows = "document.querySelectorAll('#list li').length"
        page.wait_for(f"{rows} > 0")
        page.click("#clear")
        page.wait_for(f"{rows} == 0")
        page.click("#pause")
        self.get(b"/two")
        page.wait_for("document.querySelector('#pause').innerText == 'Go on (1 new)'")
        self.assertEqual(page.evaluate(rows), 0)
        page.click("#pause")
        page.wait_for(f"{rows} == 1")
        self.assertIn("/two", page.text("#list"))
