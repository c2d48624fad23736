"""The client's last hop where the server speaks JSON: each request is one HTTP exchange.

A request is written to the destination, its response gathered, and answered with a
message, whatever becomes of it: what goes wrong is a 502 of ours. Redirects are
passed on. Source: docs/protocols/backstream.md.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import ExposrError, RemoteProtocolError, TargetFailed, TargetTimeout
from exposr_tx.inspection.recording import Recording
from exposr_tx.interfaces import CloseCode
from exposr_tx.transport.websocket import DestinationWebsocket, DestinationWebsockets
from exposr_tx.wire.backstream import (
    HOP,
    MAX_RESPONSE_BODY,
    Closing,
    Payload,
    RequestMessage,
    ResponseMessage,
    Responses,
    Upgrade,
    UpgradeAnswer,
    is_field,
    tokens_only,
)
from exposr_tx.wire.http1 import WITH_BODY, End, Response, ResponseParser

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorTime

__all__ = ["Destination", "Exchanges"]

#: Seconds for a whole exchange; the Go server gives its visitor 30.
TIME_LIMIT: Final = 300.0
#: Seconds after which a websocket is refused: newer Go servers ask all their clients, take the
#: first answer, and wait for 10. Another client's destination may take it.
REFUSAL_WAIT: Final = 3.0
#: Bytes of a request that are written before it is asked whether there is room for more.
PIECE: Final = 65536
#: Exchanges at once; while there are more, no message is read.
MAX_AT_ONCE: Final = 64
#: Websockets at once; more are refused.
MAX_WEBSOCKETS: Final = 1000


class Destination:
    """The local application.

    :param connect: its endpoint's.
    :param authority: ``host[:port]`` for Host.
    :param query: of its URL: for requests whose query the server does not tell.
    """

    def __init__(
        self, connect: Callable[[IProtocolFactory], Deferred[Any]], authority: str, query: str
    ) -> None:
        self.connect = connect
        self._authority = authority
        self._query = query

    def request(self, message: RequestMessage) -> bytes:
        """The request in HTTP/1.1. Raises TargetFailed for what cannot be written."""
        if not tokens_only(message.method):
            raise TargetFailed("the request's method is none")
        lines = self._lines(message)
        if message.body or message.method in WITH_BODY:
            lines.append(f"Content-Length: {len(message.body)}")
        lines += ["Connection: close", "", ""]
        return "\r\n".join(lines).encode("utf-8", "replace") + message.body

    def handshake(self, message: RequestMessage, key: str) -> bytes:
        """The request for a websocket. Raises as above."""
        lines = [*self._lines(message), "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", "", ""]
        return "\r\n".join(lines).encode("utf-8", "replace")

    def _lines(self, message: RequestMessage) -> list[str]:
        lines = [f"{message.method} {message.target(self._query)} HTTP/1.1"]
        lines.append(f"Host: {self._authority}")
        for name, value in message.fields:
            if not is_field(name, value):
                raise TargetFailed("the request has a header field that is none")
            if name.lower() not in HOP:
                lines.append(f"{name}: {value}")
        return lines


@implementer(IPullProducer)
class _Connection(TwistedProtocol):
    """One exchange with the destination.

    It and its transport stay in memory until the collector comes, which is not for long bodies:
    so neither keeps one for longer than is needed.

    :param request: gives the request away.
    """

    transport: Any

    def __init__(
        self, id: str, method: str, request: Callable[[], bytes], recording: Recording | None
    ) -> None:
        self._id = id
        self._request = request
        self._rest = memoryview(b"")
        self._recording = recording
        self._parser = ResponseParser()
        self._parser.expect(method.encode("ascii"))
        self._response: Response | None = None
        self._body: list[bytes] = []
        self._size = 0
        self.answer: Deferred[ResponseMessage] = Deferred(self._cancelled)

    def connectionMade(self) -> None:
        if self._recording is not None:
            self._recording.connected()
        request = self._request()
        if len(request) <= PIECE:
            self.transport.write(request)
        else:
            self._rest = memoryview(request)
            self.transport.registerProducer(self, False)

    # IPullProducer: the request

    def resumeProducing(self) -> None:
        piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
        self.transport.write(bytes(piece))
        if not self._rest:
            self.stopProducing()
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self._rest = memoryview(b"")

    # The response

    def dataReceived(self, data: bytes) -> None:
        if self.answer.called:
            return
        if self._recording is not None:
            self._recording.received(data)
        try:
            self._take(self._parser.receive(data))
        except RemoteProtocolError as error:
            self._fail(TargetFailed(f"the response does not parse: {error}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.answer.called:
            return
        if self._recording is not None and reason.check(ConnectionDone):
            self._recording.ended()
        try:
            self._take(self._parser.receive_eof() if reason.check(ConnectionDone) else [])
        except RemoteProtocolError:
            pass
        if not self.answer.called:
            self._fail(TargetFailed("the connection ended before the response did"))

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, bytes):
                self._size += len(event)
                if self._size > MAX_RESPONSE_BODY:
                    self._fail(
                        TargetFailed(f"the response is longer than {MAX_RESPONSE_BODY} bytes")
                    )
                    return
                self._body.append(event)
            elif isinstance(event, Response):
                if event.status == 101:
                    self._fail(TargetFailed("the destination switched protocols unasked"))
                    return
                self._response = event
            elif isinstance(event, End):
                self._succeed()
                return

    def _succeed(self) -> None:
        response = self._response
        assert response is not None
        body, self._body = b"".join(self._body), []
        fields = [(n.decode("ascii"), v.decode("utf-8", "replace")) for n, v in response.fields]
        length = response.declared if response.length == 0 else len(body)
        if length is not None and response.status != 204:
            fields.append(("Content-Length", str(length)))
        answer = ResponseMessage(self._id, response.status, tuple(fields), body)
        self.answer.callback(answer)
        self.transport.abortConnection()

    def _fail(self, error: ExposrError) -> None:
        self._body.clear()
        self.answer.errback(error)
        self.transport.abortConnection()

    def _cancelled(self, _: object) -> None:
        self.transport.abortConnection()


class _Connections(Factory):
    noisy = False

    def __init__(
        self, message: RequestMessage, request: bytes, recording: Recording | None
    ) -> None:
        self._id, self._method = message.id, message.method
        self._request = request
        self._recording = recording

    def buildProtocol(self, addr: object) -> _Connection:
        return _Connection(self._id, self._method, self.take, self._recording)

    def take(self) -> bytes:
        """The request, once."""
        request, self._request = self._request, b""
        return request


class Events(Protocol):
    """Who is told of exchanges."""

    def asked(self, message: RequestMessage) -> None:
        """A request has come."""

    def answering(self, message: RequestMessage, code: int) -> None:
        """Its answer goes out."""

    def failed(self, message: RequestMessage, error: str) -> None:
        """The destination has not answered; a 502 goes out."""


class Connection(Protocol):
    """What the messages come and go by.

    :ivar has_room: whether more can be sent without waiting in memory.
    """

    @property
    def has_room(self) -> bool: ...

    def send_text(self, message: bytes) -> None: ...

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Exchanges:
    """The requests of one connection to a server that speaks JSON.

    :param newer: fires with whether the server puts queries into paths.
    :param record: gives an exchange's recording, by the visitor's address; None where it is not
        to be recorded.
    """

    def __init__(
        self,
        connection: Connection,
        destination: Destination,
        clock: IReactorTime,
        events: Events,
        newer: Callable[[], Deferred[bool]],
        record: Callable[[str], Recording | None] | None = None,
    ) -> None:
        self._newer = newer
        self._connection = connection
        self._destination = destination
        self._clock = clock
        self._events = events
        self._record = record
        self._responses = Responses()
        self._running: set[Deferred[Any]] = set()
        self._websockets: dict[str, DestinationWebsocket] = {}
        self._connecting: dict[str, Deferred[None]] = {}  # of websockets
        self._over = False
        self._given_up = ""

    def __len__(self) -> int:
        """Requests that are not answered yet, and websockets."""
        return len(self._running) + len(self._websockets)

    def message(self, data: bytes) -> None:
        """A message of the server's."""
        if self._over:
            return
        try:
            message = self._responses.receive(data)
        except RemoteProtocolError as error:
            self._over = True
            self._connection.close(CloseCode.PROTOCOL_ERROR, str(error))
            return
        if isinstance(message, Payload | Closing):
            websocket = self._websockets.get(message.id)
            if websocket is not None:
                if message.closing is not None:
                    del self._websockets[message.id]
                websocket.said(message)
            elif message.closing is not None and message.id in self._connecting:
                self._connecting[message.id].cancel()
        elif isinstance(message, Upgrade):
            id = message.id
            connecting = self._run(self._upgrade(message))
            if not connecting.called:
                self._connecting[id] = connecting
                connecting.addBoth(lambda _: self._connected(id))
        elif message is not None:
            self._events.asked(message)
            self._run(self._exchange(message))

    def _run(self, working: Coroutine[Any, Any, None]) -> Deferred[None]:
        running = Deferred.fromCoroutine(working)
        self._running.add(running)
        running.addBoth(lambda _: self._done(running))
        if len(self._running) >= MAX_AT_ONCE:
            self._connection.pause()
        return running

    def _connected(self, id: str) -> None:
        del self._connecting[id]

    async def _upgrade(self, upgrade: Upgrade) -> None:
        """Connect a visitor's websocket with the destination."""
        request = RequestMessage(
            upgrade.id, "GET", upgrade.path, upgrade.fields, b"", upgrade.remote
        ).parted()
        self._events.asked(request)
        failed: Callable[..., object] = partial(self._not_upgraded, request)
        try:
            known = upgrade.id in self._websockets or upgrade.id in self._connecting
            if known or len(self._websockets) + len(self._connecting) >= MAX_WEBSOCKETS:
                raise TargetFailed(f"there are {MAX_WEBSOCKETS} websockets, or one with this id")
            self._destination.handshake(request, "")
            recording = None
            if self._record is not None:
                recording = self._record(_host(upgrade.remote))
            head = partial(self._destination.handshake, request)
            factory = DestinationWebsockets(
                upgrade, head, self._say, failed, recording, self._clock
            )
            websocket = await self._destination.connect(factory)
        except Exception as error:  # whatever the endpoint fails with
            failed(str(error) or type(error).__name__)
            return
        if self._over or self._given_up:
            websocket.close(Closing(upgrade.id, CloseCode.GOING_AWAY))
        else:
            self._websockets[upgrade.id] = websocket

    def _say(
        self, websocket: DestinationWebsocket, message: UpgradeAnswer | Payload | Closing
    ) -> None:
        """A destination's websocket has something to say."""
        if isinstance(message, Closing):
            self._websockets.pop(message.id, None)
        if not self._over:
            self._connection.send_text(message.encode())
            if not self._connection.has_room:
                websocket.pause()

    def room(self) -> None:
        """What waited to be sent is gone."""
        for websocket in list(self._websockets.values()):
            websocket.resume()

    def _not_upgraded(
        self, request: RequestMessage, error: str, websocket: DestinationWebsocket | None = None
    ) -> None:
        if websocket is not None and self._websockets.get(request.id) is websocket:
            del self._websockets[request.id]
        self._events.failed(request, error)
        answer = UpgradeAnswer(request.id, False, error="the destination takes no websocket")
        self._clock.callLater(REFUSAL_WAIT, self._refuse, answer.encode())

    def _refuse(self, message: bytes) -> None:
        if not self._over:
            self._connection.send_text(message)

    def _done(self, running: Deferred[Any]) -> None:
        self._running.discard(running)
        if not self._over and len(self._running) == MAX_AT_ONCE - 1:
            self._connection.resume()

    def lost(self, reason: str) -> None:
        """The connection is over: nobody waits for the answers."""
        self._over = True
        self._cancel("the connection to the server is lost")

    def give_up(self) -> None:
        """Answer with 502 what is not answered yet."""
        self._cancel("the client ends")

    def _cancel(self, reason: str) -> None:
        self._given_up = reason
        for running in list(self._running):
            running.cancel()
        for id, websocket in list(self._websockets.items()):
            closing = Closing(id, CloseCode.GOING_AWAY, reason)
            websocket.close(closing)
            self._say(websocket, closing)

    async def _exchange(self, message: RequestMessage) -> None:
        try:
            if message.may_hold_query and await self._newer():
                message = message.parted()
            answer = await self._asked(message)
        except Exception as error:  # whatever the endpoint fails with
            why = str(error) or type(error).__name__
            self._events.failed(message, why)
            text = f"the local application did not answer: {type(error).__name__}\n"
            fields = (("Content-Type", "text/plain; charset=utf-8"),)
            answer = ResponseMessage(message.id, TargetFailed.status, fields, text.encode())
        if not self._over:
            self._events.answering(message, answer.code)
            self._connection.send_text(self._responses.answer(answer))

    async def _asked(self, message: RequestMessage) -> ResponseMessage:
        request = self._destination.request(message)
        recording = None
        if self._record is not None and (recording := self._record(_host(message.remote))):
            recording.sent(request)
        connections = _Connections(message, request, recording)
        working: Deferred[Any] = self._destination.connect(connections)
        working.addCallback(lambda connection: connection.answer)
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            working.cancel()

        call: IDelayedCall = self._clock.callLater(TIME_LIMIT, give_up)
        try:
            answer: ResponseMessage = await working
            return answer
        except Exception as raised:
            # Without a name here, by which this frame would keep itself, and with it the request.
            raise self._reason(raised, bool(late), recording) from None
        finally:
            connections.take()  # where nothing was connected
            if call.active():
                call.cancel()

    def _reason(self, error: Exception, late: bool, recording: Recording | None) -> Exception:
        """Why there is no answer; the recording is told."""
        if late:
            error = TargetTimeout(f"no answer within {TIME_LIMIT:g} s")
        elif self._given_up:
            error = TargetFailed(self._given_up)
        if recording is not None:
            recording.ended(str(error) or type(error).__name__)
        return error


def _host(address: str) -> str:
    """Of ``ip:port``."""
    return address.rpartition(":")[0].strip("[]") or address
