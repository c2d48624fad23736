"""Messages as JSON objects: what is written, and how leniently it is read."""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any, Final

from exposr_tx.errors import RemoteProtocolError

__all__ = ["HOP", "MAX_ID", "Members", "by_name", "canonical", "dumped", "is_field", "tokens_only"]

#: Characters of a message that begin or part its strings, lists and objects. A head that is passed
#: on has fewer bytes, and base64 has none of them; a liar's 30 MB of empty strings would keep
#: everybody waiting for 10 s, and take 900 MB.
MAX_MARKS: Final = 128 * 1024
#: Letters of an id that are looked at.
MAX_ID: Final = 256

#: Fields that say how one hop's message is framed, and so are no business of the next.
HOP: Final = frozenset(
    {
        *("connection", "content-length", "host", "http2-settings", "keep-alive"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# What Go writes in place of the characters that HTML knows; a peer may look at the text.
_HTML: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def tokens_only(text: str) -> bool:
    """Whether a text is a token, as methods and names of fields are."""
    return _TOKEN.fullmatch(text) is not None


def is_field(name: str, value: str) -> bool:
    """Whether a header field can be written: a token, and no control characters."""
    return tokens_only(name) and _VALUE.fullmatch(value) is not None


def canonical(name: str) -> str:
    """A field's name as Go spells it: ``X-Foo-Bar``."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def by_name(fields: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """All values of each field, by its name as Go spells it."""
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(canonical(name), []).append(value)
    return found


def dumped(members: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8; what is no character, as half of a pair, becomes a question mark."""
    text = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_HTML).encode("utf-8", "replace")


class Members:
    """The members of a message, or of an object in one, found as Go finds them."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._as_told = found
        self._found = {name.lower(): value for name, value in found.items()}

    @classmethod
    def read(cls, data: bytes) -> Members:
        """Those of a message; raises RemoteProtocolError."""
        if sum(map(data.count, (b'"', b",", b"[", b"{"))) > MAX_MARKS:
            raise RemoteProtocolError("the message has too many members")
        try:
            found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as problem:
            # Its text may hold some of the body.
            raise RemoteProtocolError("the message is not JSON") from problem
        if not isinstance(found, dict):
            raise RemoteProtocolError("the message is not a JSON object")
        return cls(found)

    def get(self, name: str) -> Any:
        return self._found.get(name)

    def object(self, name: str) -> Members:
        """A member that is an object."""
        value = self._found.get(name)
        if value is not None and not isinstance(value, dict):
            raise RemoteProtocolError(f"the message's {name} is not an object")
        return Members(value or {})

    def number(self, name: str) -> int:
        """A member that is a whole number; 0 where there is none."""
        value = self._found.get(name)
        if value is not None and type(value) is not int:
            raise RemoteProtocolError(f"the message's {name} is not a whole number")
        return value or 0

    def text(self, name: str) -> str:
        value = self._found.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise RemoteProtocolError(f"the message's {name} is not a string")
        return value

    def id(self, name: str = "id") -> str:
        value = self.text(name)
        if not value or len(value) > MAX_ID:
            raise RemoteProtocolError(f"the message's {name} has no letter, or more than {MAX_ID}")
        return value

    def data(self, name: str) -> bytes:
        """A member that is base64."""
        # Go skips line ends; everything else must be of the standard alphabet, and padded.
        text = self.text(name)
        try:
            if "\n" in text or "\r" in text:
                text = text.replace("\n", "").replace("\r", "")
            return b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise RemoteProtocolError(f"the message's {name} is not base64") from None

    def fields(self, name: str) -> tuple[tuple[str, str], ...]:
        """Names and values, whether they come one by one or as lists."""
        fields = []
        for field, values in self.object(name)._as_told.items():
            if values is None:
                continue
            listed = values if isinstance(values, list) else [values]
            if not all(isinstance(value, str) for value in listed):
                raise RemoteProtocolError(f"the message's {name} holds what is no string")
            fields += [(field, value) for value in listed]
        return tuple(fields)


def _no_constant(word: str) -> None:
    raise ValueError(word)
