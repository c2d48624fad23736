"""The tunnels on one connection: which numbers are attached, asked for, or being detached.

Source: docs/protocols/exposr-tx-1.md, "Several tunnels". Attachment 0, the tunnel
of the upgrade request, is there from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.mux.events import Reply
from exposr_tx.wire.native import frames
from exposr_tx.wire.native.events import Attached, Attaching, Detached, Event, Refused
from exposr_tx.wire.native.metadata import MAX_ATTACHMENT, number, text

__all__ = ["Attachments"]

#: Close codes that a DETACH may name, and what none means ("Several tunnels").
CODES: Final = range(1000, 5000)
DONE: Final = 1000


class _State(Enum):
    ASKED = auto()
    ATTACHED = auto()
    DETACHING = auto()  # our DETACH is out, its answer not yet in


class Attachments:
    """One end's view.

    :param is_server: the client asks, the server answers.
    """

    __slots__ = ("_is_server", "_last", "_left", "_states")

    def __init__(self, is_server: bool) -> None:
        self._is_server = is_server
        self._states: dict[int, _State] = {0: _State.ATTACHED}
        self._last = 0
        self._left = False

    def __repr__(self) -> str:
        return f"<Attachments {len(self)} tunnels>"

    def __len__(self) -> int:
        """Numbers in use."""
        return len(self._states)

    def accepts(self, attachment: int) -> bool:
        """Whether streams may be opened for it."""
        return self._states.get(attachment) is _State.ATTACHED

    def peer_left(self) -> None:
        """GOAWAY came: no more tunnels can be attached."""
        self._left = True

    # Output ----------------------------------------------------------------

    def attach(self, tunnel_id: str, token: str) -> tuple[int, bytes]:
        """A new attachment's number, and its ATTACH; Attached or Refused follows.

        :raises LocalProtocolError: on a server, after GOAWAY, or with 65,536 attached.
        """
        if self._is_server or self._left or len(self._states) > MAX_ATTACHMENT:
            raise LocalProtocolError("no further tunnel can be attached to this connection")
        attachment = self._last % MAX_ATTACHMENT + 1
        while attachment in self._states:
            attachment = attachment % MAX_ATTACHMENT + 1
        fields = {"attachment": attachment, "tunnel": tunnel_id, "token": token}
        frame = frames.json_frame(frames.ATTACH, 0, fields)
        self._last = attachment
        self._states[attachment] = _State.ASKED
        return attachment, frame

    def attached(self, attachment: int) -> bytes:
        """ATTACHED, the answer to Attaching."""
        self._answer(attachment)
        self._states[attachment] = _State.ATTACHED
        return frames.json_frame(frames.ATTACHED, 0, {"attachment": attachment})

    def refused(self, attachment: int, error: str) -> bytes:
        """REFUSED, the answer to Attaching, with a code of the REST API."""
        self._answer(attachment)
        frame = frames.json_frame(frames.REFUSED, 0, {"attachment": attachment, "error": error})
        del self._states[attachment]
        return frame

    def detach(self, attachment: int, code: int = DONE, reason: str = "") -> bytes:
        """DETACH; streams that are open go on.

        :param code: the close code that a connection for this tunnel alone would end with.
        :raises LocalProtocolError: it is not attached.
        """
        if not self.accepts(attachment):
            raise LocalProtocolError(f"attachment {attachment} cannot be detached")
        self._states[attachment] = _State.DETACHING
        why: dict[str, object] = {"code": code} if code != DONE else {}
        if reason:
            why["reason"] = reason
        return _detach(attachment, why)

    def _answer(self, attachment: int) -> None:
        if not self._is_server or self._states.get(attachment) is not _State.ASKED:
            raise LocalProtocolError(f"attachment {attachment} was not asked for")

    # Input -----------------------------------------------------------------

    def received(self, kind: int, channel: int, payload: bytes, events: list[Event]) -> None:
        """One of the four frames about attachments.

        :raises RemoteProtocolError: it comes from the wrong end, or does not fit the state.
        """
        from_client = kind == frames.ATTACH or (kind == frames.DETACH and self._is_server)
        if channel or from_client is not self._is_server:
            raise RemoteProtocolError("a frame about attachments that is out of place")
        fields = frames.json_object(payload)
        attachment = number(fields, "attachment", lowest=0 if kind == frames.DETACH else 1)
        if kind == frames.ATTACH:
            self._attach(attachment, fields, events)
        elif kind == frames.DETACH:
            self._detach(attachment, fields, events)
        else:
            self._answered(attachment, kind, fields, events)

    def _attach(self, attachment: int, fields: dict[str, object], events: list[Event]) -> None:
        if attachment in self._states:
            raise RemoteProtocolError(f"attachment {attachment} is in use")
        events.append(Attaching(attachment, text(fields, "tunnel"), text(fields, "token")))
        self._states[attachment] = _State.ASKED

    def _answered(
        self, attachment: int, kind: int, fields: dict[str, object], events: list[Event]
    ) -> None:
        if self._states.get(attachment) is not _State.ASKED:
            raise RemoteProtocolError(f"attachment {attachment} was not asked for")
        if kind == frames.ATTACHED:
            self._states[attachment] = _State.ATTACHED
            events.append(Attached(attachment))
        else:
            events.append(Refused(attachment, text(fields, "error")))
            del self._states[attachment]

    def _detach(self, attachment: int, fields: dict[str, object], events: list[Event]) -> None:
        code = DONE if fields.get("code") is None else fields["code"]
        if type(code) is not int or code not in CODES:
            raise RemoteProtocolError("'code' is no close code")
        reason = "" if fields.get("reason") is None else text(fields, "reason")
        state = self._states.pop(attachment, None)
        if state is _State.ATTACHED:
            events.append(Reply(_detach(attachment, {})))
            events.append(Detached(attachment, code, reason))
        elif state is not _State.DETACHING:
            raise RemoteProtocolError(f"attachment {attachment} is not attached")


def _detach(attachment: int, why: Mapping[str, object]) -> bytes:
    return frames.json_frame(frames.DETACH, 0, {"attachment": attachment, **why})
