"""The embedded Rego engine, regopy: compiles a set of policies once, and evaluates them.

The one module that knows regopy. An :class:`Engine` may be used by any thread,
but by one at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import Module

__all__ = ["UNDEFINED", "Engine", "EvaluationFailed", "MissingExtra", "available"]

#: The result of a rule that has none.
UNDEFINED: Final = object()

#: What is compiled where no package has an ``allow``.
_NOTHING: Final = "exposr_tx/nothing"
_ERROR: Final = re.compile(r"\(errormsg \d+:(.*?)\)\n")
#: Where: the length of the module's name, the name, an offset.
_PLACE: Final = re.compile(r"\b\d+:(\d+)\|(\d+)\|\d+")

MISSING: Final = "policies need the Rego engine: pip install 'exposr-tx[rego]'"


class MissingExtra(PolicyInvalid):
    """The engine is not installed; the message names what to install."""


class EvaluationFailed(Exception):
    """The engine gave up. Its own words may show parts of a request, and are not in here."""


def available() -> bool:
    """Whether the engine is installed, and can be loaded on this system."""
    try:
        import regopy  # noqa: F401, PLC0415
    except (ImportError, OSError):
        return False
    return True


class Engine:
    """Compiled policies.

    :param modules: what to compile.
    :param entries: the packages that are asked.
    :param rule: of each of them.

    Raises MissingExtra, or PolicyInvalid where something does not compile.
    """

    def __init__(
        self, modules: Sequence[Module], entries: Iterable[str], rule: str = "allow"
    ) -> None:
        try:
            regopy: Any = import_module("regopy")  # its own types are not complete
        except (ImportError, OSError) as problem:
            raise MissingExtra(f"{MISSING} ({problem})") from None
        self._error = regopy.RegoError
        self._input = regopy.Input
        self._rego = regopy.Interpreter()
        self._rego.log_level = regopy.LogLevel.NONE
        self._entries = {package: f"{package.replace('.', '/')}/{rule}" for package in entries}
        try:
            for number, module in enumerate(modules):
                self._rego.add_module(str(number), module.text)
            self._bundle = self._rego.build(None, [*self._entries.values()] or [_NOTHING])
        except regopy.RegoError as problem:
            raise PolicyInvalid(_said(modules, str(problem))) from None
        if not self._bundle.ok():
            raise PolicyInvalid(_said(modules, ""))

    def evaluate(self, package: str, document: Mapping[str, Any]) -> Any:
        """The value of a package's rule, or UNDEFINED. Raises EvaluationFailed."""
        try:
            # 110 µs; 260 µs where the engine parses the input from text.
            self._rego.set_input(self._input(_spelled(document)))
            output = self._rego.query_bundle_entrypoint(self._bundle, self._entries[package])
        except (self._error, ValueError) as problem:
            raise EvaluationFailed(type(problem).__name__) from None
        if not output.ok():
            raise EvaluationFailed("the engine reports an error")
        results = output.results
        if not results or not results[0].expressions:
            return UNDEFINED
        return results[0].expressions[0]


def _spelled(value: Any) -> Any:
    """A value with its strings as JSON spells them: so the engine keeps what stands in a policy,
    and it compares what it keeps (tried: a quote as it is equals no literal)."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)[1:-1]
    if isinstance(value, dict):
        return {_spelled(key): _spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return value


def _said(modules: Sequence[Module], problem: str) -> str:
    """The first of the engine's errors, with file and line."""
    found = _ERROR.search(problem)
    if found is None:
        return " ".join(problem.split()) or "the policies do not compile"
    place = _PLACE.search(problem)
    if place is None or int(place[1]) >= len(modules):
        return found[1]
    module = modules[int(place[1])]
    return f"{module.path}:{module.line(int(place[2]))}: {found[1]}"
