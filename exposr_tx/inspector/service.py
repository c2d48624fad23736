"""The inspector of a program: what its tunnels record, the page, and where it is found."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from exposr_tx.errors import BadInput
from exposr_tx.inspection import MAX_BODY
from exposr_tx.inspection.exchanges import Watcher
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.redaction import Redaction
from exposr_tx.inspection.ring import Ring
from exposr_tx.inspector.address import Address
from exposr_tx.inspector.guard import Guard
from exposr_tx.inspector.replaying import Connect, Replayer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort

    from exposr_tx.inspector.site import InspectorSite

__all__ = ["PORT", "Inspector", "NoPort"]

#: Where users of such pages look for them.
PORT: Final = 4040
#: How many ports from there on are tried before any that is free will do.
TRIED: Final = 20
HOST: Final = "127.0.0.1"


class NoPort(BadInput):
    """The port that was asked for cannot be listened on."""


class _Late(Factory):
    """Makes a Site when somebody comes."""

    noisy = False

    def __init__(self, make: Callable[[], InspectorSite]) -> None:
        self._make = make
        self._site: InspectorSite | None = None

    def buildProtocol(self, addr: object) -> Any:
        if self._site is None:
            self._site = self._make()
        return self._site.buildProtocol(addr)

    def close(self) -> None:
        if self._site is not None:
            self._site.close()


class Inspector:
    """Shows what passes through the tunnels that record with it.

    :param port: None takes 4040 or, where that is taken, another one; 0 any.
    :param folder: where its address is left for ``exposr logs``; None leaves it nowhere.
    :param watchers: others who are told of each exchange, such as a folder of HAR files.
    :param max_body: bytes that are kept of each body.
    :param redaction: what is secret; the usual names unless given.
    :ivar recorder: to record with.
    """

    def __init__(
        self,
        reactor: Any,
        port: int | None = None,
        folder: Path | None = None,
        *,
        watchers: Sequence[Watcher] = (),
        max_body: int = MAX_BODY,
        redaction: Redaction | None = None,
    ) -> None:
        self.ring = Ring()
        self.recorder = Recorder([self.ring, *watchers], max_body=max_body)
        self._replayer = Replayer(self.recorder, reactor)
        self._reactor = reactor
        self._wanted = port
        self._folder = folder
        self._token = secrets.token_urlsafe(24)
        self._listening: IListeningPort | None = None
        self._redaction = Redaction() if redaction is None else redaction
        self._factory = _Late(self._site)
        self._path: Path | None = None

    def __repr__(self) -> str:
        return f"<Inspector {self.address or 'closed'} {self.ring!r}>"

    @property
    def address(self) -> str:
        """``http://127.0.0.1:PORT``; empty while it does not listen."""
        if self._listening is None:
            return ""
        host: Any = self._listening.getHost()
        return f"http://{HOST}:{host.port}"

    @property
    def url(self) -> str:
        """What its user opens. It holds the token, so it is for him alone."""
        return f"{self.address}/?token={self._token}"

    def _site(self) -> InspectorSite:
        # Only here: to load a web server takes a third of a second and 6 MB, which a client that
        # nobody looks at does without.
        from exposr_tx.inspector.site import InspectorSite  # noqa: PLC0415

        return InspectorSite(
            self.ring,
            Guard(self._token),
            self._replayer,
            self._redaction,
            self._reactor,
        )

    def add(self, tunnel: Callable[[], str], connect: Connect) -> Callable[[], None]:
        """See :meth:`Replayer.add`."""
        return self._replayer.add(tunnel, connect)

    def start(self) -> None:
        """Listen.

        :raises NoPort: the port is taken.
        """
        self._listening = self._listen()
        if self._folder is not None:
            address = Address(self.address, self._token, os.getpid())
            try:
                self._path = address.write(self._folder)
            except OSError:
                self._path = None  # exposr logs needs to be told the URL then

    def _listen(self) -> IListeningPort:
        if self._wanted is None:
            for port in range(PORT, PORT + TRIED):
                try:
                    return self._listen_at(port)
                except CannotListenError:
                    continue
        try:
            return self._listen_at(self._wanted or 0)
        except CannotListenError as error:
            raise NoPort(
                f"the inspector's port {self._wanted} cannot be listened on ({error.socketError}); "
                "give another one with --inspect-port, or 0 for any"
            ) from None

    def _listen_at(self, port: int) -> IListeningPort:
        listening: IListeningPort = self._reactor.listenTCP(port, self._factory, interface=HOST)
        return listening

    def close(self) -> None:
        """Listen no more, and end what goes on."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.stopListening()
        self._factory.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
