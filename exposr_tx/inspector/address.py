"""Where the inspectors of a user run, for his ``exposr logs`` in another terminal.

Each running inspector has a file that only its user can read, with its URL and its
token. It goes with the inspector; one that was left behind by a killed program is
passed over, and removed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Address"]

FOLDER_MODE: Final = 0o700
#: Bytes of a file that are looked at.
MOST: Final = 4096
_NAME: Final = "inspector-{}.json"


@dataclass(frozen=True, slots=True)
class Address:
    """A running inspector.

    :ivar url: ``http://127.0.0.1:PORT``.
    :ivar token: what its requests must show; a secret.
    :ivar pid: the process that it runs in.
    """

    url: str
    token: str
    pid: int

    def __repr__(self) -> str:
        return f"<Address {self.url} of process {self.pid}>"

    def write(self, folder: Path) -> Path:
        """Leave it in a folder, which is made; the file is complete when others see it.

        :raises OSError: that is not possible.
        """
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        path = folder / _NAME.format(f"{self.pid}-{self.url.rpartition(':')[2]}")
        descriptor, name = tempfile.mkstemp(prefix=".inspector-", dir=folder)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                json.dump({"url": self.url, "token": self.token, "pid": self.pid}, stream)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        return path

    @classmethod
    def all(cls, folder: Path) -> Iterator[Address]:
        """Those whose processes live, the newest first."""
        found = []
        for path in folder.glob(_NAME.format("*")):
            try:
                found.append((path.stat().st_mtime, path))
            except OSError:
                continue  # it has just gone
        for _, path in sorted(found, reverse=True):
            address = cls._read(path)
            if address is None:
                continue
            if _lives(address.pid):
                yield address
            else:
                path.unlink(missing_ok=True)

    @classmethod
    def _read(cls, path: Path) -> Address | None:
        """The address in a file of ours; None for what somebody else has put there."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, encoding="ascii") as stream:
                if os.fstat(stream.fileno()).st_uid != os.getuid():
                    return None
                value: dict[str, Any] = json.loads(stream.read(MOST))
            return cls(str(value["url"]), str(value["token"]), int(value["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # there is none, or it is somebody else's: not ours at least
        return False
    return True
