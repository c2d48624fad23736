"""Values of options: from the text on a command line, or in a variable, to what is meant.

Each raises ValueError with the words that follow "--name 'text': ".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar
from urllib.parse import urlsplit

__all__ = [
    "boolean",
    "choice",
    "comma_list",
    "count",
    "endpoint",
    "network",
    "period",
    "port",
    "port_range",
    "positive",
    "seconds",
    "shown",
    "size",
    "url",
]

T = TypeVar("T")

_TRUE = frozenset({"1", "true", "on", "yes", "enable", "enabled"})
_FALSE = frozenset({"0", "false", "off", "no", "disable", "disabled"})

#: A URL's user and password; to the last @, as who writes a password may not escape it.
_USER = re.compile("//.*@")
#: Letters of sizes, and the powers of two that they stand for.
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


def shown(text: str) -> str:
    """A value as errors repeat it: in quotes, without the user and the password of a URL."""
    return repr(_USER.sub("//[redacted]@", text))


def boolean(text: str) -> bool:
    """True or False from any of the words that the existing clients take for them."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be true or false (also 1/0, on/off, yes/no)")


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("must be a whole number, 0 or more")
    return int(text)


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("must be a whole number, 1 or more")
    return int(text)


def size(text: str) -> int:
    """A number of bytes, 1 or more; K, M and G stand for KiB, MiB and GiB."""
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _UNITS or not (number.isascii() and number.isdigit() and int(number)):
        raise ValueError("must be a number of bytes, 1 or more, like 65536, 64K, 10M or 2G")
    return int(number) << _UNITS[unit]


def seconds(text: str) -> float:
    """A time in seconds, 0 or more; parts of seconds are fine."""
    remedy = "must be a number of seconds, 0 or more"
    try:
        value = float(text)
    except ValueError:
        raise ValueError(remedy) from None
    if not 0 <= value < float("inf"):
        raise ValueError(remedy)
    return value


def period(text: str) -> float:
    """A time in seconds, more than 0; parts of seconds are fine."""
    try:
        value = seconds(text)
    except ValueError:
        value = 0.0
    if not value:
        raise ValueError("must be a number of seconds, more than 0")
    return value


def port(text: str) -> int:
    """A TCP port; 0 lets the system choose."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError("must be a port number from 0 to 65535")
    return int(text)


def port_range(text: str) -> tuple[int, int]:
    """``A-B`` or a single port, both ends included."""
    first, dash, last = text.partition("-")
    try:
        low, high = port(first), port(last if dash else first)
    except ValueError:
        low, high = 0, 0
    if not 0 < low <= high:
        raise ValueError("must be a range of ports like 20000-20100")
    return low, high


def network(text: str) -> IPv4Network | IPv6Network:
    """An address or a network, as ``192.0.2.7`` or ``10.0.0.0/8``."""
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError("must be an address or a network like 10.0.0.0/8") from None


def endpoint(text: str) -> str:
    """A Twisted server endpoint; a bare port number is ``tcp:`` of it. Parsed where it is used."""
    if text.isascii() and text.isdigit():
        return f"tcp:{port(text)}"
    if ":" not in text:
        raise ValueError("must be a server endpoint like tcp:8080:interface=127.0.0.1")
    return text


def url(*schemes: str, instead: str = "leave it out") -> Callable[[str], str]:
    """A URL of one of some schemes, with a host.

    :param instead: what to do where it has a user, which would be sent to nobody.
    """
    remedy = f"must be a URL like {schemes[0]}://host.example" + (
        "" if len(schemes) == 1 else f" (or {', '.join(schemes[1:])})"
    )

    def parse(text: str) -> str:
        try:
            parts = urlsplit(text.strip())
            _ = parts.port  # raises where it is not a number
        except ValueError:
            raise ValueError(remedy) from None
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(remedy)
        if "@" in parts.netloc:
            raise ValueError(f"must have no user in it; {instead}")
        return text.strip()

    return parse


def choice(*words: str, known: Collection[str] = ()) -> Callable[[str], str]:
    """One of some words.

    :param known: others that pass, for whoever can say better why they are refused.
    """
    *others, last = words
    remedy = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"

    def parse(text: str) -> str:
        if text not in words and text not in known:
            raise ValueError(remedy)
        return text

    return parse


def comma_list(item: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A list of values between commas; empty places do not count."""

    def parse(text: str) -> tuple[T, ...]:
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())

    return parse
