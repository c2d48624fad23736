"""Policies: the operator's rules, in Rego, on which visitors and clients are let in.

``sources`` finds the files; ``words`` and ``scan`` read as much of them as it
takes to refuse, before anything starts, what the embedded engine would silently
take for undefined; ``engine`` compiles and evaluates, ``compiled`` a whole set of
them; ``verdict`` says what a result means. All that is done by a ``worker``, a
process of its own. On the server's side are ``workers``, and ``policies``, the
IPolicy that ingress and the transports ask; ``remote`` is another one, which asks
an Open Policy Agent. Stands beside the data path: the head of a request comes
here, and a Decision goes back. Facts: protocols/backstream.md section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from exposr_tx.policy.policies import Policies
from exposr_tx.policy.sources import read_sources
from exposr_tx.policy.workers import load, start

if TYPE_CHECKING:
    from exposr_tx.policy.remote import RemotePolicies

__all__ = ["AnyPolicies", "Policies", "open_policies"]

AnyPolicies: TypeAlias = "Policies | RemotePolicies"


def open_policies(
    options: Mapping[str, Any], reactor: Any, now: Callable[[], float]
) -> AnyPolicies | None:
    """Policies for a server that is about to start; None where there are none.

    :param options: as ``policy_options`` has them.
    :param reactor: provides IReactorSocket, IReactorFromThreads and IReactorTime.
    :param now: epoch seconds.

    Raises PolicyInvalid, whose text is for the operator; without the extra ``rego`` it names what
    to install.
    """
    paths, url, budget = options["policy"], options["policy-url"], options["policy-timeout"]
    if url:
        from exposr_tx.policy.remote import RemotePolicies, agent  # noqa: PLC0415  2 MB

        web, pool = agent(reactor, budget)
        keep, packages = options["policy-cache"], options["policy-package"]
        return RemotePolicies(
            url, web, pool.closeCachedConnections, reactor, now, budget, keep, packages
        )
    if not paths:
        return None
    # Tried here, as long as errors can be told at the terminal; they are loaded when the server
    # has given up the rights that it needs to listen.
    processes, _outline = start(read_sources(paths), 1)
    processes[0].stop()
    return Policies(paths, lambda paths: load(reactor, paths, budget), reactor, now)
