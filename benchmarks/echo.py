"""The target of websockets: echoes what benchmarks.generator sends, in one epoll loop.

``python -m benchmarks.echo PORT``. A GET without an upgrade is answered with 200. Messages
are whole, short (125 bytes at most) and masked with zeroes, as the generator's are; anything
else closes the connection. So a message costs two system calls and little more.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\necho\n"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = re.compile(rb"\r\nsec-websocket-key: *([\w+/=]+)", re.IGNORECASE)
NO_MASK = bytes(4)


class Echo:
    """A listening socket and its connections."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._poll = select.epoll()
        self._poll.register(self._listening.fileno(), select.EPOLLIN)
        self._sockets: dict[int, socket.socket] = {}
        #: Connections that are websockets by now.
        self._open: set[int] = set()
        self._pending: dict[int, bytes] = {}

    def run(self) -> None:
        """Serve until stopped."""
        while True:
            for number, _ in self._poll.poll(-1, 1024):
                if number not in self._sockets:
                    self._accept()
                    continue
                try:
                    data = self._sockets[number].recv(65536)
                except OSError:
                    data = b""
                if not data or not self._receive(number, data):
                    self._close(number)

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[connection.fileno()] = connection
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _close(self, number: int) -> None:
        self._open.discard(number)
        self._pending.pop(number, None)
        self._poll.unregister(number)
        self._sockets.pop(number).close()

    def _receive(self, number: int, data: bytes) -> bool:
        """Answer; False where the connection is to be closed."""
        if number in self._pending:
            data = self._pending.pop(number) + data
        try:
            answer, rest = self._echo(data) if number in self._open else self._head(number, data)
            if answer:
                self._sockets[number].sendall(answer)
        except (OSError, ValueError):
            return False
        if rest:
            self._pending[number] = rest
        return True

    def _head(self, number: int, data: bytes) -> tuple[bytes, bytes]:
        """The answer to a request, and what is not used yet."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return b"", data
        key = KEY.search(head)
        if key is None:
            return ANSWER, rest
        self._open.add(number)
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        ), rest

    def _echo(self, data: bytes) -> tuple[bytes, bytes]:
        """The same messages unmasked, and a piece that is not whole."""
        answer = b""
        while len(data) >= 6:
            size = data[1] & 0x7F
            if data[0] not in (0x81, 0x82) or size > 125 or data[2:6] != NO_MASK:
                raise ValueError("not a message of the generator's")
            if len(data) < 6 + size:
                break
            answer += bytes((data[0], size)) + data[6 : 6 + size]
            data = data[6 + size :]
        return answer, data


if __name__ == "__main__":
    Echo(int(sys.argv[1])).run()
