"""The server as a Twisted service: listening, saying so, signals, and the end.

:class:`ServerService` is what ``twistd`` runs. It opens the doors first, as only
then the ports are known, has the rooms built for them, and stops in the order
of :mod:`exposr_tx.draining`.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from zope.interface import implementer

from exposr_tx.addresses import host_port
from exposr_tx.arrivals import accept_in_rounds
from exposr_tx.draining import Draining
from exposr_tx.errors import ExposrError
from exposr_tx.lead import lead
from exposr_tx.logs import LogOutput

__all__ = [
    "Building",
    "Door",
    "ServerService",
    "check_pid_file",
    "close_all",
    "outlive_hang_ups",
    "tcp_door",
]

#: Connections that may wait to be accepted; the system's own limit is often lower.
BACKLOG: Final = 1024
#: How often the accept queue is emptied before a door is closed: 1,000 at a time.
EMPTYINGS: Final = 8
#: Endpoint strings that speak TLS, behind a balancer's PROXY line or not.
_TLS: Final = re.compile(r"(haproxy:)*ssl:")


@implementer(IProtocolNegotiationFactory)
class _Threshold(Factory):
    """Stands at a port until the rooms behind it are built, and counts who comes in.

    Where the port speaks TLS it says which protocol is spoken in it: browsers and curl offer some
    by ALPN, and Twisted would turn away whoever offers any where nobody has named one.
    """

    noisy = False

    def __init__(self) -> None:
        self.room: IProtocolFactory | None = None
        self.entered = 0

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.entered += 1
        return None if self.room is None else self.room.buildProtocol(addr)  # type: ignore[arg-type]


@dataclass(slots=True)
class Door:
    """A place to listen.

    :ivar roles: what is answered there: ``api``, ``ingress``, ``admin``.
    :ivar endpoints: endpoint strings to try; the next one only where the one
        before cannot be had on this machine at all.
    :ivar source: what the endpoint strings were given by, for errors.
    """

    roles: tuple[str, ...]
    endpoints: tuple[str, ...]
    source: str = "--listen"
    threshold: _Threshold = field(default_factory=_Threshold)
    port: IListeningPort | None = None

    async def open(self, reactor: Any) -> None:
        """Listen. Raises CannotListenError, or ValueError for a bad endpoint string."""
        for endpoint in self.endpoints:
            try:
                self.port = await serverFromString(reactor, endpoint).listen(self.threshold)
                accept_in_rounds(self.port)
                return
            except CannotListenError as problem:
                absent = getattr(problem.socketError, "errno", None) in (
                    errno.EAFNOSUPPORT,
                    errno.EADDRNOTAVAIL,
                )
                if endpoint == self.endpoints[-1] or not absent:
                    raise

    def close(self) -> Deferred[Any] | None:
        """Take in who has connected already, then stop listening."""
        port, self.port = self.port, None
        if port is None:
            return None
        if hasattr(port, "doRead"):
            for _ in range(EMPTYINGS):
                entered = self.threshold.entered
                port.numberAccepts = 1000  # type: ignore[attr-defined]
                port.doRead()
                if entered == self.threshold.entered:
                    break
        stopped: Deferred[Any] | None = port.stopListening()
        return stopped

    @property
    def address(self) -> str:
        """Where it listens: ``[::]:8080``, or a path."""
        assert self.port is not None
        where = self.port.getHost()
        if isinstance(where, (IPv4Address, IPv6Address)):
            return host_port(where)
        name = where.name if isinstance(where, UNIXAddress) else str(where)
        return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)

    @property
    def number(self) -> int | None:
        """The TCP port; None where it is something else."""
        where = self.port.getHost() if self.port is not None else None
        return where.port if isinstance(where, (IPv4Address, IPv6Address)) else None

    @property
    def scheme(self) -> str:
        """``https`` where the endpoint speaks TLS itself, else ``http``."""
        return "https" if _TLS.match(self.endpoints[-1]) else "http"

    @property
    def url(self) -> str:
        """How it is reached from this machine."""
        assert self.port is not None
        where = self.port.getHost()
        if not isinstance(where, (IPv4Address, IPv6Address)):
            return f"unix:{self.address}"
        host = "127.0.0.1" if where.host in ("::", "0.0.0.0", "") else where.host
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{where.port}"


def outlive_hang_ups() -> None:
    """From now on SIGHUP does not end the process, which reads everything just now anyway; what
    it asks for is done once the server has its own handler. (Not ignored: programs that this one
    starts would be born so.)"""
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)


def close_all(doors: Iterable[Door]) -> Deferred[Any]:
    """Close doors; fires when they are closed."""
    closing = [door.close() for door in doors]
    return DeferredList([d for d in closing if d is not None], consumeErrors=True)


def tcp_door(roles: tuple[str, ...], port: int, interface: str = "::") -> Door:
    """A door at a TCP port; ``::`` takes IPv4 as well, and is IPv4 alone where IPv6 is off."""

    def endpoint(kind: str, address: str) -> str:
        return f"{kind}:{port}:interface={quoteStringArgument(address)}:backlog={BACKLOG}"

    if interface == "::":
        return Door(roles, (endpoint("tcp6", "::"), endpoint("tcp", "0.0.0.0")))
    return Door(roles, (endpoint("tcp6" if ":" in interface else "tcp", interface),))


class Building(Protocol):
    """The rooms of one server, behind its doors."""

    draining: Draining

    def room(self, roles: tuple[str, ...]) -> IProtocolFactory:
        """What answers at a door with these roles."""

    async def open(self) -> None:
        """Begin; raises ExposrError."""

    def reload(self) -> None:
        """Read anew what SIGHUP asks to be read anew."""

    async def close(self) -> None:
        """Let go of everything; connections have ended."""


class ServerService(Service):
    """The server.

    :param doors: where to listen.
    :param build: makes the rooms once the doors are open.
    :param output: where the log goes; ``observer`` makes its lines.
    :param warnings: lines for the log, from reading the options.
    :param ready_file: a path for the addresses, or None.
    :param pid_file: what ``twistd`` wrote, to be removed when starting fails.
    :param set_signal: ``signal.signal``.
    :param program: what stands before an error's line.
    :param background: whether twistd has left its terminal.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        doors: Sequence[Door],
        build: Callable[[Sequence[Door]], Building],
        output: LogOutput,
        observer: ILogObserver | None,
        warnings: Sequence[str] = (),
        ready_file: str | None = None,
        pid_file: str = "",
        set_signal: Callable[[int, Callable[[int, Any], None]], object] = signal.signal,
        program: str = "twistd exposr",
        background: bool = False,
    ) -> None:
        self._program = program
        self._background = background
        self._reactor = reactor
        self._doors = doors
        self._build = build
        self._output = output
        self._observer = observer
        self._warnings = warnings
        self._ready_file = ready_file
        self._pid_file = pid_file
        self._set_signal = set_signal
        self._building: Building | None = None
        self._opening: Deferred[None] = succeed(None)
        self._failed = False
        self._failure: Exception = ExposrError()
        self._stopping = False

    def setServiceParent(self, parent: Any) -> None:
        """Under ``twistd`` our observer becomes the application's: every line is in our format."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)

    # Starting

    def privilegedStartService(self) -> None:
        """Open the doors, before twistd gives up the right to low ports."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._set_signal(signal.SIGHUP, self._hang_up)
        # Endpoints answer at once; what they cannot do is known before the reactor runs.
        opening = Deferred.fromCoroutine(self._open_doors())
        opening.addErrback(self._fail)
        if self._failed:
            if self._pid_file:
                with suppress(OSError):
                    os.unlink(self._pid_file)
            if self._background:
                # The process at the terminal waits to be told; twistd tells it of Exceptions.
                raise self._failure
            raise SystemExit(1)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._output.start()
        self._reactor.callWhenRunning(self._begin)

    async def _open_doors(self) -> None:
        self._remove_ready_file()
        for door in self._doors:
            try:
                await door.open(self._reactor)
            except CannotListenError as problem:
                why = problem.socketError
                low = getattr(why, "errno", 0) == errno.EACCES
                remedy = "run it with CAP_NET_BIND_SERVICE" if low else "free it"
                raise ExposrError(
                    f"cannot listen on {problem.interface or 'any address'} port {problem.port}: "
                    f"{getattr(why, 'strerror', why)}; {remedy}, or choose another one"
                ) from None
            except ValueError as problem:
                raise ExposrError(
                    f"{door.source} {door.endpoints[0]!r}: {problem}; "
                    "write an endpoint like tcp:8080:interface=127.0.0.1"
                ) from None
            except Exception as problem:
                # Whatever the parser of a kind of endpoint comes upon: a file that is not
                # there, one that holds no key, a word that the kind does not know.
                raise ExposrError(
                    f"{door.source} {door.endpoints[0]!r}: {type(problem).__name__}: {problem}; "
                    "correct the endpoint's arguments, or the files that they name"
                ) from None
        self._building = self._build(self._doors)
        for door in self._doors:
            door.threshold.room = self._building.room(door.roles)

    def _begin(self) -> None:
        lead(self._reactor)
        # Twisted has set its own handlers just now; those would end the process
        # with the signal's status (143) instead of 0.
        self._set_signal(signal.SIGTERM, self._terminate)
        self._set_signal(signal.SIGINT, self._terminate)
        self._opening = Deferred.fromCoroutine(self._open_building()).addErrback(self._fail)

    async def _open_building(self) -> None:
        assert self._building is not None
        for line in self._warnings:
            self.log.warn("{line}", event="option", line=line)
        await self._building.open()
        for door in self._doors:
            self.log.info(
                "listening on {address} for {role}",
                event="listening",
                role=",".join(door.roles),
                address=door.address,
            )
        self._write_ready_file()
        self.log.info("exposr_tx is ready", event="ready")

    def _write_ready_file(self) -> None:
        if self._ready_file is None:
            return
        # Where several doors are for the same, the first: by that the public URLs go, too.
        roles = ((role, door) for door in reversed(self._doors) for role in door.roles)
        ready: dict[str, Any] = {role: door.url for role, door in roles}
        ready["listening"] = [
            {"role": role, "address": door.address} for door in self._doors for role in door.roles
        ]
        beside = f"{self._ready_file}.{os.getpid()}"
        try:
            with open(beside, "w", encoding="utf-8") as file:
                json.dump(ready, file)
            os.replace(beside, self._ready_file)
        except OSError as problem:
            with suppress(OSError):
                os.unlink(beside)
            raise self._no_ready_file(problem) from None

    def _remove_ready_file(self) -> None:
        """One that an earlier run has left would tell lies."""
        if self._ready_file is None:
            return
        try:
            os.unlink(self._ready_file)
        except FileNotFoundError:
            pass
        except OSError as problem:
            raise self._no_ready_file(problem) from None

    def _no_ready_file(self, problem: OSError) -> ExposrError:
        return ExposrError(
            f"--ready-file {self._ready_file!r}: cannot be written: {problem.strerror}; "
            "name a file in a folder that exists and that may be written to"
        )

    def _fail(self, failure: Any) -> None:
        """One line on standard error, and status 1."""
        problem = failure.value
        if self._stopping and failure.check(CancelledError):
            return  # told to stop before it had started
        if not isinstance(problem, (ExposrError, OSError)):
            self.log.failure("the server cannot start", failure, event="start")
        # twistd has replaced sys.stderr by its log.
        print(f"{self._program}: {problem}", file=sys.__stderr__, flush=True)
        self._failed = True
        self._failure = problem
        close_all(self._doors)
        if self._reactor.running:
            # twistd has no way to say that it failed while running: the last
            # thing that happens, after its own cleaning up, sets the status.
            atexit.register(os._exit, 1)
            self._reactor.stop()

    # Stopping

    def stopService(self) -> Deferred[None]:
        """End everything at once; a drain, if any, has come before."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        self._stop_opening()
        await close_all(self._doors)
        if self._building is not None:
            self._building.draining.cut()
            await _logged(self._building.close(), self.log)
        if self._ready_file is not None:
            with suppress(OSError):
                os.unlink(self._ready_file)
        self._output.stop()

    async def _drain(self) -> None:
        assert self._building is not None
        try:
            await self._building.draining.run()
        except Exception:
            self.log.failure("draining failed", event="draining")
        if self._reactor.running:
            self._reactor.stop()

    # Signals come in between any two steps of the program: only hand them over.

    def _terminate(self, _number: int, _frame: Any) -> None:
        self._reactor.callFromThread(self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        if self._stopping or self._building is None:
            # The second signal: no more patience.
            with suppress(Exception):
                self._reactor.stop()
            return
        self._stop_opening()
        Deferred.fromCoroutine(self._drain())

    def _stop_opening(self) -> None:
        self._stopping = True
        self._opening.cancel()

    def _hang_up(self, _number: int, _frame: Any) -> None:
        self._reactor.callFromThread(self._read_anew)

    def _read_anew(self) -> None:
        self._output.reopen()
        if self._building is not None:
            self._building.reload()


def check_pid_file(path: str) -> None:
    """Raise ExposrError where ``twistd`` cannot write its file, which it tells by a traceback."""
    folder = os.path.dirname(path)
    if path and not os.access(folder, os.W_OK):
        raise ExposrError(
            f"{path!r} cannot be written; start it in a folder of yours, or without that file: "
            "twistd --pidfile="
        )


async def _logged(work: Awaitable[None], log: Logger) -> None:
    try:
        await work
    except Exception:
        log.failure("stopping", event="stop")
