"""An inspector in memory: exchanges that went through a recorder, and requests to its Site."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.recording import Recording
from exposr_tx.inspection.redaction import Redaction
from exposr_tx.inspection.replays import Edit
from exposr_tx.inspection.ring import Ring
from exposr_tx.inspector.guard import Guard
from exposr_tx.inspector.site import InspectorSite

HERE = IPv4Address("TCP", "127.0.0.1", 4040)
FIELDS = {
    "Host": "127.0.0.1:4040",
    "Authorization": "Bearer right-token",
    "Content-Type": "application/json",
}


class Answer:
    """A response of the Site's, as far as it has come."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("ascii").split("\r\n")
        self.status = int(line.split()[1])
        self.fields = {
            name.lower(): value for name, value in (text.split(": ", 1) for text in lines)
        }

    @property
    def json(self) -> Any:
        body = self.body
        if self.fields.get("transfer-encoding") == "chunked":
            # Twisted writes a piece as a chunk, with no more than its size before it.
            body = b"".join(body.split(b"\r\n")[1::2])
        return json.loads(body)


class Visits:
    """A ring, a recorder for it, and a Site that shows it.

    :param replay: what the Site has replays done by.
    """

    def __init__(self, replay: Callable[[Exchange, Edit | None], Exchange] | None = None) -> None:
        self.clock = Clock()
        self.ring = Ring(100)
        self.recorder = Recorder([self.ring], seconds=self.clock.seconds, now=lambda: 1e9)
        self._replay = replay
        self.site = InspectorSite(self.ring, Guard("right-token"), self, Redaction(), self.clock)

    def tunnels(self) -> list[str]:
        return ["my-tunnel"]

    async def replay(self, exchange: Exchange, edit: Edit | None) -> Exchange:
        assert self._replay is not None
        return self._replay(exchange, edit)

    def pass_through(self, request: bytes, *answers: bytes) -> Recording:
        """Let a request and its response pass, as through a tunnel."""
        recording = self.recorder.recording("my-tunnel", "http://localhost:3000/", "192.0.2.7")
        recording.connected()
        recording.sent(request)
        for answer in answers:
            recording.received(answer)
        return recording

    def get(self, path: str, **fields: str) -> Answer:
        return self.ask("GET", path, None, **fields)

    def ask(self, method: str, path: str, body: Any = None, **fields: str) -> Answer:
        """A request, by default one that is let in."""
        transport = self.open(method, path, body, **fields)
        self.clock.pump([0] * 9)  # what takes several turns
        return Answer(transport.value())

    def open(self, method: str, path: str, body: Any = None, **fields: str) -> StringTransport:
        """The connection of a request."""
        data = b"" if body is None else json.dumps(body).encode()
        sent = FIELDS | {"Content-Length": str(len(data))}
        sent |= {name.replace("_", "-"): value for name, value in fields.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in sent.items() if v)]
        head = "\r\n".join([*lines, "", ""])
        transport = StringTransport(hostAddress=HERE)
        self.channel: Any = self.site.buildProtocol(None)
        self.channel.makeConnection(transport)
        self.channel.dataReceived(head.encode("latin-1") + data)
        return transport


def request(line: str, body: bytes = b"", *fields: str) -> bytes:
    """A request's bytes."""
    lines = [f"{line} HTTP/1.1", "Host: my-tunnel.example", *fields]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + body


def response(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    """A response's bytes."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("utf-8") + body
