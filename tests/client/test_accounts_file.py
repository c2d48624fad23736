"""The file that remembers accounts."""

import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.accounts_file import AccountsFile, StoredAccount, server_key
from exposr_tx.errors import BadInput

SERVER = "https://tun.example/"


class AccountsFileTests(SynchronousTestCase):
    """AccountsFile."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp())
        self.file = AccountsFile.of_user({"XDG_CONFIG_HOME": str(self.base.absolute())})

    def test_place(self) -> None:
        """It lies where the desktop's rules say, in the home directory without them."""
        self.assertEqual(self.file.path, self.base.absolute() / "exposr" / "accounts.toml")
        home = AccountsFile.of_user({"HOME": "/home/ada", "XDG_CONFIG_HOME": "relative"})
        self.assertEqual(home.path, Path("/home/ada/.config/exposr/accounts.toml"))

    def test_nothing_yet(self) -> None:
        """No file means no account."""
        self.assertIsNone(self.file.account(SERVER))

    def test_remembers(self) -> None:
        """What was written is read again, each server's own."""
        self.file.remember(SERVER, StoredAccount("AAAA", automatic=True))
        self.file.remember("http://other:8080", StoredAccount("BBBB"))
        self.assertEqual(self.file.account("HTTPS://Tun.Example:443"), StoredAccount("AAAA", True))
        self.assertEqual(self.file.account("http://other:8080/"), StoredAccount("BBBB"))
        self.assertIsNone(self.file.account("http://other:8081/"))

    def test_private(self) -> None:
        """Only its owner can read it, whatever the umask says and it was before."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.file.remember(SERVER, StoredAccount("AAAA"))
        self.file.path.chmod(0o644)
        self.file.remember(SERVER, StoredAccount("BBBB"))
        self.assertEqual(stat.S_IMODE(self.file.path.stat().st_mode), 0o600)
        self.assertEqual([path.name for path in self.file.path.parent.iterdir()], ["accounts.toml"])

    def test_broken_file(self) -> None:
        """A file that is not TOML is named and left alone."""
        self.file.remember(SERVER, StoredAccount("AAAA"))
        self.file.path.write_text("what = ")
        error = self.assertRaises(BadInput, self.file.account, SERVER)
        self.assertIn(str(self.file.path), str(error))
        self.assertRaises(BadInput, self.file.remember, SERVER, StoredAccount("B"))
        self.assertEqual(self.file.path.read_text(), "what = ")

    def test_unwritable(self) -> None:
        """A directory that cannot be made is an error with its name."""
        self.base.write_text("a file")
        error = self.assertRaises(BadInput, self.file.remember, SERVER, StoredAccount("A"))
        self.assertIn("accounts.toml", str(error))
        self.assertIn("XDG_CONFIG_HOME", str(error))

    def test_check(self) -> None:
        """Whether it can be written is told beforehand, and leaves nothing behind."""
        self.file.check()
        self.assertEqual(list(self.file.path.parent.iterdir()), [])
        blocked = AccountsFile(self.base / "exposr" / "file" / "accounts.toml")
        blocked.path.parent.write_text("a file")
        error = self.assertRaises(BadInput, blocked.check)
        self.assertIn("EXPOSR_ACCOUNT", str(error))

    @given(st.text(), st.booleans())
    def test_any_text(self, account: str, automatic: bool) -> None:
        """Whatever the account is, it comes back as it was."""
        account = account.encode("utf-8", "replace").decode()
        file = AccountsFile(Path(self.mktemp()))
        file.remember(SERVER, StoredAccount(account, automatic))
        self.assertEqual(file.account(SERVER), StoredAccount(account, automatic))

    def test_server_key(self) -> None:
        """URLs of one server are one key; prefixes and ports make others."""
        self.assertEqual(server_key("http://[::1]:80"), "http://[::1]/")
        self.assertEqual(server_key("http://h:8080/pre"), "http://h:8080/pre/")
