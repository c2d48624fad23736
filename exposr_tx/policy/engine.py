"""The embedded Rego engine, regopy: compiles a set of policies once, and evaluates them.

The one module that knows regopy. What happens for each decision goes to the
engine's C functions directly: regopy's own objects around them take twice as
long as evaluating, and its declarations of them a fifth more than ours. An
:class:`Engine` may be used by any thread, but by one at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from ctypes import PyDLL, c_bool, c_double, c_int64, c_void_p, create_string_buffer
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import Module

__all__ = ["UNDEFINED", "Engine", "EvaluationFailed", "MissingExtra", "NoReason"]

#: The result of a rule that has none.
UNDEFINED: Final = object()
#: What the engine says in most cases.
_USUAL: Final = {
    b"undefined": UNDEFINED,
    b'{"expressions":[true]}': True,
    b'{"expressions":[false]}': False,
}
#: Bytes of a result that are read at once.
_SIZE: Final = 4096
#: Keys of objects of which it is kept how they are spelled; headers' names among them.
_KEYS: Final = 1024

#: What is compiled where no package has an ``allow``.
_NOTHING: Final = "exposr_tx/nothing"
_ERROR: Final = re.compile(r"\(errormsg \d+:(.*?)\)\n")
#: Where: the length of the module's name, the name, an offset.
_PLACE: Final = re.compile(r"\b\d+:(\d+)\|(\d+)\|\d+")

MISSING: Final = "policies need the Rego engine: pip install 'exposr-tx[rego]'"


class MissingExtra(PolicyInvalid):
    """The engine is not installed; the message names what to install."""


class NoReason(PolicyInvalid):
    """The policies do not compile, and the engine does not say why."""


class EvaluationFailed(Exception):
    """The engine gave up. Its own words may show parts of a request, and are not in here."""


class Engine:
    """Compiled policies.

    :param modules: what to compile.
    :param entries: the packages that are asked.
    :param rule: of each of them.

    Raises MissingExtra, or PolicyInvalid where something does not compile, NoReason among them.
    """

    def __init__(
        self, modules: Sequence[Module], entries: Iterable[str], rule: str = "allow"
    ) -> None:
        try:
            regopy: Any = import_module("regopy")  # its own types are not complete
            shared: Any = import_module("regopy.rego_shared")
        except (ImportError, OSError) as problem:
            raise MissingExtra(f"{MISSING} ({problem})") from None
        self._functions = _Functions(shared.path)
        self._buffer = create_string_buffer(_SIZE)
        self._rego = regopy.Interpreter()
        self._rego.log_level = regopy.LogLevel.NONE
        paths = {package: f"{package.replace('.', '/')}/{rule}" for package in entries}
        self._entries = {package: path.encode() for package, path in paths.items()}
        try:
            for number, module in enumerate(modules):
                self._rego.add_module(str(number), module.text)
            self._bundle = self._rego.build(None, [*paths.values()] or [_NOTHING])
        except regopy.RegoError as problem:
            if said := _said(modules, str(problem)):
                raise PolicyInvalid(said) from None
            raise NoReason from None
        if not self._bundle.ok():
            raise NoReason
        self._asked = c_void_p(self._rego._impl), c_void_p(self._bundle._impl)

    def evaluate(self, package: str, document: Mapping[str, Any]) -> Any:
        """The value of a package's rule, or UNDEFINED. Raises EvaluationFailed."""
        functions, (rego, bundle) = self._functions, self._asked
        given = c_void_p(functions.new_input())
        try:
            self._add(given, document)
            if functions.set_input(rego, given):
                raise EvaluationFailed("the engine takes no such input")
        finally:
            functions.free_input(given)
        output = c_void_p(functions.query(rego, bundle, self._entries[package]))
        if not output:
            raise EvaluationFailed("the engine gives no result")
        try:
            return self._result(output)
        finally:
            functions.free_output(output)

    def _add(self, given: c_void_p, value: Any) -> None:
        """Put a value on the stack that an input is built with."""
        functions = self._functions
        kind = type(value)
        if kind is str:
            failed = functions.string(given, _spelled(value))
        elif kind is dict:
            for key, item in value.items():
                functions.string(given, _key(key))
                self._add(given, item)
                functions.item(given)
            failed = functions.object(given, len(value))
        elif kind is list:
            for item in value:
                self._add(given, item)
            failed = functions.array(given, len(value))
        elif kind is bool:
            failed = functions.boolean(given, c_bool(value))
        elif kind is int:
            failed = functions.int(given, c_int64(value))
        elif kind is float:
            failed = functions.float(given, c_double(value))
        elif value is None:
            failed = functions.null(given)
        else:
            raise EvaluationFailed(f"no input has a {kind.__name__}")
        if failed:
            raise EvaluationFailed("the engine takes no such input")

    def _result(self, output: c_void_p) -> Any:
        functions, buffer = self._functions, self._buffer
        if not functions.ok(output):
            raise EvaluationFailed("the engine reports an error")
        if functions.json(output, buffer, _SIZE):
            size = functions.json_size(output)
            buffer = create_string_buffer(size)
            if functions.json(output, buffer, size):
                raise EvaluationFailed("the engine's result cannot be read")
        text = buffer.value
        if text in _USUAL:
            return _USUAL[text]
        try:
            found = json.loads(text)
        except ValueError:
            raise EvaluationFailed("the engine's result cannot be read") from None
        first = found[0] if isinstance(found, list) else found
        return first["expressions"][0] if first.get("expressions") else UNDEFINED


class _Functions:
    """The engine's C functions for decisions.

    Without declared arguments each is called in half the time; who calls gives pointers and
    numbers wider than an int as values of ctypes. They keep the interpreter meanwhile: to hand it
    over costs more than what most of them do.

    :param path: where the library is.
    """

    def __init__(self, path: str) -> None:
        library = PyDLL(path)
        self.new_input = library.regoNewInput
        self.free_input = library.regoFreeInput
        self.set_input = library.regoSetInput
        self.string = library.regoInputString
        self.item = library.regoInputObjectItem
        self.object = library.regoInputObject
        self.array = library.regoInputArray
        self.boolean = library.regoInputBoolean
        self.int = library.regoInputInt
        self.float = library.regoInputFloat
        self.null = library.regoInputNull
        self.query = library.regoBundleQueryEntrypoint
        self.free_output = library.regoFreeOutput
        self.ok = library.regoOutputOk
        self.json = library.regoOutputJSON
        self.json_size = library.regoOutputJSONSize
        self.new_input.restype = self.query.restype = c_void_p
        self.free_input.restype = self.free_output.restype = None
        self.ok.restype = c_bool


def _spelled(text: str) -> bytes:
    """A string as JSON spells it: so the engine keeps what stands in a policy, and it compares
    what it keeps (tried: a quote as it is equals no literal)."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text.encode()
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")


_key = lru_cache(_KEYS)(_spelled)


def _said(modules: Sequence[Module], problem: str) -> str:
    """The first of the engine's errors, with file and line."""
    found = _ERROR.search(problem)
    if found is None:
        return " ".join(problem.split())
    place = _PLACE.search(problem)
    if place is None or int(place[1]) >= len(modules):
        return found[1]
    module = modules[int(place[1])]
    return f"{module.path}:{module.line(int(place[2]))}: {found[1]}"
