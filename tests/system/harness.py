"""Real programs and real sockets for the tests in this folder.

Tests here are ``SynchronousTestCase`` classes: they start programs, talk over
blocking sockets, and wait for conditions with a generous bound, never for a
time. Everything started is stopped by the test's clean-up, whatever happens::

    class TunnelTests(SynchronousTestCase):
        def test_get(self) -> None:
            target = Target(self)
            server = Server(self, "--allow-registration")
            tunnel = Client(self, server, "tunnel", target.url, "my-tunnel")
            tunnel.wait_connected()
            visitor = server.visit("my-tunnel")
            answer = visitor.request(b"GET / HTTP/1.1\\r\\nHost: %b\\r\\n\\r\\n" % visitor.host)

Programs get no ``EXPOSR_*`` variable of the machine's, free ports, and the
checkout (not an installed copy).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that a condition may take; generous, as machines are shared.
PATIENCE = 30.0
#: Whether ``bin/test --long`` asked for the tests that take minutes.
LONG = bool(os.environ.get("LONG_TESTS"))
#: The reactor that ``bin/test --reactor=NAME`` asked for; empty is Twisted's choice.
REACTOR = os.environ.get("TEST_REACTOR", "")

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """What a condition gives, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return found


def environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for programs: ours, without settings of the machine's for them."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EXPOSR_")}
    # Nobody's modules that lie where programs run, which is the folder for temporary files.
    ours = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    return {**plain, **ours, **(more or {})}


class Scope(Protocol):
    """What a program or a target lives as long as: a test, or all tests of a class."""

    def addCleanup(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As a test case has it."""


def temporary_folder(scope: Scope) -> str:
    """The path of an empty folder, which goes when the scope ends."""
    made = tempfile.TemporaryDirectory()
    scope.addCleanup(made.cleanup)
    return made.name


class ForClass:
    """All tests of a class: its ``setUpClass`` starts what they share."""

    def __init__(self, tests: type[SynchronousTestCase]) -> None:
        self.addCleanup = tests.addClassCleanup


class Process:
    """A running program and what it has written.

    :ivar out: lines of standard output so far, and ``err`` of standard error.
    """

    def __init__(
        self,
        test: Scope,
        command: Sequence[str],
        variables: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.process = subprocess.Popen(
            command,
            env=environ(variables),
            # Python imports from where it stands: not among what others leave in /tmp.
            cwd=cwd or temporary_folder(test),
            text=True,
            errors="backslashreplace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()
        test.addCleanup(self.kill)

    @staticmethod
    def _read(pipe: Any, lines: list[str]) -> None:
        for line in pipe:
            lines.append(line.rstrip("\n"))
        pipe.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for_line(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """The first line of output or errors that matches."""

        def look() -> re.Match[str] | None:
            ended = not self.running and not any(r.is_alive() for r in self._readers)
            for line in [*self.out, *self.err]:
                if found := re.search(pattern, line):
                    return found
            if ended:
                raise AssertionError(f"{pattern!r} did not come before the end: {self.report()}")
            return None

        try:
            return wait_until(look, f"a line like {pattern!r}", seconds)
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {self.report()}") from None

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit status, once the program has ended."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s: {self.report()}") from None
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def stop(self, number: int = SIGTERM) -> int:
        """Send a signal, and give the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.running:
            self.process.kill()
            self.process.wait(PATIENCE)

    def report(self) -> str:
        """For a failed assertion."""
        return "\n".join([f"status {self.process.poll()}", *self.out[-30:], *self.err[-30:]])


def twistd(*arguments: str, reactor: str = "") -> list[str]:
    """The command line of ``twistd``, by this interpreter.

    :param reactor: the name of Twisted's reactor to run on; else that of the test run.
    """
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    name = reactor or REACTOR
    return [*command, *([f"--reactor={name}"] if name else []), *arguments]


class Server(Process):
    """``twistd -n exposr`` on free ports, ready when the constructor returns.

    :param options: of the server; ``--api-port 0`` unless they say where to listen.
    :param reactor: see :func:`twistd`.
    :ivar addresses: the ready file: ``api``, ``ingress``, ``admin`` as URLs of loopback.
    """

    def __init__(
        self,
        test: Scope,
        *options: str,
        variables: Mapping[str, str] | None = None,
        cwd: str | None = None,
        reactor: str = "",
    ) -> None:
        self.ready_file = Path(temporary_folder(test), "ready.json")
        where = {"--api-port", "--listen", "-p"} & {o.partition("=")[0] for o in options}
        anywhere = [] if where or "EXPOSR_API_PORT" in (variables or {}) else ["--api-port", "0"]
        words = ("-n", "--pidfile=", "exposr", "--ready-file", str(self.ready_file))
        command = twistd(*words, reactor=reactor)
        super().__init__(test, [*command, *anywhere, *options], variables, cwd)

        def ready() -> bool:
            if not self.running:
                raise AssertionError(f"the server has ended: {self.report()}")
            return self.ready_file.exists()

        wait_until(ready, "the server's ready file")
        self.addresses: dict[str, Any] = json.loads(self.ready_file.read_text())

    @property
    def url(self) -> str:
        """Of the API."""
        return str(self.addresses["api"])

    @property
    def port(self) -> int:
        """Of ingress."""
        return urlsplit(self.addresses["ingress"]).port or 80

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log so far; everything on standard output is JSON."""
        return [json.loads(line) for line in list(self.out)]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's events of one kind, such as ``access``."""
        return [entry for entry in self.log if entry["event"] == name]

    def wait_for_events(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """At least so many of them."""

        def enough() -> list[dict[str, Any]]:
            found = self.events(name)
            return found if len(found) >= count else []

        return wait_until(enough, f"{count} log events {name!r}")

    def host(self, tunnel_id: str) -> bytes:
        """The Host of a tunnel where ``--ingress-http-url`` is its default."""
        return f"{tunnel_id}.localhost:{self.port}".encode()

    def visit(self, tunnel_id: str = "") -> Visitor:
        """A visitor's connection to ingress."""
        return Visitor(self.port, self.host(tunnel_id) if tunnel_id else b"localhost")

    def rest(
        self, method: str, path: str, account: str | None = None, body: Any = None
    ) -> tuple[int, Any]:
        """An API request: the status, and the JSON (or text) of the answer.

        :param account: an account number.
        """
        connection = http.client.HTTPConnection(
            "127.0.0.1", urlsplit(self.url).port, timeout=PATIENCE
        )
        fields = {}
        if account is not None:
            fields["Authorization"] = f"Bearer {base64.b64encode(account.encode()).decode()}"
        if body is not None:
            fields["Content-Type"] = "application/json"
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, fields)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if "json" in (answer.getheader("Content-Type") or ""):
            return answer.status, json.loads(data)
        return answer.status, data.decode()

    def account(self) -> str:
        """A new account's number; needs ``--allow-registration``."""
        status, answer = self.rest("POST", "/v1/account")
        assert status == 201, (status, answer)
        return str(answer["account_id"])

    def wait_connections(self, account: str, tunnel_id: str, count: int) -> None:
        """Until a tunnel has exactly so many connections."""

        def enough() -> bool:
            status, tunnel = self.rest("GET", f"/v1/tunnel/{tunnel_id}", account)
            return status == 200 and tunnel["connection"].get("connections", 0) == count

        wait_until(enough, f"{count} connections of {tunnel_id}")


class Client(Process):
    """The script ``exposr`` with a server's URL.

    :cvar script: what Python runs.
    """

    script: ClassVar[str] = "from exposr_tx.scripts import exposr; exposr()"

    def __init__(
        self,
        test: Scope,
        server: Server,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        reactor: str = "",
    ) -> None:
        home = temporary_folder(test)
        super().__init__(
            test,
            [sys.executable, "-c", self.script]
            + ["--server", f"http://localhost:{urlsplit(server.url).port}/", *arguments],
            {
                "XDG_CONFIG_HOME": home,
                "HOME": home,
                "EXPOSR_REACTOR": reactor or REACTOR,
                **(variables or {}),
            },
        )

    def wait_connected(self, connections: int = 1) -> str:
        """Until the tunnel carries traffic on so many connections; its public URL."""
        for number in range(1, connections + 1):
            self.wait_for_line(rf"connection {number}/\d+ connected")
        return self.wait_for_line(r"Ingress HTTP: (\S+)")[1]


@dataclass(slots=True)
class Answer:
    """A response as it came: names in lower case; of repeated fields the last counts."""

    status: int
    head: bytes
    fields: dict[bytes, bytes]
    body: bytes = b""
    trailers: dict[bytes, bytes] = field(default_factory=dict)


class Visitor:
    """A blocking connection that sends exactly the bytes it is given.

    :ivar host: what to put into Host.
    """

    def __init__(self, port: int, host: bytes = b"localhost", address: str = "127.0.0.1") -> None:
        self.host = host
        self.socket = socket.create_connection((address, port), PATIENCE)
        self._buffer = b""

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, path: bytes = b"/", *fields: bytes) -> Answer:
        """One GET on this connection."""
        lines = [b"GET %b HTTP/1.1" % path, b"Host: " + self.host, *fields, b"", b""]
        return self.request(b"\r\n".join(lines))

    def request(self, data: bytes) -> Answer:
        """Send bytes and read one response."""
        self.send(data)
        return self.answer(head_only=data.startswith(b"HEAD "))

    def read_until(self, end: bytes) -> bytes:
        """Up to and with ``end``; raises EOFError when the connection ends before."""
        while end not in self._buffer:
            self._more()
        data, _, self._buffer = self._buffer.partition(end)
        return data + end

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_rest(self) -> bytes:
        """Everything until the connection ends, by FIN or reset."""
        while True:
            try:
                self._more()
            except (EOFError, ConnectionError):
                data, self._buffer = self._buffer, b""
                return data

    def _more(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError(f"the connection ended after {self._buffer[-200:]!r}")
        self._buffer += data

    def head(self) -> Answer:
        """The next response's head, interim ones included."""
        head = self.read_until(b"\r\n\r\n")
        status, *lines = head[:-4].split(b"\r\n")
        return Answer(int(status.split(b" ")[1]), head, _fields(lines))

    def answer(self, head_only: bool = False) -> Answer:
        """The next final response, with its whole body."""
        answer = self.head()
        while answer.status < 200 and answer.status != 101:
            answer = self.head()
        if head_only or answer.status in (101, 204, 304):
            return answer
        if answer.fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            while size := int(self.read_until(b"\r\n").split(b";")[0], 16):
                answer.body += self.read(size)
                assert self.read(2) == b"\r\n"
            lines = []
            while (line := self.read_until(b"\r\n")) != b"\r\n":
                lines.append(line[:-2])
            answer.trailers = _fields(lines)
        elif b"content-length" in answer.fields:
            answer.body = self.read(int(answer.fields[b"content-length"]))
        else:
            answer.body = self.read_rest()
        return answer


def _fields(lines: Sequence[bytes]) -> dict[bytes, bytes]:
    pairs = (line.partition(b":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}


def answer_ok(connection: Visitor, target: Target) -> None:
    """Answers every request on a connection with what it was asked for."""
    while True:
        head = connection.read_until(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        fields = _fields(lines)
        body = connection.read(int(fields.get(b"content-length", b"0")))
        target.requests.append((head, body))
        text = b"" if line.startswith(b"HEAD ") else line + b"\n" + body
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))


class Target:
    """A service behind a tunnel, with a thread for each connection.

    :param serve: what is done with a connection, until it returns or the
        connection ends; by default :func:`answer_ok`.
    :ivar requests: heads and bodies that :func:`answer_ok` has received.
    :ivar connections: how many there have been.
    """

    def __init__(
        self,
        test: Scope,
        serve: Callable[[Visitor, Target], None] = answer_ok,
    ) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()
        test.addCleanup(self.close)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(accepted,), daemon=True).start()

    def _run(self, accepted: socket.socket) -> None:
        connection = Visitor.__new__(Visitor)
        connection.host, connection.socket, connection._buffer = b"", accepted, b""
        with connection:
            try:
                self._serve(connection, self)
            except (EOFError, OSError):
                pass

    def close(self) -> None:
        """Refuse connections from now on."""
        # shutdown wakes the thread that waits in accept(); close alone does not.
        try:
            self._listening.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listening.close()
