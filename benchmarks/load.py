"""The visitors: wrk for many small requests, a generator of our own for even rates and
websockets, and sockets for long streams."""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass

from benchmarks.processes import Missing, Program, Programs, wait_until

READ_SIZE = 1 << 20
# A visitor that hears nothing for so long gives up.
SILENCE = 60.0
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True, slots=True)
class Rate:
    """What wrk found. Latencies are microseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float
    failed: int


def wrk(port: int, host: str, path: str, connections: int, seconds: int, close: bool) -> Rate:
    """Ask for a path as often as possible on so many connections; one thread."""
    binary = shutil.which("wrk")
    if binary is None:
        raise Missing("wrk is not installed: apt-get install wrk")
    command = [binary, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H"]
    command.append(f"Host: {host}")
    if close:
        command += ["-H", "Connection: close"]
    command.append(f"http://127.0.0.1:{port}{path}")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30, check=True
    ).stdout

    def number(pattern: str) -> float:
        found = re.search(pattern, done)
        return float(found[1]) if found else 0.0

    def latency(percentile: int) -> float:
        found = re.search(rf"^\s+{percentile}%\s+([\d.]+)(us|ms|s|m)$", done, re.MULTILINE)
        return float(found[1]) * UNITS[found[2]] if found else 0.0

    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", done)
    failed = sum(map(int, errors.groups())) if errors else 0
    return Rate(
        requests=int(number(r"(\d+) requests in")),
        per_second=number(r"Requests/sec:\s+([\d.]+)"),
        p50=latency(50),
        p99=latency(99),
        failed=failed + int(number(r"Non-2xx or 3xx responses: (\d+)")),
    )


@dataclass(frozen=True, slots=True)
class Flow:
    """What :mod:`benchmarks.generator` found in one run. Latencies are microseconds.

    :ivar failed: other answers than expected, and those that never came.
    :ivar late_p99: how late the generator itself was.
    :ivar cpu: the generator's share of a core.
    """

    answered: int
    failed: int
    per_second: float
    p50: float
    p99: float
    p999: float
    late_p99: float
    cpu: float


class Visitors:
    """Many visitors' connections, held by a generator; a context manager ends it.

    :param kind: ``"http"`` or ``"websocket"``.
    """

    def __init__(
        self, programs: Programs, kind: str, port: int, host: str, path: str, connections: int
    ) -> None:
        self._programs = programs
        self._program = programs.python(
            "generator", "benchmarks.generator", kind, port, host, path, connections, told=True
        )
        self._lines = 0
        self._next_line(SILENCE)

    def __enter__(self) -> Visitors:
        return self

    def __exit__(self, *_: object) -> None:
        self._programs.stop(self._program)

    def run(self, rate: float, seconds: float) -> Flow:
        """Messages at an even rate a second, or with 0 as fast as they are answered."""
        self._program.tell(f"{rate} {seconds}")
        return Flow(**json.loads(self._next_line(seconds + SILENCE)))

    def _next_line(self, patience: float) -> str:
        program = self._program
        wait_until(program, lambda: lines(program) > self._lines, "line of output", patience)
        self._lines += 1
        return program.output().splitlines()[self._lines - 1]


def lines(program: Program) -> int:
    """How many whole lines it has printed."""
    return program.output().count("\n")


class Visit:
    """One request on a connection of its own, read or written by hand."""

    def __init__(self, port: int, host: str, path: str, upload: int = 0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), SILENCE)
        method, body = ("POST", f"Content-Length: {upload}\r\n") if upload else ("GET", "")
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{body}\r\n".encode())
        self._left = upload
        self._buffer = bytearray(READ_SIZE)
        self.received = 0

    def close(self) -> None:
        self._socket.close()

    def head(self) -> bytes:
        """The head of the response; raises RuntimeError unless its status is 200."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self._socket.recv(65536)
            if not piece:
                break
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        if b" 200" not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"not a 200: {data[:300]!r}")
        self.received = len(rest)
        return head + b"\r\n\r\n" + rest

    def read(self, size: int) -> int:
        """Read until ``size`` bytes of the body have been received in all, or the end."""
        while self.received < size:
            got = self._socket.recv_into(self._buffer, min(READ_SIZE, size - self.received))
            if not got:
                break
            self.received += got
        return self.received

    def send(self, size: int, patience: float = SILENCE) -> int:
        """Send up to ``size`` bytes of the body; gives how many were taken before it stuck."""
        self._socket.settimeout(patience)
        sent, piece = 0, bytes(READ_SIZE)
        try:
            while sent < size and self._left:
                got = self._socket.send(memoryview(piece)[: min(READ_SIZE, size - sent)])
                sent += got
                self._left -= got
        except TimeoutError:
            pass
        return sent

    def receive(self) -> bytes:
        """Whatever comes next."""
        return self._socket.recv(65536)


def download(port: int, host: str, path: str, size: int) -> float:
    """Read ``size`` bytes of a path; gives MB/s."""
    start = time.perf_counter()
    visit = Visit(port, host, path)
    try:
        visit.head()
        got = visit.read(size)
    finally:
        visit.close()
    if got < size:
        raise RuntimeError(f"the download ended after {got} of {size} bytes")
    return size / (time.perf_counter() - start) / 1e6


def upload(port: int, host: str, path: str, size: int) -> float:
    """Send ``size`` bytes to a path and wait for the answer; gives MB/s."""
    start = time.perf_counter()
    visit = Visit(port, host, path, upload=size)
    try:
        visit.send(size)
        answer = visit.head()
    finally:
        visit.close()
    if not answer.endswith(str(size).encode()):
        raise RuntimeError(f"the upload was not swallowed whole: {answer!r}")
    return size / (time.perf_counter() - start) / 1e6


class Background:
    """A download that is repeated in a thread as long as the block runs."""

    def __init__(self, port: int, host: str, path: str, size: int) -> None:
        self._visit = (port, host, path)
        self._size = size
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.received = 0
        self.failure: Exception | None = None

    def __enter__(self) -> Background:
        self._thread.start()
        deadline = time.monotonic() + 5
        while not self.received and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join(SILENCE)

    def _run(self) -> None:
        try:
            while not self._over:
                visit = Visit(*self._visit)
                visit.head()
                while not self._over and visit.received < self._size:
                    before = visit.received
                    if visit.read(min(self._size, before + READ_SIZE)) == before:
                        raise RuntimeError(f"the download ended after {before} bytes")
                    self.received += visit.received - before
                visit.close()
        except (OSError, RuntimeError) as failure:
            self.failure = failure


def event_delay(port: int, host: str, streams: int, events: int) -> tuple[float, float]:
    """Microseconds from the target's write of an event to its arrival here.

    Gives the median of first events, one per stream, and of all events.
    """
    first: list[float] = []
    later: list[float] = []
    for _ in range(streams):
        visit = Visit(port, host, "/events")
        data, seen = visit.head(), 0
        while seen < events:
            now = time.monotonic_ns()
            stamps = re.findall(rb"data: (\d+)\n\n", data)
            for stamp in stamps[seen:]:
                (later if seen else first).append((now - int(stamp)) / 1e3)
                seen += 1
            data += visit.receive()
        visit.close()
    return statistics.median(first), statistics.median(later)
