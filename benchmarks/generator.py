"""Many visitors in one small process: requests or websocket messages, evenly or at full speed.

``python -m benchmarks.generator KIND PORT HOST PATH CONNECTIONS`` opens so many
connections, KIND being ``http`` (kept alive) or ``websocket``, and prints ``ready``.
Then each line of its input is a run, ``RATE SECONDS``, answered by one line of JSON:
:class:`benchmarks.load.Flow`.

With a rate, messages are due at even distances whatever becomes of those before, and a
latency counts from when its message was due: one that waits for its turn, here or at the
server, waits visibly (no coordinated omission). Rate 0 asks again on each connection as soon
as it was answered. A connection never has more than one message on its way.

Nothing but epoll and sockets is used per message: some 12 µs, system calls included.
"""

from __future__ import annotations

import base64
import ctypes
import gc
import json
import math
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence

PAYLOAD = b"A message of the benchmark: a hundred bytes of text, as in a chat.".ljust(100, b".")
# Seconds after its end for which a run waits for what is on its way.
PATIENCE = 5.0
SECOND = 1_000_000_000
# prctl: wake up within a microsecond of the time asked for instead of 50.
TIMER_SLACK, SLACK_NS = 29, 1000


class Requests:
    """GETs of one path on a kept-alive connection."""

    def __init__(self, host: str, path: str) -> None:
        self.message = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._body = b""

    def open(self, connection: socket.socket) -> None:
        """Ask once, as a warm-up and to learn the body."""
        connection.sendall(self.message)
        data = b""
        while (good := self.answered(data)) is None:
            data += received(connection)
        if not good:
            raise SystemExit(f"not a 200: {data[:200]!r}")
        self._body = data.partition(b"\r\n\r\n")[2]

    def answered(self, data: bytes) -> bool | None:
        """Whether it is the answer, or another one; None while more is to come."""
        if self._body and data.endswith(self._body) and data[9:12] == b"200":
            return True
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if not end or (length and len(body) < int(length[1])):
            return None
        return data[9:12] == b"200"


class Messages:
    """Text messages on a websocket whose target echoes them."""

    def __init__(self, host: str, path: str) -> None:
        # The mask is zeroes: the payload goes as it is.
        self.message = bytes((0x81, 0x80 | len(PAYLOAD))) + bytes(4) + PAYLOAD
        self._echo = bytes((0x81, len(PAYLOAD))) + PAYLOAD
        self._opening = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
        ).encode()

    def open(self, connection: socket.socket) -> None:
        """The websocket handshake."""
        connection.sendall(self._opening)
        data = b""
        while b"\r\n\r\n" not in data:
            data += received(connection)
        if b" 101 " not in data.partition(b"\r\n")[0]:
            raise SystemExit(f"not a websocket: {data[:200]!r}")

    def answered(self, data: bytes) -> bool | None:
        """Whether it is the echo, or something else; None while more is to come."""
        if data == self._echo:
            return True
        return None if self._echo.startswith(data) else False


def received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise SystemExit("the server closed a connection")
    return data


class Visitors:
    """The open connections, and runs of messages over them."""

    def __init__(self, port: int, kind: Requests | Messages, connections: int) -> None:
        self._poll = select.epoll()
        self._kind = kind
        self._sockets: dict[int, socket.socket] = {}
        self._pending: dict[int, bytes] = {}
        self._due: dict[int, float] = {}
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", port), 20)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind.open(connection)
            connection.setblocking(False)
            self._sockets[connection.fileno()] = connection
            self._poll.register(connection.fileno(), select.EPOLLIN)
        self._free = deque(self._sockets)
        self._failed = 0

    def run(self, rate: float, seconds: float) -> dict[str, float]:
        """One run; what is found is :class:`benchmarks.load.Flow`."""
        self._failed = 0
        used, begin = time.process_time(), time.perf_counter_ns()
        end = begin + int(seconds * SECOND)
        late: list[float] = []
        if rate:
            total = int(rate * seconds)
            latencies = self._even(begin, SECOND / rate, total, late)
            lacking = total - len(latencies) - self._failed
        else:
            latencies = self._closed(end)
            lacking = 0
        elapsed = (time.perf_counter_ns() if rate else end) - begin
        return {
            "answered": len(latencies),
            "failed": self._failed + lacking + self._await_rest(),
            "per_second": len(latencies) / elapsed * SECOND,
            "p50": percentile(latencies, 0.5),
            "p99": percentile(latencies, 0.99),
            "p999": percentile(latencies, 0.999),
            "late_p99": percentile(late, 0.99),
            "cpu": (time.process_time() - used) / (time.perf_counter_ns() - begin) * SECOND,
        }

    def _even(self, begin: int, every: float, total: int, late: list[float]) -> list[float]:
        """Messages at even distances; those that find no connection free go when one is."""
        latencies: list[float] = []
        number, starved, wake = 0, False, [self._poll.fileno()]
        give_up = begin + every * total + PATIENCE * SECOND
        while (number < total or self._due) and self._sockets:
            now = time.perf_counter_ns()
            if now > give_up:
                break
            while number < total and (due := begin + number * every) <= now:
                if not self._free:
                    starved = True
                    break
                if not starved:
                    late.append(now - due)
                self._send(self._free.popleft(), due)
                number += 1
            else:
                starved = False
            # epoll counts in milliseconds, select in microseconds.
            next_due = begin + number * every if number < total and not starved else give_up
            wait = max(0.0, (next_due - time.perf_counter_ns()) / SECOND)
            if select.select(wake, [], [], wait)[0]:
                self._receive(latencies)
        return latencies

    def _closed(self, end: int) -> list[float]:
        """On every connection one message after the other."""
        latencies: list[float] = []
        while (now := time.perf_counter_ns()) < end and self._sockets:
            while self._free:
                self._send(self._free.popleft(), now)
            self._receive(latencies, (end - now) / SECOND, again=True)
        return latencies

    def _await_rest(self) -> int:
        """Wait for what is still on its way; gives how many never came."""
        until = time.monotonic() + PATIENCE
        while self._due and time.monotonic() < until:
            self._receive([], 0.1)
        return len(self._due)

    def _send(self, number: int, due: float) -> None:
        self._due[number] = due
        try:
            self._sockets[number].send(self._kind.message)
        except OSError:
            self._lose(number)

    def _receive(self, latencies: list[float], wait: float = 0.0, again: bool = False) -> None:
        clock, sockets, due, pending = time.perf_counter_ns, self._sockets, self._due, self._pending
        answered = self._kind.answered
        for number, _ in self._poll.poll(wait, 1024):
            try:
                data = sockets[number].recv(65536)
            except OSError:
                data = b""
            if not data or number not in due:
                self._lose(number)
                continue
            if number in pending:
                data = pending.pop(number) + data
            good = answered(data)
            if good is None:
                pending[number] = data
                continue
            now = clock()
            begun = due.pop(number)
            if good:
                latencies.append(now - begun)
            else:
                self._failed += 1
            if again:
                self._send(number, now)
            else:
                self._free.append(number)

    def _lose(self, number: int) -> None:
        self._failed += 1
        self._due.pop(number, None)
        self._poll.unregister(number)
        self._sockets.pop(number).close()
        if number in self._free:
            self._free.remove(number)


def percentile(nanoseconds: Sequence[float], share: float) -> float:
    """In microseconds; 0 where there is nothing."""
    if not nanoseconds:
        return 0.0
    ordered = sorted(nanoseconds)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] / 1000


def main(kind: str, port: int, host: str, path: str, connections: int) -> None:
    """Open the connections and do what the input says."""
    ctypes.CDLL(None).prctl(TIMER_SLACK, SLACK_NS, 0, 0, 0)
    sent = Requests(host, path) if kind == "http" else Messages(host, path)
    visitors = Visitors(port, sent, connections)
    gc.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        rate, seconds = map(float, line.split())
        print(json.dumps(visitors.run(rate, seconds)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
