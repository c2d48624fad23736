"""The two ends of a conversation.

Either raises RemoteProtocolError for what its peer must not say, and is not used again then.
"""

from __future__ import annotations

from typing import Final

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.backstream.members import Members
from exposr_tx.wire.backstream.messages import RequestMessage, ResponseMessage
from exposr_tx.wire.backstream.websockets import (
    Closing,
    Payload,
    Upgrade,
    UpgradeAnswer,
    said_of_websockets,
)

__all__ = ["Requests", "Responses"]

#: What no Go client makes a websocket of: some fail to read the path, the others at a field that is
#: theirs to write. The former are those that read a request's path as a URL too, and say so.
_NO_PATH: Final = ":"
_NO_FIELDS: Final = {"sec-websocket-key": "-"}
_READS_URLS: Final = "parse request path"


class Requests:
    """The server's end: one request at a time, each answered once.

    Newer Go clients read a path as a URL, and carry websockets; older ones do neither. The first
    request finds out which one this is: it is a message about a websocket too, one that no client
    can make, if it is not one that a visitor wants. An older client sees the request in it, and
    works on it; a newer one sees the websocket, says what becomes of it, and is asked once more.

    :ivar pending: the id of the request that waits for its answer; empty where there is none.
    :ivar is_newer: None until it is known.
    """

    __slots__ = ("_first", "_websocket", "is_newer", "pending")

    def __init__(self) -> None:
        self.pending = ""
        self.is_newer: bool | None = None
        self._first: RequestMessage | None = None  # until it is known
        self._websocket = False

    def ask(self, request: RequestMessage, websocket: bool = False) -> bytes:
        """The message that asks.

        :param websocket: whether for a websocket; not to be had of a client that is not newer.
        """
        if self.pending:
            raise LocalProtocolError("a request is pending")
        self.pending, self._websocket = request.id, websocket
        if websocket:
            upgrade = Upgrade(request.id, request.url, request.fields, request.remote)
            if self.is_newer:
                return upgrade.encode()
            return request.encode(more=upgrade.members())
        if self.is_newer is None:
            self._first = request
            trial = {"id": request.id, "path": _NO_PATH, "header": _NO_FIELDS, "remote": ""}
            return request.encode(more={"type": Upgrade.type, "data": trial})
        return request.encode(self.is_newer)

    def receive(self, data: bytes) -> ResponseMessage | UpgradeAnswer | Payload | Closing | bytes:
        """The answer to the pending request, the message that asks once more, or what is said of a
        websocket; raises RemoteProtocolError for anything else."""
        members = Members.read(data)
        said = said_of_websockets(members)
        if isinstance(said, Payload | Closing):
            return said
        first, self._first = self._first, None
        if isinstance(said, UpgradeAnswer) and said.id == self.pending:
            if first is not None:
                self.is_newer = _READS_URLS in said.error
                return first.encode(self.is_newer)
            if self._websocket:
                self.is_newer = self.is_newer or said.accepted or None
                self.pending = ""
                return said
        response = ResponseMessage.of_members(members)
        if response.id != self.pending:
            raise RemoteProtocolError("the message answers nothing that was asked")
        self.is_newer = bool(self.is_newer)
        self.pending = ""
        return response

    def skip(self) -> None:
        """The answer to the pending request was not looked at, or is not wanted."""
        self.pending = ""
        self._first = None


class Responses:
    """The client's end: any number of requests, each answered once.

    :ivar pending: the ids of the requests that are not answered yet.
    """

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: set[str] = set()

    def receive(self, data: bytes) -> RequestMessage | Upgrade | Payload | Closing | None:
        """A request, or what newer servers say of visitors' websockets; None for what is to be
        ignored.

        :raises RemoteProtocolError: the connection must be closed.
        """
        members = Members.read(data)
        if members.text("type") and members.get("id") is None:
            said = said_of_websockets(members)
            return None if isinstance(said, UpgradeAnswer) else said
        request = RequestMessage.of_members(members)
        if request.id in self.pending:
            raise RemoteProtocolError("the message asks with an id that is in use")
        self.pending.add(request.id)
        return request

    def answer(self, response: ResponseMessage) -> bytes:
        """The message that answers."""
        if response.id not in self.pending:
            raise LocalProtocolError("there is no such request, or it is answered")
        self.pending.remove(response.id)
        return response.encode()
