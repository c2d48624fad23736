"""What the corpus is tried on: the real server and client, and a target that tells what it got."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import h11

from tests.system.corpus import Response

ROOT = Path(__file__).resolve().parents[2]
TUNNEL = "corpus"
START_TIMEOUT = 30.0
# Between two writes of a scripted response, so that the second one is late.
PAUSE = 0.05
# Requests of the test's own: not part of what an entry made the target get.
OWN = (b"/next-visitor-", b"/afterwards", b"/own", b"/ready")


@dataclass
class Received:
    """One request as the target got it.

    :ivar text: request line and fields with lower-case names, body and trailers.
    :ivar fault: what was wrong with it; a strict parser of another make says so.
    """

    target: bytes = b""
    text: bytes = b""
    complete: bool = False
    fault: str = ""


class Target:
    """Answers every well-formed request with 200 and its request target, or with a script."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._scripts: dict[bytes, Response] = {}
        self._ended: dict[bytes, threading.Event] = {}
        self._received: list[Received] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def script(self, entry: Response) -> bytes:
        """The path that is answered with the entry's bytes."""
        path = b"/script/" + quote(entry.name, safe="").encode()
        self._scripts[path] = entry
        self._ended[path] = threading.Event()
        return path

    def dropped(self, path: bytes, patience: float) -> bool:
        """Whether the connection that a script was played on has ended by now."""
        return self._ended[path].wait(patience)

    def forget(self) -> None:
        self._received = []

    def received(self) -> list[Received]:
        """What came since :meth:`forget`, without the test's own requests."""
        return [r for r in self._received if not r.target.startswith(OWN)]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        early, played = b"", set[bytes]()
        try:
            with connection:
                while True:
                    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
                    if early:
                        parser.receive_data(early)
                    if not self._exchange(connection, parser, played):
                        return
                    early = parser.trailing_data[0]
        except OSError:
            pass
        finally:
            for path in played:
                self._ended[path].set()

    def _exchange(
        self, connection: socket.socket, parser: h11.Connection, played: set[bytes]
    ) -> bool:
        """One request and its response; whether another one may follow."""
        received = Received()
        method, ended = b"", False
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as fault:
                if ended:
                    # Broken off: incomplete, but what came was well-formed.
                    return False
                received.fault = f"{fault}: {parser.trailing_data[0][:500]!r}"
                if not received.target:
                    self._received.append(received)
                return False
            if event is h11.NEED_DATA:
                if parser.they_are_waiting_for_100_continue:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    parser.send(h11.InformationalResponse(status_code=100, headers=[]))
                data = connection.recv(65536)
                ended = not data
                parser.receive_data(data)
            elif isinstance(event, h11.Request):
                method = event.method
                received.target = event.target
                line = event.method + b" " + event.target + b" HTTP/" + event.http_version + b"\r\n"
                received.text = line + fields(event.headers)
                self._received.append(received)
                if event.target in self._scripts:
                    played.add(event.target)
                    return self._play(connection, self._scripts[event.target])
            elif isinstance(event, h11.Data):
                received.text += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                received.text += fields(event.headers)
                received.complete = True
                return self._answer(connection, parser, method, received.target)
            elif isinstance(event, h11.ConnectionClosed):
                return False

    def _answer(
        self, connection: socket.socket, parser: h11.Connection, method: bytes, body: bytes
    ) -> bool:
        length = [("Content-Length", str(len(body)))]
        data = parser.send(h11.Response(status_code=200, headers=length)) or b""
        if method != b"HEAD":
            data += parser.send(h11.Data(data=body)) or b""
        data += parser.send(h11.EndOfMessage()) or b""
        connection.sendall(data)
        return parser.our_state is h11.DONE

    def _play(self, connection: socket.socket, entry: Response) -> bool:
        for number, piece in enumerate(entry.pieces):
            if number == 1 and len(entry.pieces) == 2:
                time.sleep(PAUSE)
            connection.sendall(piece)
        if entry.ends == "reset":
            # Let what was sent go out before the reset overtakes it.
            time.sleep(PAUSE)
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return entry.ends == "keep"


def fields(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Field lines."""
    return b"".join(name + b": " + value + b"\r\n" for name, value in headers)


class Corpus:
    """The server, its client and the target, as processes and a thread."""

    def __init__(self) -> None:
        self.target = Target()
        self._directory = tempfile.TemporaryDirectory(prefix="exposr-corpus-")
        self._running: list[subprocess.Popen[bytes]] = []
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        """Start all and wait until a request goes through."""
        scripts = Path(sys.executable).parent
        client = "from exposr_tx.scripts import exposr; exposr()"
        self._run(
            "server",
            *(str(scripts / "twistd"), "-n", "--pidfile=", "exposr", "--allow-registration"),
            *("--api-port", str(self.port), "--ingress-http-url", f"http://localhost:{self.port}"),
        )
        self._await(lambda: bool(self._request(b"GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")))
        self._run(
            "client",
            *(sys.executable, "-c", client, "-s", f"http://127.0.0.1:{self.port}"),
            *("tunnel", "connect", TUNNEL, f"http://127.0.0.1:{self.target.port}"),
        )
        ready = b"GET /ready HTTP/1.1\r\nHost: corpus.localhost\r\n\r\n"
        self._await(lambda: b" 200 " in self._request(ready))

    def stop(self) -> None:
        """End the processes that were started here."""
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.target.close()
        self._directory.cleanup()

    def logs(self) -> str:
        """The last that each of the programs has printed."""
        logs = sorted(Path(self._directory.name).glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in logs)

    def _run(self, name: str, *command: str) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("EXPOSR_")}
        environ |= {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": self._directory.name}
        with (Path(self._directory.name) / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self._directory.name,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)

    def _request(self, data: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(data)
                return connection.recv(65536)
        except OSError:
            return b""

    def _await(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not holds():
            if time.monotonic() > deadline or any(p.poll() is not None for p in self._running):
                logs = self.logs()
                self.stop()
                raise RuntimeError(f"the programs did not come up:\n{logs}")
            time.sleep(0.05)
