"""The console script, where it needs no server."""

import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.command_line import main


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
            self.assertTrue(err.startswith(f"exposr: --reactor {name!r}: "), err)
            self.assertIn("asyncio", err)

    def test_memory_is_its_servers_own(self) -> None:
        """An account in a memory storage would be gone at once; that is said."""
        status, _out, err = self.run_line(
            "admin", "account", "create", "--storage-url", "memory://"
        )
        self.assertEqual(status, 2)
        self.assertIn("sqlite:///", err)

    def test_no_kind_of_storage(self) -> None:
        """What names no storage is a usage error, told once."""
        line = ("admin", "account", "create", "--storage-url", "mysql://u:hush@h/db")
        status, _out, err = self.run_line(*line)
        self.assertEqual(status, 2)
        self.assertTrue(err.startswith("exposr: --storage-url: 'mysql' is not a kind"), err)
        self.assertNotIn("hush", err)

    def loaded(self, code: str, *heavy: str) -> subprocess.CompletedProcess[str]:
        """Run code in a fresh process; it fails with the names of modules that it has loaded."""
        code = f"import sys\n{code}\nsys.exit(' '.join({set(heavy)} & set(sys.modules)) or 0)\n"
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).resolve().parents[1],
            env={k: v for k, v in os.environ.items() if not k.startswith("EXPOSR_")},
            capture_output=True,
            text=True,
        )

    def test_closed_streams(self) -> None:
        """With standard streams closed, what goes wrong is told as ever where it can be."""
        line = (sys.executable, "-c", "from exposr_tx.scripts import exposr; exposr()", "tunnel")
        for closed, told in ((">&-", 1), ("<&- >&-", 1), ("2>&-", 0), ("<&- >&- 2>&-", 0)):
            done = subprocess.run(
                ["sh", "-c", f'"$@" {closed}', "sh", *line],
                cwd=Path(__file__).resolve().parents[1],
                capture_output=True,
                text=True,
            )
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, told), closed)

    def test_full_disk(self) -> None:
        """Output for which there is no room is told in a line."""
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full on this system")
        with open("/dev/full", "wb") as full:
            ran = subprocess.run(
                [sys.executable, "-c", "from exposr_tx.scripts import exposr; exposr()", "--help"],
                cwd=Path(__file__).resolve().parents[1],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1), ran.stderr)
        self.assertIn("the output cannot be written: No space left on device", ran.stderr)

    def test_light(self) -> None:
        """Help needs neither the reactor nor the websocket and HTTP libraries."""
        done = self.loaded(
            "from exposr_tx.command_line import main\n"
            "main(['tunnel', 'connect', '--help'], {}, sys.stdout, sys.stderr)",
            *("twisted.internet.reactor", "autobahn", "treq", "klein"),
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("--keep", done.stdout)

    def test_connect_is_light(self) -> None:
        """A client that records and inspects nothing keeps nothing in memory for that."""
        done = self.loaded(
            "from exposr_tx.scripts import exposr\n"
            "sys.argv[1:] = ['tunnel', 'connect', 'http://localhost']\n"
            "try:\n"
            "    exposr()\n"
            "except SystemExit:\n"  # for want of a server; all is loaded by then
            "    print('autobahn' in sys.modules)",
            *("klein", "treq", "rich", "sqlite3", "difflib", "pycparser"),
            *("exposr_tx.inspection.recorder", "exposr_tx.inspection.folder"),
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("--server URL (or EXPOSR_SERVER) is needed", done.stderr)
        self.assertEqual(done.stdout, "True\n")
