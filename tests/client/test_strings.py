"""``exposr:`` in endpoint strings: what they may hold, and what is said of what they may not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.access import Access
from exposr_tx.client.accounts_file import AccountsFile, StoredAccount
from exposr_tx.client.listening import PublicEndpoint
from exposr_tx.client.strings import BadEndpointString, TunnelIsPublic, server_endpoint
from exposr_tx.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
SERVER = r"server=https\://tunnels.example"


class ServerStringTests(SynchronousTestCase):
    """Strings that a program listens at."""

    def read(self, text: str) -> Any:
        return serverFromString(MemoryReactorClock(), text)

    def refused(self, text: str) -> str:
        return str(self.assertRaises(BadEndpointString, self.read, text))

    def test_found(self) -> None:
        """Twisted finds the parser."""
        endpoint = self.read(f"exposr:blog:{SERVER}")
        self.assertIsInstance(endpoint, PublicEndpoint)
        self.assertEqual(repr(endpoint), "<PublicEndpoint blog http by https://tunnels.example>")

    def test_kind(self) -> None:
        """HTTP unless TCP is asked for."""
        self.assertIn("tcp", repr(self.read(f"exposr:blog:{SERVER}:kind=tcp")))
        self.assertIn(
            "kind 'udp': must be http or tcp", self.refused(f"exposr:b:{SERVER}:kind=udp")
        )

    def test_share(self) -> None:
        """Strings of one reactor share, if they say so."""
        reactor = MemoryReactorClock()
        one, two, alone = (
            serverFromString(reactor, f"exposr:{name}:{SERVER}:share={share}")
            for name, share in (("blog", "yes"), ("shop", "yes"), ("mail", "no"))
        )
        self.assertIs(one._share, two._share)
        self.assertIsNotNone(one._share)
        self.assertIsNone(alone._share)
        elsewhere = self.read(f"exposr:blog:{SERVER}:share=yes")
        self.assertIsNot(elsewhere._share, one._share)
        self.assertIn("must be yes or no", self.refused(f"exposr:b:{SERVER}:share=maybe"))

    def test_unescaped(self) -> None:
        """A URL whose colons are not escaped is shown with them escaped."""
        for text, meant in (
            ("https://tunnels.example", r"https\://tunnels.example"),
            ("http://localhost:8080", r"http\://localhost\:8080"),
            ("http://localhost:8080:kind=tcp", r"http\://localhost\:8080"),
            ("https://tunnels.example/below", r"https\://tunnels.example/below"),
        ):
            self.assertIn(
                f"must be escaped; write exposr:blog:server={meant}",
                self.refused(f"exposr:blog:server={text}"),
            )

    def test_what_is_meant_works(self) -> None:
        """The escaped form of an error can be used as it stands."""
        said = self.refused("exposr:blog:server=http://localhost:8080")
        self.assertIn("localhost:8080", repr(self.read(said.rpartition("write ")[2])))

    def test_a_url_for_a_name(self) -> None:
        """A URL where the name belongs."""
        self.assertIn("begins with a tunnel's name", self.refused("exposr:https://tunnels.example"))

    def test_wrong(self) -> None:
        """Each error names what is wrong, and the form."""
        for text, said in (
            ("exposr:blog:8080", "'8080' is one too many"),
            (f"exposr:blog:{SERVER}:port=80", "'port' is unknown"),
            ("exposr:blog:server=tunnels.example", "server 'tunnels.example': must be a URL"),
            (r"exposr:blog:server=ftp\://x", "must be a URL like https://"),
        ):
            found = self.refused(text)
            self.assertIn(said, found)
            self.assertIn(r"exposr:TUNNEL[:server=https\://host]", found)

    def test_environment(self) -> None:
        """The server comes from EXPOSR_SERVER where the string has none."""
        reactor = MemoryReactorClock()
        endpoint = server_endpoint(reactor, "blog", environ={"EXPOSR_SERVER": "http://s:1"})
        self.assertIn("http://s:1", repr(endpoint))
        with self.assertRaises(BadEndpointString) as caught:
            server_endpoint(reactor, "blog", environ={})
        self.assertIn("EXPOSR_SERVER", str(caught.exception))
        with self.assertRaises(BadEndpointString) as caught:
            server_endpoint(reactor, "blog", environ={"EXPOSR_SERVER": "nonsense"})
        self.assertIn("EXPOSR_SERVER 'nonsense'", str(caught.exception))

    def test_nothing_is_done(self) -> None:
        """Reading a string connects to nothing and opens no file."""
        reactor = MemoryReactorClock()
        serverFromString(reactor, f"exposr:blog:{SERVER}:account-file=/nowhere/at/all")
        self.assertEqual((reactor.tcpClients, reactor.getDelayedCalls()), ([], []))

    def test_bad_account_file(self) -> None:
        """A file that is not there fails listening at once, before the program runs."""
        endpoint = self.read(f"exposr:blog:{SERVER}:account-file=/nowhere/at/all")
        listening = endpoint.listen(Factory.forProtocol(Protocol))
        failure = self.failureResultOf(listening, BadInput)
        self.assertIn("account-file '/nowhere/at/all': cannot be read", str(failure.value))

    @given(st.text("abcxyz:=/\\[]0189-", max_size=40))
    def test_any(self, text: str) -> None:
        """Whatever stands behind ``exposr:``, it is an endpoint or a clear error."""
        text = text.rstrip("\\")  # Twisted itself fails where nothing follows a backslash
        try:
            serverFromString(MemoryReactorClock(), f"exposr:{text}")
        except ValueError as error:
            self.assertTrue(str(error))

    @given(st.text("abc:=/\\ 01é", min_size=1, max_size=30))
    def test_quoted(self, path: str) -> None:
        """What Twisted quotes comes back as it was."""
        listening = self.read(
            f"exposr:blog:{SERVER}:account-file=/nowhere/{quoteStringArgument(path)}"
        ).listen(Factory.forProtocol(Protocol))
        failure = self.failureResultOf(listening, BadInput)
        self.assertIn(repr(f"/nowhere/{path}"), str(failure.value))


class ClientStringTests(SynchronousTestCase):
    """Strings that a program connects to."""

    def test_no_private_tunnels(self) -> None:
        """Connecting fails, with what to use in its place."""
        endpoint = clientFromString(MemoryReactorClock(), f"exposr:blog:{SERVER}")
        connecting = endpoint.connect(Factory.forProtocol(Protocol))
        failure = self.failureResultOf(connecting, TunnelIsPublic)
        self.assertIn("tls:blog.tunnels.example:443", str(failure.value))


class AccessTests(SynchronousTestCase):
    """Which account is used."""

    def setUp(self) -> None:
        self.file = self.mktemp()
        Path(self.file).write_text("# mine\nFROM-FILE\n")
        self.home = self.mktemp()
        self.environ = {
            "XDG_CONFIG_HOME": str(Path(self.home).resolve()),
            "EXPOSR_SERVER": "http://s",
        }

    def number(self, **given: Any) -> str | None:
        environ = {**self.environ, **given.pop("environ", {})}
        account = Access.find(environ, **given).account()
        return None if account is None else account.account

    def test_order(self) -> None:
        """What is given itself, then the variables, then the accounts file."""
        self.assertIsNone(self.number())
        AccountsFile.of_user(self.environ).remember("http://s/", StoredAccount("REMEMBERED"))
        self.assertEqual(self.number(), "REMEMBERED")
        both = {"EXPOSR_ACCOUNT": "VARIABLE", "EXPOSR_ACCOUNT_FILE": "/nowhere"}
        self.assertEqual(self.number(environ=both), "VARIABLE")
        self.assertEqual(self.number(environ={"EXPOSR_ACCOUNT_FILE": self.file}), "FROM-FILE")
        self.assertEqual(self.number(environ=both, account_file=self.file), "FROM-FILE")
        self.assertEqual(self.number(environ=both, account="GIVEN"), "GIVEN")

    def test_empty_file(self) -> None:
        """A file without a number is named as it was given."""
        Path(self.file).write_text("# nothing\n")
        with self.assertRaises(BadInput) as caught:
            self.number(environ={"EXPOSR_ACCOUNT_FILE": self.file})
        self.assertIn("EXPOSR_ACCOUNT_FILE", str(caught.exception))

    def test_secret(self) -> None:
        """The number is in no repr."""
        self.assertNotIn("GIVEN", repr(Access.find(self.environ, account="GIVEN")))


class PluginTests(SynchronousTestCase):
    """``twisted/plugins/exposr_plugin.py``, which is read in programs that are not ours."""

    def test_imports(self) -> None:
        """Reading it imports nothing of ours and of what we stand on, and no reactor."""
        script = (
            "import sys, runpy; runpy.run_path('twisted/plugins/exposr_plugin.py');"
            "print(*sorted(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.split())
        ours = {name for name in loaded if name.partition(".")[0] == "exposr_tx"}
        self.assertEqual(ours, set())
        foreign = {"autobahn", "klein", "treq", "twisted.internet.reactor", "twisted.web"}
        self.assertEqual(loaded & foreign, set())

    def test_package_is_lazy(self) -> None:
        """Importing the library's package loads nothing before a name of it is used."""
        script = (
            "import sys, exposr_tx.client as c; before = len(sys.modules);"
            "print(*[m for m in sys.modules if m.startswith(('twisted', 'treq', 'autobahn'))]);"
            "assert all(getattr(c, name) is not None for name in c.__all__);"
            "assert 'twisted.internet.reactor' not in sys.modules"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout.strip(), "")
