"""One request and its response as they pass between a tunnel and its target.

A :class:`~exposr_tx.inspection.recording.Recording` fills an :class:`Exchange` while
the bytes pass; watchers (HAR files, the inspector's page) read it. Nothing here is
changed once the exchange has ended, so that it may be read in any thread then. Heads
are kept as their bytes and taken apart when somebody looks at them: most are never
looked at.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import urlsplit

from exposr_tx.inspection import MAX_BODY
from exposr_tx.wire.http1 import Fields
from exposr_tx.wire.http1.syntax import FIELD, tidied

__all__ = [
    "MAX_FRAME",
    "NO_BODY",
    "Body",
    "Exchange",
    "Frame",
    "Frames",
    "Head",
    "RequestHead",
    "ResponseHead",
    "State",
    "Watcher",
    "is_bare",
]

_SPACE: Final = re.compile(rb"[ \t]\r\n")
#: A request line.
_LINE: Final = re.compile(rb"[!-~]++ [!-~]++ HTTP/1\.1\r\n")
#: What makes a request more than its head.
_MORE: Final = re.compile(rb"\r\n(?:content-length|transfer-encoding|upgrade):", re.IGNORECASE)
#: Messages of a websocket that are kept, and bytes of each.
MAX_FRAMES: Final = 1000
MAX_FRAME: Final = 64 * 1024


class State(StrEnum):
    """How far an exchange is."""

    RUNNING = "running"
    COMPLETE = "complete"
    #: The target or the visitor broke it off, or it does not parse; ``error`` says which.
    FAILED = "failed"


class Body:
    """The beginning of a body, and how long the whole is.

    :param limit: bytes that are kept.
    :ivar size: bytes that passed.
    """

    __slots__ = ("_kept", "_limit", "size")

    def __init__(self, limit: int = MAX_BODY) -> None:
        self._limit = limit
        self._kept: bytes | bytearray = b""
        self.size = 0

    def __repr__(self) -> str:
        return f"<Body {len(self._kept)} of {self.size} bytes>"

    def add(self, piece: bytes) -> None:
        """The next piece."""
        room = self._limit - self.size
        if room > 0:
            # The only piece of a short body is kept as it is. Pieces of a long one are copied:
            # a list of one-byte pieces would take forty times their size.
            if not self.size:
                self._kept = piece if len(piece) <= room else piece[:room]
            else:
                if isinstance(self._kept, bytes):
                    self._kept = bytearray(self._kept)
                self._kept += piece if len(piece) <= room else piece[:room]
        self.size += len(piece)

    @property
    def kept(self) -> int:
        """How many bytes are kept."""
        return len(self._kept)

    @property
    def data(self) -> bytes:
        """What is kept."""
        return bytes(self._kept)

    @property
    def truncated(self) -> bool:
        """Whether more passed than is kept."""
        return self.size > len(self._kept)


@dataclass(slots=True)
class Head:
    """A message's head; not changed once it is made.

    :ivar raw: its bytes, with the empty line at the end.
    """

    raw: bytes

    @property
    def fields(self) -> Fields:
        """Its header fields in their order and spelling."""
        raw = self.raw if not _SPACE.search(self.raw) else tidied(self.raw)
        found: Fields = FIELD.findall(raw, raw.find(b"\r\n") + 2)
        return found

    def field(self, name: bytes) -> bytes:
        """The first value of a field, empty where there is none."""
        found = re.search(rb"(?i:\r\n%b):[ \t]*+([^\r]*)\r\n" % re.escape(name), self.raw)
        return found[1].rstrip(b" \t") if found else b""

    def _words(self) -> list[str]:
        """The three of its first line; empty ones where there is no head."""
        words = self.raw.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)
        return [*words, "", ""]


@dataclass(slots=True)
class RequestHead(Head):
    """A request's head as the target gets it."""

    @property
    def method(self) -> str:
        return self._words()[0]

    @property
    def target(self) -> str:
        """The request target: a path and a query in most requests."""
        return self._words()[1]

    @property
    def version(self) -> str:
        return self._words()[2]


def is_bare(data: bytes) -> bool:
    """Whether bytes are one request's head and no body follows, as of most requests.

    To parse it as well would take ten times as long.
    """
    return (
        data.find(b"\r\n\r\n") == len(data) - 4
        and _LINE.match(data) is not None
        and _MORE.search(data) is None
    )


@dataclass(slots=True)
class ResponseHead(Head):
    """A response's head as the target sent it."""

    @property
    def version(self) -> str:
        return self._words()[0]

    @property
    def status(self) -> int:
        return int(self._words()[1])

    @property
    def reason(self) -> str:
        """The words behind the status; may be empty."""
        return self._words()[2]


@dataclass(frozen=True, slots=True)
class Frame:
    """A message of a websocket, or a control frame.

    :ivar sent: whether it went to the target, rather than came from it.
    :ivar opcode: 1 text, 2 binary, 8 close, 9 ping, 10 pong.
    :ivar data: its beginning, unmasked.
    :ivar size: bytes that passed, as they were on the wire.
    :ivar moment: seconds of the monotonic clock, at its end.
    :ivar compressed: whether ``data`` is in a coding of an extension (RFC 7692).
    """

    sent: bool
    opcode: int
    data: bytes
    size: int
    moment: float
    compressed: bool = False


class Frames:
    """The newest messages of a websocket.

    :param limit: how many bytes of them are kept; the oldest go first.
    :ivar lost: how many have gone.
    :ivar kept: bytes that are kept.
    """

    __slots__ = ("_frames", "_limit", "kept", "lost")

    def __init__(self, limit: int = MAX_BODY) -> None:
        self._frames: deque[Frame] = deque()
        self._limit = limit
        self.kept = 0
        self.lost = 0

    def __repr__(self) -> str:
        return f"<Frames {len(self._frames)}, {self.lost} lost>"

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def add(self, frame: Frame) -> None:
        """The next message."""
        self._frames.append(frame)
        self.kept += len(frame.data)
        while len(self._frames) > MAX_FRAMES or self.kept > self._limit:
            self.kept -= len(self._frames.popleft().data)
            self.lost += 1


#: The body of requests that have none, and the messages of what is no websocket.
NO_BODY: Final = Body(0)
NO_FRAMES: Final = Frames(0)


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its response.

    Moments are seconds of the monotonic clock, None until they come.

    :ivar id: unique in this run; digits.
    :ivar target: the target's URL, without user and password.
    :ivar peer: the address from which the tunnel's stream came; "" where that is not known.
    :ivar replay_of: the id of the exchange that this one repeats, or "".
    :ivar started: when the request's first byte came, in seconds since 1970.
    :ivar began: the same moment by the monotonic clock.
    :ivar connecting: when the target was first tried; None where it was connected already.
    :ivar connected: when it was connected.
    :ivar requested: when the request had passed whole.
    :ivar answered: when the response's first byte came.
    :ivar ended: when the response had passed whole, or the exchange failed.
    :ivar request: where what was sent does not parse, a head of no bytes; what was sent is the
        body then.
    :ivar request_body: without the chunks' framing.
    :ivar request_wire: the request behind its head, to the byte; the same object as
        ``request_body`` where the body is not chunked.
    :ivar interim: the 1xx responses before ``response``, but a 101.
    :ivar request_trailers: trailer fields behind the request's last chunk.
    :ivar frames: what passed after a 101 to a websocket.
    :ivar error: why it failed, for a user to read.
    """

    id: str
    tunnel: str
    target: str
    peer: str
    started: float
    began: float
    request: RequestHead
    request_body: Body
    response_body: Body
    replay_of: str = ""
    connecting: float | None = None
    connected: float | None = None
    requested: float | None = None
    answered: float | None = None
    ended: float | None = None
    request_wire: Body = field(init=False)
    request_trailers: tuple[tuple[bytes, bytes], ...] = ()
    interim: tuple[ResponseHead, ...] = ()
    response: ResponseHead | None = None
    response_trailers: tuple[tuple[bytes, bytes], ...] = ()
    state: State = State.RUNNING
    frames: Frames = NO_FRAMES
    error: str = ""

    def __post_init__(self) -> None:
        self.request_wire = self.request_body

    def __repr__(self) -> str:
        return f"<Exchange {self.id} {self.request.method} {self.request.target} {self.state}>"

    @property
    def visitor(self) -> str:
        """The visitor's address: what the server says of it, else where the stream came from.

        A stream serves several visitors one after another; ``X-Real-IP`` is the server's own.
        """
        return self.request.field(b"x-real-ip").decode("latin-1") or self.peer

    @property
    def is_websocket(self) -> bool:
        return self.response is not None and self.response.status == 101

    @property
    def url(self) -> str:
        """The request's URL at the target."""
        here = urlsplit(self.target)
        authority = here.netloc
        if here.scheme not in ("http", "https") or not authority:
            authority = _authority(self.request.field(b"host").decode("latin-1"))
        scheme = here.scheme if here.scheme in ("http", "https") else "http"
        path = self.request.target
        return f"{scheme}://{authority}{path if path.startswith('/') else '/'}"

    @property
    def size(self) -> int:
        """Bytes of memory that its contents take, roughly."""
        # An object of its own, and lists, take 1 KiB.
        body, size = self.request_body, 1024 + len(self.request.raw) + self.response_body.kept
        if body is not NO_BODY:
            size += body.kept
        if self.request_wire is not body:
            size += self.request_wire.kept
        if self.response is not None:
            size += len(self.response.raw)
        if self.frames is not NO_FRAMES:
            size += self.frames.kept + 128 * len(self.frames)
        return size


def _authority(host: str) -> str:
    """What a URL has of a Host field: of one that no URL can have, nothing."""
    try:
        return urlsplit(f"//{host}").netloc or "localhost"
    except ValueError:
        return "localhost"


class Watcher(Protocol):
    """Who is told of exchanges, in the order in which things happen.

    Called on the data path: what takes long is left for later or for a thread. A
    subclass may leave out what it does not want to hear.
    """

    def began(self, exchange: Exchange) -> object:
        """A request's head has come, or what is none."""
        return None

    def changed(self, exchange: Exchange) -> object:
        """Its response's head has come without the rest, or a websocket's message."""
        return None

    def ended(self, exchange: Exchange) -> object:
        """It is complete, or has failed; it does not change any more."""
        return None
