"""``backstream serve`` and ``twistd backstream``: one port, one tunnel, no accounts.

:func:`makeService` turns options into a service, :class:`Rooms` joins its objects,
as :mod:`exposr_tx.tap` does for exposr's server.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from exposr_tx.backstream.log import AccessLines, Journal, Log, Observer, log_output, path_of
from exposr_tx.backstream.options import Address, CommandOptions, ServeOptions
from exposr_tx.deadlines import Deadlines
from exposr_tx.draining import Draining
from exposr_tx.errors import ExposrError, PolicyInvalid
from exposr_tx.ingress.backstream import Backstream, BackstreamIngressFactory
from exposr_tx.ingress.guard import Guard, GuardedTakeover
from exposr_tx.ingress.http import Timeouts
from exposr_tx.ingress.trust import Trust
from exposr_tx.interfaces import ITakeover, IUpstream
from exposr_tx.logs import LogOutput
from exposr_tx.memory import collect_rarely, keep_freed_memory
from exposr_tx.monotonic import use_monotonic_time
from exposr_tx.policy.clients import ClientGuard
from exposr_tx.policy.policies import AnyPolicies, open_policies
from exposr_tx.service import (
    Door,
    ServerService,
    check_pid_file,
    close_all,
    outlive_hang_ups,
    tcp_door,
)
from exposr_tx.transport.backstream import TUNNEL, Clients, JsonUpstream
from exposr_tx.transport.websocket import BackstreamEndpoint
from exposr_tx.wire.native import MAX_STREAMS

__all__ = ["Options", "Rooms", "logging", "makeService", "service"]

Options = ServeOptions


class Rooms:
    """Everything behind the server's door."""

    def __init__(
        self,
        options: ServeOptions,
        reactor: Any,
        log: Log,
        doors: Sequence[Door],
        policies: AnyPolicies | None,
    ) -> None:
        self._policies = policies
        clients = Clients()
        journal = Journal(log)
        transport = BackstreamEndpoint(clients, reactor, MAX_STREAMS, journal, journal.asked)
        joining: ITakeover = transport

        def on_sent(upstream: IUpstream, id: bytes, method: bytes, target: bytes) -> None:
            # One that takes messages says so itself, once its turn has come.
            if not isinstance(upstream, JsonUpstream):
                log.sent(id, method, path_of(target))

        guard = None
        if policies is not None:
            transport.judge = ClientGuard(policies, TUNNEL).judge
            joining = GuardedTakeover(transport)
            guard = Guard(policies, bool(options["policy-raw-paths"]))
        self._ingress = BackstreamIngressFactory(
            reactor,
            Deadlines(reactor),
            backstream=Backstream(
                clients, joining, None, options["code"], on_sent if log.tells_all else None
            ),
            guard=guard,
            routes=None,
            api=None,
            takeover=None,
            access_log=AccessLines(log),
            trust=Trust(options["trusted-proxy"]),
            node_id=secrets.token_hex(20),
            timeouts=Timeouts(response=options["ingress-timeout"]),
        )
        self.draining = Draining(
            reactor,
            red=lambda: log.info("Quit signal received"),
            close_doors=lambda: close_all(doors),
            ingresses=[self._ingress],
            visitors=lambda: len(self._ingress.connections),
            transport=transport,
            delay=0,
            grace=options["grace-period"],
        )

    def room(self, roles: tuple[str, ...]) -> IProtocolFactory:
        """What answers at the door."""
        return self._ingress

    async def open(self) -> None:
        """Load the policies."""
        if self._policies is not None:
            await self._policies.start()

    def reload(self) -> None:
        """Read the policies anew."""
        if self._policies is not None:
            self._policies.reload()

    async def close(self) -> None:
        """End what evaluates policies."""
        if self._policies is not None:
            self._policies.stop()


def door(address: Address) -> Door:
    """The door at an address; a host that is a name is looked up. Raises ExposrError."""
    host = address.interface
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:  # the latter for what can be no name
        raise ExposrError(
            f"--addr: {host!r} is no address of this machine ({problem}); give one that "
            f"is, or only :{address.port} for all"
        ) from None
    addresses = [_numeric(entry[4]) for entry in found]
    # As there: of both kinds, IPv4 comes first.
    chosen = next((one for one in addresses if ":" not in one), addresses[0])
    return tcp_door(("ingress",), address.port, chosen)


def _numeric(address: tuple[Any, ...]) -> str:
    """The address of a socket; one that is of a link has the link's number behind it."""
    host, _port, *more = address
    scope = more[1] if more else 0
    return f"{host}%{scope}" if scope else str(host)


def service(
    options: ServeOptions,
    reactor: Any,
    log: Log,
    output: LogOutput,
    program: str,
    pid_file: str,
    background: bool = False,
) -> ServerService:
    """The server.

    :param program: what stands before errors of starting.
    :param background: whether twistd has left its terminal.
    Raises ExposrError.
    """
    outlive_hang_ups()
    keep_freed_memory()
    collect_rarely()
    use_monotonic_time(reactor)
    try:
        policies = open_policies(options, options.given, reactor, time.time)
    except PolicyInvalid as problem:
        raise ExposrError(str(problem)) from None
    return ServerService(
        reactor,
        [door(options["addr"])],
        lambda doors: Rooms(options, reactor, log, doors, policies),
        output,
        Observer(log),
        options.warnings,
        options["ready-file"],
        pid_file,
        program=program,
        background=background,
    )


def logging(options: CommandOptions) -> tuple[Log, LogOutput]:
    """Where the log goes, and its lines. Raises ExposrError."""
    try:
        output = log_output(options["log-output"])
    except OSError as problem:
        raise ExposrError(
            f"--log-output {options['log-output']!r}: cannot be written: {problem.strerror}; "
            "name a file in a folder that exists and that may be written to"
        ) from None
    text = options["log-format"] == "text"
    return Log(output.write, options["log-level"], text, bool(options["log-stack"])), output


def makeService(options: ServeOptions) -> ServerService:
    """The server for ``twistd backstream``."""
    from twisted.internet import reactor  # noqa: PLC0415

    above: Mapping[str, Any] = options.parent or {}
    try:
        pid_file = above.get("pidfile") or ""
        check_pid_file(pid_file)
        log, output = logging(options)
        background = not above.get("nodaemon", True)
        return service(options, reactor, log, output, "twistd backstream", pid_file, background)
    except ExposrError as problem:
        raise SystemExit(f"twistd backstream: {problem}") from None
