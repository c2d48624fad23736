"""Options that are environment variables as well."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.option_values import (
    boolean,
    choice,
    comma_list,
    count,
    endpoint,
    network,
    port,
    port_range,
    positive,
    seconds,
    size,
    url,
)
from exposr_tx.options import EnvironOptions


class Connect(EnvironOptions):
    """A sub-command."""

    optFlags: ClassVar[list[list[Any]]] = [["keep", "k", "Keep it."]]
    optParameters: ClassVar[list[list[Any]]] = [
        ["target", "t", None, "Where to."],
        ["verbose", "v", "true", "Say more.", choice("true", "false")],
    ]
    switches = frozenset({"verbose"})
    arguments: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[str] = []

    def parseArgs(self, *arguments: str) -> None:
        self.arguments = arguments

    def opt_header(self, value: str) -> None:
        """A header field."""
        self.headers.append(value)


class Command(EnvironOptions):
    """A command with a sub-command."""

    optFlags: ClassVar[list[list[Any]]] = [["quiet", "q", "Say less."]]
    optParameters: ClassVar[list[list[Any]]] = [
        ["server", "s", None, "The server.", url("http", "https")],
        ["proxy", None, (), "Proxies.", comma_list(network)],
        ["port", "p", 8080, "The port.", port],
        ["key", None, None, "A secret.", choice("right", "correct")],
    ]
    subCommands: ClassVar[list[Any]] = [["connect", None, Connect, "Connect."]]
    aliases = {"old-server": "server"}
    lists = frozenset({"proxy"})
    hidden = frozenset({"port"})
    secret = frozenset({"key"})


def parsed(*words: str, **environ: str) -> Any:
    command = Command(environ)
    command.parseOptions(words)
    return command


class PlaceTests(SynchronousTestCase):
    """Where options may stand."""

    def test_anywhere(self) -> None:
        """Options of the command and of the sub-command may stand before, between and behind."""
        lines = [
            ["-s", "http://h", "connect", "--keep", "x", "y"],
            ["connect", "x", "y", "--keep", "-s", "http://h"],
            ["--keep", "connect", "x", "--server=http://h", "y"],
            ["-k", "-shttp://h", "connect", "x", "y"],
        ]
        for line in lines:
            command = parsed(*line)
            self.assertEqual(command["server"], "http://h", line)
            self.assertEqual(command.subOptions["keep"], 1, line)
            self.assertEqual(command.subOptions.arguments, ("x", "y"), line)

    def test_bundled_letters(self) -> None:
        """Short options may share a dash; the last may have a value."""
        command = parsed("-qp90", "connect")
        self.assertEqual((command["quiet"], command["port"]), (1, 90))

    def test_flags_with_a_value(self) -> None:
        """A flag may be followed by true or false; one that is on unless said so stands alone."""
        for line, keep, quiet, verbose in (
            ("connect a", 0, 0, "true"),
            ("connect --keep true a --quiet false", 1, 0, "true"),
            ("--quiet true connect -k false a", 0, 1, "true"),
            ("-q true connect -k true a -v", 1, 1, "true"),
            ("connect a --verbose --keep=false", 0, 0, "true"),
            ("-v false connect --keep a", 1, 0, "false"),
            ("connect --verbose=false -k a", 1, 0, "false"),
            ("connect --keep a true", 1, 0, "true"),
        ):
            command = parsed(*line.split())
            sub = command.subOptions
            self.assertEqual(
                (sub["keep"], command["quiet"], sub["verbose"]), (keep, quiet, verbose)
            )
            self.assertEqual(sub.arguments[0], "a")

    def test_short_with_equals(self) -> None:
        """An equals sign behind a short option is none of its value."""
        self.assertEqual(parsed("-p=90", "-shttp://h", "connect")["port"], 90)

    def test_after_two_dashes(self) -> None:
        """What follows -- is no option."""
        command = parsed("connect", "--", "--keep", "-q")
        self.assertEqual(command.subOptions.arguments, ("--keep", "-q"))
        self.assertEqual((command["quiet"], command.subOptions["keep"]), (0, 0))

    def test_repeated(self) -> None:
        """Lists add up, of other options the last counts, methods are called each time."""
        command = parsed(
            *("--proxy=10.0.0.0/8,::1", "--proxy", "192.0.2.1", "-p1", "-p2", "connect"),
            *("--header", "a: b, c", "--header=d"),
        )
        self.assertEqual(
            [str(n) for n in command["proxy"]], ["10.0.0.0/8", "::1/128", "192.0.2.1/32"]
        )
        self.assertEqual(command["port"], 2)
        self.assertEqual(command.subOptions.headers, ["a: b, c", "d"])

    def test_help_hides(self) -> None:
        """--help leaves out what is hidden."""
        shown = parsed().getUsage()
        self.assertIn("--server=", shown)
        self.assertNotIn("--port=", shown)

    def test_help_shows_defaults(self) -> None:
        """Defaults stand there as one would write them."""

        class Some(EnvironOptions):
            optParameters = [
                ["list", None, ("a", "b"), "A."],
                ["none", None, (), "B."],
                ["time", None, 30.0, "C."],
                ["switch", None, True, "D."],
            ]

        shown = " ".join(Some({}).getUsage().split())
        for said in ("A. [default: a,b]", "B. --switch", "C. [default: 30]", "D. [default: true]"):
            self.assertIn(said, shown)


class EnvironTests(SynchronousTestCase):
    """The environment."""

    def test_variables(self) -> None:
        """A variable does what the option does, for sub-commands too."""
        command = parsed(
            "connect", EXPOSR_SERVER="http://e", EXPOSR_KEEP="on", EXPOSR_PROXY="::1,10.0.0.0/8"
        )
        self.assertEqual(command["server"], "http://e")
        self.assertEqual(len(command["proxy"]), 2)
        self.assertEqual(command.subOptions["keep"], 1)
        self.assertEqual(command.warnings, [])

    def test_line_wins(self) -> None:
        """The command line wins, also with "false" and in place of a list."""
        command = parsed(
            *("-s", "http://l", "connect", "--keep=false", "--proxy=::2"),
            **{"EXPOSR_SERVER": "http://e", "EXPOSR_KEEP": "1", "EXPOSR_PROXY": "::1"},
        )
        self.assertEqual(command["server"], "http://l")
        self.assertEqual(command["proxy"], (ip_network("::2"),))
        self.assertEqual(command.subOptions["keep"], 0)

    def test_empty(self) -> None:
        """An empty variable is none."""
        self.assertEqual(parsed("connect", EXPOSR_PORT="")["port"], 8080)

    def test_alias(self) -> None:
        """Other names work in both places."""
        self.assertEqual(parsed("--old-server=http://x")["server"], "http://x")
        self.assertEqual(parsed(EXPOSR_OLD_SERVER="http://x")["server"], "http://x")

    def test_unknown_variable(self) -> None:
        """A variable that names no option is warned of, with the one that was meant."""
        (warning,) = parsed("connect", EXPOSR_SERVRE="x", PATH="y").warnings
        self.assertIn("EXPOSR_SERVRE", warning)
        self.assertIn("did you mean EXPOSR_SERVER?", warning)

    def test_variable_like_no_other(self) -> None:
        """What all variables begin with makes none of them the one that was meant."""
        (warning,) = parsed("connect", EXPOSR_WORKERS="2").warnings
        self.assertEqual(warning, "EXPOSR_WORKERS is set and names no option")


class ErrorTests(SynchronousTestCase):
    """Errors name the option, the value and what to do."""

    def error(self, *words: str, **environ: str) -> str:
        message = str(self.assertRaises(UsageError, parsed, *words, **environ))
        self.assertNotIn("\n", message)
        return message

    def test_value(self) -> None:
        """A wrong value is shown with its option or variable."""
        remedy = "must be a port number from 0 to 65535"
        self.assertEqual(self.error("--port", "99999"), f"--port '99999': {remedy}")
        self.assertEqual(self.error(EXPOSR_PORT="x"), f"EXPOSR_PORT 'x': {remedy}")
        self.assertIn("--quiet 'maybe': must be true or false", self.error("--quiet=maybe"))

    def test_value_that_does_not_fit(self) -> None:
        """So is one that is right by itself and wrong beside others; but never a secret."""
        options = parsed("--port", "8080", "--key=right", EXPOSR_SERVER="https://x")
        self.assertEqual(str(options.error("port", "is taken")), "--port '8080': is taken")
        self.assertEqual(
            str(options.error("server", "is down")), "EXPOSR_SERVER 'https://x': is down"
        )
        self.assertEqual(str(options.error("key", "is old")), "--key: is old")

    def test_secret(self) -> None:
        """A secret's value is not repeated."""
        self.assertEqual(self.error("--key=wrong"), "--key: must be right or correct")

    def test_user_in_url(self) -> None:
        """Nor is the user of a URL repeated, whatever is wrong with it."""
        for text in ("ftp://me:pa/ss@host", "http://me:pass@host:x", "http://me:pass@host"):
            said = self.error("--server", text)
            self.assertRegex(said, r"--server '\w+://\[redacted\]@host(:x)?': must ")
            self.assertNotIn("pa", said)

    def test_unknown(self) -> None:
        """An unknown option is named, with the one that was meant."""
        self.assertEqual(self.error("--sever=x"), "--sever: no such option; did you mean --server?")
        self.assertEqual(self.error("-z"), "-z: no such option; --help lists the options")

    def test_no_value(self) -> None:
        """An option at the end that lacks its value is named."""
        self.assertEqual(self.error("connect", "--server"), "--server: needs a value")


class CoercionTests(SynchronousTestCase):
    """Text into values."""

    def test_values(self) -> None:
        """What is right."""
        self.assertEqual(
            [boolean(w) for w in ("yes", "ON", "1", "no", "False")], [True] * 3 + [False] * 2
        )
        self.assertEqual(port_range("20000-20100"), (20000, 20100))
        self.assertEqual(port_range("7"), (7, 7))
        self.assertEqual(seconds("0.5"), 0.5)
        self.assertEqual([size(text) for text in ("7", "64k", "2G")], [7, 65536, 2 << 30])
        self.assertEqual(positive("007"), 7)
        self.assertEqual(endpoint("8080"), "tcp:8080")
        self.assertEqual(endpoint("unix:/x"), "unix:/x")
        self.assertEqual(url("http")("http://h:1/p"), "http://h:1/p")

    def test_wrong(self) -> None:
        """What is wrong is a ValueError, which Options makes a line of."""
        for parse, texts in (
            (boolean, ["", "2", "ja"]),
            (count, ["", "-1", "1.5", "٣", "1_0"]),
            (positive, ["", "0", "-1", "1.5", "٣"]),
            (size, ["", "0", "0K", "K", "1T", "1.5M", "1KB", "-1", "٣"]),
            (seconds, ["", "-1", "inf", "nan", "x"]),
            (port, ["", "65536", "-1", "+1", "٣"]),
            (port_range, ["", "0", "9-8", "1-", "-1", "1-2-3", "1-70000"]),
            (network, ["", "x", "10.0.0.0/33", "1.2.3"]),
            (endpoint, ["", "x"]),
            (url("http"), ["", "http:", "http://", "ftp://x", "http://x:y", "x"]),
            (choice("a", "b"), ["", "c"]),
        ):
            for text in texts:
                self.assertRaises(ValueError, parse, text)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """No text makes a coercion fail in another way."""
        plain = (boolean, count, positive, size, seconds, port, port_range, network, endpoint)
        for parse in (*plain, url("http")):
            try:
                parse(text)
            except ValueError as problem:
                self.assertTrue(str(problem).startswith("must be"), problem)
