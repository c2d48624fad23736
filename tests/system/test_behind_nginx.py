"""The server behind nginx with TLS, as docs/howto/nginx-tls.md describes it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.certificates import Authority
from tests.system.harness import (
    ROOT,
    Client,
    Process,
    Server,
    Target,
    Visitor,
    temporary_folder,
    wait_until,
)
from tests.system.measures import MB
from tests.system.targets import Gate, digest_of, read_body, send_body, site
from tests.system.websockets import frame, open_websocket

NAME = "behind-nginx"
HOWTO = ROOT / "docs" / "howto" / "nginx-tls.md"
#: What surrounds the how-to's part in a configuration of one process that stays in its folder.
AROUND = """daemon off; master_process off; pid {folder}/pid; error_log stderr;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    {howto}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class NginxTests(SynchronousTestCase):
    """nginx, the server behind it, and everybody else in front."""

    def setUp(self) -> None:
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if nginx is None:
            self.skipTest("nginx is not installed")
        self.folder = Path(temporary_folder(self))
        self.authority = Authority(self)
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.trusting = ssl.create_default_context(cafile=self.authority.path)
        self.nginx = nginx

    def start(self, *options: str, name: str = "localhost") -> None:
        """Start the server, and nginx with a certificate for a name."""
        self.server = Server(
            self,
            "--allow-registration",
            *("--listen", "tcp:0:interface=127.0.0.1", "--ingress-http-url", self.url),
            *("--trusted-proxy", "127.0.0.1", *options),
        )
        pem = self.authority.certificate(name)
        howto = HOWTO.read_text().partition("```nginx\n")[2].partition("```")[0]
        for pattern, value in (
            (r"server 127\.0\.0\.1:8080;", f"server 127.0.0.1:{self.server.port};"),
            (r"listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            (r"server_name [^;]+;", "server_name _;"),
            (r"ssl_certificate +[^;]+;", f"ssl_certificate {pem};"),
            (r"ssl_certificate_key +[^;]+;", f"ssl_certificate_key {pem};"),
        ):
            howto, count = re.subn(pattern, value, howto)
            self.assertEqual(count, 1, f"{pattern} in {HOWTO}")
        user = "user root;" if self.folder.owner() == "root" else ""
        text = AROUND.format(folder=self.folder, howto=howto, user=user)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(text)
        process = Process(self, [self.nginx, "-p", str(self.folder), "-c", str(configuration)])

        def listening() -> bool:
            self.assertTrue(process.running, process.report())
            try:
                Visitor(self.port).close()
            except OSError:
                return False
            return True

        wait_until(listening, "nginx listens")

    def visit(self, tunnel_id: str = "") -> Visitor:
        """A visitor's connection to nginx, for a tunnel or the API."""
        name = f"{tunnel_id}.localhost" if tunnel_id else "localhost"
        visitor = Visitor(self.port, f"{name}:{self.port}".encode())
        self.addCleanup(visitor.close)
        visitor.socket = self.trusting.wrap_socket(visitor.socket, server_hostname="localhost")
        return visitor

    def client(self, target: Target, *options: str, name: str = NAME) -> Client:
        words = ("tunnel", target.url, name, "-s", self.url)
        return Client(self, self.server, *words, *options)

    def connect(self, target: Target, name: str = NAME) -> None:
        """A client that believes in our authority."""
        client = self.client(target, "--server-ca", self.authority.path, name=name)
        self.assertEqual(client.wait_connected(2), f"https://{name}.localhost:{self.port}/")

    def test_certificates(self) -> None:
        """The client refuses a server of an unknown authority, and says what to do about it."""
        self.start()
        target = Target(self, site)
        refused = self.client(target, "--no-retry")
        self.assertEqual(refused.wait(), 4, refused.report())
        self.assertIn("--server-ca", "\n".join(refused.err))
        for options in (("--server-ca", self.authority.path), ("--insecure-server",)):
            client = self.client(target, *options)
            client.wait_connected(2)
            self.assertEqual(self.visit(NAME).get(b"/page").status, 200)
            self.assertEqual(client.stop(), 0, client.report())

    def test_wrong_name(self) -> None:
        """A certificate for another name is refused, whoever has signed it."""
        self.start(name="elsewhere.test")
        client = self.client(Target(self, site), "--server-ca", self.authority.path, "--no-retry")
        self.assertEqual(client.wait(), 4, client.report())
        self.assertIn("localhost", "\n".join(client.err))

    def test_what_the_target_gets(self) -> None:
        """The target hears of https and of the visitor's own address; nobody can forge either."""
        self.start("--api-url", self.url)
        target = Target(self, site)
        self.connect(target)
        forged = (b"X-Forwarded-Proto: gopher", b"X-Forwarded-For: 192.0.2.1")
        self.assertEqual(self.visit(NAME).get(b"/any", *forged).status, 200)
        head = target.requests[-1][0].lower()
        self.assertIn(b"\r\nx-forwarded-proto: https\r\n", head)
        self.assertNotIn(b"gopher", head)
        self.assertIn(b"127.0.0.1\r\n", head.partition(b"\r\nx-forwarded-for: ")[2])

    def test_urls(self) -> None:
        """Without --api-url, clients get wss: URLs of the name that they have asked for."""
        self.start()
        visitor = self.visit()

        def ask(method: str, path: str, token: str = "") -> dict[str, str]:
            fields = f"Authorization: Bearer {token}\r\n" if token else ""
            head = f"{method} {path} HTTP/1.1\r\nHost: {visitor.host.decode()}\r\n{fields}"
            answer = visitor.request(f"{head}Content-Length: 0\r\n\r\n".encode())
            self.assertEqual(answer.status // 100, 2, answer)
            found: dict[str, str] = json.loads(answer.body)
            return found

        account = ask("POST", "/v1/account")["account_id"]
        token = ask("GET", f"/v1/account/{account}/token")["token"]
        body = b'{"transport": {"ws": {"enabled": true}}}'
        answer = visitor.request(
            b"PUT /v1/tunnel/%b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (NAME.encode(), visitor.host, token.encode(), len(body), body)
        )
        url = json.loads(answer.body)["transport"]["ws"]["url"]
        self.assertTrue(url.startswith(f"wss://localhost:{self.port}/v1/tunnel/{NAME}/"), url)

    def test_traffic(self) -> None:
        """Big bodies, websockets and event streams pass nginx and the tunnel."""
        self.start("--api-url", self.url)
        self.connect(Target(self, site))
        size = 32 * MB
        visitor = self.visit(NAME)
        visitor.send(b"GET /down/%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (size, visitor.host))
        digest = hashlib.sha256()
        for piece in read_body(visitor, visitor.head().fields):
            digest.update(piece)
        self.assertEqual(digest.hexdigest(), digest_of(size))
        visitor.send(
            b"POST /up HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (visitor.host, size)
        )
        send_body(visitor, size, chunked=False)
        self.assertEqual(visitor.answer().body.decode(), digest_of(size))
        websocket = self.visit(NAME)
        open_websocket(websocket, b"/ws")
        for number in range(50):
            message = frame(b"%d" % number * number)
            websocket.send(message)
            self.assertEqual(websocket.read(len(message)), message)

    def test_long_heads(self) -> None:
        """Many cookies pass both ways, as they would without nginx; and what a target says to a
        proxy of its own is none of nginx's business."""
        fields = [b"Set-Cookie: %d=%b" % (n, b"c" * 4000) for n in range(8)]
        answer = b"\r\n".join(
            [
                b"HTTP/1.1 200 OK",
                *fields,
                b"X-Accel-Redirect: /else",
                b"Content-Length: 2",
                b"",
                b"hi",
            ]
        )

        def serve(connection: Visitor, target: Target) -> None:
            while True:
                target.requests.append((connection.read_until(b"\r\n\r\n"), b""))
                connection.send(answer)

        self.start()
        target = Target(self, serve)
        self.connect(target)
        cookies = b"Cookie: " + b"c" * 16000
        got = self.visit(NAME).get(b"/page", cookies)
        self.assertEqual((got.status, got.body), (200, b"hi"), got.body)
        self.assertEqual([head.split(b" ")[1] for head, _ in target.requests], [b"/page"])
        self.assertIn(cookies + b"\r\n", target.requests[0][0])

    def test_events(self) -> None:
        """An event is with the visitor before the target goes on to the next."""
        self.start()
        gate = Gate()
        self.addCleanup(gate.events.set)
        self.connect(Target(self, gate.serve))
        visitor = self.visit(NAME)
        visitor.send(b"GET /events HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
        self.assertIn(b"data: first", visitor.read_until(b"data: first"))
        gate.events.set()
        self.assertIn(b"data: second", visitor.read_until(b"data: second"))

    def test_mixed_connections(self) -> None:
        """The API and two tunnels on the same kept connections of nginx's stay apart."""
        self.start("--api-url", self.url)
        targets = [Target(self, site), Target(self, site)]
        self.connect(targets[0])
        self.connect(targets[1], "another-one")
        before = len(targets[0].requests), len(targets[1].requests)

        def visit(number: int) -> None:
            visitors = [self.visit(NAME), self.visit("another-one"), self.visit()]
            for turn in range(20):
                path = b"/%d/%d" % (number, turn)
                for visitor in visitors[:2]:
                    head = visitor.get(path).body
                    self.assertTrue(head.startswith(b"GET " + path + b" "), head)
                answer = visitors[2].get(b"/v1" + path)
                self.assertEqual((answer.status, answer.body), (404, b"Not Found"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(visit, range(8)))
        after = len(targets[0].requests), len(targets[1].requests)
        self.assertEqual((after[0] - before[0], after[1] - before[1]), (160, 160))
        for target in targets:
            own = b"\r\nHost: 127.0.0.1:%d\r\n" % target.port
            self.assertTrue(all(own in head for head, _ in target.requests))
