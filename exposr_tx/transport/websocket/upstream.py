"""A connected client, as the server sees it: a connection, and a way to each tunnel on it.

Between the session of a websocket and routing, which chooses among upstreams. A
v2 connection carries one tunnel, a native one as many as its client attaches
(docs/protocols/exposr-tx-1.md, "Several tunnels").
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import Draining, ExposrError, StreamLimit, TooManyConnections, UpstreamGone
from exposr_tx.interfaces import CloseCode, IAdmission, IUpstream, Origin
from exposr_tx.transport.connection import SHUTTING_DOWN, Lost, MessageConnection
from exposr_tx.transport.session import Session
from exposr_tx.wire.mux import MuxV2
from exposr_tx.wire.native import MAX_STREAMS, Attaching, Detached, NativeMux

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.transport.journal import Journal

__all__ = ["Link", "Upstream", "WebsocketUpstream"]

#: Seconds for the streams of a connection that is one too many, or that can have no more of them:
#: what a server that stops gives by default.
LEAVING: Final = 30.0
#: Why a connection ends that can have no more of them.
USED_UP: Final = "all stream numbers are used"


class _Websocket(MessageConnection, Protocol):
    """A client's websocket."""

    tunnel_id: str
    origin: Origin
    native: bool
    remoteCloseCode: int | None

    def ending(self, code: int | None = None) -> Lost: ...


class Upstream(Protocol):
    """A tunnel's part of a client's connection, of whichever dialect."""

    tunnel_id: str
    accepting: bool

    @property
    def streams(self) -> int: ...

    def close(self, code: int, reason: str) -> None: ...

    def go_away(self) -> None: ...

    def drain(self) -> Deferred[None]: ...


class _Endpoint(Protocol):
    """Where it came in."""

    admission: IAdmission
    clock: IReactorTime
    max_streams: int
    draining: bool
    journal: Journal

    def add(self, upstream: Upstream) -> None: ...

    def remove(self, upstream: Upstream) -> None: ...

    def upstreams_of(self, tunnel_id: str) -> Collection[Upstream]: ...

    def admit_tunnel(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]: ...


class Link:
    """One client's connection.

    :param websocket: carries it, and is open.

    :ivar session: its streams.
    :ivar upstreams: the tunnels on it, by the number of their attachment.
    """

    _log = Logger()

    __slots__ = ("_told", "endpoint", "session", "upstreams", "websocket")

    def __init__(self, websocket: Any, endpoint: _Endpoint) -> None:
        self.websocket: _Websocket = websocket
        self.endpoint = endpoint
        self.session = Session(
            websocket,
            NativeMux(is_server=True) if websocket.native else MuxV2(opener=True),
            endpoint.clock,
            # That of a tunnel is counted by its upstreams.
            max_streams=max(endpoint.max_streams, MAX_STREAMS),
            on_end=self._ended,
            on_going=self._going,
            further=self._told_of_tunnels,
        )
        self.upstreams: dict[int, WebsocketUpstream] = {}
        self._told = False

    def __repr__(self) -> str:
        return f"<Link {len(self.upstreams)} tunnels {self.session!r}>"

    def start(self) -> None:
        """Ping, and ask for the first tunnel to be taken into service."""
        first = self._add(0, self.websocket.tunnel_id)
        self.session.start()
        first.start()

    def _add(self, number: int, tunnel_id: str) -> WebsocketUpstream:
        upstream = WebsocketUpstream(self, number, tunnel_id)
        self.upstreams[number] = upstream
        self.endpoint.add(upstream)
        return upstream

    # What the client asks for ----------------------------------------------

    def _told_of_tunnels(self, event: object) -> None:
        if isinstance(event, Attaching):
            self._attaching(event)
        elif isinstance(event, Detached):
            self._detached(event)

    def _attaching(self, event: Attaching) -> None:
        attaching = Deferred.fromCoroutine(self._attach(event))
        attaching.addErrback(
            lambda failure: self._log.failure(
                "cannot attach tunnel {tunnel}", failure, tunnel=event.tunnel_id
            )
        )

    async def _attach(self, event: Attaching) -> None:
        native, endpoint = self.session.native, self.endpoint
        assert native is not None
        error = ExposrError.code
        try:
            await endpoint.admit_tunnel(event.tunnel_id, event.token, self.websocket.origin)
            error = ""
        except ExposrError as refusal:
            error = refusal.code
        finally:
            if self.session.is_open:
                self.session.replied(native.answer(event.attachment, error))
        if not error and self.session.is_open:
            self._add(event.attachment, event.tunnel_id).start()

    def _detached(self, event: Detached) -> None:
        upstream = self.upstreams.pop(event.attachment, None)
        if upstream is not None:
            upstream.ended(Lost(event.code, event.reason, True))
        self.session.end_idle(event.attachment)

    def _going(self) -> None:
        for upstream in self.upstreams.values():
            upstream.accepting = False

    # The end ---------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """End the websocket, and all tunnels on it."""
        for upstream in self.upstreams.values():
            upstream.accepting = False
        self.session.close(code, reason)

    def go_away(self, reason: str = SHUTTING_DOWN) -> None:
        """Tell the client, once, that the server will end the connection, where it can be told."""
        if not self._told:
            self._told = True
            self.session.go_away(reason)

    def retire(self) -> None:
        """There can be no more streams: end with the last one, so that the client connects anew."""
        for upstream in self.upstreams.values():
            upstream.accepting = False
            self.session.end_idle(upstream.number)
        self.go_away(USED_UP)
        drained = self.session.drained().addTimeout(LEAVING, self.endpoint.clock)
        drained.addBoth(lambda _: self.close(CloseCode.GOING_AWAY, USED_UP))

    def drain(self) -> Deferred[None]:
        """End with the last stream, once none of the tunnels takes streams any more.

        :return: fires when the streams have ended.
        """
        self.go_away()
        return self.session.drained().addCallback(lambda _: self._drained())

    def _drained(self) -> None:
        if not any(upstream.accepting for upstream in self.upstreams.values()):
            self.close(CloseCode.GOING_AWAY, SHUTTING_DOWN)

    def end(self, upstream: WebsocketUpstream, code: int, reason: str) -> None:
        """End one tunnel with its streams: the others go on."""
        native = self.session.native
        if native is None or self.upstreams.keys() <= {upstream.number}:
            self.close(code, reason)
        elif self.upstreams.pop(upstream.number, None) is not None:
            native.detach(upstream.number, code, reason)
            native.cut(upstream.number, reason)
            upstream.ended(Lost(code, reason, True))

    def _ended(self, reason: str) -> None:
        lost = self.websocket.ending()
        if not lost.reason and self.websocket.remoteCloseCode is None:
            lost = Lost(lost.code, reason, lost.clean)
        upstreams, self.upstreams = self.upstreams, {}
        for upstream in upstreams.values():
            upstream.ended(lost)


@implementer(IUpstream)
class WebsocketUpstream:
    """A connected client as a way to one tunnel's target.

    :param number: of the attachment.

    :ivar peer: the client's address.
    :ivar accepting: False while draining, and once the connection is over.
    """

    _log = Logger()

    __slots__ = (
        "_endpoint",
        "_link",
        "_lost",
        "_plugged",
        "accepting",
        "number",
        "peer",
        "session",
        "tunnel_id",
    )

    def __init__(self, link: Link, number: int, tunnel_id: str) -> None:
        self.tunnel_id = tunnel_id
        self.number = number
        self.peer: IAddress = link.websocket.origin.peer
        self.accepting = True
        self.session = link.session
        self._link = link
        self._endpoint = link.endpoint
        self._plugged = False
        self._lost: Lost | None = None

    def __repr__(self) -> str:
        return f"<WebsocketUpstream {self.tunnel_id} {self.session!r}>"

    @property
    def alive_at(self) -> int:
        return self.session.alive_at

    @property
    def streams(self) -> int:
        """Streams that are open or being opened."""
        return self.session.streams_of(self.number)

    def start(self) -> None:
        """Ask to be taken into service."""
        plugged = self._endpoint.admission.plug(self)
        plugged.addCallbacks(self._in_service, self._refused)
        plugged.addErrback(self._broken)

    def _in_service(self, _: object) -> None:
        self._plugged = True
        self._endpoint.journal.connected(
            self.tunnel_id, self.peer, len(self._endpoint.upstreams_of(self.tunnel_id))
        )
        if self._lost is not None:
            self._unplug(self._lost)

    def _refused(self, reason: Failure) -> None:
        if isinstance(reason.value, TooManyConnections):
            self._endpoint.journal.refused(self.tunnel_id, self.peer, reason.value)
            self.accepting = False
            self.session.end_idle(self.number)
            # What it was given, while the others were asked, ends first.
            drained = self.session.drained(self.number)
            drained.addTimeout(LEAVING, self._endpoint.clock).addBoth(lambda _: self._leave())
        elif reason.check(Draining):
            self.close(CloseCode.GOING_AWAY, SHUTTING_DOWN)
        else:
            self._broken(reason)

    def _leave(self) -> None:
        if self.session.is_open:
            self.close(CloseCode.POLICY_VIOLATION, "unable to establish tunnel")

    def _broken(self, reason: Failure) -> None:
        self._log.failure(
            "cannot serve a connection of tunnel {tunnel}", reason, tunnel=self.tunnel_id
        )
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def ended(self, lost: Lost) -> None:
        """The tunnel is not on the connection any more; its link calls it, once."""
        self.accepting = False
        self._lost = lost
        self._endpoint.remove(self)
        if self._plugged:
            self._unplug(lost)

    def _unplug(self, lost: Lost) -> None:
        self._plugged = False
        self._endpoint.journal.lost(
            self.tunnel_id,
            self.peer,
            len(self._endpoint.upstreams_of(self.tunnel_id)),
            lost.clean,
            lost.code,
            lost.reason,
        )
        self._endpoint.admission.unplug(self, lost.clean)

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Open a stream; see IUpstream. The limit holds for all connections of the tunnel."""
        if self._lost is not None or not self.session.is_open:
            self.accepting = False  # known a moment before ended()
            return fail(UpstreamGone("the client's connection is closed"))
        if self.session.used_up:
            self._link.retire()
            return fail(UpstreamGone(USED_UP))
        endpoint = self._endpoint
        streams = 0
        for upstream in endpoint.upstreams_of(self.tunnel_id):
            streams += upstream.streams
        if streams >= endpoint.max_streams:
            return fail(StreamLimit(f"the tunnel has {streams} streams"))
        return self.session.open_stream(factory, origin, self.number)

    def probe(self) -> Deferred[bool]:
        return self.session.probe()

    def close(self, code: int, reason: str) -> None:
        """End the tunnel's part of the connection; the connection, where it has no other."""
        self.accepting = False
        if self._lost is None:
            self._link.end(self, code, reason)

    def go_away(self) -> None:
        """See :meth:`Link.go_away`."""
        self._link.go_away()

    def drain(self) -> Deferred[None]:
        """Take no new streams; say goodbye (1001) when the last one has ended.

        A native client is told at once, so that it can be connected elsewhere by then.

        :return: fires then; :meth:`close` makes it fire at once.
        """
        self.accepting = False
        return self._link.drain()
