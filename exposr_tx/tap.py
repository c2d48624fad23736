"""``twistd exposr``: the one place where the server's objects meet.

:func:`makeService` turns options into a service; :class:`Rooms` builds the
rooms and joins them by constructor, once the doors are open.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from exposr_tx.accesslog import AccessLog, route
from exposr_tx.accounts import Accounts
from exposr_tx.admission import Admission
from exposr_tx.api import Api, ApiSettings, FailedCredentials, Health, SiteUpstream, admin_site
from exposr_tx.deadlines import Deadlines
from exposr_tx.draining import Draining, Transports
from exposr_tx.errors import ExposrError, PolicyDenied, PolicyInvalid
from exposr_tx.ingress.backstream import Backstream, BackstreamIngressFactory
from exposr_tx.ingress.guard import VISITORS, Guard, GuardedTakeover, tcp_question
from exposr_tx.ingress.http import HTTPIngressFactory, Timeouts
from exposr_tx.ingress.tcp import TCPIngress
from exposr_tx.ingress.trust import Trust
from exposr_tx.interfaces import IAccessLog, IStorage, ITakeover, Origin
from exposr_tx.logs import LogObserver, LogOutput
from exposr_tx.memory import collect_rarely, keep_freed_memory
from exposr_tx.monotonic import use_monotonic_time
from exposr_tx.policy.clients import CLIENTS, ClientGuard, decided
from exposr_tx.policy.policies import AnyPolicies, open_policies
from exposr_tx.routing import Routes, Switchboard, VirtualHosts
from exposr_tx.server_options import Options
from exposr_tx.service import (
    Door,
    ServerService,
    check_pid_file,
    close_all,
    outlive_hang_ups,
    tcp_door,
)
from exposr_tx.storage import open_storage
from exposr_tx.transport.backstream import TUNNEL, Clients
from exposr_tx.transport.websocket import BackstreamEndpoint, WebsocketEndpoint
from exposr_tx.tunnels import Tunnel, Tunnels
from exposr_tx.wire.http1 import Limits
from exposr_tx.wire.native import SUBPROTOCOL

__all__ = ["Options", "Rooms", "makeService"]

#: Looks for expired tunnels in the time that they have, and seconds between two of them: at least,
#: where that time is not short, and at most. A look costs 10 µs for each tunnel.
EXPIRY_LOOKS: Final = 60
EXPIRY_PAUSE: Final = (5.0, 60.0)


class Rooms:
    """Everything behind a server's doors.

    :param ingress_url: base of the tunnels' public names.
    :param tcp_interface: the address for the ports of TCP ingress.
    :param policies: asked about visitors and clients; None where there are none.
    """

    log = Logger()

    def __init__(
        self,
        options: Options,
        reactor: Any,
        storage: IStorage,
        access_log: IAccessLog | None,
        doors: Sequence[Door],
        ingress_url: str,
        tcp_interface: str,
        policies: AnyPolicies | None = None,
    ) -> None:
        self._policies = policies
        self._reactor = reactor
        self._storage = storage
        self.health = Health()
        if policies is not None:
            self.health.details["policies"] = lambda: policies.counts.by_outcome
        accounts = Accounts(storage, time.time)
        self._tunnels = _tunnels(options, storage, accounts, ingress_url)
        self._switchboard = Switchboard(
            reactor,
            time.time,
            options["transport-max-connections"],
            options["transport-conflict"],
        )
        self._tunnels.watch(self._tunnel_changed)
        self._expiry = LoopingCall(self._expire)
        self._expiry.clock = reactor
        self._expire_every = _pause(options["tunnel-expire"])
        failures = FailedCredentials(
            reactor.seconds, options["limit-failures"], bool(options["limit-loopback"])
        )
        transport = WebsocketEndpoint(
            Admission(self._tunnels, self._switchboard, failures, policies),
            reactor,
            options["limit-streams"],
        )
        settings = _api_settings(options, ingress_url, policies)
        api = Api(accounts, self._tunnels, self._switchboard, settings, failures)
        transports: list[WebsocketEndpoint] = [transport]
        backstream = None
        if options["backstream"]:
            clients = Clients()
            others = BackstreamEndpoint(clients, reactor, options["limit-streams"])
            joining: ITakeover = others
            if policies is not None:
                others.judge = ClientGuard(policies, TUNNEL, failures).judge
                joining = GuardedTakeover(others)
            transports.append(others)
            backstream = Backstream(clients, joining, options["backstream"])
        https = self._https(
            options,
            [door.roles for door in doors if "admin" not in door.roles],
            ingress_url,
            SiteUpstream(api.site(reactor), reactor),
            transport,
            backstream,
            access_log,
        )
        self._factories: dict[tuple[str, ...], IProtocolFactory] = {**https}
        self._factories["admin",] = admin_site(self.health, reactor)
        self._tcp = TCPIngress(
            reactor,
            self._switchboard.choose,
            access_log,
            tcp_interface,
            None if policies is None else self._admit_tcp,
        )
        self._with_tcp = "tcp" in options["ingress"]
        self.draining = self._draining(options, doors, list(https.values()), transports)

    def _https(
        self,
        options: Options,
        doors: Sequence[tuple[str, ...]],
        ingress_url: str,
        api: SiteUpstream,
        transport: WebsocketEndpoint,
        backstream: Backstream | None,
        access_log: IAccessLog | None,
    ) -> dict[tuple[str, ...], HTTPIngressFactory]:
        """What speaks HTTP, by the roles of its door."""
        policies = self._policies
        api_host = urlsplit(options["api-url"] or "").hostname
        hosts = None
        if "http" in options["ingress"]:
            hosts = VirtualHosts(self._tunnels, ingress_url, policies is not None)
        shared: dict[str, Any] = {
            "access_log": access_log,
            "trust": Trust(options["trusted-proxy"]),
            "node_id": secrets.token_hex(20),
            "scheme": urlsplit(ingress_url).scheme,
            "api_path": route,
            "guard": Guard(policies, bool(options["policy-raw-paths"])) if policies else None,
            **_bounds(options),
        }
        deadlines = Deadlines(self._reactor)
        takeover = transport if policies is None else GuardedTakeover(transport)
        ingress: Callable[..., HTTPIngressFactory] = HTTPIngressFactory
        if backstream is not None:
            ingress = partial(BackstreamIngressFactory, backstream=backstream)

        def serving(roles: tuple[str, ...]) -> HTTPIngressFactory:
            return (ingress if "ingress" in roles else HTTPIngressFactory)(
                self._reactor,
                deadlines,
                routes=Routes(hosts if "ingress" in roles else None, self._switchboard, api_host),
                api=api if "api" in roles else None,
                takeover=takeover if "api" in roles else None,
                **shared,
            )

        return {roles: serving(roles) for roles in doors}

    def _draining(
        self,
        options: Options,
        doors: Sequence[Door],
        https: Sequence[HTTPIngressFactory],
        transports: Sequence[WebsocketEndpoint],
    ) -> Draining:
        return Draining(
            self._reactor,
            red=self.health.draining,
            close_doors=lambda: close_all(door for door in doors if "admin" not in door.roles),
            ingresses=[*https, self._tcp],
            visitors=lambda: sum(len(http.connections) for http in https) + self._tcp.visitors,
            transport=Transports(transports),
            delay=options["drain-delay"],
            grace=options["grace-period"],
        )

    def room(self, roles: tuple[str, ...]) -> IProtocolFactory:
        """What answers at a door."""
        return self._factories[roles]

    async def open(self) -> None:
        """Read the tunnels, open their ports, and be healthy. Raises StorageUnavailable."""
        for tunnel in await self._tunnels.start():
            self._tunnel_changed(tunnel.id, None, tunnel)
        if self._expire_every:
            self._expiry.start(self._expire_every, now=False)
        if self._policies is not None:
            await self._policies.start()
        self.health.ready()

    def reload(self) -> None:
        """Read the policies anew."""
        if self._policies is not None:
            self._policies.reload()

    async def close(self) -> None:
        """Let go of the storage."""
        if self._policies is not None:
            self._policies.stop()
        if self._expiry.running:
            self._expiry.stop()
        await self._storage.close()

    def _tunnel_changed(self, tunnel_id: str, _old: Tunnel | None, new: Tunnel | None) -> None:
        if new is None:
            self._switchboard.forget(tunnel_id)
        if not self._with_tcp:
            return
        # A tunnel that has a policy is closed where nobody asks it.
        open_to_all = new is not None and not new.policy
        guarded = self._policies is not None or open_to_all
        if new is not None and new.tcp.enabled and new.tcp.port and guarded:
            self._tcp.publish(tunnel_id, new.tcp.port)
        else:
            self._tcp.withdraw(tunnel_id)

    def _admit_tcp(self, tunnel_id: str, origin: Origin) -> Deferred[None]:
        return Deferred.fromCoroutine(self._ask_tcp(tunnel_id, origin))

    async def _ask_tcp(self, tunnel_id: str, origin: Origin) -> None:
        assert self._policies is not None
        tunnel = self._tunnels.peek(tunnel_id) or await self._tunnels.get(tunnel_id)
        question = tcp_question(origin, tunnel_id, tunnel.account)
        if not (await decided(self._policies.decide(tunnel.policy or VISITORS, question))).allow:
            raise PolicyDenied

    async def _expire(self) -> None:
        try:
            for tunnel_id in await self._tunnels.expire(
                lambda tunnel_id: self._switchboard.state(tunnel_id).connected
            ):
                self.log.info("{tunnel} has expired", event="tunnel-expired", tunnel=tunnel_id)
        except ExposrError:
            self.log.failure("could not look for expired tunnels", event="tunnel-expired")


def _pause(expire: float) -> float:
    """Seconds between two looks for tunnels that expire after so many."""
    least, most = EXPIRY_PAUSE
    return min(expire / 4, max(least, min(most, expire / EXPIRY_LOOKS)))


def _tunnels(options: Options, storage: IStorage, accounts: Accounts, ingress_url: str) -> Tunnels:
    api_host = urlsplit(options["api-url"] or "").hostname
    return Tunnels(
        storage,
        time.time,
        accounts.is_active,
        reserved=_own_labels(ingress_url, api_host)
        | _own_labels(ingress_url, options["backstream"]),
        tcp_ports=options["ingress-tcp-ports"],
        expire=options["tunnel-expire"],
    )


def _api_settings(options: Options, ingress_url: str, policies: AnyPolicies | None) -> ApiSettings:
    return ApiSettings(
        ingress_http_url=ingress_url,
        api_url=options["api-url"] or "",
        ingress=frozenset(options["ingress"]),
        transport=frozenset(options["transport"]),
        max_connections=options["transport-max-connections"],
        allow_registration=bool(options["allow-registration"]),
        ws_protocols=(SUBPROTOCOL,),
        policies=None if policies is None else (lambda: policies.packages - {CLIENTS}),
    )


def _bounds(options: Options) -> dict[str, Any]:
    """The limits and times of HTTP ingress."""
    return {
        "limits": Limits(
            line=options["limit-request-line"],
            head=options["limit-request-head"],
            fields=options["limit-request-fields"],
            body=options["limit-request-body"],
        ),
        "response_limits": Limits(
            line=options["limit-response-head"],
            head=options["limit-response-head"],
            fields=options["limit-request-fields"],
        ),
        "timeouts": Timeouts(
            head=options["ingress-head-timeout"],
            response=options["ingress-timeout"],
            stall=options["ingress-write-timeout"],
            idle=options["ingress-idle-timeout"],
        ),
        "pool_idle": options["ingress-http-agent-idle-timeout"],
    }


def _own_labels(ingress_url: str, api_host: str | None) -> frozenset[str]:
    """Tunnel ids whose host would be the API's own."""
    label, _, domain = (api_host or "").partition(".")
    return frozenset({label} if domain == urlsplit(ingress_url).hostname else ())


def doors_of(options: Options) -> list[Door]:
    doors = [
        Door(("api", "ingress"), (endpoint,), options.source("listen"))
        for endpoint in options["listen"]
    ]
    if not doors:
        api, ingress = options["api-port"], options["ingress-http-port"]
        shared = api == ingress
        doors = [tcp_door(("api", "ingress") if shared else ("api",), api)]
        if not shared:
            doors.append(tcp_door(("ingress",), ingress))
    if options["admin-enable"]:
        doors.append(tcp_door(("admin",), options["admin-port"], options["admin-interface"]))
    return doors


def _log_output(above: Mapping[str, Any]) -> LogOutput:
    """Where ``twistd`` is told to write, or would of itself. Raises ExposrError."""
    log_file = above.get("logfile")
    if not log_file and not above.get("nodaemon", True):
        log_file = "twistd.log"
    try:
        return LogOutput(None if log_file in (None, "", "-") else log_file)
    except OSError as problem:
        raise ExposrError(
            f"the log file {log_file!r} cannot be written: {problem.strerror}; "
            "name another one: twistd --logfile FILE exposr"
        ) from None


def makeService(options: Options) -> ServerService:
    """The server for a set of options, as ``twistd`` wants it."""
    from twisted.internet import reactor  # noqa: PLC0415

    outlive_hang_ups()
    keep_freed_memory()
    collect_rarely()
    use_monotonic_time(reactor)
    above: Mapping[str, Any] = options.parent or {}
    source = options.source("storage-url")
    try:
        check_pid_file(above.get("pidfile") or "")
        output = _log_output(above)
        storage = open_storage(options["storage-url"], reactor, source)  # type: ignore[arg-type]
    except ExposrError as problem:
        raise SystemExit(f"twistd exposr: {problem}") from None
    text = options["log-format"] == "text"
    # --syslog and --logger are twistd's own ways; what they are given stays theirs.
    ours = not (above.get("syslog") or above.get("logger"))
    observer = LogObserver(output.write, options["log-level"], text) if ours else None
    quiet = not options["access-log"] or options["log-level"] in ("warn", "error", "fatal", "off")
    access_log = None if quiet else AccessLog(output.write, text)
    try:
        policies = open_policies(options, options.given, reactor, time.time)
    except PolicyInvalid as problem:
        raise SystemExit(f"twistd exposr: {problem}") from None

    def build(doors: Sequence[Door]) -> Rooms:
        entries = [door for door in doors if "ingress" in door.roles]
        ports = [door.number for door in entries]
        entry = next((door for door in entries if door.number), None)
        public = f"{entry.scheme}://localhost:{entry.number}" if entry else "http://localhost:80"
        wide = any(door.address.startswith("[") for door in doors) or not any(ports)
        return Rooms(
            options,
            reactor,
            storage,
            access_log,
            doors,
            options["ingress-http-url"] or public,
            "::" if wide else "0.0.0.0",
            policies,
        )

    return ServerService(
        reactor,
        doors_of(options),
        build,
        output,
        observer,
        options.warnings,
        options["ready-file"],
        above.get("pidfile") or "",
        background=not above.get("nodaemon", True),
    )
