"""Exchanges as JSON, for the page and for ``exposr logs``.

A summary is for lists and costs little; the whole has header fields, bodies and
timings. What is secret by its name is left out, unless the redaction lets it pass.
Text is what the bytes are in UTF-8, or else in Latin-1, which has them all.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

from exposr_tx.inspection.decoding import Said, decoded, field_text, said, text_of
from exposr_tx.inspection.exchanges import Body, Exchange, Head, ResponseHead
from exposr_tx.inspection.redaction import Redaction
from exposr_tx.inspection.replays import not_replayable
from exposr_tx.inspector.contents import content

__all__ = ["detail", "frames", "matches", "summary"]

#: Bytes of a body that is no text and no image which are shown, as hexadecimal numbers.
MOST_BYTES: Final = 16384
_KINDS: Final = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}


def summary(exchange: Exchange, redaction: Redaction) -> dict[str, Any]:
    """What stands in a list. Times in milliseconds; ``started`` in seconds since 1970."""
    request, response = exchange.request, exchange.response
    return {
        "id": exchange.id,
        "tunnel": exchange.tunnel,
        "started": round(exchange.started, 3),
        "visitor": exchange.visitor,
        "method": request.method,
        "target": redaction.url(field_text(request.target.encode("latin-1"))),
        "state": exchange.state.value,
        "status": None if response is None else response.status,
        "type": "" if response is None else field_text(response.field(b"content-type")),
        "request_size": exchange.request_body.size,
        "response_size": exchange.response_body.size,
        "duration": _milliseconds(exchange.began, exchange.ended),
        "first_byte": _milliseconds(exchange.began, exchange.answered),
        "frames": len(exchange.frames) + exchange.frames.lost,
        "replay_of": exchange.replay_of,
        "error": exchange.error,
    }


def detail(exchange: Exchange, redaction: Redaction) -> dict[str, Any]:
    """All of it but the messages of a websocket."""
    request, response = exchange.request, exchange.response
    query = parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
    shown = summary(exchange, redaction) | {
        "url": redaction.url(exchange.url),
        "replayable": not_replayable(exchange),
        "timings": _timings(exchange),
        "request": {
            "line": redaction.url(f"{request.method} {request.target} {request.version}"),
            "fields": _fields(request.fields, redaction),
            "query": _parameters(query, redaction),
            "trailers": _fields(exchange.request_trailers, redaction),
            "body": _body(exchange.request_body, request, redaction),
        },
        "interim": [_head(head, redaction) for head in exchange.interim],
        "response": None,
    }
    if response is not None:
        shown["response"] = _head(response, redaction) | {
            "trailers": _fields(exchange.response_trailers, redaction),
            "body": _body(exchange.response_body, response, redaction),
        }
    return shown


def _timings(exchange: Exchange) -> dict[str, float | None]:
    # What has come before the target was connected has waited for that: no time counts twice.
    ready = max(exchange.began, exchange.connected or exchange.began)
    requested = exchange.requested
    sent = None if requested is None else max(ready, requested)
    return {
        "connect": _milliseconds(exchange.connecting, exchange.connected),
        "send": _milliseconds(ready, sent),
        "wait": _milliseconds(sent, exchange.answered),
        "receive": _milliseconds(exchange.answered, exchange.ended),
    }


def frames(exchange: Exchange, redaction: Redaction, after: int = 0) -> dict[str, Any]:
    """The messages of a websocket from a number on; ``next`` is what to ask for next time."""
    first = exchange.frames.lost
    kept = enumerate(said(exchange.frames), first)
    shown = [
        _frame(exchange, message, number, redaction) for number, message in kept if number >= after
    ]
    return {"frames": shown, "lost": first, "next": first + len(exchange.frames)}


def _frame(exchange: Exchange, said: Said, number: int, redaction: Redaction) -> dict[str, Any]:
    frame, data = said.frame, said.data
    shown: dict[str, Any] = {
        "number": number,
        "sent": frame.sent,
        "kind": _KINDS.get(frame.opcode, str(frame.opcode)),
        "size": frame.size,
        "at": _milliseconds(exchange.began, frame.moment),
        "whole": said.whole,
    }
    if frame.opcode == 8 and len(data) >= 2:
        code = int.from_bytes(data[:2], "big")
        return shown | {"text": f"{code} {data[2:].decode('utf-8', 'replace')}".strip()}
    # What pings carry is text in most programs.
    text = said.text if frame.opcode < 8 else text_of(data, "", said.whole)
    if text is None:
        return shown | {"base64": b64encode(redaction.octets(data, "")).decode("ascii")}
    return shown | {"text": redaction.body(text, "")}


def matches(exchange: Exchange, words: list[str]) -> bool:
    """Whether an exchange has all of some words, in lower case: a method, a status or its class
    (``404``, ``5xx``), a part of the path, or text in header fields and bodies."""
    request, response = exchange.request, exchange.response
    status = "" if response is None else str(response.status)
    near = {request.method.lower(), exchange.state.value, status, status[:1] + "xx"}
    target = request.target.lower()
    rest = [word for word in words if word not in near and word not in target]
    if not rest:
        return True
    parts = [request.raw, _decoded(exchange.request_body, request)]
    parts += [] if response is None else [response.raw, _decoded(exchange.response_body, response)]
    parts += [message.data for message in said(exchange.frames)]
    parts = [part.lower() for part in parts]
    return all(any(word.encode("utf-8") in part for part in parts) for word in rest)


def _decoded(body: Body, head: Head) -> bytes:
    coding = field_text(head.field(b"content-encoding"))
    found = decoded(body.data, coding) if coding else None
    return body.data if found is None else found[0]


def _head(head: ResponseHead, redaction: Redaction) -> dict[str, Any]:
    line = field_text(head.raw.partition(b"\r\n")[0])
    return {"line": line, "status": head.status, "fields": _fields(head.fields, redaction)}


def _fields(pairs: Iterable[tuple[bytes, bytes]], redaction: Redaction) -> list[list[str]]:
    named = [(field_text(name), field_text(value)) for name, value in pairs]
    return [[name, redaction.field(name, value)] for name, value in named]


def _parameters(pairs: Iterable[tuple[str, str]], redaction: Redaction) -> list[list[str]]:
    return [[name, redaction.parameter(name, value)] for name, value in pairs]


def _body(body: Body, head: Head, redaction: Redaction) -> dict[str, Any]:
    media_type = field_text(head.field(b"content-type"))
    found = content(body, media_type, field_text(head.field(b"content-encoding")))
    shown: dict[str, Any] = {
        "size": body.size,
        "kept": body.kept,
        "type": media_type,
        "kind": found.kind,
        "coding": found.coding,
        "problem": found.problem,
    }
    if found.kind == "none":
        return shown
    if found.kind == "image":
        essence = media_type.partition(";")[0].strip().lower()
        coded = b64encode(found.data).decode("ascii")
        return shown | {"image": f"data:{essence};base64,{coded}"}
    if found.kind == "bytes":
        data = redaction.octets(found.data, media_type)[:MOST_BYTES]
        return shown | {
            "base64": b64encode(data).decode("ascii"),
            "left": len(found.data) > MOST_BYTES,
        }
    if found.kind == "form":
        shown["form"] = _parameters(found.pairs, redaction)
    return shown | {"text": redaction.body(found.text, media_type)}


def _milliseconds(start: float | None, end: float | None) -> float | None:
    if start is None or end is None:
        return None
    return round(max(0.0, end - start) * 1000, 3)
