"""Rounds: all connections that have something to read, seen to without the reactor's dispatch.

The reactor watches one descriptor, an ``epoll`` of our own, and that one watches the
sockets of visitors, clients and targets. One look at all of them is a round; what a
round makes for one connection can go out together at its end.

Measured with 64 kept-alive connections: the reactor wraps each event in a logging
context and four calls, 8 µs, which here are one call; a ``callLater`` for the end of the
turn costs 6 µs, which here is a place in a list.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = [
    "FIRST_SIZE",
    "READ_SIZE",
    "Reader",
    "Rounds",
    "rounds_of",
]

#: Bytes read at once. Twisted's 64 KiB mean four times the calls, frames and wake-ups for a large
#: body: a gigabyte through the tunnel costs a third more CPU.
READ_SIZE: Final = 256 * 1024
#: Bytes of a connection's first read, of which nobody knows yet how dear it is: of chunks of one
#: byte READ_SIZE took 0.1 to 0.4 s, and each new connection had its first read.
FIRST_SIZE: Final = 32 * 1024
#: Bytes read at once where they are dear: who sends nothing but pings, or ATTACH after ATTACH, has
#: seconds of our time in READ_SIZE bytes, and others had to wait for them in each round.
DEAR_SIZE: Final = 4096
#: Seconds of CPU that one read may bring, as far as the one before it tells.
DEAR: Final = 0.005
#: Connections read in one round: what the first of them made does not wait long for the last. Of 64
#: that are busy, rounds of 16 cost 8 % more CPU a request, and of 64 the other end waits for work.
ROUND: Final = 32
#: Rounds before the reactor has its turn with everything else.
ROUNDS: Final = 4

_log = Logger()


class Reader:
    """A connection that is read in rounds.

    Stands in for its transport's ``startReading`` and ``stopReading``, by which back pressure
    and the transport's end are told.
    """

    __slots__ = ("_rounds", "fd", "most", "reading", "receive", "recv", "transport")

    def __init__(
        self, rounds: Rounds, transport: Any, fd: int, receive: Callable[[bytes], object]
    ) -> None:
        self.transport = transport
        self.recv = transport.socket.recv
        self.receive = receive
        self.most = FIRST_SIZE
        self.reading = False
        self._rounds = rounds
        self.fd = fd

    def start(self) -> None:
        """Watch the connection."""
        if not self.reading and not self.transport.disconnected:
            self._rounds.watch(self)
            self.reading = True

    def stop(self) -> None:
        """Watch it no more, for now or for ever."""
        if self.reading:
            self.reading = False
            self._rounds.unwatch(self.fd)
        if self.transport.disconnected:
            # Nothing shall lead from the transport to itself: it would wait for the collector.
            self._rounds.forget(self.fd)
            for name in ("startReading", "stopReading", "_reader"):
                vars(self.transport).pop(name, None)

    def receive_much(self, data: bytes) -> None:
        """Receive what may be dear, and see how much that may be the next time.

        Measured beside peers that flood their connections with small frames: a request to another
        tunnel takes 20 to 60 ms, where it took 0.4 to 2 s.
        """
        spent = self._rounds.spent
        began = spent()
        self.receive(data)
        share = DEAR / max(spent() - began, 1e-6)
        self.most = min(READ_SIZE, max(DEAR_SIZE, int(len(data) * share)))

    def ended(self) -> None:
        """The peer sends no more."""
        self.stop()
        self.transport.readConnectionLost(connectionDone)

    def broken(self, reason: BaseException) -> None:
        """The connection, or who receives from it, has failed."""
        self.stop()
        self.transport.connectionLost(Failure(reason))


@implementer(IReadDescriptor)
class Rounds:
    """The connections of one reactor that are read in rounds.

    :param reactor: watches our descriptor; where it cannot, or the platform has no ``epoll``,
        there are no rounds, and connections are read as ever.
    :param spent: seconds of CPU that this thread has used.

    :ivar possible: whether there are.
    """

    def __init__(self, reactor: Any, spent: Callable[[], float] = time.thread_time) -> None:
        self._reactor = ref(reactor)
        self.spent = spent
        self.possible = IReactorFDSet.providedBy(reactor) and hasattr(select, "epoll")
        self._epoll: select.epoll | None = None
        self._readers: dict[int, Reader] = {}
        self._watched = 0
        self._running = False
        self._ends: list[Callable[[], object]] = []
        self._leading = -1
        self._others: Callable[[], object] = list

    def __repr__(self) -> str:
        return f"<Rounds {self._watched} of {len(self._readers)} connections read>"

    def read(self, transport: Any, receive: Callable[[bytes], object]) -> bool:
        """Read a connection from now on, one that is being read; again to hand it over.

        :return: False where it is no plain TCP connection of Twisted's: nothing has changed.
        """
        if not self.possible or not isinstance(transport, Connection) or transport.TLS:
            return False
        fd = transport.fileno()
        known = self._readers.get(fd)
        if known is not None and known.transport is transport:
            known.receive = receive
            return True
        self.take(Reader(self, transport, fd, receive))
        return True

    def take(self, reader: Reader) -> None:
        """Read from now on what the reactor has read until now."""
        transport = reader.transport
        transport.stopReading()
        vars(transport)["startReading"] = reader.start
        vars(transport)["stopReading"] = reader.stop
        reader.start()

    def at_end(self, call: Callable[[], object]) -> None:
        """Call when the round is over; outside of one, in the reactor's next turn."""
        if not self._running and not self._ends:
            reactor = self._reactor()
            assert reactor is not None
            reactor.callLater(0, self._end)
        self._ends.append(call)

    def lead(self, fd: int, others: Callable[[], object]) -> None:
        """No longer be watched by the reactor: :meth:`round` is called instead of its own poll.

        :param fd: the reactor's own poll.
        :param others: called when something is to be done there.
        """
        if self._watched:
            self._attach(False)
        self._leading, self._others = fd, others
        self._poll().register(fd, select.EPOLLIN)

    # What readers ask for --------------------------------------------------

    def watch(self, reader: Reader) -> None:
        self._readers[reader.fd] = reader
        self._poll().register(reader.fd, select.EPOLLIN)
        self._watched += 1
        if self._watched == 1:
            self._attach(True)

    def unwatch(self, fd: int) -> None:
        assert self._epoll is not None
        self._epoll.unregister(fd)
        self._one_less()

    def leave(self, transport: Any) -> bool:
        """Read a connection no more that is closed when the round is over: the system stops
        watching it then.

        :return: False where it is not read in rounds: nothing has changed.
        """
        reader = self._readers.get(transport.fileno())
        if reader is None or reader.transport is not transport:
            return False
        if reader.reading:
            reader.reading = False
            self._one_less()
        return True

    def _one_less(self) -> None:
        self._watched -= 1
        if not self._watched:
            self._attach(False)

    def forget(self, fd: int) -> None:
        self._readers.pop(fd, None)

    def _poll(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
        return self._epoll

    def _attach(self, watched: bool) -> None:
        # Without connections nothing of ours is left in the reactor.
        reactor = self._reactor()
        if reactor is not None and self._leading < 0:
            (reactor.addReader if watched else reactor.removeReader)(self)

    # IReadDescriptor -------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "rounds"

    def doRead(self) -> None:
        for _ in range(ROUNDS):
            if self.round(0) < ROUND:
                break

    def round(self, timeout: float) -> int:
        """Read the connections that are ready, and end the round; how many there were.

        :param timeout: how long to wait for the first one, in seconds; -1: for ever.
        """
        assert self._epoll is not None
        readers = self._readers
        ready = self._epoll.poll(timeout, ROUND)
        self._running = True
        for fd, _ in ready:
            reader = readers.get(fd)
            if reader is None or not reader.reading:
                if fd == self._leading:
                    self._others()
                continue  # something before it in this round has closed or paused it
            try:
                recv, receive = reader.recv, reader.receive
                try:
                    data = recv(reader.most)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError:
                    reader.broken(ConnectionLost())
                    continue
                if not data:
                    reader.ended()
                elif len(data) < DEAR_SIZE:
                    receive(data)
                else:
                    reader.receive_much(data)
            except Exception as error:
                self._failed(reader, error)
        self._running = False
        if self._ends:
            self._end()
        return len(ready)

    def _end(self) -> None:
        while self._ends:
            ends, self._ends = self._ends, []
            for call in ends:
                try:
                    call()
                except Exception:
                    _log.failure("the end of a round failed")

    def _failed(self, reader: Reader, error: Exception) -> None:
        """As the reactor does when a protocol fails: that one connection ends, and nothing else."""
        _log.failure("a protocol failed on received data")
        try:
            reader.broken(error)
        except Exception:
            _log.failure("a connection failed to end")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops: it no longer knows the connections themselves."""
        for reader in list(self._readers.values()):
            reader.broken(ConnectionLost())


_rounds: WeakKeyDictionary[Any, Rounds] = WeakKeyDictionary()


def rounds_of(reactor: Any) -> Rounds:
    """The rounds of a reactor. It has one, as it has one poll: everybody's frames for a
    connection are to end up in the same message."""
    rounds = _rounds.get(reactor)
    if rounds is None:
        rounds = _rounds[reactor] = Rounds(reactor)
    return rounds
