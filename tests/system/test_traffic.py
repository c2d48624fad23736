"""Everything that goes through a tunnel when nothing is wrong: big, many, slow and odd."""

from __future__ import annotations

import hashlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.wire.native import MAX_WINDOW
from tests.system.certificates import Authority
from tests.system.harness import LONG, Client, Server, Target, Visitor, wait_until
from tests.system.measures import MB, Growth, many_descriptors
from tests.system.targets import (
    PAGE,
    Gate,
    Meter,
    digest_of,
    echo,
    pieces,
    read_body,
    send_body,
    site,
)
from tests.system.websockets import frame, open_websocket

NAME = "traffic"
#: Bytes of a big body.
BIG = 1 << 30 if LONG else 128 * MB
#: What the server or the client may grow by while a big body passes; far less than the body.
BIG_GROWTH = 32 * MB
#: Where a reader stops: it has kept up for long enough to have the largest window.
MIDDLE = BIG // 4
#: What others move past it meanwhile.
FLOW = 128 * MB if LONG else 24 * MB
#: What either program may grow by for a stream whose reader has stopped: the window, and the
#: pieces between sockets and streams.
STOPPED_GROWTH = MAX_WINDOW + 4 * MB
#: The same with four others in motion, which may fill a window each for a moment.
FLOWING_GROWTH = 5 * MAX_WINDOW + 4 * MB


class TrafficTests(SynchronousTestCase):
    """A tunnel of its own for every test."""

    def tunnel(
        self,
        serve: Callable[[Visitor, Target], None],
        *options: str,
        server_options: tuple[str, ...] = (),
    ) -> None:
        """Start a target, a server and a client; ``options`` are the client's."""
        self.target = Target(self, serve)
        self.server = Server(self, "--allow-registration", *server_options)
        self.client = Client(self, self.server, "tunnel", self.target.url, NAME, *options)
        self.client.wait_connected(2)

    def visit(self) -> Visitor:
        visitor = self.server.visit(NAME)
        self.addCleanup(visitor.close)
        return visitor

    def post(self, visitor: Visitor, path: bytes, framing: bytes) -> None:
        """The head of a POST."""
        visitor.send(b"POST %b HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (path, visitor.host, framing))


class BodyTests(TrafficTests):
    """Bodies of any size, both ways."""

    def test_big_bodies(self) -> None:
        """Big bodies pass both ways, with a length or in chunks, unchanged and in little memory."""
        self.tunnel(site)
        visitor = self.visit()
        # What is loaded and kept at the first use is not growth.
        self.assertEqual(visitor.get(b"/down/%d" % MB).status, 200)
        expected = digest_of(BIG)
        for kind in (b"down", b"down-chunked"):
            growth = Growth(server=self.server, client=self.client)
            request = b"GET /%b/%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (kind, BIG, visitor.host)
            visitor.send(request)
            digest = hashlib.sha256()
            for piece in read_body(visitor, visitor.head().fields):
                digest.update(piece)
            self.assertEqual(digest.hexdigest(), expected)
            growth.check(BIG_GROWTH)
        for framing in (b"Content-Length: %d" % BIG, b"Transfer-Encoding: chunked"):
            growth = Growth(server=self.server, client=self.client)
            self.post(visitor, b"/up", framing)
            send_body(visitor, BIG, chunked=b"chunked" in framing)
            self.assertEqual(visitor.answer().body.decode(), expected)
            growth.check(BIG_GROWTH)

    def test_both_ways_at_once(self) -> None:
        """Several bodies at a time, up and down, do not mix."""
        self.tunnel(site)
        sizes = [MB * n + n for n in range(1, 9)]

        def down(size: int) -> str:
            return hashlib.sha256(self.visit().get(b"/down/%d" % size).body).hexdigest()

        def up(size: int) -> str:
            visitor = self.visit()
            self.post(visitor, b"/up", b"Content-Length: %d" % size)
            send_body(visitor, size, chunked=False)
            return visitor.answer().body.decode()

        with ThreadPoolExecutor(16) as pool:
            results = [(pool.submit(down, size), pool.submit(up, size), size) for size in sizes]
            for downloaded, uploaded, size in results:
                self.assertEqual(downloaded.result(), digest_of(size))
                self.assertEqual(uploaded.result(), digest_of(size))

    def test_visitor_stops_reading(self) -> None:
        """A visitor that stops in the middle costs as much memory as its window and no more, and
        others nothing."""
        meter = Meter()
        self.tunnel(meter.serve)
        others = self.visit()
        others.get()
        growth = Growth(server=self.server, client=self.client)
        visitor = self.visit()
        visitor.send(b"GET /down/%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (BIG, visitor.host))
        head = visitor.head()
        digest = hashlib.sha256()
        for piece in read_body(visitor, {b"content-length": b"%d" % MIDDLE}):
            digest.update(piece)
        self._until_still(lambda: meter.sent, others)
        self.assertLess(meter.sent, BIG)
        growth.check(STOPPED_GROWTH)
        self._flow()
        growth.check(FLOWING_GROWTH)
        self.assertEqual(int(head.fields[b"content-length"]), BIG)
        for piece in read_body(visitor, {b"content-length": b"%d" % (BIG - MIDDLE)}):
            digest.update(piece)
        self.assertEqual(digest.hexdigest(), digest_of(BIG))

    def test_target_stops_reading(self) -> None:
        """A target that stops in the middle of an upload, likewise."""
        meter = Meter(MIDDLE)
        self.addCleanup(meter.reading.set)
        self.tunnel(meter.serve)
        others = self.visit()
        others.get()
        growth = Growth(server=self.server, client=self.client)
        visitor = self.visit()
        sent = [0]

        def send() -> None:
            for piece in pieces(BIG):
                visitor.send(piece)
                sent[0] += len(piece)

        visitor.socket.settimeout(None)
        self.post(visitor, b"/up", b"Content-Length: %d" % BIG)
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        wait_until(lambda: meter.arrived, "the target stops in the middle of the upload")
        self._until_still(lambda: sent[0], others)
        self.assertLess(sent[0], BIG)
        growth.check(STOPPED_GROWTH)
        self._flow()
        growth.check(FLOWING_GROWTH)
        self.assertLess(sent[0], BIG)
        meter.reading.set()
        sender.join(120)
        self.assertEqual(visitor.answer().body.decode(), digest_of(BIG))

    def _flow(self) -> None:
        """Large bodies of others on both of the client's connections, two each way at a time."""

        def down(_: int) -> str:
            visitor = self.visit()
            visitor.send(b"GET /down/%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (FLOW, visitor.host))
            digest = hashlib.sha256()
            for piece in read_body(visitor, visitor.head().fields):
                digest.update(piece)
            return digest.hexdigest()

        def up(_: int) -> str:
            visitor = self.visit()
            self.post(visitor, b"/up-at-once", b"Content-Length: %d" % FLOW)
            send_body(visitor, FLOW, chunked=False)
            return visitor.answer().body.decode()

        with ThreadPoolExecutor(4) as pool:
            found = [*pool.map(down, range(2)), *pool.map(up, range(2))]
        self.assertEqual(set(found), {digest_of(FLOW)})

    def _until_still(self, count: Callable[[], int], others: Visitor) -> None:
        """Serve others until what is counted has not changed for a hundred of them."""
        last, same = -1, 0

        def still() -> bool:
            nonlocal last, same
            self.assertEqual(others.get().body, b"other")
            now = count()
            same = same + 1 if now == last else 0
            last = now
            return same == 100

        wait_until(still, "the sender has stopped too")


class ManyTests(TrafficTests):
    """Many at a time."""

    def test_thousand_streams(self) -> None:
        """A thousand requests wait at the target at the same time, and all are answered."""
        many_descriptors(self, 4096)
        gate = Gate()
        self.addCleanup(gate.opened.set)
        self.tunnel(gate.serve)
        visitors = [self.visit() for _ in range(1000)]
        for number, visitor in enumerate(visitors):
            visitor.send(b"GET /%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (number, visitor.host))
        wait_until(lambda: gate.waiting == 1000, "all are at the target")
        self.assertEqual(self.visit().get(b"/free").status, 200)
        gate.opened.set()
        for number, visitor in enumerate(visitors):
            answer = visitor.answer()
            self.assertEqual((answer.status, answer.body), (200, b"/%d" % number))

    def test_two_hundred_websockets(self) -> None:
        """Two hundred websockets echo at the same time; nothing is lost, changed or out of turn."""
        many_descriptors(self, 4096)
        self.tunnel(site)
        sockets = [self.visit() for _ in range(200)]
        rounds = 20
        for number, visitor in enumerate(sockets):
            # The first message comes with the request, before anybody has agreed.
            open_websocket(visitor, b"/ws", frame(b"early %d" % number))
        for turn in range(rounds):
            for number, visitor in enumerate(sockets):
                visitor.send(frame(self._message(number, turn)))
        for number, visitor in enumerate(sockets):
            expected = frame(b"early %d" % number) + b"".join(
                frame(self._message(number, turn)) for turn in range(rounds)
            )
            self.assertEqual(visitor.read(len(expected)), expected)
        self.assertEqual(self.target.connections, 200)
        for visitor in sockets:
            visitor.close()

    @staticmethod
    def _message(number: int, turn: int) -> bytes:
        return b"%d of %d " % (turn, number) * (1 + (number * turn) % 500)

    def test_thousand_requests(self) -> None:
        """A thousand requests over fifty connections: each gets its own answer."""
        self.tunnel(site)

        def twenty(number: int) -> list[bytes]:
            visitor = self.visit()
            return [
                visitor.get(b"/any/%d/%d" % (number, turn)).body.split(b" ")[1]
                for turn in range(20)
            ]

        with ThreadPoolExecutor(50) as pool:
            for number, paths in enumerate(pool.map(twenty, range(50))):
                self.assertEqual(paths, [b"/any/%d/%d" % (number, turn) for turn in range(20)])
        self.assertEqual(len(self.target.requests), 1000)
        statuses = [e["status"] for e in self.server.wait_for_events("access", 1000)]
        self.assertNotIn(502, statuses)


class HTTPTests(TrafficTests):
    """The odd corners of HTTP over real sockets."""

    def test_without_a_body(self) -> None:
        """HEAD, 204 and 304 have no body, and the connection goes on after them."""
        self.tunnel(site)
        visitor = self.visit()
        for _ in range(3):
            head = visitor.request(b"HEAD /page HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
            self.assertEqual(head.fields[b"content-length"], b"%d" % len(PAGE))
            for code in (204, 304):
                answer = visitor.get(b"/status/%d" % code)
                self.assertEqual((answer.status, answer.fields[b"etag"]), (code, b"x"))
            self.assertEqual(visitor.get(b"/page").body, PAGE)

    def test_pipelining(self) -> None:
        """Requests that are sent without waiting are answered in their order."""
        self.tunnel(site)
        visitor = self.visit()
        requests = []
        for number in range(50):
            body = b"x" * (number * 100)
            requests.append(
                b"POST /%d HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (number, visitor.host, len(body), body)
            )
            requests.append(b"HEAD /page HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
        visitor.send(b"".join(requests))
        for number in range(50):
            self.assertIn(b"POST /%d HTTP/1.1" % number, visitor.answer().body)
            self.assertEqual(visitor.answer(head_only=True).status, 200)
        self.assertEqual(len(self.target.requests), 100)

    def test_kept_alive(self) -> None:
        """A visitor's requests use the same connections to the target again, one for each of
        the client's connections."""
        self.tunnel(site)
        visitor = self.visit()
        for _ in range(100):
            self.assertEqual(visitor.get(b"/page").body, PAGE)
        self.assertLessEqual(self.target.connections, 2)

    def test_event_stream(self) -> None:
        """An event is with the visitor before the target goes on to the next."""
        gate = Gate()
        self.addCleanup(gate.events.set)
        self.tunnel(gate.serve)
        visitor = self.visit()
        visitor.send(b"GET /events HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
        self.assertEqual(visitor.head().status, 200)
        self.assertIn(b"data: first\n\n", visitor.read_until(b"\n\n"))
        gate.events.set()
        self.assertIn(b"data: second\n\n", visitor.read_rest())

    def test_host_modes(self) -> None:
        """The target gets its own name, the visitor's or a fixed one, as the tunnel says."""
        self.target = Target(self, site)
        self.server = Server(self, "--allow-registration")
        account = self.server.account()
        words = ("tunnel", "connect", NAME, self.target.url, "-a", account)
        self.client = Client(self, self.server, *words)
        self.client.wait_connected()
        own = b"127.0.0.1:%d" % self.target.port
        public = self.server.host(NAME)
        for mode, host in ((None, own), ("preserve", public), ("fixed.test", b"fixed.test")):
            if mode is not None:
                path = f"/v1/tunnel/{NAME}"
                change = {"ingress": {"http": {"enabled": True, "host_header": mode}}}
                self.assertEqual(self.server.rest("PATCH", path, account, change)[0], 200)
            answer = self.visit().get(b"/any")
            self.assertIn(b"\r\nHost: %b\r\n" % host, answer.body)
            moved = self.visit().get(b"/moved").fields
            where = public if mode is None else own
            self.assertEqual(moved[b"location"], b"http://%b/page" % where)
            self.assertEqual(b"127.0.0.1" in moved[b"set-cookie"], mode is not None)


class TargetTests(TrafficTests):
    """Targets other than ``http:``."""

    def connect(self, url: str, *options: str) -> Client:
        """A client for another target of the same server."""
        client = Client(self, self.server, "tunnel", url, NAME, *options)
        client.wait_connected()
        return client

    def test_unix(self) -> None:
        """A UNIX socket is a target."""
        self.server = Server(self, "--allow-registration")
        with tempfile.TemporaryDirectory() as folder:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(f"{folder}/target")
            listening.listen()
            self.addCleanup(listening.close)

            def serve() -> None:
                accepted, _ = listening.accept()
                with accepted:
                    accepted.recv(65536)
                    accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix")

            threading.Thread(target=serve, daemon=True).start()
            self.connect(f"unix:{folder}/target")
            self.assertEqual(self.visit().get().body, b"unix")

    def test_https(self) -> None:
        """An https: target is believed by its authority and its name, or with --insecure."""
        authority = Authority(self)
        self.server = Server(self, "--allow-registration")
        good, wrong = self.secure(authority, "localhost"), self.secure(authority, "other.test")
        ca = ("--target-ca", authority.path)
        for url, options, status in (
            (good, ca, 200),
            (good, (), 502),
            (wrong, ca, 502),
            (wrong, ("--insecure",), 200),
        ):
            client = self.connect(url, *options)
            self.assertEqual(self.visit().get(b"/page").status, status, (url, options))
            self.assertEqual(client.stop(), 0)

    def secure(self, authority: Authority, *names: str) -> str:
        """The URL of a site that shows a certificate for the names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate(*names))

        def serve(plain: Visitor, target: Target) -> None:
            plain.socket = context.wrap_socket(plain.socket, server_side=True)
            site(plain, target)

        return f"https://localhost:{Target(self, serve).port}"

    def test_https_without_saying_so(self) -> None:
        """A target that only the server knows is believed, or not, like one that is named."""
        authority = Authority(self)
        self.server = Server(self, "--allow-registration")
        account = self.server.account()
        self.assertEqual(self.server.rest("PUT", f"/v1/tunnel/{NAME}", account, {})[0], 200)
        endpoint = "ssl:localhost:" + self.secure(authority, "localhost").rpartition(":")[2]
        for url, options, status in (
            (self.secure(authority, "localhost"), (), 502),
            (self.secure(authority, "other.test"), ("--insecure",), 200),
            (endpoint, (), 200),  # as Twisted means it: nobody is asked who he is
        ):
            body = {"target": {"url": url}, "ingress": {"http": {"enabled": True}}}
            self.assertEqual(self.server.rest("PATCH", f"/v1/tunnel/{NAME}", account, body)[0], 200)
            words = ("tunnel", "connect", NAME, "--keep", "-a", account, *options)
            client = Client(self, self.server, *words)
            client.wait_connected()
            self.assertEqual(self.visit().get(b"/page").status, status, (url, options))
            self.assertEqual(client.stop(), 0)


class TCPTests(TrafficTests):
    """Raw TCP ingress."""

    def setUp(self) -> None:
        self.target = Target(self, echo)
        ports = ("--ingress-tcp-ports", "20000-20100")
        self.server = Server(self, "--allow-registration", "--ingress", "http,tcp", *ports)
        self.account = self.server.account()

    def connect(self) -> int:
        """Connect the tunnel; its public port."""
        url = f"tcp://127.0.0.1:{self.target.port}"
        words = ("tunnel", "connect", NAME, url, "--keep", "-a", self.account)
        self.client = Client(self, self.server, *words)
        self.client.wait_for_line(r"connection 2/2 connected")
        return int(self.client.wait_for_line(r"Ingress TCP: tcp://localhost:(\d+)")[1])

    def test_echo(self) -> None:
        """Bytes of any protocol come back as they were, many connections at a time."""
        port = self.connect()
        size = 16 * MB

        def there_and_back(_: int) -> str:
            visitor = Visitor(port)
            self.addCleanup(visitor.close)
            sender = threading.Thread(target=send_body, args=(visitor, size, False), daemon=True)
            sender.start()
            digest = hashlib.sha256()
            for piece in read_body(visitor, {b"content-length": b"%d" % size}):
                digest.update(piece)
            return digest.hexdigest()

        with ThreadPoolExecutor(4) as pool:
            self.assertEqual(set(pool.map(there_and_back, range(4))), {digest_of(size)})

    def test_halves(self) -> None:
        """Each end may say that it is through, and still hears what the other has to say."""
        heard: list[bytes] = []

        def serve(connection: Visitor, _: Target) -> None:
            if connection.read(1) == b"?":
                question = connection.read_rest()
                connection.send(question[::-1] * 1000)
            else:
                connection.send(b"goodbye")
                connection.socket.shutdown(socket.SHUT_WR)
                heard.append(connection.read_rest())

        self.target = Target(self, serve)
        port = self.connect()
        for early in (b"?", b""):  # the end comes with the bytes, or later
            visitor = Visitor(port)
            self.addCleanup(visitor.close)
            visitor.send(early)
            visitor.send(b"?"[len(early) :] + b"abc")
            visitor.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(visitor.read_rest(), b"cba" * 1000)
        visitor = Visitor(port)
        self.addCleanup(visitor.close)
        visitor.send(b"!")
        self.assertEqual(visitor.read_rest(), b"goodbye")
        visitor.send(b"so long")
        visitor.close()
        wait_until(lambda: heard == [b"so long"], "the target hears the rest")

    def test_port_is_kept(self) -> None:
        """The port stays while the client is away, and is released with the tunnel."""
        port = self.connect()
        self.assertEqual(self.client.stop(), 0)
        self.assertEqual(self.connect(), port)
        visitor = Visitor(port)
        self.addCleanup(visitor.close)
        visitor.send(b"again")
        self.assertEqual(visitor.read(5), b"again")

        def ask(name: str) -> tuple[int, int]:
            tcp = {"enabled": True, "port": port}
            body = {"ingress": {"tcp": tcp}, "transport": {"ws": {"enabled": True}}}
            status, tunnel = self.server.rest("PUT", f"/v1/tunnel/{name}", self.account, body)
            return status, tunnel.get("ingress", {}).get("tcp", {}).get("port")

        self.assertGreaterEqual(ask("another")[0], 400)
        self.assertEqual(
            self.server.rest("DELETE", f"/v1/tunnel/{NAME}", self.account)[0] // 100, 2
        )
        self.assertEqual(visitor.read_rest(), b"")
        self.assertRaises(ConnectionRefusedError, Visitor, port)
        self.assertEqual(ask("another"), (200, port))
