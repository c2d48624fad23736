"""Where running inspectors are found."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspector.address import Address


class AddressTests(SynchronousTestCase):
    """Address."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name, "exposr")

    def ours(self, port: int) -> Address:
        return Address(f"http://127.0.0.1:{port}", f"token-of-{port}", os.getpid())

    def test_written_and_read(self) -> None:
        """What is written is found, the newest first, and only its user can read it."""
        for age, port in ((20, 4040), (10, 4041)):
            path = self.ours(port).write(self.folder)
            os.utime(path, (1e9 - age, 1e9 - age))
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(list(Address.all(self.folder)), [self.ours(4041), self.ours(4040)])
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)
        self.assertNotIn("token-of", repr(self.ours(1)))

    def test_left_behind(self) -> None:
        """The file of a process that is gone is passed over and removed."""
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        path = Address("http://127.0.0.1:4040", "x", gone.pid).write(self.folder)
        self.assertEqual(list(Address.all(self.folder)), [])
        self.assertFalse(path.exists())

    def test_nonsense(self) -> None:
        """A folder that is not there, and files that are none of ours, mislead nobody."""
        self.assertEqual(list(Address.all(self.folder)), [])
        path = self.ours(4040).write(self.folder)
        (self.folder / "inspector-1-1.json").write_text("[]")
        (self.folder / "inspector-2-2.json").write_bytes(b"\xff{")
        (self.folder / "inspector-3-3.json").symlink_to(path)
        self.assertEqual(list(Address.all(self.folder)), [self.ours(4040)])
