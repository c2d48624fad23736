"""backstream's log lines, in its words, as text or JSON.

Text is ``HH:MM:SS.mmm LEVEL message key="value" ``, JSON an object with ``time``,
``level``, ``source``, ``msg`` and the fields. What may be a credential is
``[REDACTED]`` by its name, and taken out of all other values. Peers are written as Go
writes an address: without quotes in text, as an object in JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import unquote

from twisted.internet.interfaces import IAddress
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.addresses import host_port, unwrapped
from exposr_tx.inspection.redaction import Redaction
from exposr_tx.interfaces import IAccessLog
from exposr_tx.logs import LogOutput, redact

__all__ = ["AccessLines", "Journal", "Log", "Observer", "log_output", "path_of"]

_LEVELS: Final = {"debug": 0, "info": 1, "warn": 2, "error": 3}
_TWISTED: Final = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warn",
    LogLevel.error: "error",
    LogLevel.critical: "error",
}
_SECRET: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "set-cookie", "token", "x-api-key"}
)
#: What is said of every request, and by whom.
SENT: Final = "sent message"
ANSWERED: Final = "sent HTTP response"
ANSWERING: Final = "sending response"
_SOURCES: Final = {SENT: "Log.sent", ANSWERED: "AccessLines.write", ANSWERING: "Answers"}
#: Control characters that have a name of their own.
_SHORT: Final = {c: rf"\{name}" for c, name in zip("\a\b\f\n\r\t\v", "abfnrtv", strict=True)}
#: Letters of a path whose form in lines is kept, as the same ones are asked for again and again.
MAX_KEPT_PATH: Final = 256
Fields = Mapping[str, Any]
_URLS: Final = Redaction()


def log_output(where: str) -> LogOutput:
    """Where ``--log-output`` sends lines: ``stdout``, ``-``, ``stderr`` or a file, which is made
    for its owner only. Raises OSError."""
    if where in ("stdout", "-", ""):
        return LogOutput()
    if where == "stderr":
        return LogOutput(fd=2)
    return LogOutput(where, mode=0o600)


class Log:
    """Lines of one program.

    :param write: takes one line.
    :param level: ``debug``, ``info``, ``warn`` or ``error``.
    :param text: lines for people, rather than JSON.
    :param stack: whether text lines of errors are followed by where they come from.
    :param now: epoch seconds.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        level: str,
        text: bool,
        stack: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._write = write
        self._least = _LEVELS[level]
        self._is_text = text
        self._stack = stack
        self._now = now
        self._millisecond = -1
        self._starts: dict[str, bytes] = {}  # of lines of that millisecond

    @property
    def tells_all(self) -> bool:
        """Whether what each request has to say is written."""
        return self._least <= _LEVELS["info"]

    def debug(self, message: str, **fields: Any) -> None:
        self.line("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self.line("info", message, fields)

    def warn(self, message: str, **fields: Any) -> None:
        self.line("warn", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self.line("error", message, fields)

    # Each request costs these lines. They are made by hand: 1 µs in place of 21, or of 31 as JSON.

    def sent(self, id: bytes, method: bytes, path: str) -> None:
        """A request went to a client."""
        start = self._quick(SENT, id, method)
        if not start:
            names = {"id": id.decode("latin-1"), "method": method.decode("latin-1")}
            self.info(SENT, **names, path=path)
        elif self._is_text:
            words = (start, id, method, _shown_path(path)[0])
            self._write(b'%bid="%b" method="%b" path=%b \n' % words)
        else:
            words = (start, id, method, _shown_path(path)[1])
            self._write(b'%b,"id":"%b","method":"%b","path":%b}\n' % words)

    def answered(self, id: bytes, method: bytes, code: int) -> None:
        """A visitor was answered."""
        start = self._quick(ANSWERED, id, method)
        if not start:
            self.info(ANSWERED, id=id.decode("latin-1"), method=method.decode("latin-1"), code=code)
        elif self._is_text:
            self._write(b'%bid="%b" method="%b" code=%d \n' % (start, id, method, code))
        else:
            self._write(b'%b,"id":"%b","method":"%b","code":%d}\n' % (start, id, method, code))

    def answering(self, id: bytes, code: int, path: str, method: bytes) -> None:
        """A client sends a response to its server."""
        start = self._quick(ANSWERING, id, method)
        if not start:
            names = {"id": id.decode("latin-1"), "code": code, "path": path}
            self.info(ANSWERING, **names, method=method.decode("latin-1"))
            return
        words = (start, id, code, _shown_path(path)[0 if self._is_text else 1], method)
        if self._is_text:
            self._write(b'%bid="%b" code=%d path=%b method="%b" \n' % words)
        else:
            self._write(b'%b,"id":"%b","code":%d,"path":%b,"method":"%b"}\n' % words)

    def _quick(self, message: str, id: bytes, method: bytes) -> bytes:
        """What a line of a request begins with; nothing where it must be made as all others."""
        plain = id.replace(b"-", b"").isalnum() and method.isalpha()
        if self._least != _LEVELS["info"] or not plain:
            return b""
        millisecond = int(self._now() * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._starts.clear()
        start = self._starts.get(message)
        if start is None:
            start = self._starts[message] = self._moment(message, millisecond / 1000)
        return start

    def _moment(self, message: str, now: float) -> bytes:
        if self._is_text:
            moment = datetime.fromtimestamp(now)
            start = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d} INFO {message} "
            return start.encode("ascii")
        moment = datetime.fromtimestamp(now, UTC)
        source = f'{{"function":"{_SOURCES[message]}","file":"","line":0}}'
        return (
            f'{{"time":"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z","level":"INFO",'
            f'"source":{source},"msg":"{message}"'
        ).encode("ascii")

    def line(
        self, level: str, message: str, fields: Fields, trace: str = "", source: str = ""
    ) -> None:
        """Write one line, if its level is wanted.

        :param trace: a traceback.
        :param source: the module where it comes from, where that is not the caller.
        """
        if _LEVELS[level] < self._least:
            return
        shown = {name: _shown(name, value) for name, value in fields.items()}
        frame = sys._getframe(2)
        where = (source or frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno)
        if source:
            where = (source, "", 0)
        if self._is_text:
            self._write(self._text(level, _clean(message), shown, trace, where))
        else:
            self._write(self._json(level, _clean(message), shown, where))

    def _text(
        self,
        level: str,
        message: str,
        fields: dict[str, Any],
        trace: str,
        where: tuple[str, str, int],
    ) -> bytes:
        moment = datetime.fromtimestamp(self._now())
        place = ""
        if self._least == 0:
            place = f"[{PurePath(where[1]).name or where[0]}:{where[2]}] "
        parts = [f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d} {level.upper()} {place}"]
        parts.append(_one_line(message) + " ")
        for name, value in fields.items():
            is_plain = isinstance(value, (int, float, _Peer)) and not isinstance(value, bool)
            text = str(value) if is_plain else _quoted(value)
            parts.append(f"{name}={text} ")
        line = "".join(parts) + "\n"
        if trace and self._stack:
            line += "".join(f"\t{_one_line(row)}\n" for row in _clean(trace).splitlines())
        return line.encode("utf-8", "backslashreplace")

    def _json(
        self, level: str, message: str, fields: dict[str, Any], where: tuple[str, str, int]
    ) -> bytes:
        moment = datetime.fromtimestamp(self._now(), UTC)
        line = {
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z",
            "level": level.upper(),
            "source": {"function": where[0], "file": where[1], "line": where[2]},
            "msg": message,
            **fields,
        }
        text = json.dumps(line, separators=(",", ":"), default=_Peer.members)
        return text.encode("ascii") + b"\n"


class _Peer:
    """The address of a peer, as Go shows it."""

    def __init__(self, address: IAddress) -> None:
        self._address = address

    def __str__(self) -> str:
        return host_port(self._address)

    def members(self) -> dict[str, Any]:
        """What JSON has of it."""
        host, port = getattr(self._address, "host", ""), getattr(self._address, "port", 0)
        return {"IP": unwrapped(host), "Port": port, "Zone": ""}


def _shown(name: str, value: Any) -> Any:
    if name.lower() in _SECRET:
        return "[REDACTED]"
    if isinstance(value, (bool, int, float, _Peer)) or value is None:
        return value
    if name == "id":
        return str(value)  # a request's; the letters of some look like an account's number
    return _clean(value if isinstance(value, str) else str(value))


def _clean(text: str) -> str:
    """A text without credentials, those in the queries of URLs too."""
    return redact(_URLS.url(text))


def path_of(target: bytes) -> str:
    """The decoded path of a request target."""
    path = target.partition(b"?")[0].decode("latin-1")
    return unquote(path) if "%" in path else path


def _shown_path(path: str) -> tuple[bytes, bytes]:
    """A path as a field in text and in JSON."""
    return _kept_path(path) if len(path) <= MAX_KEPT_PATH else _kept_path.__wrapped__(path)


@lru_cache(maxsize=256)
def _kept_path(path: str) -> tuple[bytes, bytes]:
    shown = redact(path)
    return (
        _quoted(shown).encode("utf-8", "backslashreplace"),
        json.dumps(shown).encode("ascii"),
    )


def _quoted(text: str) -> str:
    """A string in quotes, as Go writes it; what a terminal would act upon is escaped."""
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return f"\\{letter}" if letter in '"\\' else letter
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


@implementer(ILogObserver)
class Observer:
    """Twisted's log events in backstream's lines."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        source = str(event.get("log_namespace", ""))
        kind = event.get("event")
        if kind == "listening":
            self._log.line("info", "Start server", {"addr": event["address"]}, "", source)
            return
        word = _TWISTED[level]
        if (word == "info" and not source.startswith("exposr_tx")) or kind == "ready":
            word = "debug"
        failure = event.get("log_failure")
        fields: dict[str, Any] = {}
        trace = ""
        if isinstance(failure, Failure):
            fields["error"] = failure.getErrorMessage()
            trace = failure.getTraceback()
        self._log.line(word, formatEvent(event), fields, trace, source)


@implementer(IAccessLog)
class AccessLines:
    """A line for each request that was answered."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def write(
        self,
        method: bytes,
        host: bytes,
        path: bytes,
        status: int,
        bytes_in: int,
        bytes_out: int,
        first_byte_ms: float,
        last_byte_ms: float,
        tunnel: bytes,
        request_id: bytes,
    ) -> None:
        if status != 101:
            self._log.answered(request_id, method, status)


class Journal:
    """Which clients came and went."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def connected(self, tunnel_id: str, peer: IAddress, connections: int) -> None:
        self._log.info("connected to WebSocket server", remote=_Peer(peer), clients=connections)

    def lost(
        self, tunnel_id: str, peer: IAddress, connections: int, clean: bool, code: int, reason: str
    ) -> None:
        self._log.info(
            "disconnected from WebSocket server",
            remote=_Peer(peer),
            clients=connections,
            code=code,
            reason=reason,
        )

    def refused(self, tunnel_id: str, peer: IAddress, error: Any) -> None:
        self._log.warn("failed to upgrade", remote=_Peer(peer), error=str(error))

    def asked(self, id: str, method: str, path: str) -> None:
        """A request was sent to a client as a message."""
        self._log.sent(id.encode("latin-1", "replace"), method.encode("latin-1", "replace"), path)
