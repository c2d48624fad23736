"""Answers of the inspector: JSON, bytes to keep, and what each error looks like."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from werkzeug.exceptions import HTTPException

from exposr_tx.errors import ExposrError

if TYPE_CHECKING:
    from twisted.python.failure import Failure
    from twisted.web.server import Request

__all__ = ["keep_as", "send", "send_bytes", "send_error", "send_json", "send_problem"]

OCTETS = b"application/octet-stream"

_log = Logger()


def send_json(request: Request, value: Any, status: int = 200) -> bytes:
    """The body to return from a route, its status and fields set on the request."""
    return send(request, status, b"application/json", json.dumps(value).encode("ascii"))


def send_bytes(request: Request, data: bytes, name: str) -> bytes:
    """The same for bytes to keep."""
    keep_as(request, name)
    return send(request, 200, OCTETS, data)


def keep_as(request: Request, name: str) -> None:
    """Say that what comes is a file, which no browser shows or runs."""
    request.setHeader(b"content-type", OCTETS)
    request.setHeader(b"content-disposition", f'attachment; filename="{name}"'.encode("ascii"))


def send_error(request: Request, failure: Failure) -> bytes:
    """The answer to a request that ended in an error."""
    return send_problem(request, failure.value, failure)


def send_problem(
    request: Request, problem: BaseException | None, failure: Failure | None = None
) -> bytes:
    """The same for an exception."""
    status, code, text = 500, "UNKNOWN_ERROR", "this is a fault of the inspector; see the log"
    if isinstance(problem, HTTPException):  # a path or method that Klein does not know
        status, code, text = 404, "NOT_FOUND", "there is no such path here"
    elif isinstance(problem, ExposrError):
        status, code, text = problem.status, problem.code, str(problem)
    elif failure is not None:
        _log.failure("a request of the inspector failed", failure)
    return send_json(request, {"error": code, "message": text}, status)


def send(request: Request, status: int, content_type: bytes, body: bytes) -> bytes:
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", b"%d" % len(body))
    return body
