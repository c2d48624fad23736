"""Which clients a server takes: their token, what a policy says of them, and how many there may be.

Stands between the websocket transport and those who know: the tunnels, the switchboard and
the policies.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred
from zope.interface import implementer

from exposr_tx.errors import PermissionDenied, PolicyDenied, TunnelNotFound
from exposr_tx.interfaces import IAdmission, IPolicy, IUpstream, Origin
from exposr_tx.policy.clients import Failures, check_client
from exposr_tx.routing import Switchboard
from exposr_tx.tunnels import Tunnels

__all__ = ["Admission"]


@implementer(IAdmission)
class Admission:
    """Tokens are the tunnels' business, limits and live state the switchboard's.

    :param failures: counts wrong tokens together with wrong accounts.
    :param policy: is asked about clients; None where there are no policies.
    """

    def __init__(
        self,
        tunnels: Tunnels,
        switchboard: Switchboard,
        failures: Failures,
        policy: IPolicy | None = None,
    ) -> None:
        self._tunnels = tunnels
        self._switchboard = switchboard
        self._failures = failures
        self._policy = policy

    def admit(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        return Deferred.fromCoroutine(self._admit(tunnel_id, token, origin))

    async def _admit(self, tunnel_id: str, token: str, origin: Origin) -> None:
        self._failures.check(origin.peer)
        try:
            if self._policy is not None:
                # Before the token, which is used up when it is accepted.
                await self._ask(self._policy, tunnel_id, origin)
            await self._tunnels.admit(tunnel_id, token)
        except (PermissionDenied, PolicyDenied, TunnelNotFound):
            self._failures.count(origin.peer)
            raise

    async def _ask(self, policy: IPolicy, tunnel_id: str, origin: Origin) -> None:
        if origin.asked is None:
            raise PolicyDenied(500)
        try:
            account = (await self._tunnels.get(tunnel_id)).account
        except TunnelNotFound:
            account = ""  # the answer must not tell which tunnels there are
        await check_client(policy, replace(origin.asked, tunnel=tunnel_id, account=account))

    def plug(self, upstream: IUpstream) -> Deferred[None]:
        return Deferred.fromCoroutine(self._switchboard.plug(upstream))

    def unplug(self, upstream: IUpstream, clean: bool) -> None:
        self._switchboard.unplug(upstream, clean)
