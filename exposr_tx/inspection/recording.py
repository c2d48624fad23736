"""Reads the exchanges of one connection off the bytes that pass.

It stands beside the data path: the client's ``forward`` and ``exchanges`` tell each
piece of bytes as they pass it on, and nothing that is read here, or cannot be read,
changes what passes. Messages are measured by the parsers of ``wire.http1``, which is
what exchanges need to be told apart; the rest is left until somebody looks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from exposr_tx.errors import RemoteProtocolError
from exposr_tx.inspection.exchanges import (
    NO_BODY,
    Body,
    Exchange,
    Frame,
    Frames,
    RequestHead,
    ResponseHead,
    State,
    is_bare,
)
from exposr_tx.inspection.messages import MessageReader
from exposr_tx.wire.http1 import END, End, Event, Limits, Request, RequestParser, Response
from exposr_tx.wire.http1 import ResponseParser as Responses

if TYPE_CHECKING:
    from exposr_tx.inspection.recorder import Recorder

__all__ = ["CUT", "GONE", "MAX_WAITING", "UNASKED", "Recording"]

#: Servers add a few fields to heads that were within their limits.
LIMITS: Final = Limits(line=65536, head=65536, fields=300)
#: Requests on one connection that may wait for their responses.
MAX_WAITING: Final = 256
#: Bytes behind a request for an upgrade that are kept until its answer.
MAX_HELD: Final = 64 * 1024

GONE: Final = "the visitor left before the response had ended"
CUT: Final = "the target closed the connection before the response had ended"
UNASKED: Final = "the target sent what answers no request"


class Recording:
    """What passes by one connection to a target: exchanges, one after another.

    None of its methods raises.

    :ivar replayed: of a replay, its exchange once it has begun.
    """

    __slots__ = (
        "_begun",
        "_connected",
        "_connecting",
        "_held",
        "_incoming",
        "_outgoing",
        "_over",
        "_recorder",
        "_requests",
        "_responses",
        "_sending",
        "_waiting",
        "replay_of",
        "replayed",
        "target",
        "tunnel",
        "visitor",
    )

    def __init__(
        self, recorder: Recorder, tunnel: str, target: str, visitor: str, replay_of: str
    ) -> None:
        self.tunnel = tunnel
        self.target = target
        self.visitor = visitor
        self.replay_of = replay_of
        self.replayed: Exchange | None = None
        self._recorder = recorder
        self._connecting: float | None = recorder.seconds()
        self._connected: float | None = None
        self._over = False
        self._requests = RequestParser(LIMITS)
        self._responses = Responses()
        self._begun = 0.0  # when the first byte of a request came
        self._sending: Exchange | None = None  # whose request passes
        self._waiting: deque[Exchange] = deque()  # whose response has not ended, in order
        self._held = False  # what is behind an upgrade's request depends on its answer
        self._outgoing: MessageReader | None = None
        self._incoming: MessageReader | None = None

    def __repr__(self) -> str:
        state = "over" if self._over else "websocket" if self._incoming else "open"
        return f"<Recording {self.target} {state} {len(self._waiting)} running>"

    # What passes

    def connected(self) -> None:
        """The target is connected."""
        self._connected = self._recorder.seconds()
        if self._waiting and self._connecting is not None:
            self._tell_connecting(self._waiting[0])

    def sent(self, data: bytes) -> None:
        """Bytes go to the target."""
        if self._over:
            return
        try:
            if self._outgoing is not None:
                self._messages(self._outgoing, data, True)
            else:
                self._request_bytes(data)
        except RemoteProtocolError as error:
            self._unreadable(f"what was sent does not parse: {error}", data, True)
        except Exception:
            self._bug()

    def received(self, data: bytes) -> None:
        """Bytes come from the target."""
        if self._over:
            return
        try:
            if self._incoming is not None:
                self._messages(self._incoming, data, False)
            elif self._waiting:
                self._response_bytes(data)
            else:
                self._unreadable(UNASKED, data, False)
        except RemoteProtocolError as error:
            self._unreadable(f"the response does not parse: {error}", data, False)
        except Exception:
            self._bug()

    def ended(self, error: str = "") -> None:
        """The target's connection has ended, or could not be made.

        :param error: why, where that is not an end in good order.
        """
        if self._over:
            return
        try:
            if not error and self._waiting and self._incoming is None:
                self._response_events(self._responses.receive_eof())
                error = CUT if self._waiting else ""
        except RemoteProtocolError:
            error = CUT
        except Exception:
            self._bug()
            return
        if error and self._connected is None and not self._waiting:
            self._begun = self._recorder.seconds()
            self._new(b"", NO_BODY)
        self._end_all(error)

    def left(self) -> None:
        """The visitor's side has ended."""
        if not self._over:
            self._end_all("" if self._incoming is not None else GONE)

    # Requests

    def _request_bytes(self, data: bytes) -> None:
        parser = self._requests
        if self._held:
            if len(parser.rest) + len(data) > MAX_HELD:
                raise RemoteProtocolError("much is behind a request for an upgrade")
            parser.receive(data)
            return
        if self._sending is None and not parser.rest:
            self._begun = self._recorder.seconds()
            if is_bare(data):
                exchange = self._new(data, NO_BODY)
                exchange.requested = self._begun
                self._sending = None
                return
        lead = bytes(parser.rest)
        self._request_events(parser.receive(data), lead + data if lead else data)

    def _request_events(self, events: list[Event], data: bytes) -> None:
        """Go on with requests.

        :param data: what the events were read from, since the last request's end or event.
        """
        parser = self._requests
        while events or self._sending is not None:
            ended = False
            body_at = 0
            for event in events:
                if isinstance(event, bytes):
                    assert self._sending is not None
                    self._sending.request_body.add(event)
                elif isinstance(event, Request):
                    head = parser.head
                    # One empty line before a request is forgiven and no part of it.
                    body_at = len(head) + (2 if data[:2] == b"\r\n" else 0)
                    exchange = self._new(head, Body(self._recorder.max_body))
                    if event.length is None:
                        exchange.request_wire = Body(self._recorder.max_body)
                    self._held = event.websocket
                elif isinstance(event, End):
                    ended = True
                    assert self._sending is not None
                    self._sending.request_trailers = event.trailers
            sending = self._sending
            assert sending is not None
            if sending.request_wire is not sending.request_body:
                sending.request_wire.add(data[body_at : len(data) - len(parser.rest)])
            if not ended:
                return
            sending.requested = self._recorder.seconds()
            self._sending = None
            self._finish_if_whole(sending)
            if self._held:
                return
            data = bytes(parser.rest)
            if data:
                self._begun = self._recorder.seconds()
            events = parser.next_request()

    def _new(self, head: bytes, body: Body) -> Exchange:
        """An exchange, begun when its first byte came."""
        if len(self._waiting) >= MAX_WAITING:
            raise RemoteProtocolError(f"more than {MAX_WAITING} requests wait for responses")
        recorder = self._recorder
        exchange = Exchange(
            recorder.new_id(),
            self.tunnel,
            self.target,
            self.visitor,
            recorder.now() - (recorder.seconds() - self._begun),
            self._begun,
            RequestHead(head),
            body,
            Body(recorder.max_body),
            self.replay_of,
        )
        if self._connecting is not None:
            self._tell_connecting(exchange)
        self._sending = exchange
        self._waiting.append(exchange)
        if self.replay_of:
            self.replayed = exchange
        if head and len(self._waiting) == 1:
            self._responses.expect(head[: head.index(b" ")])
        self._recorder.tell(self._recorder.began, exchange)
        return exchange

    def _tell_connecting(self, exchange: Exchange) -> None:
        """The first exchange has had to wait for the connection."""
        exchange.connecting = self._connecting
        if self._connected is not None:
            exchange.connected = self._connected
            self._connecting = None

    # Responses

    def _response_bytes(self, data: bytes) -> None:
        exchange, responses, recorder = self._waiting[0], self._responses, self._recorder
        if exchange.answered is None:
            exchange.answered = recorder.seconds()
        events = responses.receive(data)
        if (
            len(events) == 3
            and events[2] is END
            and isinstance(body := events[1], bytes)
            and exchange.response is None
            and exchange.requested is not None
            and not (responses.rest or self._held)
        ):
            # A final response, all in one piece: what most are. Nobody is told that its head has
            # come, as it ends at once.
            exchange.response = ResponseHead(responses.head)
            exchange.response_body.add(body)
            exchange.ended = recorder.seconds()
            self._finish_if_whole(exchange)
            return
        self._response_events(events)
        if len(responses.rest) > LIMITS.head:
            raise RemoteProtocolError("much is behind its end")

    def _response_events(self, events: list[Event]) -> None:
        exchange = self._waiting[0]
        for event in events:
            if isinstance(event, bytes):
                exchange.response_body.add(event)
            elif isinstance(event, Response):
                self._response(exchange, event)
            elif isinstance(event, End):
                if self._incoming is not None:
                    return
                exchange.response_trailers = event.trailers
                exchange.ended = self._recorder.seconds()
                self._finish_if_whole(exchange)

    def _response(self, exchange: Exchange, response: Response) -> None:
        if response.status < 200 and response.status != 101:
            # Several may come in one piece: what was read is written anew.
            interim = ResponseHead(response.head(chunked=False, close=False))
            exchange.interim += (interim,)
            exchange.answered = None
            return
        if exchange.answered is None:
            exchange.answered = self._recorder.seconds()
        exchange.response = ResponseHead(self._responses.head)
        self._recorder.tell(self._recorder.changed, exchange)
        if response.status == 101:
            exchange.frames = Frames(self._recorder.max_body)
            self._outgoing, self._incoming = MessageReader(), MessageReader()
            before, behind = self._requests.take_rest(), self._responses.take_rest()
            if before:
                self._messages(self._outgoing, before, True)
            if behind:
                self._messages(self._incoming, behind, False)

    def _messages(self, reader: MessageReader, data: bytes, sent: bool) -> None:
        exchange = self._waiting[0]
        found = reader.receive(data)
        if not found:
            return
        moment = self._recorder.seconds()
        for opcode, text, size, compressed in found:
            exchange.frames.add(Frame(sent, opcode, text, size, moment, compressed))
        self._recorder.tell(self._recorder.changed, exchange)

    # Ends

    def _finish_if_whole(self, exchange: Exchange) -> None:
        """End an exchange when its request and its response have passed."""
        if exchange.requested is None or exchange.ended is None or self._waiting[0] is not exchange:
            return
        self._waiting.popleft()
        exchange.state = State.COMPLETE
        self._recorder.tell(self._recorder.ended, exchange)
        behind = self._responses.take_rest() if self._responses.rest else b""
        if self._waiting:
            method = self._waiting[0].request.method
            self._responses.expect(method.encode("latin-1"))
        if self._held:
            # It was no upgrade: what has come meanwhile is the next request.
            self._held = False
            data = bytes(self._requests.rest)
            if data:
                self._begun = self._recorder.seconds()
            self._request_events(self._requests.next_request(), data)
        if behind:
            self.received(behind)

    def _end_all(self, error: str) -> None:
        """End what is running; nothing is read any more."""
        self._over = True
        moment = self._recorder.seconds()
        while self._waiting:
            exchange = self._waiting.popleft()
            if exchange.ended is not None or not error:
                exchange.state = State.COMPLETE
            else:
                exchange.state, exchange.error = State.FAILED, error
            if exchange.ended is None:
                exchange.ended = moment
            self._recorder.tell(self._recorder.ended, exchange)

    def _unreadable(self, error: str, data: bytes, sent: bool) -> None:
        """What passes from here on cannot be told."""
        exchange = self._waiting[0] if self._waiting else None
        if exchange is None:
            self._begun = self._recorder.seconds()
            exchange = self._new(b"", Body(self._recorder.max_body))
            held = bytes(self._requests.rest) if sent else b""
            (exchange.request_body if sent else exchange.response_body).add(held + data)
        self._end_all(error)

    def _bug(self) -> None:
        """It is a fault of ours, of which what passes must not suffer."""
        self._recorder.log.failure("a recording failed")
        self._end_all("it could not be recorded")
