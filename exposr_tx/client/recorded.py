"""A program's own protocols behind a tunnel, recorded: where :func:`~exposr_tx.client.listen` has
no target, the program is it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.inspection.recording import Recording

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol

__all__ = ["RecordedFactory"]


class RecordedProtocol(ProtocolWrapper):
    """Stands between a stream and the program's protocol, for which it is the transport."""

    def __init__(self, factory: Any, protocol: Any, recording: Recording) -> None:
        super().__init__(factory, protocol)
        self._recording = recording

    # Some programs exchange a transport's protocol.

    @property
    def protocol(self) -> Any:
        return self.wrappedProtocol

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        self.wrappedProtocol = protocol

    def makeConnection(self, transport: Any) -> None:
        self._recording.connected()
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._recording.sent(data)
        super().dataReceived(data)

    def write(self, data: bytes) -> None:
        self._recording.received(bytes(data))
        super().write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._recording.ended()
        super().loseConnection()

    def abortConnection(self) -> None:
        self._recording.ended("the program broke the connection off")
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._recording.left()
        super().connectionLost(reason)


@implementer(IProtocolFactory)
class RecordedFactory:
    """A factory whose protocols are recorded.

    :param record: gives a stream's recording, by the address where it comes from.
    """

    def __init__(
        self, factory: IProtocolFactory, record: Callable[[str], Recording | None]
    ) -> None:
        self._factory = factory
        self._record = record

    def __repr__(self) -> str:
        return f"<RecordedFactory {self._factory!r}>"

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type]
        recording = self._record(getattr(addr, "host", ""))
        if protocol is None or recording is None:
            return protocol
        return RecordedProtocol(self, protocol, recording)

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    # What a ProtocolWrapper tells its factory.

    def registerProtocol(self, protocol: ProtocolWrapper) -> None:
        """Nobody counts them."""

    def unregisterProtocol(self, protocol: ProtocolWrapper) -> None:
        """Nobody counts them."""
