"""Policies with real processes: what is denied reaches no target, not a byte of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.policy.folder import SKIP, Folder
from tests.system.harness import (
    Answer,
    Client,
    ForClass,
    Process,
    Server,
    Target,
    Visitor,
    twistd,
    wait_until,
)
from tests.system.test_backstream import PLAIN, JsonClient, Serve, command, connect

CLIENTS = """package auth.client

allow if input.tunnel in {"my-tunnel", "my-office", "my-wires"}
"""
VISITORS = """package auth.server

allow if startswith(input.path, "/public/")

allow if input.headers.authorization == ["Bearer good"]

allow := {"allow": false, "status": 451, "reason": "gone", "headers": headers} if {
    input.path == "/gone"
}

headers := {"X-Why": "law", "Cache-Control": "max-age=60"}
"""
OFFICE = """package office

allow if net.cidr_contains("127.0.0.0/8", input.remote)
"""


JOINING = """package auth.client

allow if input.headers["x-join"] == ["yes"]
"""
JOINING_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: %b\r\nBackstream-Client: a\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def denied_requests(name: bytes) -> list[bytes]:
    """What VISITORS denies, in every way that it can be written.

    :param name: what stands in Host, with a port.
    """
    host = b"Host: %b\r\n" % name
    requests = [
        b"%b /secret HTTP/1.1\r\n%bContent-Length: 6\r\n\r\nsecret" % (method, host)
        for method in b"GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND BREW get".split()
    ]
    requests += [
        b"GET %b HTTP/1.1\r\n%b\r\n" % (path, host)
        for path in (
            *(b"/public/../secret", b"/public/./../secret", b"/public/%2e%2e/secret"),
            *(b"/public/.%2E/secret", b"/public/..%2Fsecret", b"//public/secret"),
            *(b"/./secret", b"/%73ecret", b"/PUBLIC/secret", b"/public", b"/public%2Fsecret"),
            *(b"/public/..;/secret", b"/public/..\\secret", b"/public/%5c..%5csecret", b"/"),
            *(b"http://%b/secret" % name, b"/secret?/public/", b"/public/%00"),
            *(b"/secret/public/", b"/%2Fpublic/a", b"/public/%2e/a", b"/./public/a"),
        )
    ]
    requests += [
        b"GET /secret HTTP/1.1\r\n%b%b\r\n" % (host, fields)
        for fields in (
            b"Authorization: Bearer bad\r\n",
            b"Authorization: Bearer good\r\nAuthorization: Bearer bad\r\n",
            b"Authorization: Bearer bad\r\naUTHORIZATION: Bearer good\r\n",
            b"Authorization: Bearer good\r\nConnection: authorization\r\nAuthorization: x\r\n",
            b"X-Authorization: Bearer good\r\n",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            b"Expect: 100-continue\r\nContent-Length: 6\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Backstream-Client: default\r\n",
            b"X-Forwarded-For: 127.0.0.1\r\nX-Original-URL: /public/a\r\n",
        )
    ]
    return [
        *requests,
        b"GET /secret HTTP/1.0\r\n%b\r\n" % host,
        b"GET /secret HTTP/1.1\r\nHost: %b\r\n\r\n" % name.upper(),
        b"GET /secret HTTP/1.1\r\nHost: %b\r\n\r\n" % name.replace(b":", b".:"),
        b"OPTIONS * HTTP/1.1\r\n%b\r\n" % host,
    ]


def status_of(port: int, request: bytes) -> int:
    """What a request on a connection of its own is answered with."""
    with Visitor(port) as visitor:
        visitor.send(request)
        return visitor.head().status


class PolicyTests(SynchronousTestCase):
    """One server, one client, a target that keeps what reaches it."""

    skip = SKIP
    folder: ClassVar[Folder]
    target: ClassVar[Target]
    server: ClassVar[Server]
    account: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        if SKIP:
            return
        scope = ForClass(cls)
        cls.folder = Folder(scope, clients=CLIENTS, visitors=VISITORS, **{"deeper/office": OFFICE})
        cls.target = Target(scope)
        cls.server = Server(scope, "--allow-registration", "--policy", cls.folder.path)
        cls.account = cls.server.account()
        client = Client(scope, cls.server, "-a", cls.account, "tunnel", cls.target.url, "my-tunnel")
        client.wait_connected()

    def visit(self, data: bytes) -> Answer:
        """One connection, one request."""
        with self.server.visit("my-tunnel") as visitor:
            return visitor.request(data)

    def get(self, path: bytes, *fields: bytes) -> Answer:
        with self.server.visit("my-tunnel") as visitor:
            return visitor.get(path, *fields)

    def test_allowed(self) -> None:
        """What the policy allows goes through."""
        self.assertEqual(self.get(b"/public/a?x=1").body, b"GET /public/a?x=1 HTTP/1.1\n")
        self.assertEqual(self.get(b"/a", b"authorization: Bearer good").status, 200)

    def test_denied(self) -> None:
        """No spelling of a denied request reaches the target: not its head, not its body."""
        before = len(self.target.requests), self.target.connections
        for request in denied_requests(self.server.host("my-tunnel")):
            self.assertIn(status_of(self.server.port, request), (400, 403), request)
        self.assertEqual((len(self.target.requests), self.target.connections), before)

    def test_pipelined(self) -> None:
        """Behind an allowed request a denied one is denied, and the next one goes on."""
        with self.server.visit("my-tunnel") as visitor:
            one = b"GET %b HTTP/1.1\r\nHost: " + visitor.host + b"\r\n\r\n"
            before = len(self.target.requests)
            visitor.send(one % b"/public/1" + one % b"/secret" + one % b"/public/2")
            self.assertEqual([visitor.answer().status for _ in range(3)], [200, 403, 200])
            self.assertEqual(len(self.target.requests), before + 2)

    def test_own_answer(self) -> None:
        """The policy's status, header fields and reason reach the visitor."""
        answer = self.get(b"/gone")
        self.assertEqual((answer.status, answer.fields[b"x-why"]), (451, b"law"))
        self.assertEqual(answer.fields[b"cache-control"], b"max-age=60")
        self.assertEqual(json.loads(answer.body)["field"], "gone")

    def test_own_policy(self) -> None:
        """A tunnel chooses one of the operator's packages by its name, and goes back."""
        path = "/v1/tunnel/my-office"
        body = {"policy": "office", "ingress": {"http": {"enabled": True}}}
        status, tunnel = self.server.rest("PUT", path, self.account, body)
        self.assertEqual((status, tunnel["policy"]), (200, "office"))
        for wrong in ("nope", "auth.client", 1, ""):
            status, answer = self.server.rest("PATCH", path, self.account, {"policy": wrong})
            self.assertEqual((status, answer["error"]), (400, "BAD_INPUT"))
        with self.server.visit("my-office") as visitor:  # allowed, but nobody is connected
            self.assertEqual(visitor.get(b"/secret").status, 503)
        status, tunnel = self.server.rest("PATCH", path, self.account, {"policy": None})
        self.assertEqual((status, tunnel["policy"]), (200, None))
        with self.server.visit("my-office") as visitor:
            self.assertEqual(visitor.get(b"/secret").status, 403)

    def test_own_policy_by_command(self) -> None:
        """The same with the client's commands: configure sets and unsets, info tells."""

        def run(*words: str) -> Client:
            return Client(self, self.server, "-a", self.account, "tunnel", *words)

        self.assertEqual(run("create", "my-room", "policy", "office").wait(), 0)
        run("info", "my-room").wait_for_line("^Policy: office$")
        self.assertEqual(run("configure", "my-room", "unset", "policy").wait(), 0)
        _, tunnel = self.server.rest("GET", "/v1/tunnel/my-room", self.account)
        self.assertIsNone(tunnel["policy"])

    def test_clients(self) -> None:
        """A client whom the policy does not allow does not connect, though its token is good; nor
        is it told more by a wrong one."""
        status, tunnel = self.server.rest(
            "PUT", "/v1/tunnel/other-tunnel", self.account, {"transport": {"ws": {"enabled": True}}}
        )
        self.assertEqual(status, 200)
        path = tunnel["transport"]["ws"]["url"].split("/", 3)[3]
        upgrade = (
            b"GET /%b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        for wanted in (path, path.replace("other-tunnel", "no-such-tunnel"), path[:-4] + "xxxx"):
            with Visitor(self.server.port) as visitor:
                answer = visitor.request(upgrade % wanted.encode())
            self.assertEqual(
                (answer.status, json.loads(answer.body)["error"]), (403, "POLICY_DENIED")
            )

    def test_reload(self) -> None:
        """SIGHUP takes changed files; ones that do not load leave the policy in use."""
        self.addCleanup(self.reload, VISITORS, b"/secret", 403)
        self.reload(VISITORS.replace("/public/", "/"), b"/secret", 200)
        self.folder.write("visitors", "package auth.server\nallow if not http.send({})\n")
        os.kill(self.server.process.pid, signal.SIGHUP)
        self.server.wait_for_line("the policies in use stay.*has no function http.send")
        self.assertEqual(self.get(b"/secret").status, 200)

    def reload(self, text: str, path: bytes, status: int) -> None:
        self.folder.write("visitors", text)
        os.kill(self.server.process.pid, signal.SIGHUP)
        wait_until(lambda: self.get(path).status == status, f"{path!r} is {status}")


def children(pid: int) -> list[int]:
    """The processes that a process, or one of its threads, has started."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(text) for text in thread.read_text().split()]
    return found


class ProcessTests(SynchronousTestCase):
    """The processes in which policies are evaluated: what becomes of them harms nobody for long."""

    skip = SKIP
    SLOW = """package auth.server

allow if startswith(input.path, "/public/")

allow if {
    input.path == "/slow"
    many := numbers.range(1, 2000)
    count([1 | some a in many; some b in many; a > b]) == -1
}

allow if {
    input.path == "/long"
    many := numbers.range(1, 150)
    count([1 | some a in many; some b in many; a > b]) == -1
}
"""

    def setUp(self) -> None:
        self.serve = Serve(self, "-p", Folder(self, p=self.SLOW).path)
        self.workers = wait_until(lambda: children(self.serve.pid), "its processes")

    def status(self, path: bytes) -> int:
        with self.serve.visit() as visitor:
            return visitor.get(path).status

    def test_goes_on_for_ever(self) -> None:
        """An evaluation that does not end is denied in time, others are not held up, and its
        process is replaced."""
        self.assertEqual(self.status(b"/slow"), 403)
        self.assertEqual(self.status(b"/public/a"), 503)  # allowed; nobody is connected
        self.serve.wait_for_line("ended with status -27.*and is replaced")
        wait_until(
            lambda: len(set(children(self.serve.pid)) - set(self.workers)) == 1, "another process"
        )
        self.assertEqual(self.status(b"/public/a"), 503)

    def test_held_up(self) -> None:
        """Processes that do not get to run, for longer than an evaluation may take, are late, and
        go on."""

        def used() -> int:
            return sum(int(Path(f"/proc/{p}/stat").read_text().split()[13]) for p in self.workers)

        before = used()
        self.assertEqual(self.status(b"/long"), 403)  # half a second; it goes on
        wait_until(lambda: used() > before + 5, "an evaluation under way")
        for pid in self.workers:
            os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 1.5, "more time than there is")
        for pid in self.workers:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: self.status(b"/public/a") == 503, "an allowed request")
        self.assertEqual(children(self.serve.pid), self.workers)

    def test_killed(self) -> None:
        """Processes that are killed are replaced."""
        for pid in self.workers:
            os.kill(pid, signal.SIGKILL)
        self.serve.wait_for_line("ended with status -9.*and is replaced")
        wait_until(lambda: self.status(b"/public/a") == 503, "an allowed request")
        self.assertEqual(set(children(self.serve.pid)) & set(self.workers), set())

    def test_end_with_the_server(self) -> None:
        """A server that is killed leaves none of its processes behind, nor does one that ends."""
        self.serve.kill()
        for pid in self.workers:
            wait_until(partial(ended, pid), f"the end of process {pid}")
        self.assertTrue(all(ended(pid) for pid in self.workers))


def ended(pid: int) -> bool:
    """Whether a process runs no more, buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class BackstreamTests(SynchronousTestCase):
    """backstream's commands with ``-p``: clients need a field, visitors what VISITORS says."""

    skip = SKIP
    JOIN = "X-Join: yes"
    folder: ClassVar[Folder]
    target: ClassVar[Target]
    serve: ClassVar[Serve]

    @classmethod
    def setUpClass(cls) -> None:
        if SKIP:
            return
        scope = ForClass(cls)
        cls.folder = Folder(scope)
        cls.restore()
        cls.target = Target(scope)
        cls.serve = Serve(scope, "-p", cls.folder.path)

    @classmethod
    def restore(cls) -> None:
        cls.folder.write("clients", JOINING)
        cls.folder.write("visitors", VISITORS)

    def test_denied(self) -> None:
        """No spelling of a denied request reaches the destination of a client of ours."""
        serve = self.serve
        client = connect(self, serve.port, self.target, "-H", self.JOIN)
        with serve.visit() as visitor:
            wait_until(lambda: visitor.get(b"/public/a").status == 200, "the client in service")
        before = len(self.target.requests), self.target.connections
        for request in denied_requests(b"any.test:80"):
            self.assertIn(status_of(serve.port, request), (400, 403), request)
        self.assertEqual((len(self.target.requests), self.target.connections), before)
        client.stop()

    def test_denied_with_json(self) -> None:
        """No spelling of a denied request is sent to a client that only knows JSON."""
        serve = self.serve
        client = JsonClient(serve.port, b"/any", self.JOIN.encode())
        for request in denied_requests(b"any.test:80"):
            self.assertIn(status_of(serve.port, request), (400, 403), request)
        with serve.visit() as visitor:
            visitor.send(b"GET /public/last HTTP/1.1\r\nHost: h\r\n\r\n")
            asked = client.read()  # the first message that there ever was
            self.assertEqual((asked["method"], asked["path"]), ("GET", "/public/last"))
            client.say(id=asked["id"], code=204)
            self.assertEqual(visitor.answer().status, 204)
        client.visitor.close()

    def test_clients(self) -> None:
        """A client that the policy denies gets 403 in the words of there, and ends with 1."""
        serve = self.serve
        denied = JsonClient(serve.port).joined
        self.assertEqual((denied.status, denied.body), (403, b"auth policy denied\n"))
        words = ("client", "-s", f"http://127.0.0.1:{serve.port}", "-d", self.target.url)
        client = Process(self, command(*words), PLAIN)
        self.assertEqual(client.wait(), 1)
        client.wait_for_line("failed to run app.*403")
        serve.wait_for_line("failed to upgrade.*the policy does not allow it")

    def test_reload(self) -> None:
        """SIGHUP takes changed files, all or none; where none defines auth.client, a client gets
        500."""
        serve = self.serve
        self.addCleanup(os.kill, serve.pid, signal.SIGHUP)
        self.addCleanup(self.restore)
        self.folder.write("visitors", "package auth.server\nallow if {\n")
        os.kill(serve.pid, signal.SIGHUP)
        serve.wait_for_line("the policies in use stay")
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/secret").status, 403)
            self.assertEqual(visitor.get(b"/public/a").status, 503)
        self.folder.write("visitors", "package auth.server\nallow := true\n")
        Path(self.folder.path, "clients.rego").unlink()
        os.kill(serve.pid, signal.SIGHUP)
        serve.wait_for_line("policies were loaded: auth.server")
        with serve.visit() as visitor:
            self.assertEqual(visitor.get(b"/secret").status, 503)
        failed = JsonClient(serve.port, b"/any", self.JOIN.encode()).joined
        self.assertEqual((failed.status, failed.body), (500, b"failed auth policy evaluation\n"))

    def test_beside_exposr(self) -> None:
        """``--backstream`` and ``--policy`` go together: the host's clients and visitors are
        judged."""
        server = Server(self, "--backstream", "app.test", "--policy", self.folder.path)
        port = server.port
        connect(self, port, self.target, "-H", "Host: app.test", "-H", self.JOIN)
        with Visitor(port, b"app.test") as visitor:
            wait_until(lambda: visitor.get(b"/public/a").status == 200, "the client in service")
        before = len(self.target.requests), self.target.connections
        for request in denied_requests(b"app.test:80"):
            self.assertIn(status_of(port, request), (400, 403), request)
        self.assertEqual((len(self.target.requests), self.target.connections), before)
        join = JOINING_REQUEST % b"app.test"
        self.assertEqual(status_of(port, join + b"\r\n"), 403)
        self.assertEqual(status_of(port, join + b"X-Join: yes\r\n\r\n"), 101)


class StartTests(SynchronousTestCase):
    """Policies that cannot be used, and servers without any."""

    def start(self, text: str | None, variables: dict[str, str] | None = None) -> tuple[int, str]:
        folder = Folder(self) if text is None else Folder(self, p=text)
        command = twistd("-n", "--pidfile=", "exposr", "--api-port", "0", "--policy", folder.path)
        server = Process(self, command, variables)
        return server.wait(), "\n".join(server.err)

    def test_unusable(self) -> None:
        """One line that names file, line and remedy, and status 1."""
        for text, said in (
            (
                "package auth.server\n\nallow if not http.send({})\n",
                "p.rego:3: .*http.send; it would",
            ),
            ("package auth.server\nallow if {\n", r"p.rego:2: this is unclosed"),
            (None, "no [*].rego file is there"),
        ):
            if SKIP and text and "send" not in text:
                continue
            status, error = self.start(text)
            self.assertEqual((status, error.count("\n")), (1, 0), error)
            self.assertRegex(error, f"^twistd exposr: --policy: /.*{said}")

    def test_without_the_extra(self) -> None:
        """Without the engine neither server starts: one line says what to install."""
        text = "package auth.server\nallow := true\n"
        hidden = Folder(self)
        Path(hidden.path, "regopy.py").write_text("raise ImportError('hidden')\n")
        path = f"{hidden.path}:{Path(__file__).resolve().parents[2]}"
        status, error = self.start(text, {"PYTHONPATH": path})
        self.assertEqual(status, 1, error)
        self.assertIn("pip install 'exposr-tx[rego]'", error)
        words = command("serve", "--addr", "localhost:0", "-p", hidden.write("p", text))
        serve = Process(self, words, {**PLAIN, "PYTHONPATH": path})
        self.assertEqual((serve.wait(), serve.out), (1, []), serve.report())
        self.assertRegex(
            "\n".join(serve.err), r"^backstream: --policy: .*pip install 'exposr-tx\[rego\]'.*$"
        )

    def test_tunnel_keeps_its_policy(self) -> None:
        """A tunnel that has chosen a policy takes no visitors where the server has none."""
        if SKIP:
            self.skipTest(SKIP)
        folder = Folder(self, p="package office\nallow := true\n").path
        storage = f"sqlite://{folder}/db"
        first = Server(self, "--allow-registration", "--storage-url", storage, "--policy", folder)
        account = first.account()
        body = {"policy": "office", "ingress": {"http": {"enabled": True}}}
        status, _ = first.rest("PUT", "/v1/tunnel/my-tunnel", account, body)
        self.assertEqual((status, first.stop()), (200, 0))
        second = Server(self, "--storage-url", storage)
        target = Target(self)
        client = Client(self, second, "-a", account, "tunnel", target.url, "my-tunnel")
        client.wait_for_line(r"connection 1/\d+ connected")
        with second.visit("my-tunnel") as visitor:
            self.assertEqual(visitor.get().status, 403)
        self.assertEqual(target.connections, 0)

    def test_tcp(self) -> None:
        """A TCP visitor is judged by his address, before a stream is opened."""
        if SKIP:
            self.skipTest(SKIP)
        folder = Folder(
            self,
            clients="package auth.client\nallow := true\n",
            visitors='package auth.server\nallow if input.transport == "http"\n',
        )
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = Server(
            self,
            *("--allow-registration", "--policy", folder.path),
            *("--ingress", "http,tcp", "--ingress-tcp-ports", str(port)),
        )
        target = Target(self)
        client = Client(self, server, "tunnel", f"tcp://127.0.0.1:{target.port}", "my-wires")
        client.wait_for_line("Ingress TCP")
        with Visitor(port) as visitor:
            visitor.send(b"GET / HTTP/1.1\r\n\r\n")
            self.assertEqual(visitor.read_rest(), b"")
        self.assertEqual(target.connections, 0)
        text = 'package auth.server\nallow if net.cidr_contains("127.0.0.1/32", input.remote)\n'
        folder.write("visitors", text)
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for_line("policies were loaded")
        with Visitor(port) as visitor:
            self.assertEqual(visitor.get().status, 200)
