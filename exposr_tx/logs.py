"""What the server writes down: one line per event, JSON or text, on standard output or in a file.

:class:`LogOutput` owns the file and is the only one who writes to it, so that
access lines and log lines keep their order. A thread of its own does the
writing: a slow disk or a reader that stops reading a pipe costs lines, which
are counted, and never holds up the reactor. :class:`LogObserver` makes lines
out of Twisted's log events.
"""

from __future__ import annotations

import os
import re
import select
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["LogObserver", "LogOutput", "redact", "timestamp"]

#: Seconds for which lines are gathered. One write then carries hundreds of them.
INTERVAL: Final = 0.05
#: Lines that may wait for a writer that is stuck; those beyond are counted and lost. A line has
#: some 300 bytes, so this is 10 MB.
MAX_WAITING: Final = 32768
#: Seconds that stopping waits for a writer that is stuck.
LAST_WAIT: Final = 2.0
_NEWLINE: Final = ord("\n")

#: ``--log-level`` to Twisted's levels; "off" is none of them.
LEVELS: Final = {
    "all": LogLevel.debug,
    "trace": LogLevel.debug,
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "fatal": LogLevel.critical,
}
_ORDER: Final = list(LogLevel.iterconstants())

# What must not stand in a log, wherever it comes from: transport tokens in URLs, credentials
# in header fields, account numbers in any spelling (16 characters of the accounts' alphabet).
_SECRETS: Final = re.compile(
    r"(?P<keep>[?&]t=)[\w~.-]+"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[\w+/=.~-]+"
    r"|(?P<name>\b(?:authorization|cookie|set-cookie|token|password)['\"]?\s*[:=]\s*)(?:(?:bearer|basic)\s+)?[^\s,;]+"
    r"|(?<![A-Za-z0-9])(?:[C-FHJKMNPRTV-Y2-689]{4}[ -]?){3}[C-FHJKMNPRTV-Y2-689]{4}(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_UNPRINTABLE: Final = re.compile("[^\x20-\x7e\xa1-\u0377]")


def redact(text: str) -> str:
    """A text without tokens, credentials and account numbers."""
    return _SECRETS.sub(
        lambda found: (found["keep"] or found["scheme"] or found["name"] or "") + "[redacted]",
        text,
    )


def timestamp(seconds: float) -> str:
    """Epoch seconds as ISO 8601 with milliseconds, in UTC."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """A whole second; most lines fall into the last one."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


class LogOutput:
    """A file that lines are appended to, by a thread of its own once started.

    Before :meth:`start` and after :meth:`stop` lines are written at once, as
    ``twistd`` may fork in between.

    :param path: a file, opened for appending; None is standard output.
    :param fd: in place of standard output.
    :param mode: of a file that is made.
    """

    def __init__(self, path: str | None = None, fd: int = 1, mode: int = 0o640) -> None:
        self._path = path
        self._mode = mode
        self._fd = fd if path is None else _opened(path, mode)
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._torn = False
        self._something = threading.Event()
        self._asleep = False
        self._stopping = threading.Event()
        self._reopen = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<LogOutput {self._path or 'stdout'} {len(self._lines)} waiting {self._lost} lost>"

    @property
    def can_reopen(self) -> bool:
        """Whether it is a file with a name."""
        return self._path is not None

    def write(self, line: bytes) -> None:
        """Append one line, which ends in a newline. May be called in any thread."""
        lines = self._lines
        if len(lines) < MAX_WAITING:
            lines.append(line)
        else:
            self._lost += 1
        if self._asleep:
            self._asleep = False
            self._something.set()
        elif self._thread is None:
            self._drain()

    def start(self) -> None:
        """Leave the writing to a thread from now on."""
        if self._thread is None:
            self._stopping.clear()
            # A daemon: a writer stuck in a full pipe must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Write what is waiting; gives up on a writer that is stuck for LAST_WAIT seconds."""
        thread = self._thread
        if thread is None:
            return
        self._stopping.set()
        self._something.set()
        thread.join(LAST_WAIT)
        if not thread.is_alive():
            self._thread = None

    def reopen(self) -> None:
        """Open the file anew, as after its rotation. Standard output stays as it is."""
        self._reopen = self.can_reopen
        self._something.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            # First say so, then look: a line that comes in between sets the event.
            self._something.clear()
            self._asleep = True
            if not (self._lines or self._reopen or self._stopping.is_set()):
                self._something.wait()
            self._asleep = False
            self._stopping.wait(INTERVAL)
            self._drain()
        self._drain()

    def _drain(self) -> None:
        if self._reopen:
            self._reopen = False
            self._exchange()
        batch = [self._lines.popleft() for _ in range(len(self._lines))]
        lost, self._lost = self._lost, 0
        if lost:
            batch.append(_line({"event": "log_lines_lost", "count": lost}))
        if batch and not self._put(b"".join(batch)):
            # A full disk or a reader that has gone: say later how much is missing.
            self._lost += len(batch) + max(0, lost - 1)

    def _put(self, data: bytes) -> bool:
        view = memoryview(b"\n" + data if self._torn else data)
        while view:
            try:
                written = os.write(self._fd, view)
            except BlockingIOError:  # somebody made it non-blocking, as pipes shared with Node are
                select.select([], [self._fd], [], 1.0)
                if self._stopping.is_set():
                    return False
            except OSError:
                return False
            else:
                self._torn = view[written - 1] != _NEWLINE
                view = view[written:]
        return True

    def _exchange(self) -> None:
        assert self._path is not None
        try:
            fd = _opened(self._path, self._mode)
        except OSError:
            return  # the old file is better than none
        self._fd, old = fd, self._fd
        self._torn = False
        os.close(old)


def _opened(path: str, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)


@implementer(ILogObserver)
class LogObserver:
    """Twisted's log events as lines: ``time``, ``level``, ``event``, ``message`` and the
    event's own fields, with tokens and account numbers taken out.

    :param level: a name of LEVELS, or "off".
    :param text: lines for people in place of JSON.
    """

    def __init__(self, write: Callable[[bytes], None], level: str, text: bool) -> None:
        self._write = write
        self._format = _text if text else _line
        self._levels = (
            frozenset() if level == "off" else frozenset(_ORDER[_ORDER.index(LEVELS[level]) :])
        )

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level is LogLevel.info and not event.get("log_namespace", "").startswith("exposr_tx"):
            level = LogLevel.debug  # ports and factories of Twisted's that come and go
        if level not in self._levels:
            return
        fields: dict[str, Any] = {
            "time": timestamp(event["log_time"]),
            "level": "fatal" if level is LogLevel.critical else level.name,
            "event": str(event.get("event", "log")),
            "message": redact(formatEvent(event)),
        }
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            fields["failure"] = redact(failure.getTraceback())
        for name, value in event.items():
            # Objects stay out: their repr may hold more than anybody meant to write down.
            if not name.startswith("log_") and isinstance(value, (str, int, float)):
                fields.setdefault(name, redact(value) if isinstance(value, str) else value)
        # Twisted's bridge to its older log system leaves these in every event.
        for name in ("isError", "system", "format", "logLevel", "time_"):
            fields.pop(name, None)
        self._write(self._format(fields))


def _value(value: str | int | float) -> str:
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if abs(value) < float("inf") else "null"


def _line(fields: dict[str, Any]) -> bytes:
    return (
        "{"
        + ",".join(f"{encode_basestring_ascii(n)}:{_value(v)}" for n, v in fields.items())
        + "}\n"
    ).encode()


def _text(fields: dict[str, Any]) -> bytes:
    """One line for people. Continuation lines of a traceback are indented by a tab."""
    lines = [f"{fields.get('time', '-')} {fields.get('level', '-')} {fields.get('message', '')}"]
    lines += str(fields.get("failure", "")).splitlines()
    return ("\n\t".join(_printable(line) for line in lines) + "\n").encode()


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)
