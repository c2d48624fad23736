"""Where accounts and tunnels are kept: the stores behind IStorage, chosen by a URL.

No request passes here; :mod:`exposr_tx.tunnels` keeps what the data path needs
in memory. ``memory://`` forgets everything at the end of the process,
``sqlite:`` keeps it in one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exposr_tx.errors import BadInput
from exposr_tx.storage.memory import MemoryStorage
from exposr_tx.storage.sqlite import SQLiteStorage

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFromThreads

    from exposr_tx.interfaces import IStorage

__all__ = ["MemoryStorage", "SQLiteStorage", "open_storage"]

_NOT_YET = ("redis", "rediss", "postgres", "postgresql")
_REMEDY = "use sqlite:///FILE, or memory:// (forgotten at exit)"


def open_storage(url: str, reactor: IReactorFromThreads, source: str = "--storage-url") -> IStorage:
    """The store that a URL names. Nothing is opened before its first use.

    ``memory://`` (or ``memory:``), ``sqlite:///absolute/file`` and ``sqlite://relative/file``, as
    exposrd reads them; a fourth slash, SQLAlchemy's way to say "absolute", does no harm.

    :param source: what the URL was given by, for errors.
    :raises BadInput: the URL names no store of ours; the message has no value
        of the URL beyond its scheme, because it may hold a password.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and rest in ("", "//"):
        return MemoryStorage()
    if scheme == "sqlite":
        return SQLiteStorage(_file_of(rest, source), reactor)
    if scheme in _NOT_YET:
        raise BadInput(f"{source}: {scheme}: is not supported by this version; {_REMEDY}")
    raise BadInput(f"{source}: {scheme!r} is not a kind of storage; {_REMEDY}")


def _file_of(rest: str, source: str) -> str:
    """The path in what follows ``sqlite:``."""
    path = rest.removeprefix("//")
    if path.startswith("/"):
        path = "/" + path.lstrip("/")
    if path.strip("/") in ("", ":memory:") or path.endswith("/") or "?" in path or "\x00" in path:
        raise BadInput(
            f"{source}: 'sqlite:{rest}' names no file; write sqlite:///absolute/file"
            " or sqlite://relative/file, without options, or memory://"
        )
    return path
