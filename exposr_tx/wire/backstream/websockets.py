"""What newer Go programs say of visitors' websockets: one is asked for, and then has messages.

Each is an object ``{"type": …, "data": {…}}``. What the server says of a websocket goes to all its
clients, and what a client says of one that is not there any more is nobody's fault: such
messages are ignored.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from exposr_tx.wire.backstream.members import HOP, Members, by_name, dumped

__all__ = ["Closing", "Payload", "Upgrade", "UpgradeAnswer", "said_of_websockets"]

#: Kinds of payloads: those of RFC 6455 section 5.2.
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
#: The code of a close frame that is empty, and never in one (section 7.1.5).
NO_STATUS: Final = 1005
#: Bytes of a close frame's reason (section 5.5).
MAX_REASON: Final = 123
#: Fields of a handshake that are between two neighbours.
_OWN: Final = HOP | {
    *("sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key"),
    "sec-websocket-version",
}
#: How the Go programs' websockets say with which code and reason one was closed.
_CLOSED_WITH: Final = re.compile(r"websocket: close (\d{4})(?: \([^)]*\))?(?:: (.*))?", re.DOTALL)
#: Codes that a close frame may have, of those that mean something (RFC 6455 section 7.4, and 1012
#: and 1013 of its registry: the server starts anew, or is overloaded), or which it can say by
#: having none.
_SAYABLE: Final = frozenset({*range(1000, 1004), NO_STATUS, *range(1007, 1014), *range(3000, 5000)})


def _passed_on(fields: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in fields if pair[0].lower() not in _OWN)


class _Said:
    """One of these messages.

    :cvar type: its kind.
    """

    __slots__ = ()
    type: ClassVar[str]

    def members(self) -> Mapping[str, Any]:
        """The message."""
        return {"type": self.type, "data": self.data_members()}

    def data_members(self) -> Mapping[str, Any]:
        """What it says."""
        raise NotImplementedError

    def encode(self) -> bytes:
        """The message."""
        return dumped(self.members())


@dataclass(frozen=True, slots=True)
class Upgrade(_Said):
    """The server asks for a websocket.

    :ivar path: with its query behind it.
    :ivar fields: names in any case; only the first value of each is told. Those of the handshake
        itself are left out, but for the subprotocols.
    """

    type = "websocket_upgrade_request"
    id: str
    path: str
    fields: tuple[tuple[str, str], ...] = ()
    remote: str = ""

    def data_members(self) -> Mapping[str, Any]:
        header = {name: values[0] for name, values in by_name(_passed_on(self.fields)).items()}
        return {"id": self.id, "path": self.path, "header": header, "remote": self.remote}

    @classmethod
    def of(cls, data: Members) -> Upgrade:
        fields = _passed_on(data.fields("header"))
        return cls(data.id(), data.text("path"), fields, data.text("remote"))


@dataclass(frozen=True, slots=True)
class UpgradeAnswer(_Said):
    """The client has one, or has not.

    :ivar fields: of the target's answer; all values.
    """

    type = "websocket_upgrade_response"
    id: str
    accepted: bool
    fields: tuple[tuple[str, str], ...] = ()
    error: str = ""

    def data_members(self) -> Mapping[str, Any]:
        members: dict[str, Any] = {"id": self.id, "accepted": self.accepted}
        if self.fields:
            members["header"] = by_name(_passed_on(self.fields))
        if self.error:
            members["error"] = self.error
        return members

    @classmethod
    def of(cls, data: Members) -> UpgradeAnswer:
        fields = _passed_on(data.fields("header"))
        return cls(data.id(), data.get("accepted") is True, fields, data.text("error"))


@dataclass(frozen=True, slots=True)
class Payload(_Said):
    """A message of a websocket's, or what stands in a control frame.

    :ivar kind: as the opcode.
    """

    type = "websocket_frame"
    id: str
    kind: int
    data: bytes

    @property
    def closing(self) -> Closing | None:
        """What a close frame's says."""
        if self.kind != CLOSE:
            return None
        reason = self.data[2:].decode("utf-8", "replace")
        code = int.from_bytes(self.data[:2], "big") if self.data else NO_STATUS
        return Closing(self.id, code, reason)

    def data_members(self) -> Mapping[str, Any]:
        data = b64encode(self.data).decode("ascii")
        return {"connection_id": self.id, "type": self.kind, "data": data}

    @classmethod
    def of(cls, data: Members) -> Payload:
        return cls(data.id("connection_id"), data.number("type"), data.data("data"))


@dataclass(frozen=True, slots=True)
class Closing(_Said):
    """A websocket is over.

    :ivar code: mostly 1006, and the code that was meant stands in the reason.
    """

    type = "websocket_close"
    id: str
    code: int
    reason: str = ""

    @property
    def closing(self) -> Closing:
        """What this says; as of a close frame's payload."""
        return self

    @property
    def parts(self) -> tuple[int | None, bytes]:
        """Code and reason of a close frame that says the same, as much as it may have."""
        if self.code == NO_STATUS:
            return None, b""
        whole = self.reason.encode("utf-8", "replace")
        return self.code, whole[:MAX_REASON].decode(errors="ignore").encode()

    @property
    def payload(self) -> Payload:
        """A close frame's that says the same."""
        code, reason = self.parts
        data = b"" if code is None else code.to_bytes(2, "big")
        return Payload(self.id, CLOSE, data + reason)

    @property
    def messages(self) -> tuple[Payload | Closing, ...]:
        """What tells a Go program, which lets go of its end without a close frame of its own."""
        return (self,) if self.meant is None else (self.payload, self)

    @property
    def meant(self) -> Closing | None:
        """What may be told to the other end; None where there is nothing."""
        found = _CLOSED_WITH.match(self.reason)
        closing = Closing(self.id, int(found[1]), found[2] or "") if found else self
        return closing if closing.code in _SAYABLE else None

    def data_members(self) -> Mapping[str, Any]:
        return {"connection_id": self.id, "code": self.code, "reason": self.reason}

    @classmethod
    def of(cls, data: Members) -> Closing:
        return cls(data.id("connection_id"), data.number("code"), data.text("reason"))


_KINDS: Final = {kind.type: kind for kind in (Upgrade, UpgradeAnswer, Payload, Closing)}


def said_of_websockets(members: Members) -> Upgrade | UpgradeAnswer | Payload | Closing | None:
    """What a message says of a websocket; None where it says nothing of any. Raises
    RemoteProtocolError."""
    kind = members.get("type")
    made = _KINDS.get(kind) if isinstance(kind, str) else None
    return None if made is None else made.of(members.object("data"))
