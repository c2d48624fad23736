"""The loaded policies: asked by ingress and by the transports, loaded anew when files change.

A :class:`PolicySet` is what was compiled from the files as they stood.
:class:`Policies` owns the set in use. A set that does not compile never takes
the place of one that did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision, IPolicy, Question
from exposr_tx.policy.document import Reading
from exposr_tx.policy.engine import UNDEFINED, Engine, EvaluationFailed
from exposr_tx.policy.evaluators import THREADS
from exposr_tx.policy.prelude import CIDR_CONTAINS, PACKAGE, PRELUDE
from exposr_tx.policy.scan import Module, check, fields_of, scan
from exposr_tx.policy.sources import read_sources, signature
from exposr_tx.policy.verdict import DENIED, FAILED, LATE, NO_PACKAGE, verdict

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["BUDGET", "Policies", "PolicySet"]

#: Seconds that there are to decide.
BUDGET: Final = 0.05
#: Seconds between two looks at the files.
LOOK: Final = 2.0
#: Decisions kept; 100 bytes each, by a hash, so that no credentials stay in memory.
MAX_KEPT: Final = 16384
#: Seconds between two log lines of one kind of failure.
QUIET: Final = 1.0

#: Runs work beside the reactor: what to call, seconds (0 is any), the result when it is late.
Beside = Callable[[Callable[[], Any], float, Any], "Deferred[Any]"]


class PolicySet:
    """Compiled policies, as many times as there are threads.

    :param paths: files and folders.
    :ivar packages: what is there.
    :ivar reading: what of the input is read.
    :ivar lasting: whether the same input always gets the same decision.
    :ivar warnings: what an operator should know.

    Raises PolicyInvalid.
    """

    def __init__(self, paths: Sequence[str], engines: int = THREADS) -> None:
        self.modules: list[Module] = [scan(source) for source in read_sources(paths)]
        check(self.modules)
        self.packages = frozenset(module.package for module in self.modules)
        self.reading = Reading(fields_of(self.modules))
        self.lasting = self.reading.lasting and not any(module.changing for module in self.modules)
        self.warnings = [
            f"the input has no field {name!r}; what depends on it is undefined"
            for name in self.reading.unknown
        ]
        self._entries = frozenset(
            module.package for module in self.modules if "allow" in module.rules
        )
        self._engines: SimpleQueue[Engine] = SimpleQueue()
        for _ in range(engines):
            self._engines.put(Engine(self._sources(), self._entries))

    def __repr__(self) -> str:
        return f"<PolicySet {', '.join(sorted(self.packages))}>"

    def _sources(self) -> list[Module]:
        asks = any(call.name == CIDR_CONTAINS for module in self.modules for call in module.calls)
        return [*self.modules, Module(PACKAGE, PACKAGE, PRELUDE)] if asks else self.modules

    def rules(self, package: str, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What each rule of a package gives for an input: to explain a decision, not to make it."""
        names = {n for module in self.modules if module.package == package for n in module.rules}
        for name in sorted(names):
            engine = Engine(self._sources(), [package], name)
            try:
                value = engine.evaluate(package, given)
            except EvaluationFailed as problem:
                yield name, f"fails ({problem})"
            else:
                yield name, "undefined" if value is UNDEFINED else json.dumps(value)

    def evaluate(self, package: str, given: Mapping[str, Any]) -> Decision:
        """Decide on an input; takes its time, and any thread."""
        if package not in self._entries:
            return DENIED if package in self.packages else NO_PACKAGE
        engine = self._engines.get()
        try:
            value = engine.evaluate(package, given)
        except EvaluationFailed:
            return FAILED
        finally:
            self._engines.put(engine)
        return DENIED if value is UNDEFINED else verdict(value)


@implementer(IPolicy)
class Policies:
    """The policies in use.

    :param paths: files and folders.
    :param policies: compiled from them.
    :param clock: for the time limit, and looks at the files.
    :param now: epoch seconds.
    :param beside: runs an evaluation; see Evaluators.run.
    :param load: compiles files anew.
    :ivar counts: how often there was each outcome.
    """

    log = Logger()

    def __init__(
        self,
        paths: Sequence[str],
        policies: PolicySet,
        clock: IReactorTime,
        now: Callable[[], float],
        beside: Beside,
        load: Callable[[Sequence[str]], PolicySet] = PolicySet,
    ) -> None:
        self._paths = tuple(paths)
        self._set = policies
        self._clock = clock
        self._now = now
        self._beside = beside
        self._load = load
        self._kept: dict[bytes, Decision] = {}
        self._signature = signature(self._paths)
        self._loading = False
        self._again = False
        self._told: dict[str, float] = {}
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self.counts = dict.fromkeys(("allowed", "denied", "undefined", "error", "timeout"), 0)

    def __repr__(self) -> str:
        return f"<Policies {self._set!r}>"

    @property
    def packages(self) -> frozenset[str]:
        """What is loaded."""
        return self._set.packages

    # Deciding

    def decide(self, package: str, question: Question) -> Decision | Deferred[Decision]:
        """See IPolicy."""
        policies = self._set
        key = b""
        if policies.lasting:
            key = policies.reading.key(package, question)
            kept = self._kept.get(key)
            if kept is not None:
                self.counts[kept.outcome] += 1
                return kept
        given = policies.reading.of(question, self._now)
        deciding = self._beside(lambda: policies.evaluate(package, given), BUDGET, LATE)
        deciding.addErrback(self._broken)
        return deciding.addCallback(self._decided, package, policies, key)

    def _broken(self, failure: Failure) -> Decision:
        if failure.check(CancelledError):
            failure.raiseException()
        # The failure's own text may show what is in a request.
        self.log.error(
            "a policy could not be evaluated: {kind}",
            event="policy",
            kind=getattr(failure.type, "__name__", "?"),
        )
        return FAILED

    def _decided(
        self, decision: Decision, package: str, policies: PolicySet, key: bytes
    ) -> Decision:
        self.counts[decision.outcome] += 1
        if decision.outcome in ("error", "timeout"):
            self._tell(package, decision.outcome)
        elif key and policies is self._set:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = decision
        return decision

    def _tell(self, package: str, outcome: str) -> None:
        now = self._clock.seconds()
        if now - self._told.get(outcome, -QUIET) < QUIET:
            return
        self._told[outcome] = now
        self.log.warn(
            {
                "error": "package {package} could not decide, and denied: its evaluation fails, or "
                "gives what is no decision; try it with: exposr policy test",
                "timeout": "package {package} did not decide in time, and denied; make it simpler",
            }[outcome],
            event="policy",
            package=package,
            outcome=outcome,
            count=self.counts[outcome],
        )

    # Loading anew

    def start(self) -> None:
        """Look at the files from now on."""
        self._warn()
        self._looking.start(LOOK, now=False)

    def stop(self) -> None:
        """Look at the files no more."""
        if self._looking.running:
            self._looking.stop()

    def reload(self) -> Deferred[bool]:
        """Take the files as they are now, all or none.

        :return: fires with whether they were taken.
        """
        if self._loading:
            self._again = True
            return succeed(False)
        self._loading = True
        self._signature = signature(self._paths)
        loading = self._beside(lambda: self._load(self._paths), 0, None)
        return loading.addCallbacks(self._loaded, self._refused).addBoth(self._next)

    def _next(self, result: Any) -> Any:
        self._loading = False
        if self._again:
            self._again = False
            self.reload()
        return result

    def _loaded(self, policies: PolicySet) -> bool:
        self._set = policies
        self._kept.clear()
        self.log.info(
            "policies were loaded: {packages}",
            event="policy",
            packages=", ".join(sorted(policies.packages)),
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
        else:
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
        for line in self._set.warnings:
            self.log.warn("{line}", event="policy", line=line)

    def _look(self) -> None:
        if signature(self._paths) != self._signature:
            self.reload()
