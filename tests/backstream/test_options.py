"""backstream's command lines, read as the Go program reads them, and better."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from twisted.application.app import ServerOptions
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.options import ClientOptions, ServeOptions, command_line

BOTH = ("client", "--src", "http://h", "--dst", "http://d")


def read(*words: str, **environ: str) -> Any:
    return command_line(words, environ)


class HelpTests(SynchronousTestCase):
    """The first line of --help."""

    def test_usage(self) -> None:
        """It shows the command as it was called, by itself or below twistd."""
        self.assertEqual(
            ServeOptions({}).getSynopsis(), "Usage: backstream [global flags] serve [flags]"
        )
        options = ServeOptions({})
        options.parent = twisted = ServerOptions()
        twisted.subCommand = "backstream"
        self.assertRegex(options.getSynopsis(), r"^Usage: .* \[options\] backstream \[flags\]$")


class CommandTests(SynchronousTestCase):
    """Commands and where flags stand."""

    def test_names(self) -> None:
        """The commands have their short names."""
        for word in ("serve", "server", "s"):
            self.assertIsInstance(read(word), ServeOptions)
        for word in ("client", "c"):
            self.assertIsInstance(read(word, *BOTH[1:]), ClientOptions)
        for words in ((), ("what",), ("-l", "debug"), ("-x", "serve"), ("serve", "more")):
            with self.assertRaises(UsageError):
                read(*words)

    def test_clashing_flags(self) -> None:
        """-s and -o mean what they mean at their place; whole names everywhere the same."""
        options = read("-o", "a.log", "-s", "client", "-s", "http://h", "-d", "http://d")
        self.assertEqual(options["log-output"], "a.log")
        self.assertTrue(options["log-stack"])
        self.assertEqual(options["src"], "http://h")
        options = read(*BOTH, "--log-output=b.log", "--log-stack")
        self.assertEqual(options["log-output"], "b.log")
        self.assertEqual(read("s", "-o", "c.log", "-l", "warn")["log-output"], "c.log")
        self.assertEqual(read("-l=debug", "-f", "json", "s", "-l", "warn")["log-level"], "warn")

    def test_spelling(self) -> None:
        """Flags are found as Go spells them: one dash or two, a value behind ``=``."""
        for words in (("-a=:9",), ("-addr", ":9"), ("-addr=:9",), ("--a", ":9"), ("--a=:9",)):
            self.assertEqual(read("serve", *words)["addr"].port, 9, words)
        options = read("c", "-s=http://h?a=b", "-dst=http://d", "-H=X: y=z")
        self.assertEqual((options["src"], options.headers), ("http://h?a=b", [("X", "y=z")]))
        for word, shown in (("-s", True), ("-s=true", True), ("--log-stack=false", False)):
            self.assertEqual(bool(read(word, "serve")["log-stack"]), shown, word)
        for word in ("---addr", "-sl", "-", "-="):
            self.assertRaises(UsageError, read, "serve", word, "debug")

    def test_help(self) -> None:
        """Help is to be had by every name that it has there, with status 0."""
        for words in (("-h",), ("help",), ("h", "serve"), ("serve", "-h"), ("c", "--help")):
            shown = StringIO()
            with redirect_stdout(shown):
                self.assertIn(self.assertRaises(SystemExit, read, *words).code, (None, 0))
            self.assertIn("--log-level", shown.getvalue(), words)

    def test_errors_name_the_flag(self) -> None:
        """A bad value is one line with flag, value and remedy."""
        for words, says in (
            (("-l", "loud", "s"), "--log-level 'loud'"),
            (("s", "--addr", "8080"), "--addr '8080'"),
            (("s", "-c", "199"), "--code '199'"),
            (("c", "--src", "ftp://h", "--dst", "http://d"), "--src 'ftp://h'"),
            (("c", "--dst", "http://d"), "--src"),
            ((*BOTH[:3], "--dst", "http://u:p@d"), "--dst"),
        ):
            with self.assertRaises(UsageError) as caught:
                read(*words)
            self.assertIn(says, str(caught.exception))

    def test_policies(self) -> None:
        """Policies may be named several times, and with commas, as there."""
        options = read("s", "-p", "a,b", "--policy", "c")
        self.assertEqual(options["policy"], ("a", "b", "c"))
        self.assertEqual(read("s", BACKSTREAM_POLICY="a,b")["policy"], ("a", "b"))

    def test_har_files(self) -> None:
        """After ``client`` -o names the folder of HAR files; there is more by longer names."""
        options = read(*BOTH, "-o", "dir", "--output-max-size=2M", "--output-redact", "-cookie,pin")
        self.assertEqual((options["output"], options["output-max-size"]), ("dir", 2 << 20))
        self.assertEqual(options["output-redact"], "-cookie,pin")
        for name in ("body", "files", "size"):
            self.assertRaises(UsageError, read, *BOTH, f"--output-max-{name}=0")


class ServeTests(SynchronousTestCase):
    """Where the server listens."""

    def where(self, *words: str, **environ: str) -> tuple[str, int]:
        address = read("serve", *words, **environ)["addr"]
        return address.interface, address.port

    def test_default(self) -> None:
        """localhost:8080, as there."""
        self.assertEqual(self.where(), ("127.0.0.1", 8080))
        self.assertEqual(read("serve")["code"], 503)
        self.assertEqual(read("serve", "-c", "0")["code"], 503)

    def test_variables(self) -> None:
        """BACKSTREAM_ADDR, and PORT on all addresses when nobody says where."""
        self.assertEqual(self.where(BACKSTREAM_ADDR="0.0.0.0:8000"), ("0.0.0.0", 8000))
        self.assertEqual(self.where(PORT="9000"), ("0.0.0.0", 9000))
        self.assertEqual(self.where(PORT="9000", BACKSTREAM_ADDR=":80"), ("::", 80))
        self.assertEqual(self.where("-a", "[::1]:1", PORT="9000"), ("::1", 1))
        self.assertEqual(read("serve", BACKSTREAM_NO_CLIENT_CODE="404")["code"], 404)
        self.assertEqual(read("serve", BACKSTREAM_LOG_FORMAT="json")["log-format"], "json")
        with self.assertRaises(UsageError):
            self.where(PORT="http")


class ClientTests(SynchronousTestCase):
    """The client's URLs and headers."""

    def test_variables(self) -> None:
        """The URLs have variables of their own names."""
        options = read("c", BACKSTREAM_SRC_URL="https://h/x", BACKSTREAM_DST_URL="http://d")
        self.assertEqual((options["src"], options["dst"]), ("https://h/x", "http://d"))

    def test_headers(self) -> None:
        """Commas and colons may stand in a value; a name may come twice."""
        options = read(*BOTH, "-H", "A: 1, 2", "-H", " B :http://[::1]:80/ ", "--header=A: 3")
        self.assertEqual(options.headers, [("A", "1, 2"), ("B", "http://[::1]:80/"), ("A", "3")])

    def test_headers_of_a_variable(self) -> None:
        """In the variable a comma begins another header where a name follows."""
        options = read(*BOTH, BACKSTREAM_HEADER="A: 1, 2,B: http://x:1,C: 3")
        self.assertEqual(options.headers, [("A", "1, 2"), ("B", "http://x:1"), ("C", "3")])

    def test_bad_headers(self) -> None:
        """What is no header, or belongs to the handshake, is refused; a value is never shown."""
        for text in ("nothing", ": x", "A B: x", "Upgrade: x", "Sec-WebSocket-Key: x", "A: x\ny"):
            with self.assertRaises(UsageError):
                read(*BOTH, "-H", text)
        for text in ("Bad Name: s3cret", "Bearer s3cret", "Bearer s3cret x: y", "A: s3cret\nx"):
            with self.assertRaises(UsageError) as caught:
                read(*BOTH, "-H", text)
            self.assertNotIn("s3cret", str(caught.exception))
