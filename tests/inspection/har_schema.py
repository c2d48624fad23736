"""What the HAR 1.2 specification says of files, as a table, and a checker of it.

Source: w3c.github.io/web-performance/specs/HAR/Overview.html. Names that begin with an
underscore are additions, which it allows; all others must be in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    return isinstance(value, str)


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def at_least(least: int) -> Check:
    return lambda value: whole(value) and value >= least


def milliseconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def milliseconds_or_none(value: Any) -> bool:
    """-1 stands for what does not apply."""
    return value == -1 or milliseconds(value)


def moment(value: Any) -> bool:
    """ISO 8601 with a time zone."""
    return datetime.fromisoformat(value).tzinfo is not None


def url(value: Any) -> bool:
    parts = urlsplit(value)
    return bool(parts.scheme and parts.netloc) and not parts.fragment


class Many:
    """An array of objects."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


#: Type to names; those that end in "?" need not be there.
TYPES: dict[str, dict[str, Check | str | Many]] = {
    "file": {"log": "log"},
    "log": {
        "version": lambda value: value == "1.2",
        "creator": "creator",
        "browser?": "creator",
        "pages?": Many("page"),
        "entries": Many("entry"),
        "comment?": text,
    },
    "creator": {"name": text, "version": text, "comment?": text},
    "entry": {
        "pageref?": text,
        "startedDateTime": moment,
        "time": milliseconds,
        "request": "request",
        "response": "response",
        "cache": "cache",
        "timings": "timings",
        "serverIPAddress?": text,
        "connection?": text,
        "comment?": text,
    },
    "request": {
        "method": text,
        "url": url,
        "httpVersion": text,
        "cookies": Many("cookie"),
        "headers": Many("pair"),
        "queryString": Many("pair"),
        "postData?": "post data",
        "headersSize": at_least(-1),
        "bodySize": at_least(-1),
        "comment?": text,
    },
    "response": {
        "status": at_least(0),
        "statusText": text,
        "httpVersion": text,
        "cookies": Many("cookie"),
        "headers": Many("pair"),
        "content": "content",
        "redirectURL": text,
        "headersSize": at_least(-1),
        "bodySize": at_least(-1),
        "comment?": text,
    },
    "cookie": {
        "name": text,
        "value": text,
        "path?": text,
        "domain?": text,
        "expires?": moment,
        "httpOnly?": boolean,
        "secure?": boolean,
        "sameSite?": text,  # of browsers; the specification is older
        "comment?": text,
    },
    "pair": {"name": text, "value": text, "comment?": text},
    "post data": {
        "mimeType": text,
        "params": Many("pair"),
        "text": text,
        "encoding?": text,  # of HAR 1.3's draft: as for content
        "comment?": text,
    },
    "content": {
        "size": at_least(0),
        "compression?": at_least(0),
        "mimeType": text,
        "text?": text,
        "encoding?": text,
        "comment?": text,
    },
    "cache": {},
    "timings": {
        "blocked?": milliseconds_or_none,
        "dns?": milliseconds_or_none,
        "connect?": milliseconds_or_none,
        "send": milliseconds,
        "wait": milliseconds,
        "receive": milliseconds,
        "ssl?": milliseconds_or_none,
        "comment?": text,
    },
}


def faults(value: Any, kind: str = "file", where: str = "") -> list[str]:
    """What is wrong with a value, as places and names; nothing if it is valid."""
    if not isinstance(value, dict):
        return [f"{where}: is no object"]
    found = []
    known = set()
    for name, rule in TYPES[kind].items():
        key = name.rstrip("?")
        known.add(key)
        place = f"{where}.{key}"
        if key not in value:
            if not name.endswith("?"):
                found.append(f"{place}: is missing")
        elif isinstance(rule, str):
            found += faults(value[key], rule, place)
        elif isinstance(rule, Many):
            if not isinstance(value[key], list):
                found.append(f"{place}: is no array")
                continue
            for number, item in enumerate(value[key]):
                found += faults(item, rule.kind, f"{place}[{number}]")
        else:
            try:
                right = rule(value[key])
            except (TypeError, ValueError):
                right = False
            if not right:
                found.append(f"{place}: {value[key]!r}")
    found += [f"{where}.{key}: is unknown" for key in value if key not in known and key[:1] != "_"]
    if kind == "entry" and not found:
        total = sum(part for part in value["timings"].values() if part > 0)
        if abs(total - value["time"]) > 0.01:
            found.append(f"{where}.time: is not the sum of timings")
    return found
