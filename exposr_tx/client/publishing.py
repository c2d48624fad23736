"""The library's two functions: run a Factory in public, or join the public with a service."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.client.access import Access
from exposr_tx.client.events import Events
from exposr_tx.client.forward import Forward
from exposr_tx.client.gate import GRACE
from exposr_tx.client.listening import PublicEndpoint, PublicPort
from exposr_tx.client.recorded import RecordedFactory
from exposr_tx.client.recording import recordings
from exposr_tx.client.replays import Replayable, connector_of
from exposr_tx.client.sharing import SharedConnections
from exposr_tx.client.target import parse_target
from exposr_tx.client.trust import Trust
from exposr_tx.errors import ExposrError
from exposr_tx.inspection.recorder import Recorder

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

    from exposr_tx.inspector.service import Inspector

__all__ = ["connect", "listen"]

_log = Logger()


def listen(
    factory: IProtocolFactory,
    tunnel: str = "",
    *,
    server: str = "",
    account: str = "",
    account_file: str = "",
    kind: str = "http",
    events: Events | None = None,
    grace: float = GRACE,
    share: SharedConnections | None = None,
    recorder: Recorder | None = None,
    inspector: Inspector | None = None,
    environ: Mapping[str, str] | None = None,
    reactor: Any = None,
) -> Deferred[PublicPort]:
    """Run a factory's protocols at the public end of a tunnel.

    :param tunnel: its name; one is invented where that is empty. A tunnel that
        does not exist is made, and deleted when the port is closed.
    :param server: the server's URL; ``EXPOSR_SERVER`` where empty.
    :param account: the account's number; else that in ``account_file``, in
        ``EXPOSR_ACCOUNT``, in ``EXPOSR_ACCOUNT_FILE``, in the accounts file; else one
        is registered.
    :param kind: ``"http"`` for a public host, ``"tcp"`` for a public port.
    :param events: told what happens.
    :param grace: seconds for streams that run when the port is closed.
    :param share: given to several calls, their tunnels share connections to the server.
    :param recorder: told what passes, where that is HTTP.
    :param inspector: shows the same, and takes the place of a recorder.
    :param environ: where variables are looked up, the process's unless given.
    :param reactor: the installed one unless given.
    :return: fires with the port when the first connection is open. Errbacks with
        an ExposrError: BadInput, AccountRefused, TunnelTaken, RegistrationClosed,
        NotTrusted, ServerRefusal. May be cancelled.
    """
    try:
        access = Access.find(_or_ours(environ), server, account, account_file)
        endpoint = PublicEndpoint(
            _or_installed(reactor), access, tunnel, kind, events=events, grace=grace, share=share
        )
    except ExposrError:
        return fail()
    watched = recorder if inspector is None else inspector.recorder
    if watched is None or kind != "http":
        return endpoint.publish(factory)
    name = _Name(tunnel)
    served: IProtocolFactory = RecordedFactory(
        factory, lambda peer: watched.recording(name.get(), "", peer)
    )
    if inspector is not None:
        connector = connector_of(_or_installed(reactor), factory)
        served = Replayable(served, inspector, name.get, connector)
    return endpoint.publish(served).addCallback(name.known)


def connect(
    target: str,
    tunnel: str = "",
    *,
    server: str = "",
    account: str = "",
    account_file: str = "",
    events: Events | None = None,
    grace: float = GRACE,
    share: SharedConnections | None = None,
    recorder: Recorder | None = None,
    inspector: Inspector | None = None,
    environ: Mapping[str, str] | None = None,
    reactor: Any = None,
) -> Deferred[PublicPort]:
    """Join the public end of a tunnel with a service, as ``exposr tunnel connect`` does.

    :param target: ``http://host:port``, ``tcp://host:port``, ``unix:/path`` or a
        Twisted client endpoint string; connected once for each stream.

    All else is as for :func:`listen`; a ``tcp:`` target means a public port.
    """
    try:
        access = Access.find(_or_ours(environ), server, account, account_file)
        reactor = _or_installed(reactor)
        goal = parse_target(target)
        kind = "http" if goal.is_http else "tcp"
        joined = goal.endpoint(reactor, Trust())
        endpoint = PublicEndpoint(
            reactor, access, tunnel, kind, target=goal, events=events, grace=grace, share=share
        )
    except ExposrError:
        return fail()

    def failed(reason: Failure) -> None:
        _log.warn(
            "cannot connect to the target {target}: {problem}",
            event="target",
            target=target,
            problem=reason.getErrorMessage(),
        )

    name = _Name(tunnel)
    watched = recorder if inspector is None else inspector.recorder
    record = None if watched is None else recordings(watched, name.get, lambda: goal)
    served: IProtocolFactory = Forward(joined.connect, failed, record=record)
    if inspector is not None:
        served = Replayable(served, inspector, name.get, joined.connect)
    return endpoint.publish(served).addCallback(name.known)


class _Name:
    """A tunnel's name, which may be invented by the time that it is connected."""

    def __init__(self, tunnel: str) -> None:
        self._tunnel = tunnel

    def get(self) -> str:
        return self._tunnel

    def known(self, port: PublicPort) -> PublicPort:
        self._tunnel = port.tunnel_id
        return port


def _or_ours(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ


def _or_installed(reactor: Any) -> Any:
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415
    return reactor
