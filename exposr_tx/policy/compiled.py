"""A set of policies: what is to be known of it, and what the engine has made of it.

Needs no Twisted, as it lives where policies are evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exposr_tx.interfaces import Decision
from exposr_tx.policy.document import Reading
from exposr_tx.policy.engine import UNDEFINED, Engine, EvaluationFailed
from exposr_tx.policy.prelude import PACKAGE, prelude
from exposr_tx.policy.scan import Module, check, fields_of, scan_all
from exposr_tx.policy.sources import Source
from exposr_tx.policy.verdict import DENIED, FAILED, NO_PACKAGE, verdict

__all__ = ["Compiled", "Outline"]


@dataclass(frozen=True, slots=True)
class Outline:
    """What is to be known of a set of policies by who asks it.

    :ivar packages: what is there.
    :ivar fields: what of the input is read; see Reading.
    :ivar changing: whether even the same input may get another decision.
    """

    packages: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    changing: bool = False

    def __repr__(self) -> str:
        return f"<Outline {', '.join(sorted(self.packages))}>"


class Compiled:
    """Policies that can be evaluated; one at a time.

    :param only: numbers of those that the engine gets; all, unless there are any.
    :ivar reading: what of the input is read.
    :ivar warnings: what an operator should know.

    Raises PolicyInvalid.
    """

    def __init__(self, sources: Sequence[Source], only: Sequence[int] = ()) -> None:
        modules = scan_all(sources)
        check(modules)
        self.modules = [modules[number] for number in only] or modules
        self.outline = Outline(
            frozenset(module.package for module in self.modules),
            fields_of(self.modules),
            any(module.changing for module in self.modules),
        )
        self.reading = Reading(self.outline.fields)
        self._entries = frozenset(
            module.package for module in self.modules if "allow" in module.rules
        )
        self._engine = Engine(self._with_prelude(), self._entries)

    def __repr__(self) -> str:
        return f"<Compiled {self.outline!r}>"

    @property
    def warnings(self) -> list[str]:
        return self.reading.warnings

    def _with_prelude(self) -> list[Module]:
        text = prelude(module.text for module in self.modules)
        return [*self.modules, Module(PACKAGE, PACKAGE, text)] if text else self.modules

    def rules(self, package: str, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What each rule of a package gives for an input: to explain a decision, not to make it."""
        names = {n for module in self.modules if module.package == package for n in module.rules}
        for name in sorted(names):
            engine = Engine(self._with_prelude(), [package], name)
            try:
                value = engine.evaluate(package, given)
            except EvaluationFailed as problem:
                yield name, f"fails ({problem})"
            else:
                yield name, "undefined" if value is UNDEFINED else json.dumps(value)

    def evaluate(self, package: str, given: Mapping[str, Any]) -> Decision:
        """Decide on an input; takes its time."""
        if package not in self._entries:
            return DENIED if package in self.outline.packages else NO_PACKAGE
        try:
            value = self._engine.evaluate(package, given)
        except EvaluationFailed:
            return FAILED
        return DENIED if value is UNDEFINED else verdict(value)
