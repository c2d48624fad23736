"""backstream's commands as processes: among ourselves, and with peers that only know JSON.

The Go programs themselves take part where ``go`` is installed and BACKSTREAM_GO
names their executable; nothing is downloaded.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import threading
import unittest
from collections.abc import Callable
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.transport.websocket.backstream import FRAME
from exposr_tx.wire.backstream import MAX_RESPONSE_MESSAGE
from tests.system.certificates import Authority
from tests.system.harness import Process, Scope, Server, Target, Visitor, twistd, wait_until
from tests.system.measures import MB, Growth
from tests.system.targets import Gate, site
from tests.system.websockets import accept, accept_key

SCRIPT = "from exposr_tx.scripts import backstream; backstream()"
GO = os.environ.get("BACKSTREAM_GO", "")
#: Settings of the machine's that would be taken for ours.
PLAIN = dict.fromkeys(("BACKSTREAM_ADDR", "BACKSTREAM_POLICY", "PORT"), "")


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT, *words]


class Serve(Process):
    """``backstream serve`` on a free port.

    :ivar port: where it listens.
    """

    def __init__(self, test: Scope, *words: str, start: list[str] | None = None) -> None:
        start = start or command("serve")
        super().__init__(test, [*start, "--addr", "localhost:0", *words], PLAIN)
        self.port = int(self.wait_for_line(r'Start server addr="127\.0\.0\.1:(\d+)"')[1])

    def visit(self) -> Visitor:
        return Visitor(self.port, b"any.test")


def connect(test: Scope, port: int, target: Target, *words: str, go: str = "") -> Process:
    """``backstream client``, connected."""
    start = [go, "client"] if go else command("client")
    urls = ["--src", f"http://127.0.0.1:{port}/x", "--dst", target.url]
    client = Process(test, [*start, *urls, *words], PLAIN)
    client.wait_for_line("connected to server")
    return client


def until_served(serve: Serve) -> None:
    """A client is in service."""
    serve.wait_for_line("connected to WebSocket server")


class JsonClient:
    """A client that only knows JSON, as the Go program; it answers when it is told to.

    :ivar joined: the answer to the handshake.
    """

    def __init__(self, port: int, path: bytes = b"/any", *fields: bytes) -> None:
        self.visitor = Visitor(port, b"any.test")
        key = base64.b64encode(os.urandom(16))
        lines = [b"GET %b HTTP/1.1" % path, b"Host: any.test", b"Upgrade: websocket"]
        lines += [b"Connection: Upgrade", b"Sec-WebSocket-Key: " + key]
        lines += [b"Sec-WebSocket-Version: 13", b"Backstream-Client: default", *fields]
        self.visitor.send(b"\r\n".join([*lines, b"", b""]))
        self.joined = self.visitor.answer()
        if self.joined.status == 101:
            assert self.joined.fields[b"sec-websocket-accept"] == accept_key(key)
        else:
            self.visitor.close()

    def read(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(read_text(self.visitor))
        return message

    def say(self, **members: Any) -> None:
        self.visitor.send(text_frame(json.dumps(members).encode()))


def text_frame(payload: bytes, mask: bool = True) -> bytes:
    """A text message; a mask of zeros changes nothing."""
    bit = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        length = bytes([bit | size])
    elif size < 1 << 16:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    return b"\x81" + length + (bytes(4) if mask else b"") + payload


def read_text(visitor: Visitor) -> bytes:
    """The next text message, of frames masked or not."""
    whole = b""
    while True:
        first, second = visitor.read(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(visitor.read(2 if size == 126 else 8), "big")
        mask = visitor.read(4) if second & 0x80 else bytes(4)
        data = visitor.read(size)
        if first & 0x0F == 8:
            raise EOFError("the websocket is closed")
        whole += bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)) if any(mask) else data
        if first & 0x80:
            return whole


class JsonServer:
    """A server that only knows JSON, as the Go program: one client at a time.

    :ivar heads: the handshakes that came.
    """

    def __init__(self, test: Scope, status: int = 101) -> None:
        self.heads: list[bytes] = []
        self.visitor: Visitor | None = None
        self._status = status
        self._done = threading.Event()
        self.target = Target(test, self._serve)
        test.addCleanup(self._done.set)

    def _serve(self, connection: Visitor, _target: Target) -> None:
        head = connection.read_until(b"\r\n\r\n")
        self.heads.append(head)
        pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
        fields = {name.lower(): value.strip() for name, _, value in pairs}
        if self._status != 101:
            text = b"auth policy denied\n"
            connection.send(
                b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (self._status, len(text), text)
            )
            return
        accept(connection, fields)
        self.visitor = connection
        self._done.wait(120)

    def ask(self, **members: Any) -> None:
        self.tell(**{"method": "GET", "path": "/", "header": {}, **members})

    def tell(self, **members: Any) -> None:
        visitor = wait_until(lambda: self.visitor, "a client")
        visitor.send(text_frame(json.dumps(members).encode(), mask=False))

    def answer(self) -> dict[str, Any]:
        assert self.visitor is not None
        found: dict[str, Any] = json.loads(read_text(self.visitor))
        return found


class GenerationServer(JsonServer):
    """A Go server of either generation, as it reads what is no response.

    :ivar probed: connections that it came by.
    """

    def __init__(self, test: Scope, newer: bool) -> None:
        self.newer, self.probed = newer, 0
        super().__init__(test)

    def _serve(self, connection: Visitor, target: Target) -> None:
        if self.visitor is None:
            super()._serve(connection, target)
            return
        head = connection.read_until(b"\r\n\r\n")
        key = [line for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key")][0]
        accept(connection, {b"sec-websocket-key": key.partition(b":")[2].strip()})
        read_text(connection)
        self.probed += 1
        if self.newer:
            connection.send(b"\x88\x02\x03\xe8")
        connection.close()


class OursTests(SynchronousTestCase):
    """Server and client of ours: the same commands, the native dialect behind them."""

    def test_traffic(self) -> None:
        """Queries, all header values, encoded paths, bodies and redirects pass as they are."""
        target = Target(self, site)
        serve = Serve(self)
        connect(self, serve.port, target)
        until_served(serve)
        with serve.visit() as visitor:
            answer = visitor.get(b"/a%2Fb?x=1&y", b"X-A: 1", b"X-A: 2")
            self.assertTrue(answer.body.startswith(b"GET /a%2Fb?x=1&y HTTP/1.1\r\n"), answer.body)
            self.assertIn(b"Host: 127.0.0.1:%d\r\n" % target.port, answer.body)
            self.assertIn(b"X-A: 1\r\nX-A: 2\r\n", answer.body)
            self.assertNotIn(b"any.test\r\nX-A", answer.body)
            self.assertEqual(len(visitor.get(b"/down/3000000").body), 3_000_000)
            self.assertEqual(visitor.get(b"/moved").status, 302)

    def test_streaming_and_several_at_once(self) -> None:
        """An event stream passes as it comes, and others are served meanwhile."""
        gate = Gate()
        serve = Serve(self)
        connect(self, serve.port, Target(self, gate.serve))
        until_served(serve)
        with serve.visit() as listener, serve.visit() as other:
            listener.send(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
            listener.read_until(b"data: first\n\n")
            self.assertEqual(other.get(b"/free").status, 200)
            gate.events.set()
            listener.read_until(b"data: second\n\n")

    def test_websocket(self) -> None:
        """A visitor's websocket reaches the destination."""
        serve = Serve(self)
        connect(self, serve.port, Target(self, site))
        until_served(serve)
        with serve.visit() as visitor:
            key = base64.b64encode(bytes(16))
            answer = visitor.get(
                b"/ws",
                b"Upgrade: websocket",
                b"Connection: Upgrade",
                b"Sec-WebSocket-Key: " + key,
                b"Sec-WebSocket-Version: 13",
            )
            self.assertEqual(answer.status, 101)
            visitor.send(b"any bytes")
            self.assertEqual(visitor.read(9), b"any bytes")

    def test_reconnects(self) -> None:
        """A client comes back to a server that was away; both end with 0 when asked to."""
        target = Target(self, site)
        serve = Serve(self)
        client = connect(self, serve.port, target)
        until_served(serve)
        self.assertEqual(serve.stop(SIGTERM), 0)
        again = Process(self, command("serve", "--addr", f"127.0.0.1:{serve.port}"), PLAIN)
        again.wait_for_line("connected to WebSocket server")
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/page").status, 200)
        self.assertEqual(client.stop(SIGINT), 0)
        client.wait_for_line("Quit signal received")
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/page").status, 503)
        self.assertEqual(again.stop(SIGINT), 0)

    def test_says_that_it_is_ready(self) -> None:
        """The lines by which scripts know that a client is ready are there with our server, too."""
        serve = Serve(self)
        client = connect(self, serve.port, Target(self, site))
        client.wait_for_line(r'connected to server url="ws://127\.0\.0\.1:\d+/x" $')
        client.wait_for_line(r"INFO waiting for message $")
        self.assertEqual(client.stop(), 0)

    def test_says_what_passes(self) -> None:
        """The lines of each request are there with our server, too: one id in all of them."""
        serve = Serve(self)
        client = connect(self, serve.port, Target(self, site))
        until_served(serve)
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/page?with=query").status, 200)
            self.assertEqual(visitor.get(b"/a%20%22b%22").status, 200)
        answered = r"sending response id=\"(\S+)\" code={} path={} method=\"GET\" $"
        id = client.wait_for_line(answered.format(200, '"/page"'))[1]
        client.wait_for_line(answered.format(200, r'"/a \\"b\\""'))
        serve.wait_for_line(rf'sent message id="{id}" method="GET" path="/page" $')
        serve.wait_for_line(rf'sent HTTP response id="{id}" method="GET" code=200 $')
        self.assertEqual(sum("sending response" in line for line in client.out), 2)
        self.assertEqual(sum("sent message" in line for line in serve.out), 2)

    def test_connects_before_there_is_a_server(self) -> None:
        """A client that finds nobody goes on trying, and ends with 0 when asked to."""
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        words = ("client", "-s", f"http://127.0.0.1:{port}", "-d", "http://127.0.0.1:1")
        client = Process(self, command(*words), PLAIN)
        client.wait_for_line("failed to connect to server, trying again")
        self.assertEqual(client.stop(SIGTERM), 0)

    def test_twistd(self) -> None:
        """``twistd -n backstream`` is the same server."""
        start = twistd("-n", "--pidfile=", "backstream")
        serve = Serve(self, "--code", "404", start=start)
        with serve.visit() as visitor:
            answer = visitor.get(b"/x")
            self.assertEqual(
                (answer.status, answer.body), (404, b"no WebSocket client connected\n")
            )
        self.assertEqual(serve.stop(SIGTERM), 0)

    def test_drains(self) -> None:
        """A request that runs when the server is asked to end is answered first."""
        gate = Gate()
        serve = Serve(self)
        connect(self, serve.port, Target(self, gate.serve))
        until_served(serve)
        with serve.visit() as visitor:
            visitor.send(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_until(lambda: gate.waiting, "the request at the destination")
            serve.process.send_signal(SIGTERM)
            serve.wait_for_line("Quit signal received")
            gate.opened.set()
            self.assertEqual(visitor.answer().status, 200)
        self.assertEqual(serve.wait(), 0)

    def test_client_drains(self) -> None:
        """A request that runs when the client is asked to end is answered first, too."""
        gate = Gate()
        serve = Serve(self)
        client = connect(self, serve.port, Target(self, gate.serve))
        until_served(serve)
        with serve.visit() as visitor:
            visitor.get(b"/free")
            visitor.send(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_until(lambda: gate.waiting, "the request at the destination")
            client.process.send_signal(SIGTERM)
            client.wait_for_line("Quit signal received")
            gate.opened.set()
            self.assertEqual(visitor.answer().status, 200)
        self.assertEqual(client.wait(), 0)

    def test_beside_exposr(self) -> None:
        """On one port with exposr's tunnels, backstream has its host."""
        target = Target(self, site)
        server = Server(self, "--backstream", "app.test")
        words = ("-H", "Host: app.test")
        client = connect(self, server.port, target, *words)
        with Visitor(server.port, b"app.test") as visitor:
            wait_until(lambda: visitor.get(b"/page").status == 200, "the client in service")
            self.assertIn(b"Host: 127.0.0.1:", visitor.get(b"/x").body)
        with server.visit("nobody") as visitor:
            self.assertEqual(visitor.get().status, 404)
        self.assertEqual(server.rest("GET", "/v1/tunnel")[0], 401)
        self.assertEqual(client.stop(), 0)
        self.assertEqual(server.stop(), 0)

    def test_tls(self) -> None:
        """An https: server is verified: by its authority and its name it is believed, else it is
        not."""
        authority = Authority(self)
        pem = authority.certificate("localhost")
        listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        server = Server(self, "--listen", listen, "--backstream", "localhost")
        words = ("client", "-s", f"https://localhost:{server.port}", "-d", "http://127.0.0.1:1")
        wary = Process(self, command(*words), PLAIN)
        wary.wait_for_line("failed to connect to server, trying again.*certificate")
        self.assertEqual(wary.stop(), 0)
        elsewhere = [word.replace("localhost", "127.0.0.1") for word in words]
        misled = Process(self, command(*elsewhere, "--server-ca", authority.path), PLAIN)
        misled.wait_for_line("failed to connect to server, trying again.*not for this name")
        self.assertEqual(misled.stop(), 0)
        trusting = Process(self, command(*words, "--server-ca", authority.path), PLAIN)
        trusting.wait_for_line("connected to server")
        self.assertEqual(trusting.stop(), 0)


class StatusTests(SynchronousTestCase):
    """Exit statuses and lines that supervisors rely on."""

    def fails(self, *words: str, **variables: str) -> str:
        process = Process(self, command(*words), {**PLAIN, **variables})
        self.assertEqual(process.wait(), 1, process.report())
        self.assertEqual(len(process.err), 1, process.report())
        return process.err[0]

    def test_usage(self) -> None:
        """A wrong line, a policy that is not there, a host that can be none, a taken port: one line
        on standard error, status 1."""
        self.assertIn("--nothing", self.fails("serve", "--nothing"))
        self.assertIn("somewhere", self.fails("serve", "-p", "somewhere"))
        self.assertIn("BACKSTREAM_POLICY", self.fails("s", BACKSTREAM_POLICY="x"))
        self.assertIn("--addr", self.fails("s", "-a", ".:0"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(str(port), self.fails("s", "-a", f"127.0.0.1:{port}"))
        self.assertIn("--log-output", self.fails("-o", "/dev/null/x", "s"))

    def test_forbidden(self) -> None:
        """A server that answers 401 or 403 ends the client with 1."""
        for status in (401, 403):
            server = JsonServer(self, status)
            words = ("c", "-s", server.target.url, "-d", "http://127.0.0.1:1")
            client = Process(self, command(*words), PLAIN)
            self.assertEqual(client.wait(), 1)
            client.wait_for_line(f"failed to run app.*{status}")

    def test_json_log_in_a_file(self) -> None:
        """The log goes on in its file for as long as the server runs."""
        path = self.mktemp()
        words = ("-f", "json", "-o", os.path.abspath(path), "serve", "-a", "127.0.0.1:0")
        serve = Process(self, command(*words), PLAIN)

        def lines() -> list[dict[str, Any]]:
            if not os.path.exists(path):
                return []
            with open(path, encoding="utf-8") as stream:
                return [json.loads(line) for line in stream]

        (start,) = wait_until(lambda: [x for x in lines() if x["msg"] == "Start server"], "start")
        with Visitor(int(start["addr"].rpartition(":")[2])) as visitor:
            visitor.get()
        wait_until(lambda: [x for x in lines() if x["msg"] == "sent HTTP response"], "a request")
        self.assertEqual(serve.stop(), 0)
        self.assertEqual(serve.out, [])

    def test_end_of_the_terminal(self) -> None:
        """With its terminal a client ends in good order; one with a log file opens that anew."""
        words = ("client", "-s", "http://127.0.0.1:1", "-d", "http://127.0.0.1:1")
        client = Process(self, command(*words), PLAIN)
        client.wait_for_line("trying again")
        self.assertEqual(client.stop(SIGHUP), 0)
        client.wait_for_line("Quit signal received")

        path = os.path.abspath(self.mktemp())
        client = Process(self, command("-o", path, *words), PLAIN)

        def says(text: str) -> bool:
            if not os.path.exists(path):
                return False
            with open(path, encoding="utf-8") as stream:
                return text in stream.read()

        wait_until(lambda: says("trying again"), "its log")
        os.rename(path, f"{path}.1")
        client.process.send_signal(SIGHUP)
        wait_until(lambda: os.path.exists(path), "a log anew")
        self.assertEqual(client.stop(SIGTERM), 0)
        self.assertTrue(says("Quit signal received"))


class JsonClientTests(SynchronousTestCase):
    """Our server with clients that only know JSON."""

    def test_one_request(self) -> None:
        """Joined on any path, asked and answered; no dialect is pressed on it."""
        serve = Serve(self)
        client = JsonClient(serve.port, b"/what/ever?x")
        self.assertEqual(client.joined.status, 101)
        self.assertNotIn(b"sec-websocket-protocol", client.joined.fields)
        with serve.visit() as visitor:
            visitor.send(b"GET /a%20b?q HTTP/1.1\r\nHost: h\r\nCookie: c\r\n\r\n")
            asked = client.read()
            self.assertEqual((asked["path"], asked["query"]), ("/a b", "q"))
            self.assertEqual(UUID(asked["id"]).version, 4)
            self.assertEqual(asked["header"]["Cookie"], "c")
            client.say(id=asked["id"], code=202, body="eWVz", header={"X": ["1"]})
            answer = visitor.answer()
            self.assertEqual((answer.status, answer.body), (202, b"yes"))
        serve.wait_for_line(f'sent HTTP response id="{asked["id"]}" method="GET" code=202')

    def test_newer(self) -> None:
        """One of a newer kind says so at its first request, gets the query, and then a visitor's
        websocket, whose messages pass."""
        serve = Serve(self)
        client = JsonClient(serve.port)
        with serve.visit() as visitor:
            visitor.send(b"GET /a%20b?q HTTP/1.1\r\nHost: h\r\n\r\n")
            data = {"id": client.read()["id"], "accepted": False}
            error = "failed to parse request path"
            client.say(type="websocket_upgrade_response", data={**data, "error": error})
            asked = client.read()
            self.assertEqual(asked["path"], "/a%20b?q")
            client.say(id=asked["id"], code=200)
            self.assertEqual(visitor.answer().status, 200)
        with serve.visit() as visitor:
            key = base64.b64encode(bytes(16))
            lines = [
                b"GET /ws?x HTTP/1.1",
                b"Host: h",
                b"Upgrade: websocket",
                b"Connection: upgrade",
            ]
            lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + key, b"", b""]
            visitor.send(b"\r\n".join(lines))
            asked = client.read()["data"]
            self.assertEqual(asked["path"], "/ws?x")
            data = {"id": asked["id"], "accepted": True}
            client.say(type="websocket_upgrade_response", data=data)
            answer = visitor.answer()
            self.assertEqual(answer.fields[b"sec-websocket-accept"], accept_key(key))
            visitor.send(text_frame(b"hello"))
            said = client.read()["data"]
            self.assertEqual((said["connection_id"], said["data"]), (asked["id"], "aGVsbG8="))
            client.say(type="websocket_frame", data=said)
            self.assertEqual(read_text(visitor), b"hello")
            closing = {"connection_id": asked["id"], "code": 1000, "reason": ""}
            client.say(type="websocket_close", data=closing)
            self.assertEqual(visitor.read(4), b"\x88\x02\x03\xe8")

    def test_leaves(self) -> None:
        """A client that goes with a request is a 502 at once."""
        serve = Serve(self)
        client = JsonClient(serve.port)
        with serve.visit() as visitor:
            visitor.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            client.read()
            client.visitor.close()
            self.assertEqual(visitor.answer().status, 502)

    def test_beside_one_of_ours(self) -> None:
        """A client that only knows JSON and one of ours share the visitors."""
        serve = Serve(self)
        target = Target(self, site)
        connect(self, serve.port, target)
        until_served(serve)
        client = JsonClient(serve.port)
        serve.wait_for_line("connected to WebSocket server.*clients=2")
        with serve.visit() as visitor, serve.visit() as other:
            visitor.send(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
            other.send(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
            client.say(id=client.read()["id"], code=202)
            self.assertEqual({visitor.answer().status, other.answer().status}, {200, 202})

    def test_huge_frame(self) -> None:
        """A frame of 100 MB ends its client before it is read; the other client goes on."""
        serve = Serve(self)
        liar, honest = JsonClient(serve.port), JsonClient(serve.port)
        liar.visitor.send(b"\x81\xff" + (100_000_000).to_bytes(8, "big") + bytes(4) + b"x" * 1000)
        self.assertEqual(liar.visitor.read_rest()[:1] in (b"", b"\x88"), True)
        with serve.visit() as visitor:
            visitor.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            honest.say(id=honest.read()["id"], code=200)
            self.assertEqual(visitor.answer().status, 200)

    def test_long_answer(self) -> None:
        """An answer that is longer than may be is a 502 at once; its client is there for the next
        request, once it has said it all."""
        serve = Serve(self)
        client = JsonClient(serve.port)
        long = text_frame(b"x" * (MAX_RESPONSE_MESSAGE + 1))
        with serve.visit() as visitor:
            for start in (long[:1], b"\x01"):  # in one frame, and in many
                visitor.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                client.read()
                client.visitor.send(start + long[1:-1])
                self.assertEqual(visitor.answer().status, 502)
                visitor.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                client.visitor.send(long[-1:] if start == b"\x81" else long[-1:] + b"\x80\x80abcd")
                client.say(id=client.read()["id"], code=200)
                self.assertEqual(visitor.answer().status, 200)

    def test_endless_message(self) -> None:
        """A message of empty frames that never ends is cut off, as too long."""
        serve = Serve(self)
        liar = JsonClient(serve.port)
        liar.visitor.send(b"\x01\x80abcd" + b"\x00\x80abcd" * (MAX_RESPONSE_MESSAGE // FRAME + 2))
        self.assertIn(liar.visitor.read_rest()[:1], (b"", b"\x88"))
        serve.wait_for_line("disconnected from WebSocket server")

    def test_timeout(self) -> None:
        """A client that does not answer in time is a 504."""
        serve = Serve(self, "--ingress-timeout", "0.2")
        client = JsonClient(serve.port)
        with serve.visit() as visitor:
            visitor.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            client.read()
            self.assertEqual(visitor.answer().status, 504)


class JsonServerTests(SynchronousTestCase):
    """Our client with a server that only knows JSON."""

    def test_requests(self) -> None:
        """The client names itself, takes its -H along, and answers each request."""
        server = JsonServer(self)
        port = urlsplit(server.target.url).port or 0
        client = connect(self, port, Target(self, site), "-H", "X-Token: a, b:c")
        self.assertIn(b"\r\nBackstream-Client: default\r\n", server.heads[0])
        self.assertIn(b"\r\nX-Token: a, b:c\r\n", server.heads[0])
        server.ask(id="1", path="/page")
        answer = server.answer()
        self.assertEqual((answer["id"], answer["code"]), ("1", 200))
        self.assertEqual(base64.b64decode(answer["body"]), b"<h1>hello</h1>")
        server.ask(id="2", path="/moved")
        self.assertEqual(server.answer()["code"], 302)
        client.wait_for_line(r'sending response id="2" code=302 path="/moved" method="GET"')
        self.assertEqual(client.stop(), 0)

    def test_drains(self) -> None:
        """A request that runs when the client is asked to end is answered first."""
        gate = Gate()
        server = JsonServer(self)
        client = connect(self, urlsplit(server.target.url).port or 0, Target(self, gate.serve))
        server.ask(id="1", path="/wait")
        wait_until(lambda: gate.waiting, "the request at the destination")
        client.process.send_signal(SIGTERM)
        client.wait_for_line("Quit signal received")
        gate.opened.set()
        self.assertEqual(server.answer()["code"], 200)
        self.assertEqual(client.wait(), 0)

    def test_memory_of_bodies(self) -> None:
        """A body is out of the client's memory once it is answered, also where the destination
        has not read it, or cannot be reached."""

        over = threading.Event()

        def hasty(connection: Visitor, _target: Target) -> None:
            connection.read_until(b"\r\n\r\n")
            connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            over.wait(120)

        body = base64.b64encode(bytes(8 * MB)).decode()
        there, away = Target(self, hasty), Target(self, hasty)
        away.close()
        self.addCleanup(over.set)
        for target, code in ((there, 413), (away, 502)):
            server = JsonServer(self)
            client = connect(self, urlsplit(server.target.url).port or 0, target)
            growth = Growth(client=client)
            for number in range(12):
                server.ask(id=str(number), method="POST", body=body)
                self.assertEqual(server.answer()["code"], code)
            growth.check(96 * MB)
            self.assertEqual(client.stop(), 0)

    def test_query_in_path(self) -> None:
        """What follows a ? in the path is a query with a server that puts it there, tried once;
        else it belongs to the path."""
        for newer, target in ((True, b"/a?x=%20y"), (False, b"/a%3Fx=%2520y")):
            server = GenerationServer(self, newer)
            client = connect(self, urlsplit(server.target.url).port or 0, Target(self, site))
            for id in ("1", "2"):
                server.ask(id=id, path="/a?x=%20y")
                body = base64.b64decode(server.answer()["body"])
                self.assertTrue(body.startswith(b"GET %b HTTP/1.1\r\n" % target), body)
            self.assertEqual(server.probed, 1)
            self.assertEqual(client.stop(), 0)

    def test_websocket(self) -> None:
        """A visitor's websocket that a newer server tells of is one with the destination."""

        def serve(connection: Visitor, _: Target) -> None:
            head = connection.read_until(b"\r\n\r\n")
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            accept(connection, {b"sec-websocket-key": key})
            connection.send(text_frame(head.partition(b"\r\n")[0], mask=False))
            connection.send(text_frame(b"re: " + read_text(connection), mask=False))
            connection.send(b"\x88\x02\x0f\xa1")
            connection.read_rest()

        server = JsonServer(self)
        connect(self, urlsplit(server.target.url).port or 0, Target(self, serve))
        data: dict[str, Any] = {"id": "7", "path": "/ws?x", "header": {}, "remote": "192.0.2.1:5"}
        server.tell(type="websocket_upgrade_request", data=data)
        self.assertEqual(server.answer()["data"]["accepted"], True)
        self.assertEqual(base64.b64decode(server.answer()["data"]["data"]), b"GET /ws?x HTTP/1.1")
        data = {"connection_id": "7", "type": 1, "data": "aGk="}
        server.tell(type="websocket_frame", data=data)
        self.assertEqual(base64.b64decode(server.answer()["data"]["data"]), b"re: hi")
        self.assertEqual(server.answer()["data"], {"connection_id": "7", "type": 8, "data": "D6E="})
        self.assertEqual(server.answer()["data"]["code"], 4001)

    def test_destination_is_down(self) -> None:
        """A destination that refuses is a 502, and the client stays."""
        server = JsonServer(self)
        port = urlsplit(server.target.url).port or 0
        target = Target(self)
        target.close()
        connect(self, port, target)
        for id in ("1", "2"):
            server.ask(id=id)
            self.assertEqual(server.answer()["code"], 502)


def _skipped(function: Callable[..., None]) -> Callable[..., None]:
    return unittest.skipUnless(GO, "BACKSTREAM_GO names no executable of the Go program")(function)


class GoTests(SynchronousTestCase):
    """The Go program itself, either side."""

    @_skipped
    def test_client(self) -> None:
        """The Go client with our server."""
        target = Target(self, site)
        serve = Serve(self)
        connect(self, serve.port, target, go=GO)
        until_served(serve)
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/page").body, b"<h1>hello</h1>")
            self.assertEqual(len(visitor.get(b"/down/3000000").body), 3_000_000)

    @_skipped
    def test_server(self) -> None:
        """Our client with the Go server."""
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        server = Process(self, [GO, "serve", "--addr", f"127.0.0.1:{port}"], PLAIN)
        server.wait_for_line("Start server")
        connect(self, port, Target(self, site))
        with Visitor(port, b"any.test") as visitor:
            self.assertEqual(visitor.get(b"/page").body, b"<h1>hello</h1>")
