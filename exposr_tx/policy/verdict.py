"""What the result of an evaluation means: the table of protocols/backstream.md section 6.

``allow`` is a boolean, or an object ``{allow, status, reason, headers,
set_request_headers}``. Anything else is no decision, and denies.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Any, Final

from exposr_tx.interfaces import Decision

__all__ = ["ALLOWED", "DENIED", "FAILED", "LATE", "NO_PACKAGE", "PLAIN", "verdict"]

ALLOWED: Final = Decision("allowed")
DENIED: Final = Decision("denied")
FAILED: Final = Decision("error")
LATE: Final = Decision("timeout")
NO_PACKAGE: Final = Decision("undefined")
#: By outcome, those with nothing else to say.
PLAIN: Final = {d.outcome: d for d in (ALLOWED, DENIED, FAILED, LATE, NO_PACKAGE)}

_KEYS: Final = frozenset({"allow", "status", "reason", "headers", "set_request_headers"})
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
#: No line may end in a value, nor anything that a terminal or a proxy would take for one; and half
#: a character cannot be sent.
_VALUE: Final = re.compile(r"[\x20-\x7e\x80-\ud7ff\ue000-\uffff\t]{0,8192}")
_HALF: Final = re.compile(r"[\ud800-\udfff]")
#: Fields that say where a message ends, or what a connection becomes: not a policy's to set.
_FRAMING: Final = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer"),
        *("proxy-connection", "transfer-encoding", "upgrade"),
    }
)
#: Of a denial: what says how its body is to be read, which the server writes.
_OF_BODY: Final = _FRAMING | {"content-encoding", "content-type"}
#: Of a request: what the server says of the visitor. A target might take a policy's in its place.
_OF_VISITOR: Final = _FRAMING | {
    *("exposr-via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port"),
    *("x-forwarded-proto", "x-real-ip", "x-request-id"),
}
MAX_REASON: Final = 1000


class _NoDecision(Exception):
    """The result is in no form that a decision has."""


def verdict(value: Any) -> Decision:
    """The decision that ``allow`` stands for."""
    if value is True:
        return ALLOWED
    if value is False:
        return DENIED
    try:
        return _of_object(value)
    except _NoDecision:
        return FAILED


def _of_object(value: Any) -> Decision:
    if not isinstance(value, dict) or not value.keys() <= _KEYS:
        raise _NoDecision
    allow, status, reason = value.get("allow"), value.get("status", 403), value.get("reason", "")
    if not isinstance(allow, bool) or not isinstance(reason, str) or len(reason) > MAX_REASON:
        raise _NoDecision
    if _HALF.search(reason):
        raise _NoDecision
    if isinstance(status, bool) or not isinstance(status, int | float):
        raise _NoDecision
    # 304 and what is below 300 would be no denial for whoever asks. JSON has one kind of number:
    # 403.0 is 403.
    if not 300 <= status <= 599 or status == 304 or status != int(status):
        raise _NoDecision
    headers = _pairs(value.get("headers", {}), _OF_BODY)
    wanted = value.get("set_request_headers", {})
    request_headers = _pairs(wanted, _OF_VISITOR)
    if allow:
        # A list without members, as of nobody's groups: what the visitor says must not stay.
        unset = tuple(name.encode() for name, values in wanted.items() if values == [])
        return Decision("allowed", 403, "", (), request_headers, unset)
    return Decision("denied", int(status), reason, headers)


def _pairs(fields: Any, others: Set[str]) -> tuple[tuple[bytes, bytes], ...]:
    """Fields of an object: each value a string, or a list of them.

    :param others: what are no fields of a policy's.
    """
    if not isinstance(fields, dict):
        raise _NoDecision
    pairs = []
    for name, values in fields.items():
        if not _NAME.fullmatch(name) or name.lower() in others:
            raise _NoDecision
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, str) or not _VALUE.fullmatch(value):
                raise _NoDecision
            pairs.append((name.encode(), value.strip().encode()))
    return tuple(pairs)
