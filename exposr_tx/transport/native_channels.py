"""The streams of one connection that speaks the native dialect."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail

from exposr_tx.errors import LocalProtocolError, StreamLimit, TunnelNotFound, UpstreamGone
from exposr_tx.interfaces import Origin
from exposr_tx.transport.native_stream import NativeStream
from exposr_tx.transport.openings import Opening
from exposr_tx.transport.streams import Streams
from exposr_tx.wire.native import (
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
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.transport.batch import Batch
    from exposr_tx.transport.connection import MessageConnection

__all__ = ["NativeChannels"]

#: What ingress calls a stream, where that is no kind of the dialect's.
_KINDS = frozenset({"http", "tcp", "tls"})


class NativeChannels(Streams):
    """The streams of a session that speaks the native dialect.

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
        #: Bytes that may be sent on a stream now.
        self.sendable = mux.sendable
        self.dispatch = {
            Attaching: self._attaching,
            Closed: self._closed,
            Credited: self._credited,
            Data: self._data,
            Ended: self._ended,
            GoingAway: self._going_away,
            Opened: self._opened,
        }

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Open a stream, which needs no answer: fires at once."""
        if self._left:
            return fail(UpstreamGone("the client is about to go"))
        if len(self._streams) >= self._max_streams:
            return fail(StreamLimit(f"{self._max_streams} streams are open"))
        kind = origin.kind if origin.kind in _KINDS else "tcp"
        try:
            channel, frame = self._mux.open(Metadata(kind, _address(origin.peer)))
        except LocalProtocolError as error:
            return fail(StreamLimit(str(error)))
        self._batch.send(frame)  # its first DATA follows
        stream = NativeStream(self, channel, origin)
        self._streams[channel] = stream
        self.streams_opened += 1
        opened: Deferred[IProtocol] = Deferred()
        Opening(factory, origin, opened).accepted(stream)
        return opened

    def close_all(self) -> None:
        for channel in self._streams:
            self._batch.send(self._mux.reset(channel, ResetCode.NO_ERROR))

    def end(self, reason: str) -> None:
        streams, self._streams = self._streams, {}
        self._end_streams(streams, reason)

    # What the peer says ----------------------------------------------------

    def _data(self, event: Data) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            self.bytes_in += len(event.data)
            stream.data_received(event.data)

    def _opened(self, event: Opened) -> None:
        metadata = event.metadata
        origin = None
        if metadata.peer is not None:
            host, port = metadata.peer
            kind = IPv6Address if ":" in host else IPv4Address
            origin = Origin(metadata.kind, kind("TCP", host, port))
        stream = NativeStream(self, event.channel, origin)
        crowded = len(self._streams) >= self._max_streams
        self._streams[event.channel] = stream
        if crowded:
            stream.fail(StreamLimit())
        elif not self._run(stream, stream.getPeer()):
            stream.fail(UpstreamGone())

    def _ended(self, event: Ended) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            stream.peer_ended()

    def _closed(self, event: Closed) -> None:
        stream = self._streams.pop(event.channel, None)
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

    def _attaching(self, event: Attaching) -> None:
        """Not served yet ("What this version serves")."""
        refused = self._mux.attachments.refused(event.attachment, TunnelNotFound.code)
        self._batch.send(refused)

    # What streams ask for --------------------------------------------------

    def send_data(self, channel: int, data: bytes) -> None:
        self.bytes_out += len(data)
        self._batch.send(self._mux.data_head(channel, len(data)), data)

    def send_end(self, channel: int) -> None:
        # What arrived in the same message may have reset the stream already.
        with suppress(LocalProtocolError):
            self._batch.send(self._mux.end(channel))

    def send_close(self, channel: int) -> None:
        stream = self._streams.pop(channel, None)
        if self._over or stream is None:
            return
        frame = self._mux.reset(channel, stream.code)
        if frame:
            self._batch.send(frame)
        self._fewer()

    def consumed(self, channel: int, size: int) -> None:
        """A protocol has taken bytes: the peer may get more credit."""
        frame = self._mux.consumed(channel, size)
        if frame:
            self._batch.send(frame)


def _address(peer: IAddress) -> tuple[str, int] | None:
    """An address that the peer will accept; what a proxy says may be anything."""
    if not isinstance(peer, (IPv4Address, IPv6Address)) or not 0 <= peer.port <= 65535:
        return None
    host = peer.host.partition("%")[0]
    try:
        inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):
        return None
    return host, peer.port
