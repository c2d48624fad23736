"""Many tunnels with clients that do nothing but answer pings, in one small process.

``python -m benchmarks.idle PORT COUNT CONNECTIONS`` makes an account and COUNT
tunnels on the server, prints ``connecting``, opens the connections of each, many
at once, prints ``ready`` with the connections that the server took per second
(the calls of the API between them not counted), and goes on answering until it
is stopped. They speak the native dialect.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

# A websocket's opcode, and heads of frames of the native dialect.
BINARY = 0x2
PING_FRAME, PONG_FRAME = (bytes((kind, 0, 0, 8, 0, 0, 0, 0)) for kind in (0x5, 0x6))
# Handshakes under way at a time; seconds that the server may say nothing to any of them.
AT_ONCE = 64
SILENCE = 20.0
# Seconds for whoever reads the output to notice that connecting begins.
NOTICE = 0.2


class Websockets:
    """The open websockets: answers their pings in a thread of its own."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._open: dict[int, tuple[socket.socket, bytearray]] = {}
        self.lost = 0
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, connection: socket.socket, early: bytes) -> None:
        """Take over a connection whose handshake is done."""
        number = connection.fileno()
        self._open[number] = (connection, bytearray())
        self._frames(number, early)
        self._poll.register(number, select.EPOLLIN)

    def _run(self) -> None:
        while True:
            for number, _ in self._poll.poll():
                try:
                    data = self._open[number][0].recv(65536)
                    self._frames(number, data)
                except OSError:
                    data = b""
                if not data:
                    self.lost += 1
                    self._poll.unregister(number)
                    self._open.pop(number)[0].close()

    def _frames(self, number: int, data: bytes) -> None:
        """Answer the native pings that stand in whole websocket messages."""
        connection, pending = self._open[number]
        pending += data
        while len(pending) >= 2:
            size = pending[1] & 0x7F
            start = 4 if size == 126 else 2
            if size == 126:
                size = int.from_bytes(pending[2:4], "big")
            if len(pending) < start + size:
                return
            payload = bytes(pending[start : start + size])
            binary = pending[0] & 0xF == BINARY
            del pending[: start + size]
            while binary and payload:
                end = 8 + int.from_bytes(payload[1:4], "big")
                if payload.startswith(PING_FRAME):
                    connection.sendall(message(PONG_FRAME + payload[8:end]))
                payload = payload[end:]


def message(payload: bytes) -> bytes:
    """A short binary message of a client. The mask is zeroes: the payload goes as it is."""
    return bytes((0x80 | BINARY, 0x80 | len(payload))) + bytes(4) + payload


class Opening:
    """A websocket on its way: connect, ask, and wait for the 101."""

    def __init__(self, port: int, url: str) -> None:
        parts = urlsplit(url)
        self._request = (
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: exposr-tx.1\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
        ).encode()
        self._answer = b""
        self.connection = socket.socket()
        self.connection.setblocking(False)
        self.connection.connect_ex(("127.0.0.1", port))

    def ask(self) -> None:
        """The socket is connected: send the handshake."""
        self.connection.setblocking(True)
        self.connection.settimeout(SILENCE)
        self.connection.sendall(self._request)

    def answered(self) -> bytes | None:
        """What came after the 101; None while that has not come."""
        data = self.connection.recv(4096)
        if not data:
            raise SystemExit(f"the server closed during the handshake: {self._answer!r}")
        self._answer += data
        head, end, early = self._answer.partition(b"\r\n\r\n")
        if not end:
            return None
        if b" 101 " not in head or b"exposr-dialect: 1" not in head.lower():
            raise SystemExit(f"no websocket of the native dialect: {self._answer!r}")
        return early


def connect_all(port: int, urls: Iterable[str], websockets: Websockets) -> float:
    """Open a websocket to each URL of a tunnel's JSON, many at once; gives seconds."""
    poll, opening = select.epoll(), dict[int, Opening]()
    waiting = iter(urls)
    begin = time.perf_counter()
    while True:
        for url in islice(waiting, AT_ONCE - len(opening)):
            one = Opening(port, url)
            opening[one.connection.fileno()] = one
            poll.register(one.connection.fileno(), select.EPOLLOUT)
        if not opening:
            return time.perf_counter() - begin
        ready = poll.poll(SILENCE)
        if not ready:
            raise SystemExit("the server does not answer")
        for number, event in ready:
            one = opening[number]
            if event & select.EPOLLOUT:
                one.ask()
                poll.modify(number, select.EPOLLIN)
            elif (early := one.answered()) is not None:
                poll.unregister(number)
                del opening[number]
                websockets.add(one.connection, early)


class Api:
    """The server's REST API, over one kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._fields = {"Content-Type": "application/json"}
        account = self.call("POST", "/v1/account")["account_id"]
        token = self.call("GET", f"/v1/account/{account}/token")["token"]
        self._fields["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str) -> dict[str, Any]:
        """One request with an empty object as its body; exits with the answer when it failed."""
        self._connection.request(method, path, "{}" if method != "GET" else None, self._fields)
        response = self._connection.getresponse()
        body = response.read()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {body!r}")
        answer: dict[str, Any] = json.loads(body)
        return answer


def websocket_url(tunnel: dict[str, Any]) -> str:
    """Where a tunnel's client connects, token included."""
    return str(tunnel["transport"]["ws"]["url"])


def main(port: int, count: int, connections: int) -> None:
    """Open them all and wait."""
    api, websockets = Api(port), Websockets()
    paths = [f"/v1/tunnel/idle{os.getpid()}-{number:05}" for number in range(count)]
    urls = [websocket_url(api.call("PUT", path)) for path in paths]
    print("connecting", flush=True)
    time.sleep(NOTICE)
    taken = connect_all(port, urls, websockets)
    for _ in range(connections - 1):
        # Each connection needs a token of its own.
        urls = [websocket_url(api.call("GET", path)) for path in paths]
        taken += connect_all(port, urls, websockets)
    print(f"ready {count * connections / taken}", flush=True)
    while True:
        time.sleep(1)
        if websockets.lost:
            print(f"lost {websockets.lost}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
