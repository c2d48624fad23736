"""One client that takes JSON messages, as a way to the tunnel's target.

The client works on one request at a time and reads nothing meanwhile, not even
pings. So the next request waits, in the queue of all clients, where the first that is
free takes it; and no silence is ever taken for death.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from exposr_tx.addresses import host_port
from exposr_tx.errors import RemoteProtocolError, StreamLimit, UpstreamGone
from exposr_tx.interfaces import CloseCode, IUpstream, Origin
from exposr_tx.transport.backstream.exchange import Exchange
from exposr_tx.transport.connection import SHUTTING_DOWN
from exposr_tx.wire.backstream import Closing, Payload, Requests, ResponseMessage, UpgradeAnswer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime

__all__ = ["QUEUE", "TUNNEL", "JsonUpstream"]

#: What the one tunnel of a backstream server is called, in logs.
TUNNEL: Final = "backstream"
#: Requests that wait for one client, besides the one that it works on; more are 503. A platform
#: lets some hundred visitors at once come to one server, and with the Go server each of them waits.
QUEUE: Final = 256
#: Bytes of bodies, of both directions, that are held for one client: beyond it further bodies
#: are 503, and the client is asked nothing more until slow visitors have read their answers.
MAX_HELD: Final = 128 * 1024 * 1024
#: Bytes of messages about a websocket that come before the client says that it has it.
MAX_EARLY: Final = 4 * 1024 * 1024


class Messages(Protocol):
    """What carries a client's messages.

    :ivar has_room: whether more can be sent without waiting in memory.
    """

    @property
    def has_room(self) -> bool: ...

    def send_text(self, message: bytes) -> None:
        """Queue one text message."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye and drop the connection, within a second."""

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""


class Service(Protocol):
    """All clients of the server.

    :ivar waiting: whose requests are complete and were not sent yet, the oldest first.
    """

    waiting: deque[Exchange]

    def plug(self, upstream: IUpstream) -> object: ...

    def unplug(self, upstream: IUpstream, clean: bool) -> None: ...

    def hand_out(self) -> None:
        """Let clients that are free take what waits."""


@implementer(IUpstream)
class JsonUpstream:
    """One client that takes JSON messages.

    :param messages: carries them.
    :param clients: where it is in service.
    :param clock: for the turns of the reactor.
    :param peer: the client's address.
    :param on_message: told of every request that is sent: id, method and path.
    :param on_gone: called once when it is over, with why.

    :ivar accepting: False once it drains or is gone.
    :ivar held: bytes of bodies that are held.
    """

    tunnel_id = TUNNEL

    def __init__(
        self,
        messages: Messages,
        clients: Service,
        clock: IReactorTime,
        peer: IAddress,
        on_message: Callable[[str, str, str], object],
        on_gone: Callable[[JsonUpstream, str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.peer = peer
        self.accepting = True
        self.alive_at = int(now() * 1000)
        self._messages = messages
        self._clients = clients
        self._clock = clock
        self._on_message = on_message
        self._on_gone = on_gone
        self._now = now
        self._requests = Requests()
        self._asked: Exchange | None = None  # None too when its visitor has left
        self._streams: set[Exchange] = set()
        self._unanswered: set[Exchange] = set()
        self._websockets: dict[str, Exchange] = {}
        self._early: list[Payload | Closing] = []
        self._early_size = 0
        self.held = 0
        self._gone = False
        self._drained: list[Deferred[None]] = []

    def __repr__(self) -> str:
        state = "gone" if self._gone else "busy" if self._requests.pending else "idle"
        return f"<JsonUpstream {host_port(self.peer)} {state}, {len(self._streams)} streams>"

    @property
    def load(self) -> int:
        """Requests that are worked on, wait, or are being read; and one whose visitor has left,
        for the client does not know."""
        abandoned = bool(self._requests.pending) and self._asked is None
        return len(self._unanswered) + abandoned

    @property
    def streams(self) -> int:
        """Exchanges that have not ended."""
        return len(self._streams)

    @property
    def full(self) -> bool:
        """Whether no more bodies are to be held."""
        return self.held > MAX_HELD

    @property
    def has_websockets(self) -> bool | None:
        """Whether the client carries websockets, as newer ones do; None until it is known."""
        return self._requests.is_newer

    def start(self) -> None:
        """Enter service."""
        self._clients.plug(self)
        self.next()

    # IUpstream

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """A stream for one HTTP exchange; errbacks with StreamLimit or UpstreamGone."""
        if self._gone or not self.accepting:
            return fail(UpstreamGone("the client's connection is closed"))
        if self.load > QUEUE:
            return fail(StreamLimit(f"{QUEUE} requests wait for the client"))
        protocol = factory.buildProtocol(self.peer)
        if protocol is None:
            return fail(UpstreamGone("nobody wants the stream"))
        stream = Exchange(self, protocol, origin, self._clock)
        self._streams.add(stream)
        self._unanswered.add(stream)
        protocol.makeConnection(stream)
        return succeed(protocol)

    def probe(self) -> Deferred[bool]:
        """Whether it is connected: a busy client answers nothing, so it is not asked."""
        return succeed(not self._gone)

    def close(self, code: int, reason: str) -> None:
        """End the connection, and with 502 the requests that are on it."""
        if not self._gone:
            self._messages.close(code, reason)
            self.lost(reason or f"closed with {code}")

    def go_away(self) -> None:
        """There is no such message."""

    def drain(self) -> Deferred[None]:
        """Take no more requests; close after the last one."""
        self.accepting = False
        if self._gone:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        self._check_drained()
        return done

    def _check_drained(self) -> None:
        if self._drained and not self._streams and not self._gone:
            self.close(CloseCode.GOING_AWAY, SHUTTING_DOWN)

    # What streams ask for

    def ready(self, stream: Exchange) -> None:
        """A stream's request is complete."""
        self._clients.waiting.append(stream)
        self.next()
        if self._clients.waiting:
            self._clients.hand_out()

    def answered(self, stream: Exchange) -> None:
        """A stream needs the client no more: the visitor may read its answer slowly."""
        self._unanswered.discard(stream)

    def discard(self, stream: Exchange) -> None:
        """A stream has ended; its request is not sent if it was not."""
        if not stream.done and stream in self._clients.waiting:
            self._clients.waiting.remove(stream)
        if self._asked is stream:
            self._asked = None
        self.let_go(stream)
        self.next()

    def say(self, message: Payload | Closing) -> bool:
        """A visitor's websocket says something, or is over; returns whether there is room for
        more."""
        if isinstance(message, Closing):
            self._websockets.pop(message.id, None)
        if not self._gone:
            self._messages.send_text(message.encode())
        return self._messages.has_room

    def let_go(self, stream: Exchange) -> None:
        """A stream is another client's, or nobody's."""
        self._unanswered.discard(stream)
        self._streams.discard(stream)
        self._check_drained()

    def next(self) -> None:
        """Take the request that has waited longest, if there is one and the client is free.

        It may have been another client's, which is busy for longer than was thought."""
        waiting = self._clients.waiting
        if self._gone or self._requests.pending or not waiting or self.full:
            return
        stream = next(filter(self._can_take, waiting), None)
        if stream is None:
            return
        waiting.remove(stream)
        self._asked = stream
        message = stream.message()
        text = self._requests.ask(message, stream.is_websocket)
        self._streams.add(stream)
        self._unanswered.add(stream)
        stream.move(self)
        self._messages.send_text(text)
        self._on_message(message.id, message.method, message.path)

    def _can_take(self, stream: Exchange) -> bool:
        return not stream.is_websocket or self.has_websockets is not False

    # What the connection tells

    def message(self, data: bytes) -> None:
        """A message of the client's."""
        if self._gone:
            return
        self.alive_at = int(self._now() * 1000)
        try:
            said = self._requests.receive(data)
        except RemoteProtocolError as error:
            self.violated(str(error))
            return
        if isinstance(said, Payload | Closing):
            if said.id == self._requests.pending:
                self._keep(said, len(data))
            else:
                self._say_on(said)
        elif isinstance(said, bytes):
            if self._asked is not None:
                self._messages.send_text(said)
            else:
                self.skipped()
        elif isinstance(said, UpgradeAnswer):
            self._upgraded(said)
        else:
            self._answered(said)

    def _keep(self, message: Payload | Closing, size: int) -> None:
        # Go clients relay what a target says at once, and answer at the same time.
        self._early.append(message)
        self._early_size += size
        if self._early_size > MAX_EARLY:
            self.violated("too much is said of a websocket that is not there yet")

    def _say_on(self, message: Payload | Closing) -> None:
        stream = self._websockets.get(message.id)
        if stream is not None:
            if message.closing is not None:
                del self._websockets[message.id]
            stream.told(message)

    def _forget_early(self) -> list[Payload | Closing]:
        early, self._early, self._early_size = self._early, [], 0
        return early

    def _upgraded(self, answer: UpgradeAnswer) -> None:
        asked, self._asked = self._asked, None
        early = self._forget_early()
        if asked is not None and answer.accepted:
            self._websockets[answer.id] = asked
            asked.upgraded(answer)
            for message in early:
                self._say_on(message)
        elif asked is not None:
            asked.not_upgraded(502)
        elif answer.accepted:
            self.say(Closing(answer.id, CloseCode.GOING_AWAY))
        self.next()

    def _answered(self, response: ResponseMessage) -> None:
        asked, self._asked = self._asked, None
        self._forget_early()
        if asked is not None and asked.is_websocket:
            asked.not_upgraded(501)
        elif asked is not None and response.is_answer and response.is_writable:
            asked.answered(response)
        elif asked is not None:
            asked.broken()
        if not response.is_answer:
            self.violated(f"an answer has the code {response.code}")
            return
        self.next()

    def room(self) -> None:
        """What waited to be sent is gone."""
        for stream in list(self._websockets.values()):
            stream.room()

    def too_long(self) -> bool:
        """A message is longer than may be. Whether it is an answer: then its visitor is told, and
        the client goes on once it has said it all."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.broken()
        return bool(self._requests.pending)

    def skipped(self) -> None:
        """An answer that was too long is over, or there will be none."""
        self._requests.skip()
        self.next()

    def violated(self, reason: str, code: int = CloseCode.PROTOCOL_ERROR) -> None:
        """The client breaks the protocol: nobody but it loses anything that was not lost."""
        if not self._gone:
            self._messages.close(code, reason)
            self.lost(reason)

    def lost(self, reason: str) -> None:
        """The connection is over."""
        if self._gone:
            return
        self._gone = True
        self._forget_early()
        self.accepting = False
        self._clients.unplug(self, clean=False)
        waiting = set(self._clients.waiting)
        asked, self._asked = self._asked, None
        websockets = self._websockets.values()
        for stream in list(self._streams):
            if stream is asked or stream in websockets:
                stream.broken()
            elif stream not in waiting and not stream.done:
                stream.not_asked()
        self._clients.hand_out()
        drained, self._drained = self._drained, []
        for done in drained:
            done.callback(None)
        self._on_gone(self, reason)
