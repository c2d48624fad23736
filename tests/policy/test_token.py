"""The file with the token that an Open Policy Agent asks for."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.token import TokenFile


class TokenTests(SynchronousTestCase):
    """Read, and read anew."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.path = os.path.join(made.name, "token")
        self.file = TokenFile(self.path)

    def write(self, data: bytes, mode: int = 0o600) -> None:
        with open(f"{self.path}.new", "wb") as file:
            file.write(data)
        os.chmod(f"{self.path}.new", mode)
        os.replace(f"{self.path}.new", self.path)

    def test_read(self) -> None:
        """What stands on its one line is the token; lines end as they like."""
        for data in (b"s3cret-._~+/=", b"s3cret-._~+/=\n", b"\r\n s3cret-._~+/= \r\n"):
            self.write(data)
            self.assertEqual(self.file.read(), "s3cret-._~+/=")

    def test_unusable(self) -> None:
        """A file without a token is named, and nothing of what it holds."""
        for data in (b"", b"\n", b"s3cret\ns3cret\n", b"Bearer s3cret", b"s3cret\xff", b"s3cret\0"):
            self.write(data)
            said = str(self.assertRaises(PolicyInvalid, self.file.read))
            self.assertTrue(said.startswith(f"{self.path!r}: "), said)
            self.assertNotIn("s3cret", said)
        os.remove(self.path)
        self.assertIn("No such file", str(self.assertRaises(PolicyInvalid, self.file.read)))
        os.mkfifo(self.path)
        self.assertIn("is no file", str(self.assertRaises(PolicyInvalid, self.file.read)))

    def test_changed(self) -> None:
        """It is read anew when it is another one; once, though it cannot be."""
        self.write(b"one")
        self.file.read()
        self.assertFalse(self.file.changed)
        self.write(b"two")
        self.assertTrue(self.file.changed)
        self.assertEqual((self.file.read(), self.file.changed), ("two", False))
        os.remove(self.path)
        self.assertTrue(self.file.changed)
        self.assertRaises(PolicyInvalid, self.file.read)
        self.assertFalse(self.file.changed)

    def test_open(self) -> None:
        """That everybody can read it is found out."""
        self.write(b"one", 0o640)
        self.file.read()
        self.assertFalse(self.file.is_open)
        self.write(b"one", 0o644)
        self.file.read()
        self.assertTrue(self.file.is_open)
