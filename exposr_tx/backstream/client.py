"""``backstream client``: keeps one connection to a server open and serves what comes by it.

Where the server is ours the native dialect carries streams, each joined with a
connection to the destination; a Go server sends JSON, and each message becomes an
exchange. A lost connection is made again until somebody ends the program; only
a server that answers 401 or 403 ends it too.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from string import punctuation
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from exposr_tx.backstream.answers import Answers
from exposr_tx.backstream.log import Log
from exposr_tx.backstream.options import ClientOptions
from exposr_tx.client.backoff import Backoff
from exposr_tx.client.exchanges import Destination, Exchanges
from exposr_tx.client.forward import Forward
from exposr_tx.client.gate import Gate
from exposr_tx.client.generation import Generation
from exposr_tx.client.named import Named
from exposr_tx.client.recording import recordings
from exposr_tx.client.rewriting import Rules
from exposr_tx.client.target import ascii_host, is_host, parse_target
from exposr_tx.client.trust import Trust
from exposr_tx.errors import ExposrError
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.recording import Recording
from exposr_tx.interfaces import CloseCode
from exposr_tx.transport.connection import Lost
from exposr_tx.transport.websocket import (
    ClientConnection,
    JsonConnection,
    UpgradeRefused,
    connect_backstream,
)
from exposr_tx.wire.backstream import RequestMessage
from exposr_tx.wire.native import MAX_STREAMS

__all__ = ["BackstreamClient"]

#: Seconds for a TCP connection to each of the server's addresses.
CONNECT_TIMEOUT: Final = 10.0
#: Statuses that say that the credentials on the line are wrong: who started it must change them.
REFUSALS: Final = (401, 403)
_WEBSOCKET: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def _websocket_url(source: SplitResult) -> str:
    """What is asked for: a name as DNS has it, and of path and query what may stand in a line."""
    host = source.hostname or ""
    authority = source.netloc
    if not authority.isascii():
        authority = ascii_host(host) + (f":{source.port}" if source.port else "")
    target = source.path + (f"?{source.query}" if source.query else "")
    return f"{_WEBSOCKET[source.scheme]}://{authority}{quote(target, safe=punctuation)}"


class _Lines:
    """What exchanges tell, in lines."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def asked(self, message: RequestMessage) -> None:
        self._log.debug("received message", id=message.id, path=message.path, method=message.method)

    def answering(self, message: RequestMessage, code: int) -> None:
        self._log.info(
            "sending response", id=message.id, code=code, path=message.path, method=message.method
        )

    def failed(self, message: RequestMessage, error: str) -> None:
        self._log.error("failed to send request to the destination", id=message.id, error=error)


class BackstreamClient:
    """One run of the command.

    :param random: the jitter's.
    :param recorder: told what passes between here and the destination.
    :raises UsageError: the server's URL names no host; BadInput: the destination's.
    :ivar connect: connects to the destination.
    :ivar stopped: whether it was asked to stop.
    """

    def __init__(
        self,
        reactor: Any,
        options: ClientOptions,
        log: Log,
        random: Random,
        recorder: Recorder | None = None,
    ) -> None:
        source = urlsplit(options["src"])
        if source.port == 0 or not is_host(source.hostname or ""):
            remedy = "must have a host's name or address, and a port from 1 to 65535 if any"
            raise options.error("src", remedy)
        secure = source.scheme in ("https", "wss")
        self._url = _websocket_url(source)
        self._reactor = reactor
        self._log = log
        self._random = random
        self._headers = list(options.headers)
        self._connections: set[Any] = set()
        self._exchanges: Exchanges | None = None  # of the connection, where it carries JSON
        self._waiting: Deferred[Any] | None = None
        self._down = ""
        self.stopped = False

        host = source.hostname or ""
        port = source.port or (443 if secure else 80)
        endpoint: Any = Named(reactor, host, port, timeout=CONNECT_TIMEOUT)
        if secure:
            trust = Trust(options["server-ca"], not options["insecure-server"])
            endpoint = trust.secured(endpoint, host)
        self._server = endpoint

        # Only what a connection needs: path and query of the destination are no part of it.
        there = urlsplit(options["dst"])
        target = parse_target(f"{there.scheme}://{there.netloc}")
        connector = target.endpoint(
            reactor, Trust(options["target-ca"], not options["insecure"], "--target-ca")
        )
        self.connect = connector.connect
        rules = Rules(
            there.scheme.encode(),
            target.authority.encode("ascii"),
            b"target",
            query=there.query.encode(),
        )

        def record(by: Recorder | None) -> Callable[[str], Recording | None] | None:
            return None if by is None else recordings(by, lambda: "", lambda: target)

        # Of what goes by messages, lines are written without it.
        self._record = record(recorder)
        if log.tells_all:
            answers = Answers(log)
            recorder = (
                recorder.telling_also(answers) if recorder else Recorder([answers], max_body=0)
            )
        self._gate = Gate(
            Forward(self.connect, self._destination_failed, lambda: rules, record(recorder))
        )
        self._destination = Destination(self.connect, target.authority, there.query)

    def __repr__(self) -> str:
        return f"<BackstreamClient {len(self._connections)} connections>"

    def start(self) -> Deferred[int]:
        """Connect, again and again; fires with the exit status."""
        return Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """End in good order: what SIGINT and SIGTERM ask for.

        Running requests have GRACE seconds; a Go server's are answered with 502 then.
        """
        if self.stopped:
            return
        self.stopped = True
        self._log.info("Quit signal received")
        self._gate.closed = True
        for connection in list(self._connections):
            if isinstance(connection, ClientConnection):
                connection.leave()
        Deferred.fromCoroutine(self._finish()).addErrback(self._bug)
        if self._waiting is not None:
            self._waiting.cancel()

    async def _finish(self) -> None:
        await self._gate.emptied(self._reactor, self._running)
        if self._exchanges is not None:
            self._exchanges.give_up()
        for connection in list(self._connections):
            connection.close()

    def _running(self) -> int:
        """Requests that are not answered, and streams."""
        streams = (c.streams for c in self._connections if isinstance(c, ClientConnection))
        return len(self._exchanges or ()) + sum(streams)

    def _bug(self, failure: Failure) -> None:
        self._log.error("failed to end in good order", error=failure.getErrorMessage())

    async def _run(self) -> int:
        backoff = Backoff(self._random)
        while not self.stopped:
            began = self._reactor.seconds()
            try:
                lost = await self._connected()
            except CancelledError:
                continue
            except UpgradeRefused as refused:
                if refused.http_status in REFUSALS:
                    self._log.error("failed to run app", error=str(refused))
                    return 1
                self._failed(refused)
            except Exception as error:  # whatever the endpoint fails with
                if self.stopped:
                    break  # with what it makes of being cancelled
                self._failed(error)
            else:
                if self.stopped:
                    break
                self._log.warn("connection to server is lost", url=self._url, error=lost.why)
            backoff.lasted(self._reactor.seconds() - began)
            try:
                await self._wait(deferLater(self._reactor, backoff.next(), lambda: None))
            except CancelledError:
                pass
        for connection in list(self._connections):
            await connection.lost
        return 0

    def _connect(self, make_reader: Callable[[JsonConnection], Any]) -> Deferred[Any]:
        return connect_backstream(
            self._server,
            self._url,
            self._gate,
            make_reader,
            self._reactor,
            self._headers,
            MAX_STREAMS,
        )

    async def _connected(self) -> Lost:
        """Connect; returns when the connection is lost, or the server is about to end it."""
        connection = await self._wait(self._connect(self._reader))
        self._down = ""
        self._connections.add(connection)
        self._log.info("connected to server", url=self._url)
        self._log.info("waiting for message")
        over: Deferred[Lost] = Deferred()

        def ended(lost: Lost) -> Lost:
            self._connections.discard(connection)
            if not over.called:
                over.callback(lost)
            return lost

        def leaving(_: None) -> None:
            # Its streams go on while there is another connection.
            if not over.called:
                over.callback(Lost(CloseCode.GOING_AWAY, "the server is going away", True))

        connection.lost.addCallback(ended)
        connection.leaving.addCallback(leaving)
        if self.stopped:
            connection.close()
        return await over

    async def _wait(self, deferred: Deferred[Any]) -> Any:
        """Await something that stopping cancels."""
        self._waiting = deferred
        try:
            return await deferred
        finally:
            self._waiting = None

    def _reader(self, connection: JsonConnection) -> Exchanges:
        newer = Generation(self._connect, self._reactor).is_newer
        lines = _Lines(self._log)
        self._exchanges = Exchanges(
            connection, self._destination, self._reactor, lines, newer, self._record
        )
        return self._exchanges

    def _failed(self, error: Exception) -> None:
        """Once for each kind of failure, not for each attempt."""
        text = str(error) or type(error).__name__
        if not isinstance(error, ExposrError):
            text = f"{type(error).__name__}: {text}"
        if text != self._down:
            self._down = text
            self._log.error("failed to connect to server, trying again", url=self._url, error=text)

    def _destination_failed(self, reason: Failure) -> None:
        self._log.error("failed to send request to the destination", error=reason.getErrorMessage())
