"""What a policy calls and reads, found out before it runs.

The embedded engine takes a function that it does not have for undefined, and
``not`` of undefined is true. So every call must be of a function that the
engine has (:data:`~exposr_tx.policy.builtins.HAVE`) or that the policies
define; anything else is refused with file, line and remedy. What of the input
is mentioned is all that an evaluation is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.bodies import check_bodies
from exposr_tx.policy.builtins import CHANGING, HAVE, remedy
from exposr_tx.policy.cases import names, without_cases
from exposr_tx.policy.closures import captured
from exposr_tx.policy.comparisons import (
    check_differences,
    check_equality,
    check_heads,
    check_keys,
    ordered,
    unified,
)
from exposr_tx.policy.document import ALL_FIELDS
from exposr_tx.policy.expressions import closing, heads, split
from exposr_tx.policy.failing import guarded
from exposr_tx.policy.lines import closed
from exposr_tx.policy.negation import check_nested, required
from exposr_tx.policy.patterns import PATTERNS, check_glob, check_pattern
from exposr_tx.policy.prelude import DECODE_VERIFY, GLOB_MATCH, PACKAGE, PROVIDED, rewritten
from exposr_tx.policy.references import Reference, reference_at, references
from exposr_tx.policy.replacements import check_replacements
from exposr_tx.policy.somes import check_pairs, single
from exposr_tx.policy.sources import Source
from exposr_tx.policy.variables import Scope, giving, known, scopes
from exposr_tx.policy.words import CLOSE, OPEN, Word, words

__all__ = ["Module", "check", "fields_of", "scan", "scan_all"]

#: Where the names of built-in functions begin, those that the engine lacks included.
_FAMILIES: Final = frozenset(
    {
        *("array", "base64", "base64url", "bits", "crypto", "glob", "graph", "graphql", "hex"),
        *("http", "internal", "io", "json", "net", "numbers", "object", "opa", "providers"),
        *("rand", "regex", "rego", "semver", "strings", "time", "units", "urlquery", "uuid"),
        "yaml",
    }
)
#: Brackets within each other. 3,000 took 20 s, and what is made of the text nests deeper yet.
MAX_DEPTH: Final = 100
_BRACKETS: Final = "a function cannot be called through brackets; write its name with dots"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function.

    :ivar arguments: how many; None where it is named only.
    """

    name: str
    line: int
    arguments: int | None


@dataclass(slots=True)
class Module:
    """What is to be known of one file.

    :ivar package: as ``auth.server``.
    :ivar text: for the engine, with what it lacks rewritten.
    :ivar rules: names that the package defines here; functions are not among them.
    :ivar functions: names of the functions that it defines here, and how many arguments they take.
    :ivar paths: what is named below ``data``, with its line.
    :ivar names: what is named and is not bound here, with its line.
    :ivar calls: what is called, or named as a function.
    :ivar fields: the fields of the input that are read, with the key where one key is.
    :ivar loose: variables of which the engine asks for a value where they have none; or names of
        rules.
    :ivar hiding: variables that must not have the names of rules.
    """

    path: str
    package: str
    text: str
    rules: set[str] = field(default_factory=set)
    functions: dict[str, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    names: list[tuple[str, int]] = field(default_factory=list)
    paths: list[tuple[str, int]] = field(default_factory=list)
    loose: list[Word] = field(default_factory=list)
    hiding: list[Word] = field(default_factory=list)

    def line(self, offset: int) -> int:
        """The line of a place in the text, in bytes."""
        return self.text.encode()[:offset].count(b"\n") + 1

    @property
    def changing(self) -> bool:
        """Whether the same input may get another answer at another time."""
        # Tokens expire.
        return any(call.name in CHANGING or call.name == DECODE_VERIFY for call in self.calls)


def scan_all(sources: Iterable[Source]) -> list[Module]:
    """Read a set of files. Raises PolicyInvalid."""
    sources = tuple(sources)
    named = {name for source in sources for name in names(words(source.path, source.text))}
    return [scan(source, named) for source in sources]


def scan(source: Source, named: Set[str] = frozenset()) -> Module:
    """Read a file. Raises PolicyInvalid.

    :param named: what other files name; rules for tests stay where they do.
    """
    found = words(source.path, source.text)
    _check_depth(source.path, found)
    text = without_cases(source.text, found, named)
    text = single(source.path, text, words(source.path, text))
    text = rewritten(text, words(source.path, text))
    found = words(source.path, text)
    check_nested(source.path, found)
    check_pairs(source.path, found)
    check_equality(source.path, found)
    check_differences(source.path, found)
    check_heads(source.path, found)
    if not found or found[0].text != "package":
        line = found[0].line if found else 1
        raise PolicyInvalid(f"{source.path}:{line}: a policy begins with: package NAME")
    package = reference_at(found, 1)
    if package is None or not package.known:
        raise PolicyInvalid(f"{source.path}:1: the package needs a name, like auth.server")
    if package.name == PACKAGE:
        raise PolicyInvalid(f"{source.path}:1: the package {PACKAGE} is the server's own")
    module = Module(source.path, package.name, text)
    _imports(module, found)
    begins = set(heads(found))
    check_bodies(source.path, found, begins)
    within = scopes(found)
    variables = known(within)
    for reference in references(found, package.past):
        local = variables.get(reference.at, set())
        _judge(module, found, reference, reference.at in begins, local)
    check_replacements(source.path, found)
    check_keys(source.path, found, giving(within))
    module.text = _mended(module, found, within)
    _enter(module, within, frozenset())
    return module


def _check_depth(path: str, found: Iterable[Word]) -> None:
    depth = 0
    for word in found:
        depth += (word.text in OPEN) - (word.text in CLOSE)
        if depth > MAX_DEPTH:
            raise PolicyInvalid(
                f"{path}:{word.line}: brackets are nested more than {MAX_DEPTH} deep; give what "
                "is within a name of its own"
            )


def _enter(module: Module, within: Iterable[Scope], outside: Set[str]) -> None:
    """Enter what is known of variables into what is known of their module."""
    for scope in within:
        module.loose += [w for w in scope.loose if w.text == "_" or w.text not in outside]
        module.hiding += scope.hiding
        _enter(module, scope.inner, outside | scope.bound.keys())


def _mended(module: Module, found: list[Word], within: Sequence[Scope]) -> str:
    """A module's text without what the engine gets wrong. Lines stay where they are."""
    path = module.path
    text = captured(module.text, found, within)
    text = ordered(text, words(path, text))
    text = guarded(text, words(path, text))
    text = required(text, words(path, text))
    text = unified(text, words(path, text), module.aliases.keys())
    return closed(text, words(path, text))


def check(modules: Sequence[Module]) -> None:
    """Refuse what names something that nobody has. Raises PolicyInvalid."""
    defined: dict[str, int] = {**HAVE, **PROVIDED}
    for module in modules:
        for name, arguments in module.functions.items():
            if defined.setdefault(f"data.{module.package}.{name}", arguments) != arguments:
                raise PolicyInvalid(
                    f"{module.path}: the function {name} is defined with different numbers of "
                    "arguments; define it with one"
                )
    for module in modules:
        for call in module.calls:
            known = defined.get(f"data.{module.package}.{call.name}", defined.get(call.name))
            where = f"{module.path}:{call.line}"
            if known is None:
                raise PolicyInvalid(
                    f"{where}: the embedded engine has no function {call.name}; {remedy(call.name)}"
                )
            if call.arguments not in (None, known):
                raise PolicyInvalid(
                    f"{where}: {call.name} takes {known} arguments, not {call.arguments}"
                )
        rules = {
            name for other in modules if other.package == module.package for name in other.rules
        }
        for name, line in module.paths:
            if not _leads_somewhere(name, modules):
                raise PolicyInvalid(
                    f"{module.path}:{line}: no file defines {name}; correct the name, or define it"
                )
        for name, line in module.names:
            if name not in rules:
                raise PolicyInvalid(
                    f"{module.path}:{line}: {name} is neither a rule of the package nor a variable "
                    "that gets a value; define it"
                )
        _check_variables(module, rules | module.aliases.keys())


def _check_variables(module: Module, others: Set[str]) -> None:
    """Refuse variables with which the engine finds nothing, or something else.

    :param others: names of rules, and of what is imported.
    """
    for word in module.loose:
        if word.text not in others:
            raise PolicyInvalid(
                f"{module.path}:{word.line}: the embedded engine finds nothing for {word.text} "
                "here, as it has no value yet; give it one before, or what is found a name, as in: "
                "x := table[i]; f(x)"
            )
    for word in module.hiding:
        if word.text in others:
            raise PolicyInvalid(
                f"{module.path}:{word.line}: the variable {word.text} has the name of a rule, or "
                "of what is imported; choose another one"
            )


def _leads_somewhere(name: str, modules: Sequence[Module]) -> bool:
    """Whether a path below ``data`` is one of a package, or of a rule; there is nothing else."""
    for module in modules:
        package = f"data.{module.package}"
        if f"{package}.".startswith(f"{name}."):
            return True
        rule = name.removeprefix(f"{package}.").partition(".")[0]
        if name.startswith(f"{package}.") and (rule in module.rules or rule in module.functions):
            return True
    return False


def _imports(module: Module, found: list[Word]) -> None:
    for place, word in enumerate(found):
        if word.text != "import" or not word.first:
            continue
        reference = reference_at(found, place + 1)
        if reference is None or not reference.known:
            raise PolicyInvalid(f"{module.path}:{word.line}: what is imported needs a plain name")
        alias = reference.parts[-1]
        if reference.past + 1 < len(found) and found[reference.past].text == "as":
            alias = found[reference.past + 1].text
        if reference.parts[0] in ("data", "input"):
            module.aliases[alias] = reference.parts


def _judge(
    module: Module, found: list[Word], reference: Reference, head: bool, local: Set[str]
) -> None:
    """Enter a reference into what is known of its module."""
    parts = reference.parts
    following = found[reference.past] if reference.past < len(found) else None
    called = following is not None and following.text == "("
    given = _arguments(found, reference.past) if called else []
    arguments = len(given)
    if head and not called:
        module.rules.add(parts[0])
        return
    if head and _defines(found, reference.past):
        if parts[0] in _FAMILIES or reference.name in HAVE:
            raise PolicyInvalid(
                f"{module.path}:{reference.line}: {reference.name} is the name of a built-in "
                "function; choose another one"
            )
        if module.functions.setdefault(reference.name, arguments) != arguments:
            raise PolicyInvalid(
                f"{module.path}:{reference.line}: {reference.name} is defined with another number "
                "of arguments as well; define it with one"
            )
        return
    full = (*module.aliases[parts[0]], *parts[1:]) if parts[0] in module.aliases else parts
    if full[0] == "input" and not called:
        module.fields.add(name := _field(full))
        if name.startswith("within."):
            _check_network(module, name.partition(".")[2], reference.line)
    elif called or (
        parts[0] in _FAMILIES
        and len(parts) > 1
        and parts[0] not in local
        and parts[0] not in module.aliases
    ):
        where = f"{module.path}:{reference.line}"
        module.calls.append(Call(".".join(full), reference.line, arguments if called else None))
        if module.calls[-1].name in PATTERNS:
            check_pattern(where, module.calls[-1].name, given)
        elif module.calls[-1].name in ("glob.match", GLOB_MATCH):
            check_glob(where, given)
        if module.calls[-1].name in HAVE and _has_brackets(found, reference):
            raise PolicyInvalid(f"{where}: {_BRACKETS}")
    elif full[0] == "data":
        module.paths.append((".".join(full), reference.line))
    elif full[0] != "input" and parts[0] not in local:
        module.names.append((parts[0], reference.line))
    if not reference.known and _called_by_bracket(found, reference.past):
        raise PolicyInvalid(f"{module.path}:{reference.line}: {_BRACKETS}")


def _field(parts: tuple[str, ...]) -> str:
    """What of the input a reference reads: ``method``, ``header.Authorization``, all of it."""
    return ".".join(parts[1:3]) if len(parts) > 1 else ALL_FIELDS


def _check_network(module: Module, network: str, line: int) -> None:
    try:
        ip_network(network, strict=False)
    except ValueError:
        raise PolicyInvalid(
            f"{module.path}:{line}: {network!r} is no network like 192.0.2.0/24"
        ) from None


def _arguments(found: list[Word], place: int) -> list[Sequence[Word]]:
    """The arguments in the bracket that opens at a place."""
    return split(found[place + 1 : closing(found, place)], frozenset({","}))


def _defines(found: list[Word], place: int) -> bool:
    """Whether what follows the bracket that opens here makes it the head of a function; one
    without value and body is true."""
    past = closing(found, place) + 1
    return past >= len(found) or found[past].first or found[past].text in (":=", "=", "if", "{")


def _has_brackets(found: list[Word], reference: Reference) -> bool:
    """Whether a part of a name stands in brackets: what is to be rewritten would not be found."""
    return any(word.text == "[" for word in found[reference.at : reference.past])


def _called_by_bracket(found: list[Word], place: int) -> bool:
    past = closing(found, place) + 1
    return past < len(found) and found[past].text == "(" and found[past].glued


def fields_of(modules: Iterable[Module]) -> frozenset[str]:
    """The fields of the input that any of the modules reads."""
    return frozenset(name for module in modules for name in module.fields)
