"""``twistd exposr`` as a process: starting, listening, its log, and the ways it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import time
import unittest
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx import __version__
from tests.system.harness import Client, Process, Server, Target, Visitor, twistd, wait_until


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class StartTests(SynchronousTestCase):
    """What a user sees when the server starts."""

    @unittest.skipIf(taken(8080), "port 8080 is in use on this machine")
    def test_no_options(self) -> None:
        """Without any option the server runs, on port 8080."""
        server = Process(self, twistd("-n", "--pidfile=", "exposr"))
        server.wait_for_line('"event":"ready"')
        answer = Visitor(8080).get(b"/v1/tunnel/some-tunnel")
        self.assertEqual(answer.status, 401)
        self.assertEqual(server.stop(), 0)

    def test_first_command_of_todays_users(self) -> None:
        """The command line that users of exposrd know works as it is, but for the port."""
        port = free_port()
        target = Target(self)
        server = Server(
            self,
            *("--api-url", f"http://localhost:{port}", "--api-port", str(port)),
            *("--allow-registration", "--http-ingress-domain", f"http://localhost:{port}"),
        )
        client = Client(self, server, "tunnel", target.url, "example")
        self.assertEqual(client.wait_connected(), f"http://example.localhost:{port}/")
        answer = server.visit("example").get(b"/page?x=1")
        self.assertEqual((answer.status, answer.body), (200, b"GET /page?x=1 HTTP/1.1\n"))

    def test_ready_file(self) -> None:
        """The ready file tells where the server listens, and goes when it stops."""
        server = Server(self, "--admin-enable", "--admin-port", "0")
        self.assertEqual(server.addresses["api"], server.addresses["ingress"])
        roles = {entry["role"] for entry in server.addresses["listening"]}
        self.assertEqual(roles, {"api", "ingress", "admin"})
        listening = {entry["address"] for entry in server.wait_for_events("listening", 2)}
        self.assertEqual(listening, {e["address"] for e in server.addresses["listening"]})
        self.assertEqual(server.stop(), 0)
        self.assertFalse(server.ready_file.exists())

    def test_ready_file_of_several(self) -> None:
        """Of several places to listen the first is the one to be reached by."""
        with tempfile.TemporaryDirectory() as folder:
            first = ("--listen", "tcp:0:interface=127.0.0.1")
            server = Server(self, *first, "--listen", f"unix:{folder}/socket")
            self.assertEqual(server.rest("GET", "/v1/nothing")[0], 404)
            self.assertEqual(
                [entry["address"] for entry in server.addresses["listening"]],
                [f"127.0.0.1:{server.port}"] * 2 + [f"{folder}/socket"] * 2,
            )

    def test_two_listeners(self) -> None:
        """Two different ports are two listeners: the tunnels' one knows no API."""
        server = Server(
            self, "--api-port", str(free_port()), "--ingress-http-port", "0", "--allow-registration"
        )
        self.assertNotEqual(server.addresses["api"], server.addresses["ingress"])
        self.assertEqual(server.rest("POST", "/v1/account")[0], 201)
        answer = Visitor(server.port).get(b"/v1/account")
        self.assertEqual(answer.status, 404)
        self.assertEqual(json.loads(answer.body)["error"], "TUNNEL_NOT_FOUND")

    def test_both_address_families(self) -> None:
        """The default listener takes IPv4, and IPv6 where the machine has it."""
        server = Server(self)
        self.assertEqual(Visitor(server.port).get().status, 404)
        with socket.socket(socket.AF_INET6) as probe:
            if probe.connect_ex(("::1", server.port)) != 0:
                raise unittest.SkipTest("no IPv6 on this machine")
        self.assertEqual(Visitor(server.port, address="::1").get().status, 404)

    def test_unix_socket(self) -> None:
        """A listener may be any Twisted endpoint, such as a UNIX socket."""
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            server = Server(self, "--listen", f"unix:{path}")
            self.assertEqual(server.addresses["api"], f"unix:{path}")
            with socket.socket(socket.AF_UNIX) as visitor:
                visitor.connect(path)
                visitor.sendall(b"GET /v1/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                self.assertTrue(visitor.recv(4096).startswith(b"HTTP/1.1 404 "))
            self.assertEqual(server.stop(), 0)

    def test_environment(self) -> None:
        """Options come from EXPOSR_ variables too; an unknown one is warned of."""
        server = Server(
            self,
            variables={"EXPOSR_ALLOW_REGISTRATION": "yes", "EXPOSR_ALOW_REGISTRATION": "yes"},
        )
        self.assertEqual(server.rest("POST", "/v1/account")[0], 201)
        warning = server.wait_for_events("option")[0]
        self.assertEqual(warning["level"], "warn")
        self.assertIn("EXPOSR_ALOW_REGISTRATION", warning["message"])

    def test_version(self) -> None:
        """--version tells our version, not Twisted's."""
        asked = Process(self, twistd("exposr", "--version"))
        self.assertEqual((asked.wait(), asked.out), (0, [f"exposr_tx {__version__}"]))


class FailureTests(SynchronousTestCase):
    """What a user sees when the server cannot start: one line, and status 1."""

    def assert_refused(
        self, *options: str, line: str, environ: Mapping[str, str] | None = None
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            process = Process(self, twistd("-n", "exposr", *options), environ, cwd=folder)
            self.assertEqual(process.wait(), 1, process.report())
            self.assertEqual(len(process.err), 1, process.err)
            self.assertIn(line, process.err[0])
            self.assertEqual(os.listdir(folder), [])

    def test_unknown_option(self) -> None:
        """An option that nobody knows is named, with the one that was meant."""
        self.assert_refused("--api-prot", "1", line="--api-prot: no such option; did you mean")

    def test_bad_value(self) -> None:
        """A bad value is shown with what it should be."""
        self.assert_refused("--api-port", "http", line="--api-port 'http': must be a port number")

    def test_feature_of_another_version(self) -> None:
        """An option whose feature is not there is refused by name."""
        self.assert_refused(
            "--ingress", "http,sni", line="--ingress 'http,sni': this version has no SNI"
        )

    def test_bad_endpoint(self) -> None:
        """An endpoint string that Twisted does not know is refused by name."""
        self.assert_refused("--listen", "carrier:pigeon", line="--listen 'carrier:pigeon'")
        self.assert_refused(
            line="EXPOSR_LISTEN 'carrier:pigeon'", environ={"EXPOSR_LISTEN": "carrier:pigeon"}
        )

    def test_bad_ready_file(self) -> None:
        """A ready file that cannot be written is named, with the reason and the remedy."""
        for path, problem in (("/", "Is a directory"), ("/nonexistent/a", "No such file")):
            self.assert_refused(
                *("--api-port", "0", "--ready-file", path),
                line=f"--ready-file '{path}': cannot be written: {problem}",
            )

    def test_no_room_for_ready_file(self) -> None:
        """Where there is no room for it, no beginning of one is left either."""
        with tempfile.TemporaryDirectory() as folder:
            options = ("exposr", "--api-port", "0", "--ready-file", f"{folder}/ready")
            command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *twistd("-n", "--pidfile=")]
            process = Process(self, [*command, *options])
            self.assertEqual(process.wait(), 1, process.report())
            self.assertIn("ready': cannot be written: File too large", process.err[0])
            self.assertEqual(os.listdir(folder), [])

    def test_files_of_twistd(self) -> None:
        """A log or pid file of twistd that cannot be written is one line with the remedy."""
        for words, remedy in (
            (("-n", "--pidfile=", "--logfile=/nonexistent/log", "exposr"), "--logfile FILE"),
            (("-n", "--pidfile=/nonexistent/pid", "exposr"), "--pidfile="),
            (("-n", "--pidfile=/nonexistent/pid", "backstream"), "--pidfile="),
        ):
            process = Process(self, twistd(*words))
            self.assertEqual(process.wait(), 1, process.report())
            self.assertIn("cannot be written", process.err[0])
            self.assertIn(remedy, process.err[0])
            self.assertEqual(len(process.err), 1, process.report())

    def test_bad_certificate(self) -> None:
        """So is one whose certificate is not there, or is none."""
        for path, problem in (
            ("/nonexistent/key.pem", "FileNotFoundError"),
            ("/etc/hosts", "Error"),
        ):
            self.assert_refused(
                *("--listen", f"ssl:0:privateKey={path}"),
                line=f"--listen 'ssl:0:privateKey={path}': {problem}: ",
            )

    def test_bad_storage(self) -> None:
        """A kind of storage that does not exist is refused by name."""
        self.assert_refused("--storage-url", "postgres://x/y", line="--storage-url: postgres")

    def test_unusable_storage(self) -> None:
        """A database in a folder that does not exist ends the start, before anything is served."""
        self.assert_refused(
            *("--api-port", "0", "--storage-url", "sqlite:///nonexistent/folder/db"),
            line="/nonexistent/folder/db",
        )

    def test_taken_port(self) -> None:
        """A port that somebody else has is named; nothing is left running, listening or behind."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.assert_refused("--api-port", str(port), line=f"port {port}: Address already in")

    def test_taken_port_in_the_background(self) -> None:
        """So it is where the server was to leave the terminal, which is told and let go."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with tempfile.TemporaryDirectory() as folder:
                listen = f"tcp:{port}:interface=127.0.0.1"
                process = Process(self, twistd("exposr", "--listen", listen), cwd=folder)
                self.assertEqual(process.wait(), 1, process.report())
                self.assertIn(f"port {port}: Address", " ".join(process.err))
                self.assertEqual(os.listdir(folder), ["twistd.log"])

    def test_second_port_taken(self) -> None:
        """When the second of two ports is taken, the first is let go."""
        first = free_port()
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.assert_refused(
                *("--api-port", str(first), "--admin-enable", "--admin-port", str(port)),
                line=f"port {port}: Address already in",
            )
        self.assertFalse(taken(first))


class AdminTests(SynchronousTestCase):
    """The port for balancers."""

    def test_ping_and_health(self) -> None:
        """/ping and /health answer 200 on a port of their own, on loopback only."""
        server = Server(self, "--admin-enable", "--admin-port", "0")
        address = next(e["address"] for e in server.addresses["listening"] if e["role"] == "admin")
        host, _, port = address.rpartition(":")
        self.assertEqual(host, "127.0.0.1")
        for path in (b"/ping", b"/health"):
            self.assertEqual(Visitor(int(port)).get(path).status, 200)
        self.assertEqual(Visitor(int(port)).get(b"/v1/account").status, 404)
        self.assertEqual(Visitor(server.port).get(b"/health").status, 404)

    def test_health_while_draining(self) -> None:
        """From the signal on, /health is 503 with the reason, and /ping still 200."""
        server = Server(self, "--admin-enable", "--admin-port", "0", "--drain-delay", "60")
        port = int(server.addresses["admin"].rpartition(":")[2])
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: Visitor(port).get(b"/health").status == 503, "health turns 503")
        answer = Visitor(port).get(b"/health")
        self.assertEqual(json.loads(answer.body)["reason"], "draining")
        self.assertEqual(Visitor(port).get(b"/ping").status, 200)
        self.assertEqual(Visitor(server.port).get().status, 404)  # the doors are open still
        os.kill(server.pid, signal.SIGTERM)
        self.assertEqual(server.wait(), 0)


class EndTests(SynchronousTestCase):
    """The ways the server ends."""

    def test_idle(self) -> None:
        """With nothing in flight, SIGTERM and SIGINT end the server at once with status 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            server = Server(self, "--allow-registration")
            server.account()
            self.assertEqual(server.stop(number), 0, server.report())
            self.assertEqual(server.err, [])

    def test_hang_up(self) -> None:
        """SIGHUP does not end the server."""
        server = Server(self, "--allow-registration")
        os.kill(server.pid, signal.SIGHUP)
        server.account()
        os.kill(server.pid, signal.SIGHUP)
        server.account()
        self.assertEqual(server.stop(), 0)

    def test_running_request_finishes(self) -> None:
        """A request that is being answered when SIGTERM comes is answered to its end, and the
        listening port is closed meanwhile."""
        halves: list[Visitor] = []

        def half(connection: Visitor, _target: Target) -> None:
            connection.read_until(b"\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            halves.append(connection)
            connection.read_rest()

        server = Server(self, "--allow-registration")
        client = Client(self, server, "tunnel", Target(self, half).url, "slow-tunnel")
        client.wait_connected()
        visitor = server.visit("slow-tunnel")
        visitor.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
        self.assertEqual(visitor.head().status, 200)
        self.assertEqual(visitor.read(5), b"first")
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: not taken(server.port), "the port is closed")
        self.assertTrue(server.running)
        halves[0].send(b"-last")
        self.assertEqual(visitor.read(5), b"-last")
        self.assertEqual(server.wait(), 0, server.report())

    def test_end_of_grace(self) -> None:
        """What still runs at the end of --grace-period is cut, visibly."""

        def never(connection: Visitor, _target: Target) -> None:
            connection.read_until(b"\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            connection.read_rest()

        server = Server(self, "--allow-registration", "--grace-period", "0.5")
        client = Client(self, server, "tunnel", Target(self, never).url, "endless")
        client.wait_connected()
        visitor = server.visit("endless")
        visitor.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
        visitor.head()
        os.kill(server.pid, signal.SIGTERM)
        self.assertEqual(visitor.read_rest(), b"first")
        self.assertEqual(server.wait(), 0, server.report())

    def test_connected_but_idle(self) -> None:
        """A connected client and a visitor's idle connection do not hold the server up: the
        time it took is printed, the bound is 2 s and generous here."""
        server = Server(self, "--allow-registration")
        client = Client(self, server, "tunnel", Target(self).url, "quiet")
        client.wait_connected()
        visitor = server.visit("quiet")
        self.assertEqual(visitor.get().status, 200)
        began = time.monotonic()
        self.assertEqual(server.stop(), 0, server.report())
        print(f"drained in {time.monotonic() - began:.2f} s")
        self.assertEqual(visitor.read_rest(), b"")
        client.wait_for_line("(?i)shutting down|lost|again")
        self.assertEqual(client.stop(), 0)


class LogTests(SynchronousTestCase):
    """What the server writes on standard output."""

    def test_json_only(self) -> None:
        """Every line is JSON, from the first to the last, and in the order of time."""
        server = Server(self, "--allow-registration")
        for _ in range(50):
            server.account()
        self.assertEqual(server.stop(), 0)
        self.assertEqual(len(server.events("access")), 50)
        self.assertEqual(server.events("access")[0]["path"], "/v1/account")
        times = [entry["time"] for entry in server.log]
        self.assertEqual(times, sorted(times))

    def test_no_secrets(self) -> None:
        """Neither account numbers nor transport tokens are in the log."""
        server = Server(self, "--allow-registration", "--log-level", "all")
        client = Client(self, server, "tunnel", Target(self).url, "secret-tunnel")
        client.wait_connected()
        account = server.account()
        server.rest("GET", f"/v1/account/{account}/token")
        server.rest("PUT", "/v1/tunnel/another-one", account, {})
        status, tunnel = server.rest("GET", "/v1/tunnel/another-one", account)
        self.assertEqual(status, 200)
        client.stop()
        server.stop()
        written = "\n".join(server.out)
        self.assertNotIn(account, written)
        self.assertNotIn(tunnel["transport"]["ws"]["url"].partition("t=")[2], written)
        self.assertNotIn("?t=", written)
        self.assertIn("/v1/account/:account_id/token", written)

    def test_text(self) -> None:
        """--log-format text is for people."""
        server = Server(self, "--log-format", "text")
        server.visit("nobody").get(b"/x")
        server.stop()
        self.assertTrue(any(" info listening on " in line for line in server.out), server.out)
        self.assertTrue(any(' access GET "nobody.localhost' in line for line in server.out))

    def test_quiet(self) -> None:
        """--access-log false leaves the other lines."""
        server = Server(self, "--access-log", "false")
        server.visit("nobody").get(b"/x")
        server.stop()
        self.assertEqual(server.events("access"), [])
        self.assertEqual(len(server.events("ready")), 1)

    def test_file_is_reopened(self) -> None:
        """After SIGHUP the log goes to a new file of the same name, as logrotate expects."""
        with tempfile.TemporaryDirectory() as folder:
            log, ready = Path(folder, "log"), Path(folder, "ready")
            server = Process(
                self,
                twistd(
                    *("-n", "--pidfile=", "--logfile", str(log), "exposr", "--api-port", "0"),
                    *("--ready-file", str(ready)),
                ),
            )
            wait_until(ready.exists, "the ready file")
            wait_until(lambda: '"ready"' in log.read_text(), "the log's last line")
            log.rename(f"{log}.1")
            os.kill(server.pid, signal.SIGHUP)
            wait_until(log.exists, "the new log")
            self.assertEqual(server.stop(), 0)
            self.assertIn('"draining"', log.read_text())
            self.assertEqual(server.out, [])
