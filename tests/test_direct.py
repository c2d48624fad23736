"""Writing to a socket at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.direct import direct_writer, write_last, writer_of


class Socket:
    """A socket that takes a number of bytes at a time."""

    def __init__(self, room: int | None) -> None:
        self.room = room
        self.sent = b""

    def fileno(self) -> int:
        return 5

    def setblocking(self, flag: bool) -> None:
        """As a socket has it."""

    def send(self, data: bytes, flags: int = 0) -> int:
        if self.room is None:
            raise BlockingIOError
        self.sent += data[: self.room]
        return min(self.room, len(data))


class DirectTests(SynchronousTestCase):
    def connection(self, room: int | None) -> Any:
        connection: Any = Connection(Socket(room), None, MemoryReactor())  # type: ignore[arg-type]
        connection.connected = True
        return connection

    def test_what_fits(self) -> None:
        """An answer that fits into the socket is sent at once, and nothing waits."""
        connection = self.connection(100)
        writer_of(connection)(b"hello")
        self.assertEqual(connection.socket.sent, b"hello")
        self.assertEqual(connection._tempDataBuffer, [])

    def test_what_does_not_fit(self) -> None:
        """The rest waits in the transport, and what is written later waits behind it."""
        connection = self.connection(3)
        write = writer_of(connection)
        write(b"hello")
        write(b" world")
        self.assertEqual(connection.socket.sent, b"hel")
        connection.socket.room = 100
        connection.doWrite()
        self.assertEqual(connection.socket.sent, b"hello world")

    def test_what_comes_last(self) -> None:
        """The last bytes are all sent, whether they fit or not, and by any transport."""
        for room in (None, 3, 100):
            connection = self.connection(room)
            write_last(connection, b"hello")
            connection.socket.room = 100
            connection.doWrite()
            self.assertEqual(connection.socket.sent, b"hello")
        transport = StringTransport()
        write_last(transport, b"hello")
        self.assertEqual(transport.value(), b"hello")

    def test_bytearrays(self) -> None:
        """A bytearray arrives whole however little the socket takes, though Twisted refuses it."""
        for room in (None, 3):
            connection = self.connection(room)
            write = direct_writer(connection)
            assert write is not None
            write(bytearray(b"hello"))
            write(bytearray(b" world"))
            connection.socket.room = 100
            connection.doWrite()
            self.assertEqual(connection.socket.sent, b"hello world")
        self.assertIsNone(direct_writer(StringTransport()))

    def test_full_socket(self) -> None:
        """A full socket is the reactor's affair."""
        connection = self.connection(None)
        writer_of(connection)(b"hello")
        connection.socket.room = 100
        connection.doWrite()
        self.assertEqual(connection.socket.sent, b"hello")

    def test_other_transports(self) -> None:
        """TLS and transports that are no TCP connection are written to as ever."""
        connection = self.connection(100)
        connection.TLS = True
        connection.write = transport_write = StringTransport()
        connection.write = transport_write.write
        writer_of(connection)(b"tls")
        self.assertEqual(transport_write.value(), b"tls")
        self.assertEqual(connection.socket.sent, b"")
        transport = StringTransport()
        writer_of(transport)(b"hello")
        self.assertEqual(transport.value(), b"hello")
