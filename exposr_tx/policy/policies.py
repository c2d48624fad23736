"""The loaded policies: asked by ingress and by the transports, loaded anew when files change.

:class:`Policies` owns the set in use. A set that does not compile never takes
the place of one that did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision, IPolicy, Question
from exposr_tx.policy.compiled import Outline
from exposr_tx.policy.counts import Counts
from exposr_tx.policy.document import MAX_KEPT, Reading
from exposr_tx.policy.process import start
from exposr_tx.policy.sources import read_sources, signature
from exposr_tx.policy.token import TokenFile
from exposr_tx.policy.verdict import FAILED
from exposr_tx.policy.workers import load

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from exposr_tx.policy.remote import RemotePolicies

__all__ = ["AnyPolicies", "Evaluators", "Policies", "open_policies"]

AnyPolicies: TypeAlias = "Policies | RemotePolicies"
Told: TypeAlias = Callable[[Decision], object]
#: Decisions, and who waits for one that is being made.
_Kept: TypeAlias = dict[bytes, Decision | list[Deferred[Decision]]]

#: Seconds between two looks at the files.
LOOK: Final = 2.0
#: How often in a second ``time`` moves. Requests of one moment that are alike in all else that is
#: read are one question.
MOMENTS: Final = 1000


class Evaluators(Protocol):
    """A set of policies, and what evaluates it beside the reactor.

    :ivar outline: what is to be known of the set.
    """

    outline: Outline

    def ask(self, package: str, document: Mapping[str, Any], told: Told) -> None:
        """Evaluate.

        :param told: called with the decision, once, within the time that there is.
        """

    def close(self) -> None:
        """Evaluate no more."""


class _Unloaded:
    """No policies yet."""

    outline = Outline()

    def ask(self, package: str, document: Mapping[str, Any], told: Told) -> None:
        told(FAILED)

    def close(self) -> None:
        """There is nothing to end."""


@implementer(IPolicy)
class Policies:
    """The policies in use.

    :param paths: files and folders.
    :param load: what the policies of files and folders are evaluated by (Evaluators); errbacks
        with PolicyInvalid, and may be cancelled.
    :param clock: for looks at the files.
    :param now: epoch seconds.
    """

    log = Logger()

    def __init__(
        self,
        paths: Sequence[str],
        load: Callable[[Sequence[str]], Deferred[Any]],
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self._paths = tuple(paths)
        self._load = load
        self._clock = clock
        self._now = now
        self._kept: _Kept
        self._moment: int  # of what is kept, where the time is read
        self._use(_Unloaded())
        self._signature: Any = ()
        self._before: list[Evaluators] = []
        self._early: list[Deferred[None]] | None = None  # only while the first set is loaded
        self._loading: Deferred[Any] | None = None
        self._again = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self.counts = Counts(
            clock,
            error="its evaluation fails, or gives what is no decision; try it with: exposr policy "
            "test",
            timeout="make it simpler, or give it longer with --policy-timeout",
        )

    def __repr__(self) -> str:
        return f"<Policies {self._set.outline!r}>"

    @property
    def packages(self) -> frozenset[str]:
        """What is loaded."""
        return self._set.outline.packages

    # Deciding

    def decide(self, package: str, question: Question) -> Decision | Deferred[Decision]:
        """See IPolicy. While :meth:`start` loads, which takes half a second with the doors open
        already, questions wait for it."""
        if self._early is not None:
            loaded: Deferred[None] = Deferred()
            self._early.append(loaded)
            return loaded.addCallback(lambda _: self.decide(package, question))
        reading, moment = self._reading, 0
        if reading.timed:
            moment = int(self._now() * MOMENTS)
            if moment != self._moment:
                self._moment, self._kept = moment, {}
        key, kept = b"", self._kept
        waiting: list[Deferred[Decision]] = []
        if not self._set.outline.changing:
            key = reading.key(package, question)
            found = kept.get(key)
            if isinstance(found, Decision):
                self.counts.count(found, package)
                return found
            if found is None:
                if len(kept) >= MAX_KEPT:
                    kept.clear()
                kept[key] = waiting
            else:
                waiting = found
        deciding: Deferred[Decision] = Deferred()
        waiting.append(deciding)
        if len(waiting) == 1:
            told = partial(self._decided, waiting, package, kept, key)
            document = reading.of(question, moment * (1_000_000_000 // MOMENTS))
            self._set.ask(package, document, told)
        return deciding

    def _decided(
        self,
        waiting: list[Deferred[Decision]],
        package: str,
        kept: _Kept,
        key: bytes,
        decision: Decision,
    ) -> None:
        # To be kept with those of its set and moment, which may be over.
        if kept.get(key) is waiting:
            if decision.outcome in ("error", "timeout"):
                del kept[key]
            else:
                kept[key] = decision
        for deciding in waiting:
            self.counts.count(decision, package)
            deciding.callback(decision)

    # Loading anew

    async def start(self) -> None:
        """Load them, and look at the files from now on. Raises PolicyInvalid."""
        self._signature = signature(self._paths)
        early = self._early = []
        try:
            self._loading = self._load(self._paths)
            self._use(await self._loading)
        finally:
            self._loading = None
            self._early = None
            for waiting in early:
                waiting.callback(None)
        self._warn()
        self._looking.start(LOOK, now=False)
        self._next(None)

    def stop(self) -> None:
        """Look at the files no more, and evaluate no more; what is being loaded is given up."""
        if self._loading is not None:
            self._again = False
            self._loading.cancel()
        if self._looking.running:
            self._looking.stop()
        self.counts.tell()
        while self._before:
            self._close_before()
        self._set.close()

    def _close_before(self) -> None:
        if self._before:
            self._before.pop(0).close()

    def _use(self, policies: Evaluators) -> None:
        self._set = policies
        self._reading = Reading(policies.outline.fields)
        self._kept = {}
        self._moment = 0

    def reload(self) -> Deferred[bool]:
        """What SIGHUP asks for: tell what was decided, and take the files as they are now, all or
        none.

        :return: fires with whether they were taken.
        """
        self.counts.tell()
        return self._reload()

    def _reload(self) -> Deferred[bool]:
        if self._loading is not None:
            self._again = True
            return succeed(False)
        self._signature = signature(self._paths)
        loading = self._loading = self._load(self._paths)
        return loading.addCallbacks(self._loaded, self._refused).addBoth(self._next)

    def _next(self, result: Any) -> Any:
        self._loading = None
        if self._again:
            self._again = False
            self._reload()
        return result

    def _loaded(self, policies: Evaluators) -> bool:
        self._before.append(self._set)
        self._use(policies)
        # What is being decided by the ones before has its answer by then.
        self._clock.callLater(LOOK, self._close_before)
        self.log.info(
            "policies were loaded: {packages}",
            event="policy",
            packages=", ".join(sorted(self.packages)),
        )
        self._warn()
        return True

    def _refused(self, failure: Failure) -> bool:
        if failure.check(PolicyInvalid):
            self.log.error(
                "the policies in use stay, as the changed ones cannot be loaded: {problem}",
                event="policy",
                problem=failure.getErrorMessage(),
            )
        elif not failure.check(CancelledError):
            self.log.failure("the policies in use stay", failure, event="policy")
        return False

    def _warn(self) -> None:
        for name in ("auth.client", "auth.server"):
            if name not in self.packages:
                self.log.warn(
                    "no policy defines package {package}: what it would decide on is denied",
                    event="policy",
                    package=name,
                )
        for line in self._reading.warnings:
            self.log.warn("{line}", event="policy", line=line)

    def _look(self) -> None:
        if signature(self._paths) != self._signature:
            self._reload()


def open_policies(
    options: Mapping[str, Any], given: Mapping[str, str], reactor: Any, now: Callable[[], float]
) -> AnyPolicies | None:
    """Policies for a server that is about to start; None where there are none.

    :param options: as ``policy_options`` has them.
    :param given: what each of them was given by.
    :param reactor: provides IReactorSocket, IReactorFromThreads and IReactorTime.
    :param now: epoch seconds.

    Raises PolicyInvalid, whose text names the option and is for the operator; without the extra
    ``rego`` it names what to install.
    """
    paths, url, budget = options["policy"], options["policy-url"], options["policy-timeout"]
    if url:
        from exposr_tx.policy.remote import RemotePolicies, agent  # noqa: PLC0415  2 MB

        web, pool = agent(reactor, budget)
        keep, packages = options["policy-cache"], options["policy-package"]
        path = options["policy-token-file"]
        token = TokenFile(path) if path else None
        try:
            return RemotePolicies(
                url, web, pool.closeCachedConnections, reactor, now, budget, keep, packages, token
            )
        except PolicyInvalid as problem:
            raise PolicyInvalid(f"{given['policy-token-file']} {problem}") from None
    if not paths:
        return None
    # Tried here, as long as errors can be told at the terminal; they are loaded when the server
    # has given up the rights that it needs to listen.
    try:
        processes, _outline = start(read_sources(paths), 1)
    except PolicyInvalid as problem:
        raise PolicyInvalid(f"{given['policy']}: {problem}") from None
    processes[0].stop()
    return Policies(paths, lambda paths: load(reactor, paths, budget), reactor, now)
