"""What every store does: the same tests against each provider of IStorage."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from exposr_tx.errors import BadInput, Conflict, StorageUnavailable
from exposr_tx.interfaces import IStorage
from exposr_tx.storage import MemoryStorage, SQLiteStorage, open_storage

reactor = cast(IReactorFromThreads, installed_reactor)

KEYS = ["a", "b", "c", "d"]


class Contract(TestCase):
    """Subclasses make the storage."""

    __test__ = False
    storage: IStorage

    def make(self) -> IStorage:
        raise NotImplementedError

    def setUp(self) -> None:
        self.storage = self.make()
        self.addCleanup(lambda: self.storage.close())

    def test_interface(self) -> None:
        """A store provides all of IStorage."""
        self.assertTrue(verifyObject(IStorage, self.storage))

    async def test_nothing(self) -> None:
        """A key that nobody has written has no record."""
        self.assertIsNone(await self.storage.get("t", "k"))
        self.assertEqual([], await self.storage.list("t", "", 10))
        self.assertFalse(await self.storage.delete("t", "k", None))

    async def test_put_and_get(self) -> None:
        """What was stored comes back, with the version that put() told."""
        value = {"text": "ü\ud800", "list": [1, 2.5, None, True], "object": {"a": {}}}
        version = await self.storage.put("t", "k", value, None)
        record = await self.storage.get("t", "k")
        assert record is not None
        self.assertEqual((value, version), (record.value, record.version))
        self.assertIsNone(await self.storage.get("other", "k"))

    async def test_claim_once(self) -> None:
        """Of two claims of one key at the same time one wins, and its value stands."""
        claims = [self.storage.put("t", "k", {"n": n}, None) for n in range(5)]
        lost = [claim for claim in claims[1:] if await _conflicts(claim)]
        self.assertEqual(4, len(lost))
        await claims[0]
        record = await self.storage.get("t", "k")
        assert record is not None
        self.assertEqual({"n": 0}, record.value)

    async def test_compare_and_set(self) -> None:
        """Only who has seen the newest value can replace it."""
        first = await self.storage.put("t", "k", {"n": 1}, None)
        second = await self.storage.put("t", "k", {"n": 2}, first)
        self.assertTrue(await _conflicts(self.storage.put("t", "k", {"n": 3}, first)))
        self.assertTrue(await _conflicts(self.storage.put("t", "new", {"n": 3}, second)))
        record = await self.storage.get("t", "k")
        assert record is not None
        self.assertEqual(({"n": 2}, second), (record.value, record.version))

    async def test_delete(self) -> None:
        """Removing asks for the version as well, when one is given."""
        first = await self.storage.put("t", "k", {}, None)
        second = await self.storage.put("t", "k", {}, first)
        self.assertTrue(await _conflicts(self.storage.delete("t", "k", first)))
        self.assertTrue(await self.storage.delete("t", "k", second))
        self.assertFalse(await self.storage.delete("t", "k", second))
        await self.storage.put("t", "k", {}, None)
        self.assertTrue(await self.storage.delete("t", "k", None))

    async def test_versions_are_not_used_again(self) -> None:
        """A key that was removed and made anew is not mistaken for the old one."""
        old = await self.storage.put("t", "k", {}, None)
        await self.storage.delete("t", "k", old)
        new = await self.storage.put("t", "k", {}, None)
        self.assertNotEqual(old, new)
        self.assertTrue(await _conflicts(self.storage.put("t", "k", {}, old)))

    async def test_list(self) -> None:
        """Keys come in their order, page by page."""
        for key in reversed(KEYS):
            await self.storage.put("t", key, {"is": key}, None)
        await self.storage.put("u", "aa", {}, None)
        page = await self.storage.list("t", "", 3)
        self.assertEqual(["a", "b", "c"], [key for key, _ in page])
        self.assertEqual({"is": "b"}, page[1][1].value)
        rest = await self.storage.list("t", "c", 3)
        self.assertEqual(["d"], [key for key, _ in rest])
        self.assertEqual([], await self.storage.list("t", "d", 3))
        await self.storage.delete("t", "b", None)
        page = await self.storage.list("t", "", 3)
        self.assertEqual(["a", "c", "d"], [key for key, _ in page])

    async def test_values_are_nobodys(self) -> None:
        """Changing what was given, or what came back, changes nothing that is stored."""
        value: dict[str, Any] = {"list": [1]}
        await self.storage.put("t", "k", value, None)
        value["list"].append(2)
        record = await self.storage.get("t", "k")
        assert record is not None
        record.value["list"].append(3)
        record = await self.storage.get("t", "k")
        assert record is not None
        self.assertEqual({"list": [1]}, record.value)

    async def test_many_at_once(self) -> None:
        """A thousand writes asked for in one turn are all done, in their order."""
        writes = [self.storage.put("t", f"{n:04}", {"n": n}, None) for n in range(1200)]
        versions = await gatherResults(writes)
        self.assertEqual(sorted(versions), versions)
        self.assertEqual(1200, len(await self.storage.list("t", "", 2000)))

    async def test_cancelled(self) -> None:
        """Who stops waiting disturbs nobody else."""
        impatient = self.storage.put("t", "k", {}, None)
        patient = self.storage.put("t", "l", {}, None)
        impatient.addErrback(lambda _: None)
        impatient.cancel()
        await patient
        self.assertEqual(2, len(await self.storage.list("t", "", 10)))


class MemoryContract(Contract):
    __test__ = True

    def make(self) -> IStorage:
        return MemoryStorage()


class SQLiteContract(Contract):
    __test__ = True

    def make(self) -> IStorage:
        return SQLiteStorage(_temporary(self), reactor)


class SQLiteTests(TestCase):
    """What a file can do, and what can happen to it."""

    def setUp(self) -> None:
        self.path = _temporary(self)

    def open(self, path: str = "") -> SQLiteStorage:
        storage = SQLiteStorage(path or self.path, reactor)
        self.addCleanup(storage.close)
        return storage

    async def test_reopened(self) -> None:
        """What was answered is there after the end of the process, and so are the versions."""
        storage = self.open()
        version = await storage.put("t", "k", {"n": 1}, None)
        await storage.close()
        again = self.open()
        record = await again.get("t", "k")
        assert record is not None
        self.assertEqual(({"n": 1}, version), (record.value, record.version))

    async def test_killed(self) -> None:
        """A process that is killed loses nothing that was answered."""
        program = (
            "import os, sys\n"
            "from twisted.internet import reactor\n"
            "from exposr_tx.storage import SQLiteStorage\n"
            "storage = SQLiteStorage(sys.argv[1], reactor)\n"
            "for n in range(20):\n"
            "    done = storage.put('t', str(n), {}, None)\n"
            "storage.put('t', 'x', {}, None).addCallback(lambda _: os._exit(9))\n"
            "reactor.run()\n"
        )
        ran = subprocess.run([sys.executable, "-c", program, self.path], timeout=60)  # noqa: ASYNC221
        self.assertEqual(9, ran.returncode)
        self.assertEqual(21, len(await self.open().list("t", "", 100)))

    async def test_private(self) -> None:
        """Only the owner may read the file: it holds account numbers."""
        storage = self.open()
        await storage.put("t", "k", {}, None)
        for suffix in ("", "-wal", "-shm"):
            self.assertEqual(0o600, os.stat(self.path + suffix).st_mode & 0o777, suffix)

    def test_constructor_does_nothing(self) -> None:
        """The file is not made before it is needed."""
        self.open()
        self.assertFalse(Path(self.path).exists())

    async def test_two_processes(self) -> None:
        """Two users of one file see each other's writes, and one claim of two wins."""
        one, two = self.open(), self.open()
        claims = [one.put("t", "k", {"n": 1}, None), two.put("t", "k", {"n": 2}, None)]
        lost = [await _conflicts(claim) for claim in claims]
        self.assertEqual([False, True], sorted(lost))
        for n in range(20):
            await gatherResults([one.put("t", f"a{n}", {}, None), two.put("t", f"b{n}", {}, None)])
        self.assertEqual(41, len(await one.list("t", "", 100)))

    async def test_new_file(self) -> None:
        """Any number of users may come to a new file at the same time."""
        for n in range(30):
            path = f"{self.path}.{n}"
            users = [SQLiteStorage(path, reactor) for _ in range(4)]
            await gatherResults([user.put("t", f"{i}", {}, None) for i, user in enumerate(users)])
            self.assertEqual(4, len(await users[0].list("t", "", 100)))
            for user in users:
                await user.close()

    async def test_full(self) -> None:
        """On a full disk a write fails with the reason; reading, and a later write, work."""
        storage = _Small(self.path, reactor)
        self.addCleanup(storage.close)
        await storage.put("t", "small", {}, None)
        failure = await self._fails(storage.put("t", "k", {"much": "x" * 100_000}, None))
        self.assertIn("no space is left", str(failure))
        self.assertIn(self.path, str(failure))
        self.assertIsNotNone(await storage.get("t", "small"))
        await storage.put("t", "l", {}, None)

    async def test_full_is_told_once(self) -> None:
        """While a disk is full, reading does not pass for its end, which is told once."""
        events = self.enterContext(capturedLogs())
        storage = _Small(self.path, reactor)
        self.addCleanup(storage.close)
        for _ in range(3):
            await self._fails(storage.put("t", "k", {"much": "x" * 100_000}, None))
            self.assertIsNone(await storage.get("t", "k"))
        await storage.put("t", "small", {}, None)
        told = [formatEvent(event) for event in events if event.get("event") == "storage"]
        self.assertEqual(2, len(told), told)
        self.assertIn("no space is left", told[0])
        self.assertIn("works again", told[1])

    async def test_removed(self) -> None:
        """Nothing is written to a file that was removed; what it holds is read until the end."""
        storage = self.open()
        await storage.put("t", "k", {}, None)
        os.rename(self.path, f"{self.path}.kept")
        failure = await self._fails(storage.put("t", "l", {}, None))
        self.assertIn("it has been removed", str(failure))
        self.assertIsNotNone(await storage.get("t", "k"))
        os.rename(f"{self.path}.kept", self.path)
        await storage.put("t", "l", {}, None)

    async def test_replaced(self) -> None:
        """Another file under its name is not taken for it before the next start."""
        storage = self.open()
        await storage.put("t", "k", {}, None)
        os.rename(self.path, f"{self.path}.kept")
        _write(Path(self.path), "")
        failure = await self._fails(storage.put("t", "l", {}, None))
        self.assertIn("another file has taken its place", str(failure))
        self.assertEqual("", _read(Path(self.path)))

    async def test_full_spares_neighbours(self) -> None:
        """What fits is written, though something in the same batch does not."""
        storage = _Small(self.path, reactor)
        self.addCleanup(storage.close)
        await storage.put("t", "first", {}, None)
        before = storage.put("t", "before", {}, None)
        large = storage.put("t", "large", {"much": "x" * 100_000}, None)
        after = storage.put("t", "after", {}, None)
        await self._fails(large)
        await gatherResults([before, after])
        keys = [key for key, _ in await storage.list("t", "", 10)]
        self.assertEqual(["after", "before", "first"], keys)

    async def test_not_a_database(self) -> None:
        """A file of another kind is named, and left as it was."""
        notes = Path(self.path)
        _write(notes, "these are my notes\n" * 100)
        failure = await self._fails(self.open().get("t", "k"))
        self.assertIn("not an SQLite database", str(failure))
        self.assertEqual("these are my notes\n" * 100, _read(notes))

    async def test_no_folder(self) -> None:
        """A file that cannot be made is told with what its folder must be."""
        path = os.path.join(os.path.dirname(self.path), "none", "db")
        refused = await self._fails(self.open(path).get("t", "k"))
        self.assertIn("its folder must exist", str(refused))
        self.assertIn("(No such file or directory)", str(refused))

    async def test_another_programs_database(self) -> None:
        """Another program's database is not written to."""
        with sqlite3.connect(self.path) as database:
            database.execute("CREATE TABLE keyv (key, value)")
        database.close()
        failure = await self._fails(self.open().put("t", "k", {}, None))
        self.assertIn("another program's database", str(failure))

    async def test_newer_schema(self) -> None:
        """A file that a newer version wrote is refused with that reason."""
        storage = self.open()
        await storage.put("t", "k", {}, None)
        await storage.close()
        with sqlite3.connect(self.path) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
        failure = await self._fails(self.open().get("t", "k"))
        self.assertIn("schema version 99", str(failure))

    async def test_recovers(self) -> None:
        """Once the folder is there the store works, without a restart."""
        folder = _temporary(self)
        storage = self.open(os.path.join(folder, "db"))
        failure = await self._fails(storage.get("t", "k"))
        self.assertIn("db", str(failure))
        os.mkdir(folder)
        await storage.put("t", "k", {}, None)
        self.assertIsNotNone(await storage.get("t", "k"))

    async def test_locked(self) -> None:
        """Another process that keeps the file locked is named as the reason; reading goes on."""
        self.patch(sys.modules["exposr_tx.storage.sqlite"], "BUSY_TIMEOUT", 0.05)
        storage = self.open()
        await storage.put("t", "k", {}, None)
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        failure = await self._fails(storage.put("t", "l", {}, None))
        self.assertIn("locked", str(failure))
        self.assertIsNotNone(await storage.get("t", "k"))
        other.execute("ROLLBACK")
        await storage.put("t", "l", {}, None)

    async def test_close_finishes(self) -> None:
        """What was asked for before close() is done; what comes after it fails."""
        storage = self.open()
        writes = [storage.put("t", str(n), {}, None) for n in range(10)]
        closed = storage.close()
        late = storage.put("t", "late", {}, None)
        await gatherResults(writes)
        await self._fails(late)
        await closed
        await storage.close()
        self.assertEqual(10, len(await self.open().list("t", "", 100)))

    async def _fails(self, asked: Deferred[Any]) -> Exception:
        try:
            await asked
        except StorageUnavailable as error:
            return error
        raise self.failureException("it worked")


class OpenTests(SynchronousTestCase):
    """Which store a URL names."""

    def test_memory(self) -> None:
        """memory:// is the store that forgets."""
        for url in ("memory://", "memory:"):
            self.assertIsInstance(open_storage(url, reactor), MemoryStorage)

    def test_sqlite(self) -> None:
        """Two slashes and a relative path, three (or four) and an absolute one."""
        for url, path in (
            ("sqlite://a/b.db", "a/b.db"),
            ("sqlite:///a/b.db", "/a/b.db"),
            ("sqlite:////a/b.db", "/a/b.db"),
            ("sqlite:b.db", "b.db"),
        ):
            storage = open_storage(url, reactor)
            assert isinstance(storage, SQLiteStorage)
            self.assertEqual(path, storage.path)

    def test_refused(self) -> None:
        """What is not a store is refused by name, with what to use instead."""
        for url, name in (
            ("postgres://u:secret@h/db", "postgres"),
            ("redis://:secret@h", "redis"),
            ("mysql://u:secret@h/db", "mysql"),
            ("sqlite://", "sqlite:///"),
            ("sqlite:///", "sqlite:///"),
            ("sqlite:///:memory:", "memory://"),
            ("", "memory://"),
        ):
            error = self.assertRaises(BadInput, open_storage, url, reactor)
            self.assertIn(name, str(error))
            self.assertIn("storage-url", str(error))
            self.assertNotIn("secret", str(error))


class _Small(SQLiteStorage):
    """A file that may have few pages: a full disk."""

    def _connect(self) -> sqlite3.Connection:
        database = super()._connect()
        database.execute("PRAGMA max_page_count = 8")
        return database


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _read(path: Path) -> str:
    return path.read_text()


def _temporary(test: TestCase) -> str:
    """A path in a folder that goes when the test ends."""
    folder = tempfile.mkdtemp()
    test.addCleanup(shutil.rmtree, folder)
    return os.path.join(folder, "file")


async def _conflicts(asked: Deferred[Any]) -> bool:
    try:
        await asked
    except Conflict:
        return True
    return False
