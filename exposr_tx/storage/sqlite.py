"""The store in one SQLite file, for one machine.

SQLite blocks, so it has a thread of its own. What the reactor asks for while
that thread is busy waits, and then goes into one transaction: a thousand
writes at once cost one fsync, not a thousand. Several processes may use one
file (``exposr admin`` beside a running server).
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from zope.interface import implementer

from exposr_tx.errors import Conflict, StorageUnavailable
from exposr_tx.interfaces import IStorage, Record

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFromThreads

__all__ = ["SQLiteStorage"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
#: What goes into one transaction: each with "it writes".
Works = list[tuple[Work, bool]]
#: An answer, or an exception, for each of them.
Results = list[Any]
#: The same with who waits for it.
Asked = list[tuple[Work, bool, Deferred[Any]]]

#: Tells our files from anybody else's SQLite files ("exTX").
APPLICATION_ID = 0x65785458
#: What ``PRAGMA user_version`` holds; to be raised when the schema changes.
SCHEMA_VERSION = 1
#: Seconds to wait for another process's transaction; theirs take milliseconds.
BUSY_TIMEOUT = 5.0
#: Seconds between two attempts where SQLite does not wait by itself.
BUSY_PAUSE = 0.005
#: Operations in one transaction: bounds how long the write lock is held.
BATCH = 500

# AUTOINCREMENT never gives a number again, so a version names one value of one
# record for ever: a key that was removed and made anew cannot pass for the old one.
_SCHEMA = """
CREATE TABLE record (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (collection, key)
)
"""

_BUSY, _LOCKED = sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED
_UNUSABLE = "it cannot be opened; its folder must exist, and both must be writable by this user"
_MOVED = (
    "it has been removed, or another file has taken its place; put it back, or restart the server"
    " to use what is there"
)
_REASONS = {
    sqlite3.SQLITE_FULL: "no space is left",
    _BUSY: f"another process has kept it locked for {BUSY_TIMEOUT:g} s",
    _LOCKED: "another process has locked it",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; name another file",
    sqlite3.SQLITE_CANTOPEN: _UNUSABLE,
    sqlite3.SQLITE_READONLY: "it, or its folder, may not be written",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}


@implementer(IStorage)
class SQLiteStorage:
    """Records in one table of an SQLite file.

    The file is made at the first use, readable by its owner only. A failure
    is logged once, and so is the recovery; the file is opened anew each time
    something failed, so a repaired disk needs no restart. When the file has been
    removed, or another has its name, nothing more is written: it would be lost.

    :param path: the file's path.
    """

    _log = Logger()

    def __init__(self, path: str, reactor: IReactorFromThreads) -> None:
        self.path = path
        self._reactor = reactor
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None  # the thread's alone
        self._waiting: Asked = []
        self._busy = False
        self._inode: int | None = None  # the thread's; of the file when it was opened
        self._failing = False
        self._failing_writes = False
        self._closed: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<SQLiteStorage {self.path!r}{' failing' if self._failing else ''}>"

    def get(self, table: str, key: str) -> Deferred[Record | None]:
        def read(database: sqlite3.Connection) -> Record | None:
            row = database.execute(
                "SELECT value, version FROM record WHERE collection = ? AND key = ?", (table, key)
            ).fetchone()
            return None if row is None else Record(json.loads(row[0]), row[1])

        return self._ask(read, writes=False)

    def put(
        self, table: str, key: str, value: Mapping[str, Any], version: int | None
    ) -> Deferred[int]:
        text = json.dumps(value)

        def write(database: sqlite3.Connection) -> int:
            if _version(database, table, key) != version:
                raise Conflict(f"{table}: changed by somebody else")
            database.execute("DELETE FROM record WHERE collection = ? AND key = ?", (table, key))
            new = database.execute(
                "INSERT INTO record (collection, key, value) VALUES (?, ?, ?)", (table, key, text)
            ).lastrowid
            assert new is not None
            return new

        return self._ask(write, writes=True)

    def delete(self, table: str, key: str, version: int | None) -> Deferred[bool]:
        def write(database: sqlite3.Connection) -> bool:
            there = _version(database, table, key)
            if there is None:
                return False
            if version not in (None, there):
                raise Conflict(f"{table}: changed by somebody else")
            database.execute("DELETE FROM record WHERE version = ?", (there,))
            return True

        return self._ask(write, writes=True)

    def list(self, table: str, after: str, count: int) -> Deferred[list[tuple[str, Record]]]:
        def read(database: sqlite3.Connection) -> list[tuple[str, Record]]:
            rows = database.execute(
                "SELECT key, value, version FROM record WHERE collection = ? AND key > ?"
                " ORDER BY key LIMIT ?",
                (table, after, count),
            )
            return [(key, Record(json.loads(value), version)) for key, value, version in rows]

        return self._ask(read, writes=False)

    def close(self) -> Deferred[None]:
        """Finish what is waiting, then let go of the file. Later calls fail."""
        waiter: Deferred[None] = Deferred()
        if self._closed is not None:
            self._closed.chainDeferred(waiter)
            return waiter
        self._closed = Deferred()
        self._closed.chainDeferred(waiter)
        if not self._busy:
            self._next()
        return waiter

    # In the reactor's thread: the queue.

    def _ask(self, work: Callable[[sqlite3.Connection], T], writes: bool) -> Deferred[T]:
        if self._closed is not None:
            return fail(StorageUnavailable(f"storage {self.path}: it has been closed"))
        answer: Deferred[T] = Deferred()
        self._waiting.append((work, writes, answer))
        if not self._busy:
            self._next()
        return answer

    def _next(self) -> None:
        """Give the thread what waits; without anything, let it go when asked to."""
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        if not batch and self._closed is None:
            self._busy = False
            return
        self._busy = True
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "exposr-storage")
        if batch:
            works = [(work, writes) for work, writes, _ in batch]
            running = self._thread.submit(self._run, works)
            running.add_done_callback(
                lambda done: self._reactor.callFromThread(self._answer, batch, done)
            )
        else:
            self._thread.submit(self._drop).add_done_callback(
                lambda _: self._reactor.callFromThread(self._ended)
            )

    def _answer(self, batch: Asked, done: Future[Results]) -> None:
        asked = [(*one, result) for one, result in zip(batch, done.result(), strict=True)]
        self._notice([(writes, result) for _, writes, _, result in asked])
        self._next()  # first: the thread works on while the answers are looked at
        for _, _, answer, result in asked:
            if isinstance(result, Exception):
                answer.errback(result)
            else:
                answer.callback(result)

    def _notice(self, results: Sequence[tuple[bool, Any]]) -> None:
        """Log a failure, and its end, once each."""
        failed = [(w, r) for w, r in results if isinstance(r, StorageUnavailable)]
        if failed:
            if not self._failing:
                self._log.error("{reason}", event="storage", reason=str(failed[0][1]))
            self._failing = True
            self._failing_writes |= any(writes for writes, _ in failed)
        elif self._failing and (
            # While a disk is full, what is on it can still be read.
            not self._failing_writes or any(w and not isinstance(r, Exception) for w, r in results)
        ):
            self._log.info("storage {path} works again", event="storage", path=self.path)
            self._failing = self._failing_writes = False

    def _ended(self) -> None:
        assert self._thread is not None and self._closed is not None
        self._thread.shutdown()
        self._closed.callback(None)

    # In the storage's thread: the file.

    def _run(self, works: Works) -> Results:
        """Do all of it in one transaction; an answer, or an exception, for each.

        When the transaction fails, each is tried alone: one value that is too
        large, or the last free page, must not fail its neighbours.
        """
        try:
            return self._transact(works)
        except StorageUnavailable as error:
            if len(works) == 1 or _code(error.__cause__) in (_BUSY, _LOCKED):
                return [error] * len(works)
            return [self._run([work])[0] for work in works]

    def _transact(self, works: Works) -> Results:
        results: Results = []
        writes = any(writing for _, writing in works)
        if self._has_moved(writes):
            raise StorageUnavailable(f"storage {self.path}: {_MOVED}")
        try:
            database = self._database or self._open()
            # IMMEDIATE: a lock taken later could fail half-way with SQLITE_BUSY.
            database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            for work, _ in works:
                try:
                    results.append(work(database))
                except Conflict as conflict:  # found before anything was changed
                    results.append(conflict)
            database.execute("COMMIT")
        except StorageUnavailable:
            self._drop()
            raise
        except Exception as error:
            self._drop()
            raise StorageUnavailable(f"storage {self.path}: {_reason(error)}") from error
        return results

    def _has_moved(self, writes: bool) -> bool:
        """Whether the file's name is no longer this file's; SQLite would write on, to nobody."""
        there = _inode(self.path)
        if self._database is None:
            return self._inode is not None and there is None  # no empty one in its place
        return writes and there != self._inode

    def _open(self) -> sqlite3.Connection:
        # Made before SQLite opens it, for its mode; the -wal and -shm files
        # inherit that. Never opened when it is there: closing a descriptor of
        # it would drop the locks of this process (POSIX).
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._database = self._connect()
        self._prepare(self._database)
        self._inode = _inode(self.path)
        return self._database

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            _use_wal(database)
            database.execute("PRAGMA synchronous = FULL")  # an answered write survives a power cut
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the schema in an empty file; refuse a file that is not ours."""
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION and self._is_ours(database):
            return
        database.execute("BEGIN IMMEDIATE")
        version = database.execute("PRAGMA user_version").fetchone()[0]  # another process's?
        if version == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif not self._is_ours(database):
            raise StorageUnavailable(
                f"storage {self.path}: it is another program's database; name another file"
            )
        elif version != SCHEMA_VERSION:
            raise StorageUnavailable(
                f"storage {self.path}: it has schema version {version}, this exposr_tx knows"
                f" {SCHEMA_VERSION}; use the exposr_tx that wrote it, or a newer one"
            )
        database.execute("COMMIT")

    @staticmethod
    def _is_ours(database: sqlite3.Connection) -> bool:
        return bool(database.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)

    def _drop(self) -> None:
        """Close the file; an open transaction is rolled back by that."""
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()


def _version(database: sqlite3.Connection, table: str, key: str) -> int | None:
    row = database.execute(
        "SELECT version FROM record WHERE collection = ? AND key = ?", (table, key)
    ).fetchone()
    return None if row is None else int(row[0])


def _use_wal(database: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. Of two processes that do so with a new file SQLite refuses one
    at once, whatever its time limit (of 400 such pairs in 144)."""
    until = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _code(error) != _BUSY or time.monotonic() > until:
                raise
            time.sleep(BUSY_PAUSE)
        else:
            return


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _code(error: BaseException | None) -> int | None:
    """SQLite's primary code of an error; extended codes hold it in the low byte."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def _reason(error: Exception) -> str:
    """What went wrong, and what to do about it, for the log."""
    if isinstance(error, OSError):  # making the file
        return f"{_UNUSABLE} ({error.strerror})"
    known = _REASONS.get(_code(error) or 0)
    return f"{known} ({error})" if known else str(error)
