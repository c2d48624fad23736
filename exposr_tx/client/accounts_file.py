"""The file that remembers which account a user has on which server.

The client script reads it when no account is given, and writes it when
``account create`` or ``tunnel connect`` registers one. It holds secrets: an
account number is its own password, so the file is the user's alone.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from exposr_tx.addresses import authority
from exposr_tx.errors import BadInput

__all__ = ["AccountsFile", "StoredAccount", "account_in", "server_key"]

#: Readable and writable by its owner only.
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
HEADER = "# Accounts of exposr, by server. An account number is its own password: keep this file.\n"
#: Bytes of a file with one account that are looked at.
MOST = 4096


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account as the file has it.

    :ivar account: the number, in groups of four or without dashes.
    :ivar automatic: a tunnel registered it without being asked for an account;
        nobody knows it but this file, so that it may be replaced when the
        server does not know it any more.
    """

    account: str
    automatic: bool = False


def server_key(url: str) -> str:
    """One spelling for all the URLs that mean the same server."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = authority(scheme, (parts.hostname or "").lower(), parts.port)
    path = parts.path if parts.path.endswith("/") else parts.path + "/"
    return urlunsplit((scheme, host, path, "", ""))


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", escaped)
    return f'"{escaped}"'


class AccountsFile:
    """``accounts.toml``: one table per server URL."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> AccountsFile:
        """The file in ``$XDG_CONFIG_HOME/exposr``, or in ``~/.config/exposr``."""
        base = environ.get("XDG_CONFIG_HOME", "")
        if not os.path.isabs(base):  # the XDG rules: a relative path is to be ignored
            home = environ.get("HOME") or os.path.expanduser("~")
            base = os.path.join(home, ".config")
        return cls(Path(base) / "exposr" / "accounts.toml")

    def __repr__(self) -> str:
        return f"<AccountsFile {self.path}>"

    def _read(self) -> dict[str, StoredAccount]:
        try:
            text = self.path.read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read the accounts file {self.path}: {error}") from None
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(
                f"the accounts file {self.path} is not valid TOML ({error}); mend or remove it"
            ) from None
        found = {}
        for server, table in tables.items():
            if isinstance(table, dict) and isinstance(table.get("account"), str):
                found[server] = StoredAccount(table["account"], table.get("automatic") is True)
        return found

    def account(self, server: str) -> StoredAccount | None:
        """What is remembered for a server, or None; BadInput when the file is unreadable."""
        return self._read().get(server_key(server))

    def remember(self, server: str, stored: StoredAccount) -> None:
        """Write an account down; BadInput when that fails.

        The new file is complete before it takes the old one's place, so that
        a crash loses nothing.
        """
        entries = self._read()
        entries[server_key(server)] = stored
        lines = [HEADER]
        for key in sorted(entries):
            lines.append(f"\n[{_quoted(key)}]\naccount = {_quoted(entries[key].account)}\n")
            if entries[key].automatic:
                lines.append("automatic = true\n")
        try:
            self._replace("".join(lines))
        except OSError as error:
            raise self._unwritable(error) from None

    def check(self) -> None:
        """BadInput where nothing can be written down.

        For whoever is about to register an account, which nobody would know then.
        """
        try:
            with tempfile.TemporaryFile(dir=self._folder()):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> BadInput:
        return BadInput(
            f"cannot write the accounts file {self.path}: {error.strerror}; give an account with "
            "--account-file or EXPOSR_ACCOUNT, or a folder of yours as XDG_CONFIG_HOME"
        )

    def _folder(self) -> Path:
        """Where the file is, or what a link in its place leads to; made when it is missing."""
        folder = self.path.resolve().parent
        folder.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        return folder

    def _replace(self, text: str) -> None:
        path = self.path.resolve()
        descriptor, name = tempfile.mkstemp(prefix=".accounts-", dir=self._folder())
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), FILE_MODE)
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


def account_in(path: str, option: str) -> StoredAccount:
    """The account whose number a file holds, in its first line that is no comment.

    :param option: what the file was given by, for errors.
    :raises BadInput: the file cannot be read, or holds none.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            lines = [line.strip() for line in stream.read(MOST).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{option} {path!r}: cannot be read: {error}") from None
    number = next((line for line in lines if line and not line.startswith("#")), "")
    if not number:
        raise BadInput(f"{option} {path!r}: holds no account number; write it on a line of its own")
    return StoredAccount(number)
