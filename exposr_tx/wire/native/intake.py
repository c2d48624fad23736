"""What comes in on a connection of the native dialect: messages cut into frames, DATA handed on.

The receiving half of :class:`~exposr_tx.wire.native.mux.NativeMux`, and its fast path:
DATA is told here, with what it uses up of stream and connection; every other frame is
given to the mux when it is whole.

Source: docs/protocols/exposr-tx-1.md, "Messages and frames" and "Credit".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from exposr_tx.errors import RemoteProtocolError
from exposr_tx.wire.mux.events import Data, Reply
from exposr_tx.wire.native import frames
from exposr_tx.wire.native.events import Event
from exposr_tx.wire.native.flow import CONNECTION_WINDOW, Flow
from exposr_tx.wire.native.frames import DATA_LIMIT, HEAD_SIZE, MESSAGE_SIZE

__all__ = ["LOW_ROOM", "Intake"]

#: Credit of the connection is given anew when the peer has less than this.
LOW_ROOM: Final = CONNECTION_WINDOW // 2

_CONTROL: Final = 1 << 24  # heads below this number are DATA's, and are its length

_unpack_from = frames.unpack_head_from


class Intake:
    """The receiving half.

    :param max_held: see :class:`~exposr_tx.wire.native.mux.NativeMux`.
    """

    __slots__ = (
        "_body",
        "_channel",
        "_flows",
        "_head",
        "_kind",
        "_live",
        "_max_held",
        "_missing",
        "_room",
        "_size",
    )

    def __init__(self, max_held: int) -> None:
        self._max_held = max_held
        self._flows: dict[int, Flow] = {}
        self._room = CONNECTION_WINDOW  # bytes that the peer may send on all streams
        # The message that is being received, and the frame that is not complete:
        self._size = 0
        self._head = b""
        self._kind = 0
        self._channel = 0
        self._missing = 0
        self._body = b""
        self._live: Flow | None = None

    @property
    def held(self) -> int:
        """Bytes received that were not taken yet, on all streams. Added up here and not counted
        with each frame: it is asked for once in 8 MiB."""
        return sum([flow.held for flow in self._flows.values()])

    def _check_known(self, channel: int) -> None:
        """A stream that is not there must have been there ("Streams")."""
        raise NotImplementedError

    def _whole(self, kind: int, channel: int, payload: bytes, events: list[Event]) -> None:
        """A frame of another type than DATA, its payload of a size that the type allows."""
        raise NotImplementedError

    def receive(self, message: bytes) -> Sequence[Event]:
        """One whole message. DATA that is in order costs 0.9 µs a frame where many stand in
        a message, half of it for the event, and 1.1 µs alone in one (measured, CPython 3.11).

        :raises RemoteProtocolError: the websocket must be closed with 1002. What
            stood in the message before the fault is not told any more.
        """
        size = len(message) - HEAD_SIZE
        if 0 < size <= DATA_LIMIT:
            word, channel = _unpack_from(message)
            if word >= _CONTROL and word & 0xFFFFFF == size:  # alone
                events: list[Event] = []
                self._frame(word, channel, message[HEAD_SIZE:], events)
                return events
            flow = self._flows.get(channel)
            if word == size and flow is not None and size <= min(flow.room, self._room - LOW_ROOM):
                flow.room -= size
                flow.held += size
                self._room -= size
                return [Data(channel, message[HEAD_SIZE:])]
        self._size = 0
        several = self.message_data(message)
        if self._head or self._missing:
            self.message_end()
        return several

    def message_begin(self) -> None:
        """A message starts."""
        self._size = 0

    def message_end(self) -> Sequence[Event]:
        """The message is complete.

        :raises RemoteProtocolError: it ended inside a frame.
        """
        if self._head or self._missing:
            raise RemoteProtocolError("a message ends inside a frame")
        return ()

    def message_data(self, chunk: bytes) -> Sequence[Event]:
        """Some bytes of the message, or all of them. DATA is handed on as it comes.

        A piece that is all payload is handed on uncopied: 256 KiB of DATA cost 5 µs
        to be carried in pieces, 14 µs in one (measured, sending and credit included).

        :raises RemoteProtocolError: the websocket must be closed with 1002.
        """
        events: list[Event] = []
        end = len(chunk)
        self._size += end
        if self._size > MESSAGE_SIZE:
            raise RemoteProtocolError(f"a message has more than {MESSAGE_SIZE} bytes")
        pos = self._go_on(chunk, events) if self._missing or self._head else 0
        flows = self._flows
        append = events.append
        total = 0
        while (start := pos + HEAD_SIZE) <= end:
            word, channel = _unpack_from(chunk, pos)
            if word < _CONTROL:
                pos = start + word
                if pos > end:
                    pos = start - HEAD_SIZE
                    break
                total += word
                flow = flows.get(channel)
                if flow is None or not word or flow.room < word:
                    self._check_stray(channel, word, flow)
                    continue
                flow.room -= word
                flow.held += word
                append(Data(channel, chunk[start:pos]))
                continue
            pos = start + (word & 0xFFFFFF)
            if pos > end:
                pos = start - HEAD_SIZE
                break
            self._frame(word, channel, chunk[start:pos], events)
        if total:
            self._arrived(total, events)
        if pos < end:
            self._head = chunk[pos : pos + HEAD_SIZE]
            if end - pos >= HEAD_SIZE:
                self._begin(events)
                self._more(chunk[pos + HEAD_SIZE :], events)
        return events

    def _frame(self, word: int, channel: int, payload: bytes, events: list[Event]) -> None:
        """A whole frame that is no DATA; one of an unknown type is ignored."""
        sizes = frames.SIZES.get(word >> 24)
        if sizes is not None:
            if not sizes[0] <= len(payload) <= sizes[1]:
                raise _wrong_size(word)
            self._whole(word >> 24, channel, payload, events)

    def _go_on(self, chunk: bytes, events: list[Event]) -> int:
        """The rest of a frame; how many of the bytes are its."""
        pos = 0
        if self._head:
            pos = HEAD_SIZE - len(self._head)
            self._head += chunk[:pos]
            if len(self._head) < HEAD_SIZE:
                return len(chunk)
            self._begin(events)
        size = min(self._missing, len(chunk) - pos)
        if size:
            self._more(chunk if size == len(chunk) else chunk[pos : pos + size], events)
        return pos + size

    def _begin(self, events: list[Event]) -> None:
        """The head of a frame is there, its payload not yet."""
        word, channel = _unpack_from(self._head)
        self._head = b""
        kind, length = word >> 24, word & 0xFFFFFF
        if length > DATA_LIMIT:
            raise RemoteProtocolError(f"a frame has {length} bytes, more than a message may")
        self._kind, self._channel, self._missing = kind, channel, length
        self._body = b""
        self._live = None
        if kind == frames.DATA:
            flow = self._flows.get(channel)
            if flow is None or not length or flow.room < length:
                self._check_stray(channel, length, flow)
            else:
                flow.room -= length
                flow.held += length
                self._live = flow
            self._arrived(length, events)
        elif kind in frames.SIZES:
            least, most = frames.SIZES[kind]
            if not least <= length <= most:
                raise _wrong_size(word)
            if not length:
                self._whole(kind, channel, b"", events)

    def _more(self, piece: bytes, events: list[Event]) -> None:
        """Payload of the frame that is not complete."""
        self._missing -= len(piece)
        if self._kind == frames.DATA:
            # We may have reset the stream since the head came in.
            if piece and self._live is not None and self._flows.get(self._channel) is self._live:
                events.append(Data(self._channel, piece))
        elif self._kind in frames.SIZES:
            self._body += piece
            if not self._missing:
                self._whole(self._kind, self._channel, self._body, events)

    def _arrived(self, size: int, events: list[Event]) -> None:
        """DATA's bytes used up credit of the connection; give it anew ("Credit")."""
        self._room -= size
        if self._room < 0:
            raise RemoteProtocolError("DATA goes beyond the credit of the connection")
        if self._room < LOW_ROOM and (frame := self._refill()):
            events.append(Reply(frame))

    def _check_stray(self, channel: int, size: int, flow: Flow | None) -> None:
        """DATA that is not in order: it crossed a RESET, or is an error ("Streams")."""
        if not size:
            raise RemoteProtocolError(f"DATA without bytes on stream {channel}")
        if flow is None:
            self._check_known(channel)
        elif not flow.gone:
            why = "goes beyond the credit" if flow.receiving else "after END"
            raise RemoteProtocolError(f"DATA on stream {channel} {why}")

    def _refill(self) -> bytes:
        """CREDIT for the connection, unless the streams hold too much.

        Given for what has arrived, not for what was consumed: a stream's window bounds what
        it holds, and streams whose consumers have stopped must not stop the others.
        """
        if self.held > self._max_held:
            return b""
        size = CONNECTION_WINDOW - self._room
        self._room = CONNECTION_WINDOW
        return frames.credit(0, size)


def _wrong_size(word: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"a frame of type {word >> 24} has {word & 0xFFFFFF} bytes")
