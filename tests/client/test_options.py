"""The command line."""

from contextlib import redirect_stdout
from io import StringIO
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.options import Command, ExposrOptions


def parsed(*words: str, **environ: str) -> tuple[str, Command, ExposrOptions]:
    options = ExposrOptions(environ)
    options.parseOptions(words)
    name, command = options.command()
    return name, command, options


class ExposrOptionsTests(SynchronousTestCase):
    """ExposrOptions."""

    def test_options_anywhere(self) -> None:
        """Options may stand before, between and after the words."""
        pieces = [("-s", "http://h/"), ("tunnel",), ("connect",), ("abcd",), ("http://x",)]
        for order in permutations([*pieces, ("--keep",)]):
            flat = [piece for piece in order if piece in pieces[1:]]
            if flat != pieces[1:]:
                continue
            words = [word for piece in order for word in piece]
            name, command, options = parsed(*words)
            self.assertEqual((name, command.words), ("tunnel connect", ("abcd", "http://x")))
            self.assertEqual((options["server"], command["keep"]), ("http://h/", 1))

    def test_every_command(self) -> None:
        """All commands of the existing client, and ours, are there."""
        for line in (
            "account create",
            "tunnel create",
            "tunnel create abcd target-url http://x",
            "tunnel connect",
            "tunnel configure abcd set ingress-http on",
            "tunnel configure abcd unset ingress-http",
            "tunnel info abcd",
            "tunnel list",
            "tunnel disconnect abcd",
            "tunnel delete abcd",
            "admin account create",
            "admin tunnel list",
            "admin tunnel list -v",
        ):
            name, _command, _options = parsed(*line.split(), "-a", "X", "-s", "http://h")
            self.assertTrue(line.startswith(name), line)

    def test_short_forms(self) -> None:
        """A port, host:port or URL alone, and tunnel TARGET [ID], connect."""
        for line in ("3000", "localhost:3000", "-s http://h 3000 -q", "tunnel 3000"):
            name, command, _options = parsed(*line.split())
            self.assertEqual(name, "tunnel connect", line)
            self.assertEqual(command.words[0].split(":")[-1], "3000")
        name, command, _options = parsed(
            "--server", "http://h/", "tunnel", "http://e.com", "example"
        )
        self.assertEqual((name, command.words), ("tunnel connect", ("http://e.com", "example")))

    def test_environment(self) -> None:
        """Every option is a variable as well; the line wins."""
        _name, command, options = parsed(
            "3000", "--keep", EXPOSR_SERVER="http://env", EXPOSR_INSECURE="1", EXPOSR_ACCOUNT="A"
        )
        self.assertEqual((options["server"], command["insecure"]), ("http://env", 1))
        self.assertEqual(options.given["account"], "EXPOSR_ACCOUNT")
        _name, _command, options = parsed("3000", "-s", "http://l", EXPOSR_SERVER="http://env")
        self.assertEqual(options["server"], "http://l")

    def test_usage_errors(self) -> None:
        """What is wrong is named in one line, which repeats no account number."""
        for line, said in (
            ("", "which command"),
            ("tunnel", "which command"),
            ("tunnel info", "usage: exposr tunnel info ID"),
            ("bogus", "unknown command 'bogus'; the commands are: tunnel, account, logs,"),
            ("admin bogus", "unknown command 'bogus'; the commands are: account, tunnel"),
            ("--servr http://h 3000", "did you mean --server"),
            ("-s ftp://h 3000", "--server 'ftp://h': must be a URL"),
            ("tunnel info a b", "exposr tunnel info ID"),
        ):
            with self.assertRaises(UsageError) as caught:
                parsed(*line.split())
            self.assertIn(said, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_misspelt_command(self) -> None:
        """A word after tunnel that is neither command nor target is told with what there is."""
        for words in (("lst",), ("conect", "my-tunnel", "3000"), ("my-tunnel", "http://h")):
            error = self.assertRaises(UsageError, parsed, "tunnel", *words)
            self.assertIn(f"{words[0]!r} is no command", str(error))
            self.assertIn("connect, configure", str(error))

    def test_help_is_the_commands_own(self) -> None:
        """--help shows the options of the command that stands on the line, wherever it stands;
        so do -h and help."""
        for line in (
            *("tunnel connect --help", "--help tunnel connect", "tunnel --help connect"),
            *("tunnel connect -h", "-h tunnel connect", "help tunnel connect"),
        ):
            printed = StringIO()
            with self.assertRaises(SystemExit) as caught, redirect_stdout(printed):
                parsed(*line.split())
            self.assertFalse(caught.exception.code)
            self.assertIn("exposr tunnel connect", printed.getvalue())
            self.assertIn("--keep", printed.getvalue())

    @given(st.lists(st.sampled_from(["tunnel", "connect", "-s", "3000", "--", "-k", "x:y", "-"])))
    def test_any_line(self, words: list[str]) -> None:
        """Any line is a command or a usage error."""
        try:
            name, _command, _options = parsed(*words)
        except UsageError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(name, "tunnel connect")
