"""Every command of the script ``exposr``, against a server that runs."""

from __future__ import annotations

import datetime
import os
import signal
import ssl
import stat
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import (
    Client,
    Process,
    Server,
    Target,
    Visitor,
    environ,
    temporary_folder,
    wait_until,
)

SCRIPT = [sys.executable, "-c", "from exposr_tx.scripts import exposr; exposr()"]


def certificate(folder: str) -> str:
    """A file with a key and a certificate of its own for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    path = Path(folder, "localhost.pem")
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    return str(path)


class CommandTests(SynchronousTestCase):
    """Commands that end by themselves."""

    def setUp(self) -> None:
        self.home = temporary_folder(self)
        self.server = Server(
            self,
            *("--allow-registration", "--ingress", "http,tcp"),
            *("--ingress-tcp-ports", "20000-29999"),
        )
        self.account = self.server.account()

    def run_line(self, line: str, **variables: str) -> tuple[int, str, str]:
        home = {"XDG_CONFIG_HOME": self.home, "HOME": self.home, **variables}
        client = Client(self, self.server, *line.split(), variables=home)
        return client.wait(), "\n".join(client.out), "\n".join(client.err)

    def test_a_tunnels_life(self) -> None:
        """Make, change, show, list, disconnect and delete a tunnel."""
        a = f"-a {self.account}"
        self.assertEqual(self.run_line(f"{a} tunnel create my-tunnel ingress-http on")[0], 0)
        status, out, _ = self.run_line(f"tunnel configure my-tunnel set target-url tcp://h:1 {a}")
        self.assertEqual((status, out), (0, "Setting target-url to 'tcp://h:1'...done"))
        line = "tunnel configure my-tunnel set ingress-http-host preserve ingress-tcp on"
        status, out, _ = self.run_line(f"{line} {a}")
        self.assertEqual(
            (status, out.splitlines()[-1]), (0, "Setting ingress-tcp to 'true'...done")
        )
        _, out, _ = self.run_line(f"tunnel info my-tunnel {a}")
        for said in ("tcp://h:1", "http://my-tunnel.localhost", "preserve", "tcp://localhost:2"):
            self.assertIn(said, out)
        self.assertEqual(
            self.run_line(f"tunnel configure my-tunnel unset target-url ingress-http {a}")[0], 0
        )
        _, out, _ = self.run_line(f"tunnel info my-tunnel {a}")
        self.assertNotIn("tcp://h:1", out)
        self.assertIn("Ingress HTTP: disabled", out)
        self.assertIn("my-tunnel", self.run_line(f"tunnel list {a}")[1])
        status, out, _ = self.run_line(f"tunnel disconnect my-tunnel {a}")
        self.assertEqual((status, out), (0, "Disconnecting tunnel my-tunnel...disconnected"))
        self.assertEqual(self.run_line(f"tunnel delete my-tunnel {a}")[0], 0)
        self.assertEqual(self.run_line(f"tunnel list {a}")[:2], (0, ""))

    def test_exit_statuses(self) -> None:
        """1 for what fails, 2 for usage, 3 for a refused account, 4 for no server."""
        a = f"-a {self.account}"
        for line, status in (
            (f"tunnel info no-such-one {a}", 1),
            (f"tunnel delete no-such-one {a}", 1),
            (f"tunnel configure no-such-one set ingress-http on {a}", 1),
            (f"tunnel create UPPER {a}", 1),
            (f"tunnel create abcd colour red {a}", 2),
            ("tunnel info abcd", 2),
            (f"tunnel connect {a}", 2),
            (f"tunnel connect abcd gopher://x {a}", 2),
            ("tunnel info abcd -a CDEF-CDEF-CDEF-CDEF", 3),
            ("tunnel create abcd -a nonsense", 3),
            (f"tunnel info abcd {a} -s http://localhost:1", 4),
            (f"tunnel connect abcd http://x {a} --no-retry -s http://localhost:1", 4),
        ):
            got, out, err = self.run_line(line)
            self.assertEqual(got, status, (line, out, err))
            self.assertIn("exposr: ", err)
            self.assertNotIn(self.account, out + err)

    def test_the_wrong_scheme(self) -> None:
        """Who mixes up http: and https: is told which one to write."""
        url = self.server.url.replace("http:", "https:")
        status, _, err = self.run_line(f"account create -s {url}")
        self.assertEqual(status, 4, err)
        self.assertIn("write http:", err)

    def test_a_reader_that_has_enough(self) -> None:
        """What follows on a closed pipe, as of head, is no traceback."""
        for name in ("exposr", "backstream"):
            command = [sys.executable, "-c", f"from exposr_tx.scripts import {name}; {name}()"]
            read, write = os.pipe()
            os.close(read)
            with open(write, "wb") as pipe:
                run = subprocess.run(
                    [*command, "--help"],
                    stdout=pipe,
                    stderr=subprocess.PIPE,
                    env=environ(),
                    check=False,
                )
            self.assertEqual((run.returncode, run.stderr), (1, b""))

    def test_account_is_remembered(self) -> None:
        """account create writes the number down, for its owner only, and shows the one before."""
        status, out, _ = self.run_line("account create")
        self.assertEqual(status, 0)
        self.assertRegex(out, r"^Creating account\.\.\.success \((\w{4}-){3}\w{4}\)$")
        path = Path(self.home, "exposr", "accounts.toml")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(self.run_line("tunnel create mine")[0], 0)
        self.assertIn("mine", self.run_line("tunnel list")[1])
        first = out.partition("(")[2][:19]
        out = self.run_line("account create")[1]
        self.assertIn(f"instead of {first}; keep that for its tunnels", out)

    def test_where_the_account_comes_from(self) -> None:
        """The line comes before the variable, and that before the file."""
        path = Path(self.home, "number")
        path.write_text(f"{self.account}\n")
        for line, variables in (
            (f"tunnel list -a {self.account}", {"EXPOSR_ACCOUNT": "nonsense"}),
            (f"tunnel list --account-file {path}", {"EXPOSR_ACCOUNT": "nonsense"}),
            ("tunnel list", {"EXPOSR_ACCOUNT": self.account}),
        ):
            self.assertEqual(self.run_line(line, **variables)[0], 0, line)
        self.assertEqual(self.run_line("tunnel list", EXPOSR_ACCOUNT="nonsense")[0], 3)

    def test_registration_refused(self) -> None:
        """Without registration the remedy is named, and works."""
        database = f"sqlite:///{self.home}/db"
        self.server = Server(self, "--storage-url", database)
        status, _, err = self.run_line("account create")
        self.assertEqual(status, 1)
        self.assertIn("exposr admin account create --storage-url", err)
        made = Process(self, [*SCRIPT, "admin", "account", "create", "--storage-url", database])
        self.assertEqual(made.wait(), 0, made.report())
        (number,) = made.out
        self.assertEqual(self.run_line(f"tunnel create mine -a {number}")[0], 0)


class ConnectTests(SynchronousTestCase):
    """tunnel connect and its short forms."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.target = Target(self)

    def served(self, server: Server, name: str) -> int:
        with server.visit(name) as visitor:
            return visitor.get().status

    def test_comes_and_goes(self) -> None:
        """A tunnel that a run makes goes when it, or its terminal, is closed; exit status 0."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            server = Server(self, "--allow-registration")
            client = Client(self, server, "tunnel", self.target.url, "my-tunnel")
            client.wait_connected(2)
            self.assertEqual(self.served(server, "my-tunnel"), 200)
            self.assertEqual(client.stop(number), 0, client.report())
            self.assertEqual(self.served(server, "my-tunnel"), 404)
            self.assertEqual(client.err, [])

    def test_keep(self) -> None:
        """With --keep, and where it was there before, the tunnel stays."""
        server = Server(self, "--allow-registration")
        account = server.account()
        words = ("tunnel", "connect", "my-tunnel", self.target.url, "-a", account)
        for more in (("--keep",), ()):
            client = Client(self, server, *words, *more)
            client.wait_connected()
            self.assertEqual(client.stop(), 0)
            self.assertEqual(self.served(server, "my-tunnel"), 503)
            self.assertNotIn(account, client.report())

    def test_quiet(self) -> None:
        """With --quiet only the URL is printed; a port alone is a target."""
        server = Server(self, "--allow-registration")
        client = Client(self, server, str(self.target.port), "-q")
        url = client.wait_for_line(r"^http://([a-z]+-[a-z]+-\d+)\.localhost:\d+/$")
        self.assertEqual(self.served(server, url[1]), 200)
        self.assertEqual(client.stop(), 0)
        self.assertEqual(client.out, [url[0]])

    def test_stored_target(self) -> None:
        """Without a target the stored one is used; without any, that is an error."""
        server = Server(self, "--allow-registration")
        account = server.account()
        path = "/v1/tunnel/my-tunnel"
        server.rest("PUT", path, account, {"ingress": {"http": {"enabled": True}}})
        client = Client(self, server, "tunnel", "connect", "my-tunnel", "-a", account)
        self.assertEqual(client.wait(), 1)
        server.rest("PATCH", path, account, {"target": {"url": self.target.url}})
        client = Client(self, server, "tunnel", "connect", "my-tunnel", "-a", account)
        client.wait_connected()
        self.assertEqual(self.served(server, "my-tunnel"), 200)

    def test_tcp(self) -> None:
        """A tcp: target gets a TCP port."""
        server = Server(
            self,
            *("--allow-registration", "--ingress", "http,tcp"),
            *("--ingress-tcp-ports", "20000-29999"),
        )
        client = Client(self, server, f"tcp://127.0.0.1:{self.target.port}")
        port = int(client.wait_for_line(r"Ingress TCP: tcp://localhost:(\d+)")[1])
        with Visitor(port) as visitor:
            self.assertEqual(visitor.get().status, 200)

    def test_no_public_address(self) -> None:
        """Where nothing leads to the tunnel its user is told, with what would help."""
        server = Server(self, "--allow-registration")
        client = Client(self, server, "tunnel", f"tcp://127.0.0.1:{self.target.port}", "my-tunnel")
        said = client.wait_for_line("no public address: (.*)")[1]
        self.assertIn("this server has no TCP ingress", said)
        self.assertIn("exposr tunnel configure my-tunnel set ingress-http on", said)

    def test_ended_by_the_server(self) -> None:
        """Disconnected and deleted tunnels end the run with exit status 1."""
        server = Server(self, "--allow-registration")
        account = server.account()
        for method, path in (("POST", "/disconnect"), ("DELETE", "")):
            client = Client(self, server, "tunnel", self.target.url, "my-tunnel", "-a", account)
            client.wait_connected(2)
            server.rest(method, "/v1/tunnel/my-tunnel" + path, account)
            self.assertEqual(client.wait(), 1, client.report())

    def test_server_restarts(self) -> None:
        """A memory server that forgot everything gets the account and the tunnel again."""
        server = Server(self, "--allow-registration")
        port = str(server.port)
        client = Client(self, server, "tunnel", self.target.url, "my-tunnel")
        client.wait_connected(2)
        server.stop()
        server = Server(self, "--allow-registration", "--api-port", port)
        wait_until(lambda: self.served(server, "my-tunnel") == 200, "served again")
        self.assertEqual(client.stop(), 0, client.report())

    def test_waits_for_the_server(self) -> None:
        """A client that starts before its server connects when it comes."""
        server = Server(self, "--allow-registration")
        port = str(server.port)
        server.stop()
        client = Client(self, server, "tunnel", self.target.url, "my-tunnel")
        client.wait_for_line("trying again")
        server = Server(self, "--allow-registration", "--api-port", port)
        client.wait_connected()
        self.assertEqual(self.served(server, "my-tunnel"), 200)

    def test_target_away(self) -> None:
        """A target that is away is an error for the visitor and a line for the user."""
        server = Server(self, "--allow-registration")
        self.target.close()  # not before: the server may listen on any port that is free
        client = Client(self, server, "tunnel", self.target.url, "my-tunnel")
        client.wait_connected()
        self.assertEqual(self.served(server, "my-tunnel"), 502)
        client.wait_for_line("cannot connect to the target")

    def test_host_header(self) -> None:
        """--host-header, and -H with --http-mode, change what the target is told."""
        server = Server(self, "--allow-registration")
        client = Client(
            self,
            server,
            *("tunnel", self.target.url, "my-tunnel", "--host-header", "fixed.example"),
            *("--http-mode", "-H", "X-Mine: yes", "-R", "origin"),
        )
        client.wait_connected()
        self.assertEqual(self.served(server, "my-tunnel"), 200)
        head = self.target.requests[0][0]
        self.assertIn(b"\r\nHost: fixed.example\r\n", head)
        self.assertIn(b"\r\nX-Mine: yes\r\n", head)

    def test_tls(self) -> None:
        """An https: server and an https: target are verified, unless told otherwise."""
        pem = certificate(self.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)

        def serve(plain: Visitor, target: Target) -> None:
            plain.socket = context.wrap_socket(plain.socket, server_side=True)
            plain.read_until(b"\r\n\r\n")
            plain.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        secure = Target(self, serve)
        url = f"https://localhost:{secure.port}"
        listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        server = Server(self, "--allow-registration", "--listen", listen)
        server_url = f"https://localhost:{server.port}"
        name = "my-tunnel"

        def client(*more: str) -> Client:
            return Client(self, server, "tunnel", url, name, "-s", server_url, *more)

        refused = client("--no-retry")
        self.assertEqual(refused.wait(), 4)
        self.assertIn("--server-ca", refused.report())

        def status() -> int:
            trusting = ssl.create_default_context(cafile=pem)
            with server.visit(name) as visitor:
                visitor.socket = trusting.wrap_socket(visitor.socket, server_hostname="localhost")
                return visitor.get().status

        for more, expected in (
            (("--server-ca", pem, "--target-ca", pem), 200),
            (("--insecure-server", "--insecure"), 200),
            (("--server-ca", pem), 502),
        ):
            running = client(*more)
            running.wait_connected()
            self.assertEqual(status(), expected, (more, running.report()))
            self.assertEqual(running.stop(), 0)
