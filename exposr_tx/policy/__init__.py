"""Policies: the operator's rules, in Rego, on which visitors and clients are let in.

``sources`` finds the files; ``words`` and ``scan`` read as much of them as it
takes to refuse, before anything starts, what the embedded engine would silently
take for undefined; ``engine`` compiles and evaluates; ``verdict`` says what a
result means; ``policies`` is the IPolicy that ingress and the transports ask.
Stands beside the data path: the head of a request comes here, and a Decision
goes back. Facts: protocols/backstream.md section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from exposr_tx.policy.apart import loaded
from exposr_tx.policy.evaluators import Evaluators
from exposr_tx.policy.policies import Policies, PolicySet

__all__ = ["Policies", "PolicySet", "open_policies"]


def open_policies(paths: Sequence[str], reactor: Any, now: Callable[[], float]) -> Policies:
    """Load policies, for a server that is about to start.

    :param paths: files and folders.
    :param reactor: provides IReactorFromThreads and IReactorTime.
    :param now: epoch seconds.

    Raises PolicyInvalid, whose text is for the operator; without the extra ``rego`` it names what
    to install.
    """
    return Policies(paths, loaded(paths), reactor, now, Evaluators(reactor).run, loaded)
