"""A client's connection to its server, and the tunnels that are attached to it.

Stands between the websocket of :mod:`exposr_tx.transport.websocket.client` and who
keeps a tunnel connected. The first tunnel is that of the upgrade request; a native
connection takes more (docs/protocols/exposr-tx-1.md, "Several tunnels").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail

from exposr_tx.errors import ExposrError, LocalProtocolError
from exposr_tx.interfaces import CloseCode
from exposr_tx.transport.connection import Lost
from exposr_tx.wire.native import Attached, Detached, Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

    from exposr_tx.transport.session import Session

__all__ = ["AttachFailed", "AttachRefused", "Attachment", "ClientConnection"]


class AttachFailed(ExposrError):
    """A further tunnel cannot be attached to the connection."""


class AttachRefused(AttachFailed):
    """The server refuses to attach a tunnel.

    :ivar error: its error code.
    """

    def __init__(self, error: str) -> None:
        super().__init__(f"the server does not attach the tunnel: {error}")
        self.error = error


class Attachment:
    """One tunnel's part of a connection; to whom it belongs it is a connection.

    :ivar lost: fires once, with :class:`Lost`, when it is over: because it was closed, the
        server has detached the tunnel, or the whole connection is lost.
    :ivar leaving: fires when the server says that it will end the connection, if it ever does.
    """

    def __init__(self, connection: ClientConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.lost: Deferred[Lost] = Deferred()
        self.leaving: Deferred[None] = Deferred()

    def __repr__(self) -> str:
        return f"<Attachment {self.number} of {self.connection!r}>"

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return self.connection.session.streams_of(self.number)

    def leave(self) -> None:
        """Ask the server to open no more streams; those that run go on."""
        self.connection.leave(self)

    def close(self) -> None:
        """End the tunnel's streams; the connection too, where no other tunnel uses it."""
        self.connection.release(self)


class ClientConnection:
    """A client's connection to its server.

    :ivar session: its streams and counters; set before the connection is given to anybody.
    :ivar lost: fires once, with :class:`Lost`, when the connection is over.
    :ivar leaving: fires when the server says that it will go, if it ever does.
    :ivar first: the tunnel of the upgrade request, for whoever shares the connection.
    """

    session: Session

    def __init__(self, lost: Deferred[Lost], leaving: Deferred[None]) -> None:
        self.lost = lost
        self.leaving = leaving
        self.first = Attachment(self, 0)
        self._tunnels = {0: self.first}
        self._asked: dict[int, Deferred[Attachment]] = {}
        self._left = False  # we have said that we go
        lost.addCallback(self._ended)
        leaving.addCallback(self._going)

    def __repr__(self) -> str:
        return f"<ClientConnection {self.session!r}>"

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return len(self.session)

    def leave(self, attachment: Attachment | None = None) -> None:
        """Ask the server to open no more streams; those that run go on.

        :param attachment: for this tunnel only.
        """
        native = self.session.native
        others = self._tunnels.keys() - {attachment.number} if attachment is not None else ()
        if attachment is not None and native is not None and (others or self._asked):
            native.detach(attachment.number, CloseCode.NORMAL, "")
        elif not self._left:
            self._left = True
            self.session.go_away("the client goes")

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close all streams and say goodbye; :attr:`lost` fires within two seconds."""
        self.session.close(code, reason)

    # Several tunnels -------------------------------------------------------

    def attach(self, tunnel_id: str, token: str, factory: IProtocolFactory) -> Deferred[Attachment]:
        """Ask the server to send a further tunnel's streams by this connection too.

        :param token: of the tunnel, as a connection of its own would show it.
        :param factory: builds the protocols of its streams.
        :return: errbacks with AttachRefused, or with AttachFailed where nobody can be
            asked, or is not there any more. May be cancelled.
        """
        native = self.session.native
        gone = self._left or self.leaving.called or not self.session.is_open
        if native is None or gone:
            return fail(AttachFailed("the connection takes no further tunnels"))
        try:
            number = native.attach(tunnel_id, token, factory)
        except LocalProtocolError as error:
            return fail(AttachFailed(str(error)))

        def cancelled(_: object) -> None:
            del self._asked[number]  # its answer, should it come, finds nobody

        asked: Deferred[Attachment] = Deferred(cancelled)
        self._asked[number] = asked
        return asked

    def release(self, attachment: Attachment) -> None:
        """See :meth:`Attachment.close`."""
        number, native = attachment.number, self.session.native
        if number not in self._tunnels:
            return
        if native is None or len(self._tunnels) + len(self._asked) == 1:
            self.close()
            return
        del self._tunnels[number]
        native.detach(number, CloseCode.NORMAL, "")
        native.cut(number, "the tunnel is closed")
        attachment.lost.callback(Lost(CloseCode.NORMAL, "", True))

    # What the session tells ------------------------------------------------

    def told(self, event: object) -> None:
        """What the server says about further tunnels."""
        if isinstance(event, Attached):
            self._attached(event)
        elif isinstance(event, Detached):
            self._detached(event)
        elif isinstance(event, Refused):
            self._refused(event)

    def _attached(self, event: Attached) -> None:
        asked = self._asked.pop(event.attachment, None)
        if asked is None:
            self._detach(event.attachment)
            return
        attachment = Attachment(self, event.attachment)
        self._tunnels[event.attachment] = attachment
        if self.leaving.called:  # the server said so while it was asked
            attachment.leaving.callback(None)
        asked.callback(attachment)

    def _refused(self, event: Refused) -> None:
        asked = self._asked.pop(event.attachment, None)
        self._detach(event.attachment)
        if asked is not None:
            asked.errback(AttachRefused(event.error))

    def _detach(self, number: int) -> None:
        native = self.session.native
        if native is not None:
            native.detach(number, CloseCode.NORMAL, "")

    def _detached(self, event: Detached) -> None:
        attachment = self._tunnels.pop(event.attachment, None)
        if attachment is not None:
            self._detach(event.attachment)
            attachment.lost.callback(Lost(event.code, event.reason, True))
        self.session.drained().addCallback(lambda _: self._close_unused())

    def _close_unused(self) -> None:
        if not self._tunnels and not self._asked:
            self.close()

    def _going(self, _: None) -> None:
        for attachment in list(self._tunnels.values()):
            if not attachment.leaving.called:
                attachment.leaving.callback(None)

    def _ended(self, lost: Lost) -> Lost:
        asked, self._asked = self._asked, {}
        for waiting in asked.values():
            waiting.errback(AttachFailed(lost.reason or "the connection is lost"))
        tunnels, self._tunnels = self._tunnels, {}
        # A verdict about one tunnel is given this way only where it is alone.
        shared = lost.code == CloseCode.POLICY_VIOLATION and len(tunnels) > 1
        told = Lost(CloseCode.GOING_AWAY, lost.reason, lost.clean) if shared else lost
        for attachment in tunnels.values():
            attachment.lost.callback(told)
        return lost
