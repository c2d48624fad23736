"""A folder with one HAR file for each exchange.

A thread of its own makes the files and writes them, so that a slow disk costs
files, which are counted, and never holds up what passes. A file appears whole
under its name or not at all. When one cannot be written, recording is over.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote, urlsplit

from exposr_tx.errors import BadInput
from exposr_tx.inspection import MAX_BYTES, MAX_FILES
from exposr_tx.inspection.exchanges import Exchange, Watcher
from exposr_tx.inspection.har import archive
from exposr_tx.inspection.redaction import Redaction

__all__ = ["HarFolder"]

#: Bytes of exchanges that may wait for their files, some 20,000 small ones; those beyond get none.
MAX_WAITING: Final = 64 * 1024 * 1024
#: Seconds of work after which the thread looks whether exchanges have come meanwhile, and the
#: share of the time that it works if so; and where the rest of the process is busy for more than
#: so much of a core. Python's threads take turns, and each file is a turn: without rests a busy
#: tunnel would fall to a quarter of its requests.
TURN: Final = 0.001
SHARE: Final = 0.1
BUSY: Final = 0.15
SHARE_IF_BUSY: Final = 0.01
#: Seconds that the end waits for what is not written; many who stop programs give them 10.
LAST_WAIT: Final = 8.0
#: Letters of a file's name; file systems take 255 bytes, and some is added while it is written.
MAX_NAME: Final = 200

_NO_NAME: Final = re.compile(r'(?:[/\\:*?"<>|-]|[^!-~])+')


class HarFolder(Watcher):
    """A watcher that writes exchanges down when they end.

    :param path: the folder; it is made if it is not there.
    :param redaction: what is left out.
    :param warn: told, once for each reason, why something is not recorded; called in any thread.
    :param max_files: files of this run that stay at most; the oldest go first.
    :param max_bytes: bytes of them.
    """

    def __init__(
        self,
        path: str,
        redaction: Redaction,
        warn: Callable[[str], object],
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.path = path
        self._redaction = redaction
        self._warn = warn
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._folder = -1
        self._files: deque[_File] = deque()
        self._bytes = 0
        self._waiting: deque[Exchange] = deque()
        # Each counter has one thread that changes it.
        self._came = 0
        self._came_bytes = 0
        self._gone_bytes = 0
        self._lost = 0
        self._too_large = 0
        self._broken = False
        self._something = threading.Event()
        self._asleep = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<HarFolder {self.path} {len(self._files)} files {len(self._waiting)} waiting>"

    def open(self) -> None:
        """Make the folder, and see whether files can be made in it; BadInput says why not."""
        try:
            os.makedirs(self.path, 0o750, exist_ok=True)
            # Held open: whatever takes its place under that name later gets no files.
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            name = f".{secrets.token_hex(8)}.part"
            os.close(self._created(name))
            os.unlink(name, dir_fd=self._folder)
        except OSError as error:
            raise BadInput(
                f"{self.path!r}: HAR files cannot be written there ({error.strerror}); "
                "name a folder that you may write to"
            ) from None

    def close(self) -> None:
        """Write what waits; gives up after LAST_WAIT seconds."""
        self._stopping = True
        self._something.set()
        if self._thread is not None:
            self._thread.join(LAST_WAIT)
        lost = self._lost + self._too_large + len(self._waiting)
        if lost:
            self._warn(f"{lost} exchanges were not recorded in {self.path!r}")
        if self._thread is not None:
            # One file more at most, so that no piece of one is left.
            self._broken = True
            self._thread.join(1.0)
        if self._folder >= 0 and not (self._thread and self._thread.is_alive()):
            os.close(self._folder)
            self._folder = -1

    # Watcher

    def ended(self, exchange: Exchange) -> None:
        """Write it down, if there is room for it in the line."""
        if self._broken or self._stopping:
            return
        size = exchange.size
        if self._came_bytes - self._gone_bytes + size > MAX_WAITING:
            self._lost += 1
            if self._lost == 1:
                self._warn(f"not all exchanges are recorded in {self.path!r}: it is too slow")
            return
        self._came_bytes += size
        self._came += 1
        self._waiting.append(exchange)
        if self._asleep:
            self._asleep = False
            self._something.set()
        elif self._thread is None:
            # A daemon: a disk that is stuck must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="har", daemon=True)
            self._thread.start()

    # The thread

    def _run(self) -> None:
        while True:
            # First say so, then look: what comes in between sets the event.
            self._something.clear()
            self._asleep = True
            if not (self._waiting or self._stopping):
                self._something.wait()
            self._asleep = False
            self._drain()
            if self._stopping and not self._waiting:
                return

    def _drain(self) -> None:
        look = _Look(self._came)
        while self._waiting:
            exchange = self._waiting.popleft()
            self._gone_bytes += exchange.size
            if self._broken:
                continue  # what is there went unrecorded; the reason has been told
            try:
                self._put(exchange)
            except Exception as error:  # the disk's, or a fault of ours
                self._broken = True
                why = error.strerror if isinstance(error, OSError) else repr(error)
                self._warn(f"recording to {self.path!r} has ended: {why}")
            if time.thread_time() - look.mine > TURN:
                if look.came != self._came and not self._stopping:
                    look.rest()
                look = _Look(self._came)

    def _put(self, exchange: Exchange) -> None:
        data = archive([exchange], self._redaction)
        if len(data) > self._max_bytes:
            self._too_large += 1
            return
        while self._files and (
            len(self._files) >= self._max_files or self._bytes + len(data) > self._max_bytes
        ):
            self._remove(self._files.popleft())
        name = file_name(exchange)
        part = f".{name}.part"
        fd = self._created(part)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                inode = os.fstat(fd).st_ino
            finally:
                os.close(fd)
            os.rename(part, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            os.unlink(part, dir_fd=self._folder)
            raise
        self._files.append(_File(name, len(data), inode))
        self._bytes += len(data)

    def _created(self, name: str) -> int:
        """A new file, for its owner only."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self._folder)

    def _remove(self, file: _File) -> None:
        """Remove a file of ours, unless somebody has put another in its place."""
        self._bytes -= file.size
        try:
            found = os.stat(file.name, dir_fd=self._folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_ino == file.inode:
                os.unlink(file.name, dir_fd=self._folder)
        except FileNotFoundError:
            pass


class _Look:
    """A moment of the thread's: what has come and been used by then."""

    __slots__ = ("all", "came", "mine", "moment")

    def __init__(self, came: int) -> None:
        self.came = came
        self.mine = time.thread_time()
        self.all = time.process_time()
        self.moment = time.monotonic()

    def rest(self) -> None:
        """Sleep for as long as what was used since then asks for."""
        used = time.thread_time() - self.mine
        others = time.process_time() - self.all - used
        busy = others > BUSY * (time.monotonic() - self.moment)
        time.sleep(used * (1 / (SHARE_IF_BUSY if busy else SHARE) - 1))


class _File:
    """A file that was written."""

    __slots__ = ("inode", "name", "size")

    def __init__(self, name: str, size: int, inode: int) -> None:
        self.name = name
        self.size = size
        self.inode = inode


def file_name(exchange: Exchange) -> str:
    """``<UTC yyyymmdd-HHMMSS.mmm>-<8 hex digits>-<METHOD>-<host>-<path>.har``, as backstream's."""
    moment = datetime.fromtimestamp(exchange.started, UTC)
    when = f"{moment:%Y%m%d-%H%M%S}.{moment.microsecond // 1000:03d}"
    url = urlsplit(exchange.url)
    words = (exchange.request.method or "UNKNOWN", url.netloc, unquote(url.path))
    method, host, path = (_NO_NAME.sub("-", word).strip("-") for word in words)
    name = f"{when}-{secrets.token_hex(4)}-{method}-{host}-{path}"
    return f"{name[:MAX_NAME]}.har"
