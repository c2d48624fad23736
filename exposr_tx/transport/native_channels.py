"""The streams of one connection that speaks the native dialect."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from exposr_tx.addresses import tcp_address, unwrapped
from exposr_tx.errors import LocalProtocolError, StreamLimit, TunnelNotFound, UpstreamGone
from exposr_tx.interfaces import Origin
from exposr_tx.interfaces import Tls as OriginTls
from exposr_tx.transport.native_stream import NativeStream
from exposr_tx.transport.openings import Opening
from exposr_tx.transport.streams import Streams
from exposr_tx.wire.native import (
    KINDS,
    Attaching,
    Closed,
    Credited,
    Data,
    Ended,
    GoingAway,
    Metadata,
    NativeMux,
    Opened,
    ResetCode,
    Tls,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.transport.batch import Batch
    from exposr_tx.transport.connection import MessageConnection
    from exposr_tx.wire.native import Flow

__all__ = ["NativeChannels"]


class NativeChannels(Streams):
    """The streams of a session that speaks the native dialect, for one tunnel or several.

    :param mux: numbers the streams, makes their frames and counts their credit.
    :param batch: takes the frames.
    :param going: called when the peer says that it will go.
    """

    def __init__(
        self,
        connection: MessageConnection,
        mux: NativeMux,
        batch: Batch,
        clock: IReactorTime,
        factory: IProtocolFactory | None,
        max_streams: int,
        fewer: Callable[[], None],
        going: Callable[[], None],
    ) -> None:
        super().__init__(connection, clock, factory, max_streams, fewer)
        self._mux = mux
        self._batch = batch
        self._going = going
        self._left = False
        self._streams: dict[int, NativeStream] = {}
        self._factories: dict[int, IProtocolFactory | None] = {0: factory}
        self._counts: dict[int, int] = {}  # streams of further tunnels
        # Straight to who does it, as nothing would be done in between.
        self.sendable = mux.sendable
        self.data_head = mux.data_head
        self.send = batch.send

    def __len__(self) -> int:
        return len(self._streams)

    def count(self, attachment: int) -> int:
        """How many of the streams are a tunnel's."""
        if attachment:
            return self._counts.get(attachment, 0)
        return len(self._streams) - sum(self._counts.values())

    def open(
        self, factory: IProtocolFactory, origin: Origin, attachment: int = 0
    ) -> Deferred[IProtocol]:
        """Open a stream, which needs no answer: fires at once."""
        if self._left or not self._mux.attachments.accepts(attachment):
            return fail(UpstreamGone("the client is about to go"))
        if len(self._streams) >= self._max_streams:
            return fail(StreamLimit(f"{self._max_streams} streams are open"))
        kind = origin.kind if origin.kind in KINDS else "tcp"
        try:
            channel, frame = self._mux.open(
                Metadata(
                    kind,
                    _address(origin.peer),
                    _address(origin.host),
                    None if origin.tls is None else Tls(origin.tls.sni, origin.tls.version),
                    attachment,
                )
            )
        except LocalProtocolError as error:
            return fail(StreamLimit(str(error)))
        self._batch.send(frame)  # its first DATA follows
        stream = NativeStream(self, channel, origin, attachment)
        self._add(channel, stream)
        self.streams_opened += 1
        opened: Deferred[IProtocol] = Deferred()
        Opening(factory, origin, opened).accepted(stream)
        return opened

    def close_all(self) -> None:
        for channel in self._streams:
            self._batch.send(self._mux.reset(channel, ResetCode.NO_ERROR))

    def end(self, reason: str) -> None:
        streams, self._streams = self._streams, {}
        self._counts.clear()
        self._end_streams(streams, reason)

    def _add(self, channel: int, stream: NativeStream) -> None:
        self._streams[channel] = stream
        if stream.attachment:
            self._counts[stream.attachment] = self._counts.get(stream.attachment, 0) + 1

    def _remove(self, channel: int) -> NativeStream | None:
        stream = self._streams.pop(channel, None)
        if stream is not None and stream.attachment:
            left = self._counts.pop(stream.attachment) - 1
            if left:
                self._counts[stream.attachment] = left
        return stream

    # Several tunnels -------------------------------------------------------

    def attach(self, tunnel_id: str, token: str, factory: IProtocolFactory) -> int:
        """Ask for a further tunnel; Attached or Refused tells the answer for this number.

        :param factory: builds the protocols of its streams.
        :raises LocalProtocolError: there can be no more on this connection.
        """
        attachment, frame = self._mux.attachments.attach(tunnel_id, token)
        self._factories[attachment] = factory
        self._batch.send(frame)
        return attachment

    def answer(self, attachment: int, error: str = "") -> int:
        """What the client asked for is attached, or refused with an error code; bytes sent."""
        attachments = self._mux.attachments
        frame = (
            attachments.refused(attachment, error) if error else attachments.attached(attachment)
        )
        self._batch.send(frame)
        return len(frame)

    def detach(self, attachment: int, code: int, reason: str) -> None:
        """No more streams for a tunnel; those that run go on."""
        self._factories.pop(attachment, None)
        if not self._over and self._mux.attachments.accepts(attachment):
            self._batch.send(self._mux.attachments.detach(attachment, code, reason))

    def cut(self, attachment: int, reason: str) -> None:
        """End a tunnel's streams at once."""
        failure = Failure(ConnectionLost(reason))
        for channel, stream in list(self._streams.items()):
            if stream.attachment == attachment:
                self._batch.send(self._mux.reset(channel, ResetCode.NO_ERROR, reason))
                self._remove(channel)
                stream.session_lost(failure)
        self._fewer()

    # What the peer says ----------------------------------------------------

    def _data(self, event: Data) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            stream.data_received(event.data)

    def _opened(self, event: Opened) -> None:
        metadata = event.metadata
        tls, peer = metadata.tls, metadata.peer
        origin = Origin(
            metadata.kind,
            self.get_peer() if peer is None else tcp_address(*peer),
            host=None if metadata.host is None else tcp_address(*metadata.host),
            tls=None if tls is None else OriginTls(tls.sni, tls.version),
        )
        try:
            stream = NativeStream(self, event.channel, origin, metadata.attachment)
        except LocalProtocolError:
            return  # its RESET came in the same message
        crowded = len(self._streams) >= self._max_streams
        self._add(event.channel, stream)
        factory = self._factories.get(metadata.attachment)
        if crowded:
            stream.fail(StreamLimit(f"{self._max_streams} streams are open"))
        elif not self._run(stream, factory, origin.peer):
            stream.fail(UpstreamGone("nobody takes streams any more"))

    def _ended(self, event: Ended) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            stream.peer_ended()

    def _closed(self, event: Closed) -> None:
        stream = self._remove(event.channel)
        if stream is not None:
            stream.peer_reset(event.code, event.reason)
            self._fewer()

    def _credited(self, event: Credited) -> None:
        if event.channel:
            stream = self._streams.get(event.channel)
            if stream is not None:
                stream.credited()
            return
        # Once in 8 MiB: to look at each costs nothing.
        for stream in list(self._streams.values()):
            stream.credited()

    def _going_away(self, event: GoingAway) -> None:
        self._left = True
        self._going()
        self.end_idle()

    def act(self, event: object) -> None:
        """About further tunnels, where the session's owner knows of none."""
        if isinstance(event, Attaching):
            self.answer(event.attachment, TunnelNotFound.code)

    # What streams ask for --------------------------------------------------

    def send_data(self, channel: int, data: bytes) -> None:
        self.send(self.data_head(channel, len(data)), data)

    def send_end(self, channel: int) -> None:
        # What arrived in the same message may have reset the stream already.
        with suppress(LocalProtocolError):
            self._batch.send(self._mux.end(channel))

    def send_close(self, channel: int) -> None:
        stream = self._remove(channel)
        if self._over or stream is None:
            return
        frame = self._mux.reset(channel, stream.code, stream.reason)
        if frame:
            self._batch.send(frame)
        self._fewer()

    def flow(self, channel: int) -> Flow:
        """A new stream's credit."""
        return self._mux.flow(channel)

    def consumed(self, channel: int, size: int) -> None:
        """A protocol has taken bytes that were kept for it: the peer may get more credit."""
        frame = self._mux.consumed(channel, size, self._clock.seconds())
        if frame:
            self.send(frame)

    def thrown_away(self, channel: int, size: int) -> None:
        """No protocol will take bytes that were kept for one. The peer may have ended the stream
        long before, and then nothing else would ever tell that they are gone."""
        if not self._over:
            self.consumed(channel, size)

    def grant(self, channel: int) -> None:
        """Half of a stream's window was taken as it came."""
        frame = self._mux.grant(channel, self._clock.seconds())
        if frame:
            self.send(frame)


NativeChannels.acts = {
    Closed: NativeChannels._closed,
    Credited: NativeChannels._credited,
    Data: NativeChannels._data,
    Ended: NativeChannels._ended,
    GoingAway: NativeChannels._going_away,
    Opened: NativeChannels._opened,
}


def _address(told: IAddress | None) -> tuple[str, int] | None:
    """An address that the peer will accept; what a proxy says may be anything."""
    if not isinstance(told, (IPv4Address, IPv6Address)) or not 0 <= told.port <= 65535:
        return None
    host = unwrapped(told.host.partition("%")[0])
    try:
        inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):
        return None
    return host, told.port
