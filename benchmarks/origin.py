"""What nginx cannot be as a target: a sink for uploads, a reader that stops, events with times.

``python -m benchmarks.origin PORT``. Paths:

``/sink``         reads the body and answers with its length;
``/stall?N``      reads N bytes of the body and then no more;
``/slow?N``       reads N bytes a second of it;
``/events``       an event stream: each event is the clock (ns) when it was written.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

EVENT_EVERY = 0.02
READ_SIZE = 256 * 1024


class Origin(asyncio.BufferedProtocol):
    """One connection. Reads into one buffer and counts; bodies with a length only."""

    def __init__(self) -> None:
        self._buffer = bytearray(READ_SIZE)
        self._head = b""
        self._path = ""
        self._left = 0
        self._taken = 0
        self._stop_at = -1
        self._slow = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._left:
            self._body(nbytes)
        else:
            self._head += self._buffer[:nbytes]
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if end:
                self._head = b""
                self._request(head)
                if rest:
                    self._body(len(rest))

    def _request(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b":", 1) for line in lines)
        path, _, query = first.split(b" ")[1].decode().partition("?")
        self._left = int(fields.get(b"content-length", b"0"))
        self._taken = 0
        self._stop_at = int(query) if path == "/stall" else -1
        self._slow = int(query) if path == "/slow" else 0
        if path == "/events":
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self._event()
        elif not self._left:
            self._answer()

    def _body(self, size: int) -> None:
        self._taken += size
        self._left -= size
        if self._left <= 0:
            self._left = 0
            self._answer()
        elif 0 <= self._stop_at <= self._taken:
            self._transport.pause_reading()
        elif self._slow:
            self._transport.pause_reading()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(size / self._slow, self._transport.resume_reading)

    def _answer(self) -> None:
        text = str(self._taken).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    def _event(self) -> None:
        event = b"data: %d\n\n" % time.monotonic_ns()
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        self._timer = asyncio.get_running_loop().call_later(EVENT_EVERY, self._event)


async def serve(port: int) -> None:
    """Listen and serve until stopped."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Origin, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve(int(sys.argv[1])))
    except KeyboardInterrupt:
        pass
