"""How often policies have decided what: counted, and told where they could not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from exposr_tx.interfaces import Decision

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["Counts"]

OUTCOMES: Final = ("allowed", "denied", "undefined", "error", "timeout")
#: Seconds between two log lines of one kind of failure.
QUIET: Final = 1.0
_WORDS: Final = {
    "error": "package {package} could not decide, and denied: {why}",
    "timeout": "package {package} did not decide in time, and denied: {why}",
}


class Counts:
    """Decisions by their outcome.

    :param why: what the log says of an error, and of a decision that was late.
    :ivar by_outcome: see Decision.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, **why: str) -> None:
        self._clock = clock
        self._why = why
        self._told: dict[str, float] = {}
        self.by_outcome = dict.fromkeys(OUTCOMES, 0)

    def __repr__(self) -> str:
        return f"<Counts {self}>"

    def __str__(self) -> str:
        return ", ".join(f"{count} {outcome}" for outcome, count in self.by_outcome.items())

    def count(self, decision: Decision, package: str, why: str = "") -> None:
        """Count a decision; a failure is a line of the log, once in a while.

        :param why: what is known of a failure. Must not show what is in a request.
        """
        outcome = decision.outcome
        self.by_outcome[outcome] += 1
        if outcome not in _WORDS:
            return
        now = self._clock.seconds()
        if now - self._told.get(outcome, -QUIET) < QUIET:
            return
        self._told[outcome] = now
        self.log.warn(
            _WORDS[outcome],
            event="policy",
            package=package,
            outcome=outcome,
            why=why or self._why[outcome],
            count=self.by_outcome[outcome],
        )

    def tell(self, **more: Any) -> None:
        """A line of the log with all there is."""
        if any(self.by_outcome.values()):
            self.log.info(
                "policies have decided: {counts}",
                event="policy-counts",
                counts=str(self),
                **self.by_outcome,
                **more,
            )
