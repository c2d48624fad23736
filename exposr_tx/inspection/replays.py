"""The bytes that repeat a request, to the byte or with changes.

What is repeated as it was is sent as the target got it, framing and all: a
signature over it still holds. What is changed gets its framing made anew.
Source of the syntax: RFC 9112, sections 3 and 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from exposr_tx.errors import BadInput
from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.wire.http1 import WITH_BODY
from exposr_tx.wire.http1.syntax import TOKEN

__all__ = ["Edit", "NotReplayable", "not_replayable", "replay_bytes"]

#: Fields of the framing, which is made anew, and one that asks for a pause that nobody makes.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"trailer", b"expect"})
_NAME: Final = re.compile(TOKEN)
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class NotReplayable(BadInput):
    """The request cannot be sent again; the message says why."""

    status = 409
    code = "NOT_REPLAYABLE"


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be other than in the request that is repeated; None leaves a part as it is.

    :ivar fields: all header fields; those of the framing are left out of account.
    :ivar body: as it is without framing.
    """

    method: str | None = None
    target: str | None = None
    fields: tuple[tuple[bytes, bytes], ...] | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)


def not_replayable(exchange: Exchange) -> str:
    """Why a request cannot be sent again; empty where it can."""
    if exchange.is_websocket or exchange.request.field(b"upgrade").lower() == b"websocket":
        return "it opens a websocket, and what the visitor said on it cannot be said again"
    if not _NAME.fullmatch(exchange.request.method.encode("latin-1")):
        return "it does not parse as a request"
    if exchange.requested is None:
        return "it has not come to its end"
    return ""


def replay_bytes(exchange: Exchange, edit: Edit | None = None) -> bytes:
    """What to send.

    :raises NotReplayable: it cannot be sent again, or its body was not kept whole.
    :raises BadInput: an edited part cannot stand in a request.
    """
    if why := not_replayable(exchange):
        raise NotReplayable(f"exchange {exchange.id} cannot be replayed: {why}")
    body = exchange.request_wire if edit is None else exchange.request_body
    if body.truncated and (edit is None or edit.body is None):
        raise NotReplayable(
            f"exchange {exchange.id} cannot be replayed: of its body of {body.size} bytes only "
            f"the first {body.kept} were kept"
        )
    if edit is None:
        return exchange.request.raw + body.data
    return _edited(exchange, edit)


def _edited(exchange: Exchange, edit: Edit) -> bytes:
    request = exchange.request
    method = request.method if edit.method is None else edit.method
    if not _NAME.fullmatch(method.encode("utf-8", "replace")):
        raise BadInput(f"method {method!r}: must be one word, like GET")
    target = request.target if edit.target is None else _target(edit.target)
    given = request.fields if edit.fields is None else edit.fields
    for name, value in given:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            shown = name.decode("utf-8", "replace")
            raise BadInput(f"headers: {shown!r} must be a name, and its value one line of text")
    fields = [pair for pair in given if pair[0].lower() not in _FRAMING]
    if not any(name.lower() == b"host" for name, _ in fields):
        fields.insert(0, (b"Host", request.field(b"host")))
    body = exchange.request_body.data if edit.body is None else edit.body
    if body or method.upper() in WITH_BODY:
        fields.append((b"Content-Length", b"%d" % len(body)))
    lines = [f"{method} {target} HTTP/1.1".encode("ascii")]
    lines += [name + b": " + value.strip(b" \t") for name, value in fields]
    return b"\r\n".join([*lines, b"", b""]) + body


def _target(text: str) -> str:
    """A path and a query as one types them."""
    if not text.startswith("/") and text != "*":
        raise BadInput(f"target {text!r}: must be a path, like /status?full=yes")
    if not text.isprintable():
        raise BadInput(f"target {text!r}: must be printable")
    # What a browser would write in another way than it was typed.
    return quote(text.partition("#")[0], safe="/?:@!$&'()*+,;=%-._~[]{}|\\^`\"<>")
