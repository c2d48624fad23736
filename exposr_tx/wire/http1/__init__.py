"""HTTP/1.1 and HTTP/1.0 messages, read strictly: bytes in, events out.

Both directions of the data path are read here: visitors' requests by
:class:`RequestParser`, targets' responses by :class:`ResponseParser`. A head
is parsed once and written anew from what was parsed, so that nobody behind us
can read it another way than we did; a body is measured (length, chunks, until
close) and handed on as it arrives, nothing is gathered.

Events are a :class:`Request` or a :class:`Response`, then ``bytes`` for each
piece of the body, then an :class:`End`. Faults of the peer raise
:class:`~exposr_tx.errors.RemoteProtocolError`, whose ``http_status`` is what a
visitor should be told; a parser that has raised is not used again.

Sources: RFC 9112 (syntax and framing), RFC 9110 (fields), RFC 3986 (targets).
"""

from __future__ import annotations

from exposr_tx.wire.http1.fields import Fields
from exposr_tx.wire.http1.messages import (
    END,
    LAST_CHUNK,
    WITH_BODY,
    End,
    Event,
    Request,
    Response,
    chunk,
    field_lines,
    last_chunk,
)
from exposr_tx.wire.http1.requests import Heads, RequestParser
from exposr_tx.wire.http1.responses import ResponseParser
from exposr_tx.wire.http1.syntax import RESPONSE_LIMITS, Limits

__all__ = [
    "END",
    "LAST_CHUNK",
    "RESPONSE_LIMITS",
    "WITH_BODY",
    "End",
    "Event",
    "Fields",
    "Heads",
    "Limits",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "chunk",
    "field_lines",
    "last_chunk",
]
