"""Answers of the API: JSON, plain text, and what each error looks like outside.

Errors are mapped here and nowhere else. Shapes: protocols/exposr.md A.1 and A.3.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from werkzeug.exceptions import HTTPException

from exposr_tx.errors import BadInput, ExposrError, StorageUnavailable, TooManyFailures

if TYPE_CHECKING:
    from twisted.python.failure import Failure
    from twisted.web.server import Request

__all__ = [
    "ConfigRefused",
    "Unauthorised",
    "send_error",
    "send_json",
    "send_text",
]

_log = Logger()


class Unauthorised(ExposrError):
    """The request's account token is nobody's."""

    code, status = "PERMISSION_DENIED", 401


class ConfigRefused(ExposrError):
    """The server does not run what the tunnel is to use; the message is a word for programs."""


def send_json(request: Request, status: int, value: Any) -> bytes:
    """The body to return from a route, its status and fields set on the request."""
    return _send(request, status, "application/json", json.dumps(value, separators=(",", ":")))


def send_text(request: Request, status: int, text: str = "") -> bytes:
    """The same for plain text: without one, the status's reason phrase."""
    return _send(request, status, "text/plain", text or HTTPStatus(status).phrase)


def send_error(request: Request, failure: Failure) -> bytes:
    """The answer to a request that ended in an error."""
    error = failure.value
    if isinstance(error, HTTPException):  # a path or method that Klein does not know
        return send_text(request, 404)
    if not isinstance(error, ExposrError):
        _log.failure("an API request failed", failure)
        return send_text(request, 500)
    body: dict[str, str] = {"error": error.code}
    if isinstance(error, BadInput):
        body["field"] = str(error)
    elif isinstance(error, ConfigRefused | TooManyFailures):
        body["detailed"] = str(error)
    elif isinstance(error, StorageUnavailable):
        body["detailed"] = "storage_unavailable"  # the reason is in the log: it names files
    if error.retry_after:
        request.setHeader(b"retry-after", b"%d" % error.retry_after)
    if error.status == 401:
        request.setHeader(b"www-authenticate", b"Bearer")
    request_id = request.getHeader("x-request-id")
    if request_id:
        body["request_id"] = request_id
    return send_json(request, error.status, body)


def _send(request: Request, status: int, content_type: str, text: str) -> bytes:
    body = text.encode("utf-8")
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    request.setHeader(b"content-type", f"{content_type}; charset=utf-8".encode("ascii"))
    request.setHeader(b"content-length", b"%d" % len(body))
    # Answers hold tokens; and an error must not outlive its reason in a cache.
    request.setHeader(b"cache-control", b"no-store")
    return body
