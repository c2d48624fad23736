"""The console script, where it needs no server."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.scripts import main


class MainTests(SynchronousTestCase):
    """main: what is decided before a reactor runs."""

    def run_line(self, *words: str) -> tuple[int, str, str]:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out):
            status = main(words, {}, out, err)
        return status, out.getvalue(), err.getvalue()

    def test_help_and_version(self) -> None:
        """--help and --version are a success."""
        status, out, _err = self.run_line("--help")
        self.assertEqual(status, 0)
        self.assertIn("tunnel", out)
        status, out, _err = self.run_line("--version")
        self.assertEqual(status, 0)
        self.assertIn("exposr-tx ", out)

    def test_usage_errors(self) -> None:
        """What cannot be understood is exit status 2 and one line."""
        for line in ("", "tunnel", "--bogus", "tunnel info", "admin account create"):
            status, out, err = self.run_line(*line.split())
            self.assertEqual((status, out), (2, ""), line)
            self.assertEqual(err.count("\n"), 1)
            self.assertTrue(err.startswith("exposr: "))

    def test_unknown_reactor(self) -> None:
        """A reactor that Twisted does not have, or not here, is a usage error that names others."""
        for name in ("bogus", "cf", "win32"):
            status, out, err = self.run_line("tunnel", "list", "--reactor", name)
            self.assertEqual((status, out), (2, ""), name)
            self.assertEqual(err.count("\n"), 1)
            self.assertTrue(err.startswith(f"exposr: --reactor: {name!r} "), err)
            self.assertIn("asyncio", err)

    def test_memory_is_its_servers_own(self) -> None:
        """An account in a memory storage would be gone at once; that is said."""
        status, _out, err = self.run_line(
            "admin", "account", "create", "--storage-url", "memory://"
        )
        self.assertEqual(status, 2)
        self.assertIn("sqlite:///", err)

    def test_light(self) -> None:
        """Help needs neither the reactor nor the websocket and HTTP libraries."""
        import subprocess
        import sys

        code = (
            "import sys\n"
            "from exposr_tx.scripts import main\n"
            "main(['tunnel', 'connect', '--help'], {}, sys.stdout, sys.stderr)\n"
            "heavy = {'twisted.internet.reactor', 'autobahn', 'treq', 'klein'}\n"
            "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
        )
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("--keep", done.stdout)
