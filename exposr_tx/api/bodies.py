"""Request bodies: JSON objects of up to 64 KiB. Facts: protocols/exposr.md A.3."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from exposr_tx.errors import BadInput

if TYPE_CHECKING:
    from twisted.web.server import Request

__all__ = ["MAX_BODY", "read_object"]

#: Bytes of a body.
MAX_BODY = 65536

_JSON = re.compile(r"application/json\s*(;|$)", re.IGNORECASE)
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)


def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body; an empty body of that type is ``{}``.

    :raises BadInput: there is no body, it is of another type, too large, or not JSON.
    """
    content_type = request.getHeader("content-type") or ""
    has_body = request.requestHeaders.hasHeader("content-length") or (
        request.requestHeaders.hasHeader("transfer-encoding")
    )
    if not has_body or not _JSON.match(content_type):
        raise BadInput("content-type: expected json")
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise BadInput("content-type: unsupported charset; use utf-8")
    if request.getHeader("content-encoding") not in (None, "identity"):
        raise BadInput("content-type: unsupported content encoding; send it as it is")
    body = request.content.read(MAX_BODY + 1) if request.content else b""
    if len(body) > MAX_BODY:
        raise BadInput("content-type: request entity too large")
    value = _parse(body) if body else {}
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise BadInput('"value" must be of type object')
        raise BadInput("content-type: invalid JSON, only supports object and array")
    return value


def _parse(body: bytes) -> Any:
    try:
        # Windows' editors put a byte order mark before a file, which RFC 8259 (8.1) forgives.
        return json.loads(body.decode("utf-8-sig"), parse_constant=_not_json)
    except (ValueError, RecursionError):  # too deep is as bad as broken
        raise BadInput("content-type: malformed JSON") from None


def _not_json(word: str) -> NoReturn:
    """Python's reader would take NaN and Infinity."""
    raise ValueError(word)
