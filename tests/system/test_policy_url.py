"""``--policy-url``: servers that ask an Open Policy Agent, or what pretends to be one.

The real one takes part where OPA names its executable, or it is on the PATH; it
can be built with ``go install github.com/open-policy-agent/opa@latest``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.policy.folder import Folder
from tests.system.certificates import Authority
from tests.system.harness import (
    Client,
    Process,
    Scope,
    Server,
    Target,
    Visitor,
    wait_until,
)
from tests.system.test_backstream import PLAIN, JsonClient, Serve, command, connect
from tests.system.test_policies import VISITORS, denied_requests, status_of

OPA = os.environ.get("OPA") or shutil.which("opa") or ""
#: Much more than an agent takes, on a machine that does much else; and what no test waits for.
PATIENT, HASTY = "5", "0.3"


def allow(allowed: Any) -> bytes:
    return json.dumps({"result": {"allow": allowed, "more": [1]}}).encode()


#: What is answered where the request's path is the key.
BODIES = {
    "html": b"<html>",
    "undefined": b"{}",
    "string": allow("true"),
    "number": allow(1),
    "list": b'{"result":[true]}',
    "bare": b'{"result":true}',
    "denied": allow(False),
    "huge": b'{"result":{"allow":true,"more":"' + b"x" * 10_000_000 + b'"}}',
}
#: And what is no answer.
BROKEN = ("slow", "closed", "nonsense", "status", "redirect", "short")


class Agent:
    """A program that answers as the path of the request tells it to.

    :ivar asked: the package and the input of each question.
    """

    def __init__(self, test: Scope, pem: str = "") -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._over = threading.Event()
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                given = json.loads(body)["input"]
                agent.asked.append((self.path, given))
                try:
                    agent.answer(self, given["path"].strip("/"))
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}/v1/data"
        if pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            self.url = f"https://localhost:{server.server_port}/v1/data"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        test.addCleanup(server.server_close)
        test.addCleanup(server.shutdown)
        test.addCleanup(self._over.set)

    def answer(self, handler: BaseHTTPRequestHandler, wish: str) -> None:
        handler.close_connection = wish in BROKEN
        body = BODIES.get(wish, allow(True))
        if wish == "slow":
            self._over.wait(120)
        elif wish == "closed":
            return
        elif wish == "nonsense":
            handler.wfile.write(b"\0\1\2 what?\r\n\r\n")
            return
        handler.send_response({"status": 500, "redirect": 307}.get(wish, 200))
        handler.send_header("Content-Length", str(len(body) + 10 * (wish == "short")))
        if wish == "redirect":
            handler.send_header("Location", f"{self.url}/auth/server")
        handler.end_headers()
        handler.wfile.write(body)


class PretenderTests(SynchronousTestCase):
    """What is no proper yes is a no."""

    def test_visitors(self) -> None:
        """A slow, broken or lying agent denies that request alone; no byte of it reaches the
        client."""
        agent = Agent(self)
        serve = Serve(self, "--policy-url", agent.url, "--policy-timeout", HASTY)
        client = JsonClient(serve.port)
        serve.wait_for_line("connected to WebSocket server")
        for wish in (*BROKEN, *BODIES):
            request = b"POST /%b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx" % wish.encode()
            self.assertEqual(status_of(serve.port, request), 403, wish)
        with serve.visit() as visitor:
            visitor.send(b"GET /allowed?x HTTP/1.1\r\nHost: h\r\n\r\n")
            asked = client.read()  # the first message that there ever was
            self.assertEqual(asked["path"], "/allowed")
            client.say(id=asked["id"], code=204)
            self.assertEqual(visitor.answer().status, 204)
        package, given = agent.asked[-1]
        self.assertEqual(package, "/v1/data/auth/server")
        self.assertEqual((given["raw_query"], given["remote_ip"]), ("x", "127.0.0.1"))
        serve.wait_for_line("package auth.server did not decide in time, and denied")
        serve.wait_for_line("package auth.server could not decide, and denied: the Open Policy")
        self.assertEqual(serve.stop(), 0)
        serve.wait_for_line(r"policies have decided: \d+ allowed, \d+ denied, 1 undefined")

    def test_clients(self) -> None:
        """Clients are asked about as well; where there is no agent, nobody gets in."""
        agent = Agent(self)
        serve = Serve(self, "--policy-url", agent.url, "--policy-timeout", PATIENT)
        for path, status in ((b"/any", 101), (b"/denied", 403), (b"/undefined", 500)):
            self.assertEqual(JsonClient(serve.port, path).joined.status, status, path)
        self.assertEqual(agent.asked[0][0], "/v1/data/auth/client")
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        alone = Serve(self, "--policy-url", f"http://127.0.0.1:{port}/v1/data")
        self.assertEqual(JsonClient(alone.port).joined.status, 500)
        with alone.visit() as visitor:
            self.assertEqual(visitor.get().body, b"auth policy denied\n")

    def test_exposr(self) -> None:
        """An exposr server asks too, for tunnels, and for the packages that tunnels may choose."""
        agent = Agent(self)
        server = Server(
            self,
            *("--allow-registration", "--policy-url", agent.url, "--policy-timeout", PATIENT),
            *("--policy-package", "office"),
        )
        account = server.account()
        target = Target(self)
        client = Client(self, server, "-a", account, "tunnel", target.url, "my-tunnel")
        client.wait_connected()
        with server.visit("my-tunnel") as visitor:
            self.assertEqual(visitor.get(b"/denied").status, 403)
            self.assertEqual(visitor.get(b"/a").status, 200)
        self.assertEqual(len(target.requests), 1)
        path = "/v1/tunnel/my-tunnel"
        self.assertEqual(server.rest("PATCH", path, account, {"policy": "other"})[0], 400)
        self.assertEqual(server.rest("PATCH", path, account, {"policy": "office"})[0], 200)
        with server.visit("my-tunnel") as visitor:
            self.assertEqual(visitor.get(b"/b").status, 200)
        packages = {package.removeprefix("/v1/data/") for package, _ in agent.asked}
        self.assertEqual(packages, {"auth/client", "auth/server", "office"})
        self.assertEqual({given["account"] for _, given in agent.asked}, {account})

    def test_https(self) -> None:
        """A certificate is verified: by an authority of the platform's the agent is believed."""
        authority = Authority(self)
        agent = Agent(self, authority.certificate("localhost"))
        words = ("--policy-url", agent.url, "--policy-timeout", PATIENT)
        wary = Serve(self, *words)
        with wary.visit() as visitor:
            self.assertEqual(visitor.get().status, 403)
        self.assertEqual(agent.asked, [])
        variables = {**PLAIN, "SSL_CERT_FILE": authority.path}
        trusting = Process(self, command("serve", "--addr", "localhost:0", *words), variables)
        port = int(trusting.wait_for_line(r'Start server addr="127\.0\.0\.1:(\d+)"')[1])
        with Visitor(port) as visitor:
            self.assertEqual(visitor.get().status, 503)  # allowed; nobody is connected


@unittest.skipUnless(OPA, "OPA names no executable of the Open Policy Agent; none is on the PATH")
class RealTests(SynchronousTestCase):
    """The Open Policy Agent itself."""

    KEYS = b'{"keys": ["good"]}'
    #: As the page's example, which asks Google: the same functions, another place, no signature.
    CLIENTS = """package auth.client

keys_request(url) := http.send({
    "url": url,
    "method": "GET",
    "force_cache": true,
    "force_cache_duration_seconds": 3600,
}).raw_body

allow if {
    found := json.unmarshal(keys_request("%s"))
    split(input.header.Authorization, " ")[1] in found.keys
}
"""

    def agent(self, *texts: str, more: tuple[str, ...] = ()) -> str:
        """Start it; its documents' URL.

        :param more: words of its command line.
        """
        folder = Folder(self, **{f"p{number}": text for number, text in enumerate(texts)})
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        words = ("run", "--server", "--disable-telemetry", "--addr", f"127.0.0.1:{port}", *more)
        process = Process(self, [OPA, *words, folder.path])

        def answers() -> bool:
            assert process.running, process.report()
            try:
                return status_of(port, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n") == 200
            except OSError:
                return False

        wait_until(answers, "an agent that answers")
        return f"http://127.0.0.1:{port}/v1/data"

    def test_http_send(self) -> None:
        """A policy that fetches what it needs runs with an agent beside the server."""

        def keys(connection: Visitor, target: Target) -> None:
            while True:
                target.requests.append((connection.read_until(b"\r\n\r\n"), b""))
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.KEYS)
                connection.send(head + self.KEYS)

        source = Target(self, keys)
        url = self.agent(self.CLIENTS % source.url, VISITORS)
        serve = Serve(self, "--policy-url", url, "--policy-timeout", PATIENT)
        for token, status in ((b"bad", 403), (b"good", 101), (b"good", 101)):
            field = b"Authorization: Bearer " + token
            self.assertEqual(JsonClient(serve.port, b"/", field).joined.status, status)
        self.assertEqual(len(source.requests), 1)  # as the policy says, kept for an hour

    def test_token(self) -> None:
        """An agent that wants a token is answered with the one in a file, as it is at the time."""
        wanted = (
            "package system.authz\n\ndefault allow := false\n\n"
            "allow if input.identity == `good`\n\n"
            "allow if input.path == [`health`]\n"
        )
        words = ("--authentication=token", "--authorization=basic")
        url = self.agent("package auth.server\n\nallow := true\n", wanted, more=words)
        path = Path(self.mktemp()).resolve()
        path.write_text("bad\n")
        more = ("--policy-token-file", str(path), "--policy-timeout", PATIENT)
        serve = Serve(self, "--policy-url", url, *more)
        with serve.visit() as visitor:
            self.assertEqual(visitor.get().status, 403)
        serve.wait_for_line("it answers with status 401; it must take the token")
        path.write_text("good\n")
        os.kill(serve.process.pid, signal.SIGHUP)

        def allowed() -> bool:
            with serve.visit() as visitor:
                return visitor.get().status == 503  # nobody is connected

        wait_until(allowed, "a decision with the other token")
        self.assertEqual(serve.stop(), 0)
        self.assertNotRegex(serve.report(), "good|bad")

    def test_denied(self) -> None:
        """No spelling of a denied request reaches the destination, and what is allowed does."""
        target = Target(self)
        url = self.agent("package auth.client\n\nallow := true\n", VISITORS)
        serve = Serve(self, "--policy-url", url, "--policy-timeout", PATIENT)
        connect(self, serve.port, target)
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/public/a").status, 200)
            self.assertEqual(visitor.get(b"/gone").status, 451)
        before = len(target.requests), target.connections
        for request in denied_requests(b"any.test:80"):
            self.assertIn(status_of(serve.port, request), (400, 403), request)
        self.assertEqual((len(target.requests), target.connections), before)
