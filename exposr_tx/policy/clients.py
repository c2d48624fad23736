"""Policies on clients that want to connect: asked by who admits them, before anything else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import Deferred

from exposr_tx.errors import PolicyDenied
from exposr_tx.interfaces import Decision, IPolicy, Origin, Question

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

__all__ = ["CLIENTS", "ClientGuard", "Failures", "check_client", "decided"]

#: The package that decides on clients.
CLIENTS: Final = "auth.client"


async def decided(decision: Decision | Deferred[Decision]) -> Decision:
    """A decision that may still be on its way."""
    return decision if isinstance(decision, Decision) else await decision


async def check_client(policy: IPolicy, question: Question) -> None:
    """Raises PolicyDenied where a client may not connect."""
    decision = await decided(policy.decide(CLIENTS, question))
    if not decision.allow:
        raise PolicyDenied(decision.client_status, decision.reason, decision.headers)


class Failures(Protocol):
    """Counts wrong credentials, by address."""

    def check(self, peer: IAddress) -> None: ...

    def count(self, peer: IAddress) -> None: ...


class ClientGuard:
    """Judges clients of backstream, which have no token: the policy is all there is.

    :param tunnel_id: the tunnel that they serve.
    :param failures: counts denials as wrong credentials. None where visitors and clients may all
        come through one balancer, whose address must not be shut out.
    """

    def __init__(self, policy: IPolicy, tunnel_id: str, failures: Failures | None = None) -> None:
        self._policy = policy
        self._tunnel_id = tunnel_id
        self._failures = failures

    def judge(self, origin: Origin) -> Deferred[None]:
        """Errbacks with PolicyDenied, or with what ``failures`` raises."""
        return Deferred.fromCoroutine(self._judge(origin))

    async def _judge(self, origin: Origin) -> None:
        if self._failures is not None:
            self._failures.check(origin.peer)
        try:
            if origin.asked is None:
                raise PolicyDenied(500)
            await check_client(self._policy, replace(origin.asked, tunnel=self._tunnel_id))
        except PolicyDenied:
            if self._failures is not None:
                self._failures.count(origin.peer)
            raise
