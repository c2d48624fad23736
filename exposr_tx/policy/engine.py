"""The embedded Rego engine, regopy: compiles a set of policies once, and evaluates them.

The one module that knows regopy. What happens for each decision goes to the
engine's C functions directly: regopy's own objects around them take twice as
long as evaluating. An :class:`Engine` may be used by any thread, but by one at a
time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from ctypes import create_string_buffer
from importlib import import_module
from typing import Any, Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import Module

__all__ = ["UNDEFINED", "Engine", "EvaluationFailed", "MissingExtra", "available"]

#: The result of a rule that has none.
UNDEFINED: Final = object()
#: What the engine says in most cases.
_USUAL: Final = {
    b"undefined": UNDEFINED,
    b'{"expressions":[true]}': True,
    b'{"expressions":[false]}': False,
}
#: What JSON spells as it is.
_AS_IT_IS: Final = re.compile(r"[ !#-\[\]-~]*")

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
            shared: Any = import_module("regopy.rego_shared")
        except (ImportError, OSError) as problem:
            raise MissingExtra(f"{MISSING} ({problem})") from None
        self._functions = shared.rego
        self._rego = regopy.Interpreter()
        self._rego.log_level = regopy.LogLevel.NONE
        paths = {package: f"{package.replace('.', '/')}/{rule}" for package in entries}
        self._entries = {package: path.encode() for package, path in paths.items()}
        try:
            for number, module in enumerate(modules):
                self._rego.add_module(str(number), module.text)
            self._bundle = self._rego.build(None, [*paths.values()] or [_NOTHING])
        except regopy.RegoError as problem:
            raise PolicyInvalid(_said(modules, str(problem))) from None
        if not self._bundle.ok():
            raise PolicyInvalid(_said(modules, ""))

    def evaluate(self, package: str, document: Mapping[str, Any]) -> Any:
        """The value of a package's rule, or UNDEFINED. Raises EvaluationFailed."""
        functions, rego = self._functions, self._rego._impl
        given = functions.regoNewInput()
        try:
            self._add(given, document)
            if functions.regoSetInput(rego, given):
                raise EvaluationFailed("the engine takes no such input")
        finally:
            functions.regoFreeInput(given)
        entry = self._entries[package]
        output = functions.regoBundleQueryEntrypoint(rego, self._bundle._impl, entry)
        if not output:
            raise EvaluationFailed("the engine gives no result")
        try:
            return self._result(output)
        finally:
            functions.regoFreeOutput(output)

    def _add(self, given: int, value: Any) -> None:
        """Put a value on the stack that an input is built with."""
        functions = self._functions
        kind = type(value)
        if kind is str:
            failed = functions.regoInputString(given, _spelled(value))
        elif kind is dict:
            for key, item in value.items():
                functions.regoInputString(given, _spelled(key))
                self._add(given, item)
                functions.regoInputObjectItem(given)
            failed = functions.regoInputObject(given, len(value))
        elif kind is list:
            for item in value:
                self._add(given, item)
            failed = functions.regoInputArray(given, len(value))
        elif kind is bool:
            failed = functions.regoInputBoolean(given, value)
        elif kind is int:
            failed = functions.regoInputInt(given, value)
        elif kind is float:
            failed = functions.regoInputFloat(given, value)
        elif value is None:
            failed = functions.regoInputNull(given)
        else:
            raise EvaluationFailed(f"no input has a {kind.__name__}")
        if failed:
            raise EvaluationFailed("the engine takes no such input")

    def _result(self, output: int) -> Any:
        functions = self._functions
        if not functions.regoOutputOk(output):
            raise EvaluationFailed("the engine reports an error")
        size = functions.regoOutputJSONSize(output)
        text = create_string_buffer(size)
        if functions.regoOutputJSON(output, text, size):
            raise EvaluationFailed("the engine's result cannot be read")
        if text.value in _USUAL:
            return _USUAL[text.value]
        try:
            found = json.loads(text.value)
        except ValueError:
            raise EvaluationFailed("the engine's result cannot be read") from None
        first = found[0] if isinstance(found, list) else found
        return first["expressions"][0] if first.get("expressions") else UNDEFINED


def _spelled(text: str) -> bytes:
    """A string as JSON spells it: so the engine keeps what stands in a policy, and it compares
    what it keeps (tried: a quote as it is equals no literal)."""
    if _AS_IT_IS.fullmatch(text):
        return text.encode()
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")


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
