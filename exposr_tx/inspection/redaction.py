"""Which values of an exchange are secret, and texts without them.

For what leaves the program's memory: HAR files and exports. Secret is what goes by
the name of a secret, as a header field, in a query or a form, or in JSON; nothing is
guessed from the values themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from json import loads
from typing import Final
from urllib.parse import unquote_plus

__all__ = ["REDACTED", "Redaction"]

REDACTED: Final = "[redacted]"
#: Names, and the last words of names: ``token`` is ``X-Auth-Token``, ``access_token``,
#: ``accessToken`` and ``user[token]`` as well.
SECRET: Final = frozenset(
    {
        *("authorization", "cookie", "token", "api-key", "apikey", "access-key", "auth-key"),
        *("access-key-id", "private-key", "subscription-key", "secret", "secret-key"),
        *("password", "password-confirmation", "passwd", "passphrase", "pwd"),
        *("credential", "credentials", "session", "session-id", "sessionid", "jwt"),
        *("signature", "account", "account-id"),
    }
)
#: Names that are secret in queries and forms, as they stand: elsewhere they mean anything.
SECRET_PARAMETERS: Final = frozenset({"key", "sig", "code"})

_DIVIDERS: Final = re.compile("[^a-z0-9]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
#: ``name=value`` in a URL, wherever the URL stands.
_PARAMETER: Final = re.compile(r"([?&#;])([^=&#?;\s\"'<>]+)=([^&#\s\"'<>]+)")
#: ``user:password@`` in a URL.
_USER: Final = re.compile(r"(?<=://)[^/?#@\s\"'<>]+@")
# Visitors write what is looked through here: every match must be linear, and succeed where it can.
_JSON: Final = re.compile(
    r'"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)'  # any string; with a colon behind it, it is a name
    r'(?:(\s*+:\s*+)("(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|(?!null\b)[^\s,\[\]{}"]++)?)?',
    re.DOTALL,
)
#: What an array or an object ends by, strings in it passed over.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
#: A part of a multipart body, from its name on.
_PART: Final = re.compile(
    r'(^content-disposition:(?>[^\r\n]*?;[ \t]*name="?)([^";\r\n]++)[^\r\n]*+\r?\n'
    r"(?:[^\r\n]++\r?\n){0,8}+\r?\n)(.+?)(?=\r?\n--|\Z)",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
#: Letters at the end of a name that are judged.
MAX_NAME: Final = 128


class Redaction:
    """What is secret.

    :param names: names in lower case with dashes, also for what ends with them.
    :param parameters: names in queries and forms only, exactly.
    """

    def __init__(
        self, names: Iterable[str] = SECRET, parameters: Iterable[str] = SECRET_PARAMETERS
    ) -> None:
        self.names = frozenset(names)
        self.parameters = frozenset(parameters)
        # Peers choose the names: no more of them are remembered than this.
        self._is_secret = lru_cache(4096)(self._judged)
        # Without one of these a text is not looked through.
        self._words = frozenset(name.rpartition("-")[2] for name in self.names)

    def __repr__(self) -> str:
        return f"<Redaction of {len(self.names | self.parameters)} names>"

    def __bool__(self) -> bool:
        """Whether anything is secret at all."""
        return bool(self.names or self.parameters)

    @classmethod
    def parse(cls, text: str) -> Redaction:
        """The usual names, changed: a name between commas is secret too, ``-name`` is not, and
        ``none`` takes all away that stood before it."""
        names, parameters = set(SECRET), set(SECRET_PARAMETERS)
        for word in text.split(","):
            name = _dashed(_divided(word))
            if name == "none":
                names.clear()
                parameters.clear()
            elif word.strip().startswith("-"):
                names.discard(name)
                parameters.discard(name)
            elif name:
                names.add(name)
        return cls(names, parameters)

    def _judged(self, name: str) -> bool:
        # Capitals divide words in JSON; in header fields they mean nothing.
        return self._ends_secret(_dashed(name)) or self._ends_secret(_dashed(_divided(name)))

    def _ends_secret(self, name: str) -> bool:
        while name not in self.names:
            name = name.partition("-")[2]
            if not name:
                return False
        return True

    def is_secret(self, name: str) -> bool:
        """Whether what goes by a name is: a header field's or that of a value in JSON."""
        return self._is_secret(name[-MAX_NAME:])

    def is_secret_parameter(self, name: str) -> bool:
        """The same of a name in a query or a form, decoded."""
        return self.is_secret(name) or _dashed(name) in self.parameters

    def parameter(self, name: str, value: str) -> str:
        """The value of a parameter of a query or a form, decoded."""
        return REDACTED if value and self.is_secret_parameter(name) else value

    def url(self, text: str) -> str:
        """A URL, or a text with URLs in it."""
        if not self or not ("=" in text or "@" in text):
            return text
        return _PARAMETER.sub(self._parameter, _USER.sub("", text))

    def _parameter(self, found: re.Match[str]) -> str:
        if self.is_secret_parameter(unquote_plus(found[2])):
            return f"{found[1]}{found[2]}={REDACTED}"
        return found[0]

    def field(self, name: str, value: str) -> str:
        """The value of a header field."""
        return REDACTED if value and self.is_secret(name) else self.url(value)

    def form(self, text: str) -> str:
        """A form as ``application/x-www-form-urlencoded``."""
        return "&".join(map(self._pair, text.split("&")))

    def _pair(self, text: str) -> str:
        name, _, value = text.partition("=")
        secret = value and self.is_secret_parameter(unquote_plus(name.strip()))
        return f"{name}={REDACTED}" if secret else text

    def body(self, text: str, mime: str) -> str:
        """A body, or its beginning, of a media type: forms and JSON are looked through."""
        if not self:
            return text
        kind = mime.partition(";")[0].strip().lower()
        if kind == "application/x-www-form-urlencoded":
            return self.form(text)
        if kind.startswith("multipart/"):
            return _PART.sub(self._part, text)
        if "json" in kind or text[:64].lstrip()[:1] in ("{", "["):
            return self.json(text)
        return text

    def octets(self, data: bytes, mime: str) -> bytes:
        """The same for a body that is no text: a form with files, JSON in an unknown charset."""
        return self.body(data.decode("latin-1"), mime).encode("latin-1")

    def _part(self, found: re.Match[str]) -> str:
        return found[1] + REDACTED if self.is_secret_parameter(found[2]) else found[0]

    def json(self, text: str) -> str:
        """JSON, whole or not, in its spelling: a secret's value, be it an array or an object,
        becomes a string."""
        lower = text.lower()
        # Looking for words costs a millisecond for a megabyte, looking at all strings fifty.
        if "\\u" not in lower and not any(word in lower for word in self._words):
            return text
        parts, at = [], 0
        for found in _JSON.finditer(text):
            # What stands in an array or an object that is left out is not looked at.
            if found.start() >= at and self._is_secret_value(found):
                parts += [text[at : found.start(3)], f'"{REDACTED}"']
                at = found.end()
                if found[3] in ("[", "{"):
                    at = _end_of(text, at)
        return "".join([*parts, text[at:]])

    def _is_secret_value(self, found: re.Match[str]) -> bool:
        """Whether a string of JSON is a name, and that of a secret."""
        name, value = found[1], found[3]
        if value is None:
            return False
        if "\\" in name:
            try:
                name = str(loads(f'"{name}"'))
            except ValueError:
                return False
        return self.is_secret(name)


def _end_of(text: str, at: int) -> int:
    """Where an array or an object ends, of which the first bracket has been read."""
    depth = 1
    for found in _BRACKETS.finditer(text, at):
        if found[0] in ("[", "{"):
            depth += 1
        elif found[0] in ("]", "}"):
            depth -= 1
        if not depth:
            return found.end()
    return len(text)


def _dashed(name: str) -> str:
    """In lower case, with one dash between words, and without a number at the end."""
    return _DIVIDERS.sub("-", name.lower()).rstrip("0123456789-").lstrip("-")


def _divided(name: str) -> str:
    return _CAMEL.sub("-", name)
