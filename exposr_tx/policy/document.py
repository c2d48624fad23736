"""The input of a policy: what of a Question stands in it, and by which names.

``method``, ``path``, ``header`` and ``remote`` are backstream's, the rest is
ours. Only fields that a policy mentions are worked out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network
from operator import attrgetter
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from exposr_tx.interfaces import Question

Fields = Sequence[tuple[bytes, bytes]]

__all__ = ["ALL_FIELDS", "FIELDS", "MAX_KEPT", "PASSING", "Reading", "completed", "unlike"]


def _path(question: Question) -> str:
    path = _raw_path(question)
    return unquote(path) if "%" in path else path


def _raw_path(question: Question) -> str:
    return question.target.partition(b"?")[0].decode("latin-1")


def _raw_query(question: Question) -> str:
    return question.target.partition(b"?")[2].decode("latin-1")


def _query(question: Question) -> dict[str, list[str]]:
    return parse_qs(_raw_query(question), keep_blank_values=True, max_num_fields=None)


def _header(fields: Fields) -> dict[str, str]:
    """The first value of each field, names as Go writes them."""
    first: dict[str, str] = {}
    for name, value in fields:
        first.setdefault(canonical(name.decode("latin-1")), value.decode("utf-8", "replace"))
    return first


def _headers(fields: Fields) -> dict[str, list[str]]:
    """All values of each field, names in lower case."""
    values: dict[str, list[str]] = {}
    for name, value in fields:
        text = value.decode("utf-8", "replace")
        values.setdefault(name.decode("latin-1").lower(), []).append(text)
    return values


def _remote(question: Question) -> str:
    host = f"[{question.remote_ip}]" if ":" in question.remote_ip else question.remote_ip
    return f"{host}:{question.remote_port}"


#: Each field and how it is found; ``time`` comes from the clock.
_FIELDS: Final[Mapping[str, Callable[[Question], Any]]] = {
    "method": attrgetter("method"),
    "path": _path,
    "raw_path": _raw_path,
    "query": _query,
    "raw_query": _raw_query,
    "host": attrgetter("host"),
    "header": lambda question: _header(question.fields),
    "headers": lambda question: _headers(question.fields),
    "remote": _remote,
    "remote_ip": attrgetter("remote_ip"),
    "remote_port": attrgetter("remote_port"),
    "scheme": attrgetter("scheme"),
    "tunnel": attrgetter("tunnel"),
    "account": attrgetter("account"),
    "transport": attrgetter("transport"),
    # Filled in by Reading, which knows the networks.
    "within": lambda question: {},
}
_OF_HEADERS: Final = {"header": _header, "headers": _headers}
#: Stands among the fields where the input is read as a whole.
ALL_FIELDS: Final = "*"

FIELDS: Final = frozenset({*_FIELDS, "time"})
#: Fields of which one key may be all that is read.
_OBJECTS: Final = frozenset({"header", "headers", "query", "within"})
#: Fields that differ from one connection, or moment, to the next.
PASSING: Final = frozenset({"time", "remote", "remote_port"})
#: Header fields that are never in the input: what is believed of them stands in other fields.
_UNTOLD: Final = frozenset(
    {"forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)
#: Addresses of which it is known in which networks they are.
MAX_KNOWN: Final = 4096
#: Decisions kept; 100 bytes each, by a hash, so that no credentials stay in memory.
MAX_KEPT: Final = 16384


def canonical(name: str) -> str:
    """A field name as Go spells it: ``x-foo-bar`` is ``X-Foo-Bar``."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


class Reading:
    """What of the input a set of policies reads.

    :param mentioned: fields, as ``method`` or, where one key of an object is read,
        ``header.Authorization``; ALL_FIELDS for all there is. The keys of ``within`` are networks.
    :param overlooked: fields in which questions with the same key may differ.
    :ivar timed: whether ``time`` is read.
    :ivar warnings: what an operator should know.
    """

    __slots__ = (
        *("_has", "_keys", "_names", "_networks", "_overlooked", "_parts", "_values"),
        *("timed", "warnings"),
    )

    def __init__(
        self, mentioned: Iterable[str], overlooked: Collection[str] = frozenset({"time"})
    ) -> None:
        names = set(mentioned)
        self._overlooked = overlooked
        self._networks = {
            name.partition(".")[2]: ip_network(name.partition(".")[2], strict=False)
            for name in names
            if name.startswith("within.")
        }
        keys: dict[str, set[str] | None] = {}
        if ALL_FIELDS in names:
            keys = dict.fromkeys(FIELDS if self._networks else FIELDS - {"within"})
        for name in names - {ALL_FIELDS}:
            field, _, key = name.partition(".")
            known = keys.setdefault(field, set())
            if not key or field not in _OBJECTS:
                keys[field] = None
            elif known is not None:
                known.add(key)
        self.warnings = [
            f"the input has no field {name!r}; what depends on it is undefined"
            for name in sorted(keys.keys() - FIELDS)
        ]
        self.warnings += [
            f"the input's {field} has never a field {key!r}; what is believed of the visitor are "
            "remote_ip, host and scheme (see --trusted-proxy)"
            for field in _OF_HEADERS
            for key in sorted(keys.get(field) or ())
            if key.lower() in _UNTOLD
        ]
        self.warnings += [
            f"the input's {field} has never a field {key!r}: write {spelled(key)!r}"
            for field, spelled in (("header", canonical), ("headers", str.lower))
            for key in sorted(keys.get(field) or ())
            if key != spelled(key)
        ]
        self._keys = {field: keys[field] for field in keys if field in FIELDS}
        self.timed = "time" in keys
        self._names = {
            field: {key.lower().encode() for key in self._keys.get(field) or ()}
            for field in _OF_HEADERS
        }
        self._has: dict[str, dict[str, bool]] = {}
        self._parts = [self._part(field, keys[field]) for field in sorted(self._keys)]
        self._values = [
            (field, self._value(field, keys[field])) for field in self._keys if field != "time"
        ]

    def _part(self, field: str, keys: set[str] | None) -> Callable[[Question], Any]:
        """What of a question a field is made of."""
        if field in ("header", "headers"):
            if keys is None:
                return lambda question: question.fields
            names = self._names[field]
            return lambda question: [pair for pair in question.fields if pair[0].lower() in names]
        if field == "within":
            return lambda question: [*self._within(question.remote_ip).values()]
        if field in ("path", "raw_path"):
            return lambda question: question.target.partition(b"?")[0]
        if field in ("query", "raw_query"):
            return lambda question: question.target
        if field in self._overlooked:
            return lambda question: None
        if field == "remote":
            return attrgetter("remote_ip", "remote_port")
        return attrgetter(field)

    def _value(self, field: str, keys: set[str] | None) -> Callable[[Question], Any]:
        """How a field is found, and no more of it than is read."""
        if field == "within":
            return lambda question: self._within(question.remote_ip)
        whole = _FIELDS[field]
        if keys is None:
            return whole
        if field in _OF_HEADERS:
            # A field that nobody reads is not even decoded.
            made, names = _OF_HEADERS[field], self._names[field]
            return lambda question: made([p for p in question.fields if p[0].lower() in names])

        def part(question: Question) -> dict[str, Any]:
            value = whole(question)
            return {key: value[key] for key in keys if key in value}

        return part

    def key(self, package: str, question: Question) -> bytes:
        """What is the same for questions with the same input, only; credentials cannot be told
        from it. A fifth of what it takes to work the input out."""
        parts = [package, *[part(question) for part in self._parts]]
        return blake2b(repr(parts).encode(), digest_size=16).digest()

    def of(self, question: Question, time: int) -> dict[str, Any]:
        """The input for a question.

        :param time: nanoseconds since the epoch, as Rego's functions have it.
        """
        found = {field: value(question) for field, value in self._values}
        if self.timed:
            found["time"] = time
        return found

    def _within(self, text: str) -> dict[str, bool]:
        """Which of the networks have an address."""
        has = self._has.get(text)
        if has is None:
            try:
                address = ip_address(text)
            except ValueError:
                return dict.fromkeys(self._networks, False)
            if isinstance(address, IPv6Address) and address.ipv4_mapped:
                address = address.ipv4_mapped
            has = {name: address in network for name, network in self._networks.items()}
            if len(self._has) >= MAX_KNOWN:
                self._has.clear()
            self._has[text] = has
        return has

    def part_of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is read of an input that a person wrote down."""
        given = {**given, "within": self._within(str(given.get("remote_ip", "")))}
        return {
            field: {key: text for key, text in value.items() if key in keys}
            if isinstance(value, dict) and (keys := self._keys[field]) is not None
            else value
            for field, value in given.items()
            if field in self._keys
        }


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """An input that a person wrote down, with what follows from it: ``remote_ip`` from ``remote``,
    ``headers`` from ``header``, ``raw_path`` from ``path``."""
    found = dict(given)
    remote = given.get("remote")
    if isinstance(remote, str):
        host, _, port = remote.rpartition(":") if remote.count(":") == 1 else (remote, "", "")
        if remote.startswith("["):
            host, _, port = remote[1:].partition("]:")
        found.setdefault("remote_ip", host.strip("[]"))
        if port.isdigit():
            found.setdefault("remote_port", int(port))
    header, headers = given.get("header"), given.get("headers")
    if isinstance(header, dict):
        found.setdefault("headers", {name.lower(): [value] for name, value in header.items()})
    elif isinstance(headers, dict):
        found["header"] = {
            canonical(name): values[0]
            for name, values in headers.items()
            if isinstance(values, list) and values
        }
    if isinstance(given.get("path"), str):
        found.setdefault("raw_path", given["path"])
    return found


def unlike(given: Mapping[str, Any]) -> list[str]:
    """What no server gives, of an input that a person wrote down."""
    found = [
        f"no input has a field {name!r}; it has {', '.join(sorted(FIELDS - {'within'}))}"
        for name in given.keys() - FIELDS
    ]
    for name in sorted(FIELDS & given.keys()):
        value, form = given[name], "a string"
        good = isinstance(value, str)
        if name in ("remote_port", "time"):
            form, good = "a whole number", type(value) is int
        elif name == "header":
            form = 'an object of strings, as {"Content-Type": "text/plain"}'
            good = _is_object(value, canonical, lambda text: isinstance(text, str))
        elif name in ("headers", "query"):
            spelled = str.lower if name == "headers" else str
            form = 'an object of lists of strings, as {"a": ["b"]}'
            form += ", names in lower case" if name == "headers" else ""
            good = _is_object(value, spelled, _is_texts)
        if not good:
            found.append(f"the input's {name} is always {form}")
    return found


def _is_object(value: Any, spelled: Callable[[str], str], is_value: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(
        name == spelled(name) and is_value(item) for name, item in value.items()
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
