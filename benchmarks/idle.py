"""Many tunnels with clients that do nothing but answer pings, in one small process.

``python -m benchmarks.idle PORT COUNT CONNECTIONS`` makes an account and COUNT
tunnels on the server, opens the connections of each, prints ``ready`` and goes
on answering until it is stopped.
"""

from __future__ import annotations

import base64
import http.client
import json
import select
import socket
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

PING, PONG, CLOSE = 0x9, 0xA, 0x8


class Websockets:
    """The open websockets: answers their pings in a thread of its own."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._open: dict[int, tuple[socket.socket, bytearray]] = {}
        self.lost = 0
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, connection: socket.socket, early: bytes) -> None:
        """Take over a connection whose handshake is done."""
        self._open[connection.fileno()] = (connection, bytearray())
        self._frames(connection.fileno(), early)
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _run(self) -> None:
        while True:
            for number, _ in self._poll.poll():
                try:
                    data = self._open[number][0].recv(65536)
                except OSError:
                    data = b""
                if data:
                    self._frames(number, data)
                else:
                    self.lost += 1
                    self._poll.unregister(number)
                    self._open.pop(number)[0].close()

    def _frames(self, number: int, data: bytes) -> None:
        connection, pending = self._open[number]
        pending += data
        while len(pending) >= 2:
            opcode, size = pending[0] & 0xF, pending[1] & 0x7F
            start = 4 if size == 126 else 2
            if size == 126:
                size = int.from_bytes(pending[2:4], "big")
            if len(pending) < start + size:
                return
            payload = bytes(pending[start : start + size])
            del pending[: start + size]
            if opcode == PING:
                # A mask of zeroes: the payload goes as it is.
                connection.sendall(bytes((0x80 | PONG, 0x80 | size)) + bytes(4) + payload)


def connect(port: int, url: str) -> tuple[socket.socket, bytes]:
    """A websocket to the URL of a tunnel's JSON, and what came after the handshake."""
    parts = urlsplit(url)
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.sendall(
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(4096)
        if not data:
            raise SystemExit(f"the server closed during the handshake: {answer!r}")
        answer += data
    head, _, early = answer.partition(b"\r\n\r\n")
    if b" 101 " not in head:
        raise SystemExit(f"the server refused the websocket: {answer!r}")
    return connection, early


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


def main(port: int, count: int, connections: int) -> None:
    """Open them all and wait."""
    api, websockets = Api(port), Websockets()
    for number in range(count):
        path = f"/v1/tunnel/idle{number:05}"
        api.call("PUT", path)
        for _ in range(connections):
            websockets.add(*connect(port, api.call("GET", path)["transport"]["ws"]["url"]))
    print("ready", flush=True)
    while True:
        time.sleep(1)
        if websockets.lost:
            print(f"lost {websockets.lost}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
