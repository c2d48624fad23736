"""The client's last hop: every stream of a tunnel is joined with a new connection to the target."""

from __future__ import annotations

from collections.abc import Callable
from errno import EMFILE, ENFILE
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.client.rewriting import RequestRewriter, Rules
from exposr_tx.errors import (
    ExposrError,
    RemoteProtocolError,
    StreamLimit,
    TargetFailed,
    TargetRefused,
    TargetReset,
)
from exposr_tx.interfaces import IReusable
from exposr_tx.splice import Side, Splice
from exposr_tx.transport.native_stream import NativeStream
from exposr_tx.transport.stream import Stream
from exposr_tx.transport.v2_stream import V2Stream

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocolFactory

    from exposr_tx.inspection.recording import Recording

__all__ = ["Forward"]

#: How often in a row, at the pace of ``gate.LOOK``, a v2 stream must have been still to be
#: taken for idle: a second.
STILL_LOOKS = 20


def _told(reason: Failure) -> ExposrError:
    """What the server is told of a target that cannot be connected."""
    if reason.check(ConnectionRefusedError):
        return TargetRefused("the target refuses connections")
    if getattr(reason.value, "osError", None) in (EMFILE, ENFILE):
        return StreamLimit("the client has no file descriptor left")
    return TargetFailed("the target cannot be reached")


@implementer(IHalfCloseableProtocol)
class HalfSide(Side):
    """A side whose transport may end one half alone."""


@implementer(IReusable)
class StreamSide(HalfSide):
    """A stream while its target is being connected, and afterwards.

    Side pauses the stream, so that what comes before the target is there
    waits where it comes from.
    """

    _connecting: Deferred[Any] | None = None
    _moved = -1
    _still = 0

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def connectionMade(self) -> None:
        super().connectionMade()
        # An endpoint asks what its protocol is before it connects.
        halves = isinstance(self.transport, NativeStream)
        self._connecting = self._forward.connect(self._targets(halves))
        self._connecting.addCallbacks(self._connected, self._failed)

    def _targets(self, halves: bool) -> Factory:
        return HALF_TARGETS if halves else TARGETS

    def _connected(self, target: Side) -> None:
        self._connecting = None
        self._forward.reached()
        # Only streams that speak v2 are asked how much has passed: see end_idle.
        counts = isinstance(self.transport, V2Stream)
        Splice(self, target, counts=counts, halves=True).start()

    def _failed(self, reason: Failure) -> None:
        self._connecting = None
        if self.alive:
            self._forward.failed(reason)
            if isinstance(self.transport, Stream):
                self.transport.fail(_told(reason))
            else:
                self.transport.abortConnection()

    def finish(self, reason: Failure) -> None:
        if self.alive and isinstance(self.transport, Stream) and not reason.check(ConnectionDone):
            self.transport.fail(TargetReset("the target's connection broke"))
        else:
            super().finish(reason)

    def end_idle(self) -> None:
        """See IReusable. A native server ends what is idle itself; one that speaks v2 is not told
        that we go, and nobody here knows where a request ends. So where nothing has moved for a
        while, nothing runs."""
        if self._peer is None or not isinstance(self.transport, V2Stream):
            return
        moved = self.received + self._peer.received
        self._still = self._still + 1 if moved == self._moved else 0
        self._moved = moved
        if self._still >= STILL_LOOKS:
            self.finish(connectionDone)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._connecting is not None:
            self._connecting.cancel()


class RewritingSide(StreamSide):
    """The same, where requests are rewritten on their way."""

    def __init__(self, forward: Forward, rewriter: RequestRewriter) -> None:
        super().__init__(forward)
        self._rewriter = rewriter

    def dataReceived(self, data: bytes) -> None:
        try:
            data = self._rewriter.receive(data)
        except RemoteProtocolError:
            self.transport.abortConnection()
            return
        if data:
            super().dataReceived(data)

    def straight_to(self, write: Callable[[bytes], None]) -> Callable[[bytes], None] | None:
        return None


class Targets(Factory):
    """Makes the other side of each splice."""

    noisy = False

    def __init__(self, protocol: type[Side]) -> None:
        self.protocol = protocol


TARGETS, HALF_TARGETS = Targets(Side), Targets(HalfSide)


def _through(
    record: Callable[[bytes], None], write: Callable[[bytes], None]
) -> Callable[[bytes], None]:
    def pass_on(data: bytes) -> None:
        record(data)
        write(data)

    return pass_on


class RecordedStreamSide(StreamSide):
    """A stream that is recorded, as the target gets it."""

    def __init__(self, forward: Forward, recording: Recording) -> None:
        super().__init__(forward)
        self.recording = recording

    def dataReceived(self, data: bytes) -> None:
        self.recording.sent(data)
        super().dataReceived(data)

    def straight_to(self, write: Callable[[bytes], None]) -> Callable[[bytes], None] | None:
        return _through(self.recording.sent, write)

    def _targets(self, halves: bool) -> Factory:
        return RecordedTargets(self.recording, halves)

    def _connected(self, target: Side) -> None:
        self.recording.connected()
        super()._connected(target)

    def _failed(self, reason: Failure) -> None:
        # Which request has failed is what its user wants to know; it waits in the stream.
        self.resumeProducing()
        self.recording.ended(f"cannot connect to the target: {reason.getErrorMessage()}")
        super()._failed(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.recording.left()
        super().connectionLost(reason)


class RecordedRewritingSide(RewritingSide, RecordedStreamSide):
    """The same of requests that are rewritten: as the target gets them."""

    def __init__(self, forward: Forward, rewriter: RequestRewriter, recording: Recording) -> None:
        RecordedStreamSide.__init__(self, forward, recording)
        self._rewriter = rewriter


class RecordedTarget(Side):
    """A target's side that is recorded."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def dataReceived(self, data: bytes) -> None:
        self._recording.received(data)
        super().dataReceived(data)

    def straight_to(self, write: Callable[[bytes], None]) -> Callable[[bytes], None] | None:
        return _through(self._recording.received, write)

    def readConnectionLost(self) -> None:
        self._recording.ended("")
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        broke = "" if reason.check(ConnectionDone) else reason.getErrorMessage()
        self._recording.ended(broke and f"the target's connection broke: {broke}")
        super().connectionLost(reason)


class RecordedTargets(Factory):
    """Makes the other side of a splice that is recorded."""

    noisy = False

    def __init__(self, recording: Recording, halves: bool) -> None:
        self._recording = recording
        self._halves = halves

    def buildProtocol(self, addr: object) -> RecordedTarget:
        target = RecordedTarget(self._recording)
        if self._halves:
            target.provide_halves()
        return target


class Forward(Factory):
    """Makes the protocols of streams that go to one target.

    :param connect: a target endpoint's; called once for each stream, so that
        its name is looked up each time.
    :param rules: how requests are rewritten, asked for each stream; None lets bytes pass.
    :param on_failure: told when the target cannot be connected, once until it can again.
    :param record: gives a stream's recording, by the address where the stream comes from; None
        where it is not to be recorded.
    """

    noisy = False

    def __init__(
        self,
        connect: Callable[[IProtocolFactory], Deferred[Any]],
        on_failure: Callable[[Failure], object],
        rules: Callable[[], Rules | None] = lambda: None,
        record: Callable[[str], Recording | None] | None = None,
    ) -> None:
        self.connect = connect
        self._rules = rules
        self._record = record
        self._on_failure = on_failure
        self._down = False

    def buildProtocol(self, addr: IAddress | None) -> StreamSide:
        rules = self._rules()
        rewriter = None if rules is None else RequestRewriter(rules)
        recording = None
        if self._record is not None:
            recording = self._record(getattr(addr, "host", ""))
        if recording is not None:
            if rewriter is not None:
                return RecordedRewritingSide(self, rewriter, recording)
            return RecordedStreamSide(self, recording)
        return StreamSide(self) if rewriter is None else RewritingSide(self, rewriter)

    def reached(self) -> None:
        self._down = False

    def failed(self, reason: Failure) -> None:
        if not self._down:
            self._down = True
            self._on_failure(reason)
