"""The answers that ingress gives itself: errors, as JSON, in whole bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

__all__ = ["CONTINUE", "code_of", "error_answer"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS: Final = {int(status): status.phrase.encode() for status in HTTPStatus}
_CODES: Final = {
    400: "BAD_REQUEST",
    408: "REQUEST_TIMEOUT",
    413: "CONTENT_TOO_LARGE",
    414: "URI_TOO_LONG",
    417: "EXPECTATION_FAILED",
    431: "REQUEST_HEADER_FIELDS_TOO_LARGE",
    501: "NOT_IMPLEMENTED",
    505: "HTTP_VERSION_NOT_SUPPORTED",
}
#: Statuses that pass: the visitor is told when to try again.
_RETRY_AFTER: Final = {429: 1, 503: 1}


def code_of(status: int) -> str:
    """The error code of a status that no ExposrError stands behind."""
    return _CODES.get(status, "UNKNOWN_ERROR")


def error_answer(
    status: int,
    code: str,
    request_id: str,
    *,
    close: bool,
    body: bool = True,
    detail: str = "",
    retry_after: int = 0,
    fields: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A whole response ``{"error": code}``.

    :param body: False for an answer to HEAD.
    :param detail: a sentence for people, in ``field``.
    :param retry_after: seconds, where they are known better than by the status.
    :param fields: more header fields, or others in place of Cache-Control and Retry-After.
    """
    content = {"error": code, "request_id": request_id}
    if detail:
        content["field"] = detail
    payload = json.dumps(content, separators=(",", ":")).encode()
    lines = [
        b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b"Error")),
        b"Content-Type: application/json; charset=utf-8\r\n",
        b"Content-Length: %d\r\n" % len(payload),
    ]
    names = {name.lower() for name, _ in fields}
    if b"cache-control" not in names:
        lines.append(b"Cache-Control: no-store\r\n")
    retry_after = retry_after or _RETRY_AFTER.get(status, 0)
    if retry_after and b"retry-after" not in names:
        lines.append(b"Retry-After: %d\r\n" % retry_after)
    lines += [b"%b: %b\r\n" % pair for pair in fields]
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"\r\n")
    if body:
        lines.append(payload)
    return b"".join(lines)
