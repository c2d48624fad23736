"""The token that an Open Policy Agent asks for (RFC 6750), in a file of the operator's.

Beside the data path: read at start, and by :mod:`remote` when the file changes.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Final

from exposr_tx.errors import PolicyInvalid

__all__ = ["TokenFile"]

#: Bytes of a file that are read; a token of many claims has a tenth.
MOST: Final = 65536
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class TokenFile:
    """A file with a token, on a line of its own.

    :ivar is_open: whether everybody on the machine could read it, when it was read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_open = False
        self._signature: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<TokenFile {self.path}>"

    def read(self) -> str:
        """The token that is in it now. Raises PolicyInvalid, which names the file."""
        self._signature = self._signed()
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise PolicyInvalid(f"{self.path!r}: is no file; write the token into one")
            with open(self.path, encoding="ascii") as file:
                lines = file.read(MOST).split("\n")
                self.is_open = bool(os.fstat(file.fileno()).st_mode & stat.S_IROTH)
        except (OSError, ValueError) as problem:
            # What is no ASCII may be a token all the same, and is not to be told.
            why = problem.strerror if isinstance(problem, OSError) else "it is no ASCII text"
            raise PolicyInvalid(f"{self.path!r}: cannot be read: {why}") from None
        found = [line.strip() for line in lines if line.strip()]
        if len(found) != 1 or not _TOKEN.fullmatch(found[0]):
            raise PolicyInvalid(
                f"{self.path!r}: must hold the token, on one line, and nothing else"
            )
        return found[0]

    @property
    def changed(self) -> bool:
        """Whether it is another file than was read, or gone."""
        return self._signed() != self._signature

    def _signed(self) -> tuple[int, ...]:
        try:
            status = os.stat(self.path)
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino
