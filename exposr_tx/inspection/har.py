"""Exchanges as HAR 1.2: what browsers' developer tools and many other programs read.

Source: the specification (w3c.github.io/web-performance/specs/HAR/Overview.html). Names
that begin with ``_`` are additions, as it allows; those of a websocket are Chromium's.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

import exposr_tx
from exposr_tx.inspection.decoding import decoded, field_text, said, text_of
from exposr_tx.inspection.exchanges import Body, Exchange
from exposr_tx.inspection.redaction import REDACTED, Redaction
from exposr_tx.wire.http1 import WITH_BODY

__all__ = ["archive", "entry", "envelope", "written"]

Object = dict[str, Any]

_JSON: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False)
#: Header fields up to this length are remembered as they are written.
MAX_REMEMBERED: Final = 256
#: Parameters of a query or a form that are told one by one.
MAX_PARAMETERS: Final = 1000
#: What stands for a media type that was not told.
UNKNOWN: Final = "x-unknown"
_FORM: Final = "application/x-www-form-urlencoded"
#: Names of Set-Cookie's attributes.
_ATTRIBUTES: Final = {"path": "path", "domain": "domain", "samesite": "sameSite"}
_FLAGS: Final = {"httponly": "httpOnly", "secure": "secure"}


def archive(exchanges: Iterable[Exchange], redaction: Redaction) -> bytes:
    """A HAR file.

    :param redaction: what is left out of it.
    """
    head, end = envelope()
    return head + b",".join(written(exchange, redaction) for exchange in exchanges) + end


def envelope() -> tuple[bytes, bytes]:
    """What stands in a file before the entries, between which there are commas, and behind them."""
    creator = {"name": "exposr_tx", "version": exposr_tx.__version__}
    # Firefox reads no file without pages, though they may be left out.
    log = {"log": {"version": "1.2", "creator": creator, "pages": [], "entries": []}}
    text = _JSON.encode(log).encode("ascii")
    return text[:-3], text[-3:] + b"\n"


def written(exchange: Exchange, redaction: Redaction) -> bytes:
    """One exchange as a file has it."""
    return _JSON.encode(entry(exchange, redaction)).encode("ascii")


def entry(exchange: Exchange, redaction: Redaction) -> Object:
    """One exchange as an entry of a HAR file."""
    timings, start = _timings(exchange)
    made: Object = {
        "startedDateTime": _moment(exchange.started - exchange.began + start),
        "time": round(sum(part for part in timings.values() if part > 0), 3),
        "request": _request(exchange, redaction),
        "response": _response(exchange, redaction),
        "cache": {},
        "timings": timings,
        "_tunnel": exchange.tunnel,
        "_visitor": exchange.visitor,
    }
    if exchange.is_websocket:
        made["_resourceType"] = "websocket"
        made["_webSocketMessages"] = _messages(exchange, redaction)
        if exchange.frames.lost:
            made["comment"] = f"without the first {exchange.frames.lost} messages"
    if exchange.replay_of:
        made["_replayOf"] = exchange.replay_of
    if exchange.error:
        # Chromium looks for it in the response.
        made["_error"] = made["response"]["_error"] = made["comment"] = exchange.error
    return made


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _timings(exchange: Exchange) -> tuple[dict[str, float], float]:
    """Milliseconds of each step, and the moment when the first one began."""
    began = exchange.began
    start = began if exchange.connecting is None else min(began, exchange.connecting)
    known = (exchange.ended, exchange.answered, exchange.requested, exchange.connected, began)
    last = max(moment for moment in known if moment is not None)
    answered = last if exchange.answered is None else exchange.answered
    requested = answered if exchange.requested is None else exchange.requested
    connected, connect = began, -1.0
    if exchange.connecting is not None:
        connected = last if exchange.connected is None else exchange.connected
        connect = connected - exchange.connecting
    timings = {
        "blocked": -1.0,
        "dns": -1.0,
        "connect": connect,
        "send": requested - max(began, connected),
        "wait": answered - max(requested, connected),
        "receive": last - answered,
        "ssl": -1.0,
    }
    return {
        name: part if part == -1.0 else round(max(part, 0.0) * 1000, 3)
        for name, part in timings.items()
    }, start


def _headers(fields: Iterable[tuple[bytes, bytes]], redaction: Redaction) -> list[Object]:
    return [
        _header(pair, redaction) if len(pair[1]) < MAX_REMEMBERED else _new_header(pair, redaction)
        for pair in fields
    ]


def _new_header(pair: tuple[bytes, bytes], redaction: Redaction) -> Object:
    name = pair[0].decode("latin-1")
    return {"name": name, "value": redaction.field(name, field_text(pair[1]))}


#: Most fields come again and again. Made anew they cost a third of the whole entry.
_header: Final = lru_cache(4096)(_new_header)


def _request(exchange: Exchange, redaction: Redaction) -> Object:
    head = exchange.request
    fields = head.fields
    cookies = []
    for key, value in fields:
        if key.lower() == b"cookie":
            cookies += _cookies(field_text(value), redaction)
    made: Object = {
        "method": head.method,
        "url": redaction.url(exchange.url),
        "httpVersion": head.version,
        "cookies": cookies,
        "headers": _headers(fields, redaction),
        "queryString": _parameters(head.target.partition("?")[2], redaction),
        "headersSize": len(head.raw) or -1,
        "bodySize": exchange.request_wire.size,
    }
    if exchange.request_body.size or head.method in WITH_BODY:
        made["postData"] = _post_data(exchange, redaction)
    if exchange.request_trailers:
        made["_trailers"] = _headers(exchange.request_trailers, redaction)
    return made


def _parameters(text: str, redaction: Redaction) -> list[Object]:
    """The parameters of a query or a form."""
    first = "&".join(text.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS])
    return [
        {"name": name, "value": redaction.parameter(name, value)}
        for name, value in parse_qsl(first, keep_blank_values=True)
    ]


def _cookies(text: str, redaction: Redaction) -> list[Object]:
    """The pairs of a Cookie field, or the first of a Set-Cookie."""
    secret = redaction.is_secret("cookie")
    found = []
    for pair in text.split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals:
            hidden = secret or redaction.is_secret(name)
            found.append({"name": name, "value": REDACTED if hidden and value else value})
    return found


def _set_cookie(text: str, redaction: Redaction) -> list[Object]:
    first, _, rest = text.partition(";")
    found = _cookies(first, redaction)
    for cookie in found:
        for attribute in rest.split(";"):
            name, _, value = attribute.strip().partition("=")
            name = name.lower()
            if name in _FLAGS:
                cookie[_FLAGS[name]] = True
            elif name in _ATTRIBUTES:
                cookie[_ATTRIBUTES[name]] = value
            elif name == "expires":
                try:
                    moment = parsedate_to_datetime(value)
                except (ValueError, OverflowError):
                    continue  # it is no date
                # Without a zone it is in UTC.
                cookie["expires"] = moment.replace(tzinfo=moment.tzinfo or UTC).isoformat()
    return found


def _post_data(exchange: Exchange, redaction: Redaction) -> Object:
    mime = field_text(exchange.request.field(b"content-type")) or UNKNOWN
    made: Object = {"mimeType": mime, "params": []}
    coding = field_text(exchange.request.field(b"content-encoding"))
    made |= _contents(exchange.request_body, mime, coding, redaction)[0]
    if mime.partition(";")[0].strip().lower() == _FORM and "encoding" not in made:
        made["params"] = _parameters(made["text"], redaction)
    return made


def _contents(body: Body, mime: str, coding: str, redaction: Redaction) -> tuple[Object, int]:
    """A body's text, or its bytes in base64; and how many bytes the body has, decoded."""
    data, whole, comments = body.data, not body.truncated, []
    size = body.size
    if body.truncated:
        comments.append(f"the first {body.kept} of {body.size} bytes")
    if coding and data:
        inflated = decoded(data, coding)
        if inflated is None:
            comments.append(f"in the coding {coding}, as it passed")
        else:
            data, ended = inflated
            size = len(data)
            if whole and not ended:
                comments.append(f"the first {size} bytes of what it decodes to")
            whole = whole and ended
    text = text_of(data, mime, whole)
    made: Object
    if text is None:
        coded = b64encode(redaction.octets(data, mime)).decode("ascii")
        made = {"text": coded, "encoding": "base64"}
    else:
        made = {"text": redaction.body(text, mime)}
    if comments:
        made["comment"] = "; ".join(comments)
    return made, size


def _response(exchange: Exchange, redaction: Redaction) -> Object:
    head, body = exchange.response, exchange.response_body
    if head is None:
        return {
            "status": 0,
            "statusText": "",
            "httpVersion": "",
            "cookies": [],
            "headers": [],
            "content": {"size": 0, "mimeType": UNKNOWN},
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": -1,
        }
    mime = field_text(head.field(b"content-type")) or UNKNOWN
    content: Object = {"size": 0, "mimeType": mime}
    if body.size:
        coding = field_text(head.field(b"content-encoding"))
        contents, content["size"] = _contents(body, mime, coding, redaction)
        size = content["size"]
        if size > body.size:
            content["compression"] = size - body.size
        content |= contents
    fields = head.fields
    cookies = []
    for key, value in fields:
        if key.lower() == b"set-cookie":
            cookies += _set_cookie(field_text(value), redaction)
    made = {
        "status": head.status,
        "statusText": head.reason,
        "httpVersion": head.version,
        "cookies": cookies,
        "headers": _headers(fields, redaction),
        "content": content,
        "redirectURL": redaction.url(field_text(head.field(b"location"))),
        "headersSize": len(head.raw),
        "bodySize": body.size,
    }
    if exchange.response_trailers:
        made["_trailers"] = _headers(exchange.response_trailers, redaction)
    return made


def _messages(exchange: Exchange, redaction: Redaction) -> list[Object]:
    made = []
    for frame, data, text, _ in said(exchange.frames):
        message = {
            "type": "send" if frame.sent else "receive",
            "time": round(exchange.started - exchange.began + frame.moment, 6),
            "opcode": frame.opcode,
            "data": b64encode(redaction.octets(data, "")).decode("ascii")
            if text is None
            else redaction.body(text, ""),
        }
        made.append(message)
    return made
