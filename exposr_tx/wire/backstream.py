"""The messages between a backstream server and a backstream client, bytes in and messages out.

One websocket text message holds one JSON object: a request, or the response with
the same id. :class:`Requests` is the server's end of a conversation and
:class:`Responses` the client's; either raises RemoteProtocolError for what its
peer must not say, and is not used again then. Source: docs/protocols/backstream.md.

Reading is as lenient as Go's ``encoding/json`` where existing programs might rely
on it: member names in any case, ``null`` and absent members, unknown members.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.http1 import Fields

__all__ = [
    "CLIENT_FIELD",
    "HOP",
    "MAX_ID",
    "MAX_REQUEST_BODY",
    "MAX_REQUEST_MESSAGE",
    "MAX_RESPONSE_BODY",
    "MAX_RESPONSE_MESSAGE",
    "MAX_SKIPPED_MESSAGE",
    "RequestMessage",
    "Requests",
    "ResponseMessage",
    "Responses",
    "canonical",
    "is_field",
    "tokens_only",
]

#: The header field, with any value but the empty one, that makes a request a client's.
CLIENT_FIELD: Final = b"backstream-client"

#: Bytes of a visitor's body that our server puts into a message; more is 413. The message holds
#: it in base64, and the Go client some copies more.
MAX_REQUEST_BODY: Final = 16 * 1024 * 1024
#: Bytes of a message that our server takes from a client: a response's body of some 22 MiB. The
#: rest of a longer one is skipped, as it can be honest; one without an end is not.
MAX_RESPONSE_MESSAGE: Final = 32 * 1024 * 1024
MAX_SKIPPED_MESSAGE: Final = 1024 * 1024 * 1024

#: Bytes of a message that our client takes: the Go server has no limit of its own, and a request
#: that is not read cannot be answered.
MAX_REQUEST_MESSAGE: Final = 256 * 1024 * 1024
#: Bytes of a target's body that our client puts into an answer; more is a 502.
MAX_RESPONSE_BODY: Final = 64 * 1024 * 1024

#: Characters of a message that begin or part its strings, lists and objects. A head that is passed
#: on has fewer bytes, and base64 has none of them; a liar's 30 MB of empty strings would keep
#: everybody waiting for 10 s, and take 900 MB.
MAX_MARKS: Final = 128 * 1024
#: Letters of an id that are looked at.
MAX_ID: Final = 256
#: Statuses that a response may have: 1xx are no answers.
LEAST_CODE: Final = 200
MOST_CODE: Final = 999

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
#: Fields that say how one hop's message is framed, and so are no business of the next.
HOP: Final = frozenset(
    {
        *("connection", "content-length", "host", "http2-settings", "keep-alive"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
# How newer Go servers ask for a visitor's websocket, and hear of it.
_UPGRADE: Final = "websocket_upgrade_request"
_REFUSAL: Final = "websocket_upgrade_response"
_NO_WEBSOCKETS: Final = "this client carries websockets of servers of its own kind only"
#: Characters of a path that are written as they are (RFC 3986 section 3.3).
_PATH: Final = "/-._~!$&'()*+,;=:@"
# What Go writes in place of the characters that HTML knows; a peer may look at the text.
_HTML: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def tokens_only(text: str) -> bool:
    """Whether a text is a token, as methods and names of fields are."""
    return _TOKEN.fullmatch(text) is not None


def is_field(name: str, value: str) -> bool:
    """Whether a header field can be written: a token, and no control characters."""
    return tokens_only(name) and _VALUE.fullmatch(value) is not None


def canonical(name: str) -> str:
    """A field's name as Go spells it: ``X-Foo-Bar``."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _dumped(members: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8; what is no character, as half of a pair, becomes a question mark."""
    text = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_HTML).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class RequestMessage:
    """A visitor's request, as it goes to a client.

    :ivar path: decoded, without query.
    :ivar fields: names in any case; of a name all values, in order. Host, framing and what
        concerns one hop only are left out when it is written.
    :ivar remote: the visitor's ``ip:port``.
    :ivar query: what follows the ``?``; None where there is none, or the server does not tell.
    :ivar raw_path: the path as the visitor wrote it; empty where the server does not tell.
    """

    id: str
    method: str
    path: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    remote: str = ""
    query: str | None = None
    raw_path: str = ""

    @classmethod
    def of(
        cls, id: str, method: bytes, target: bytes, fields: Fields, body: bytes, remote: str
    ) -> RequestMessage:
        """From what was read of an HTTP request.

        :param target: the request target: path and query.
        """
        path, mark, query = target.partition(b"?")
        return cls(
            id,
            _text(method),
            _text(unquote_to_bytes(path)),
            tuple((_text(name), _text(value)) for name, value in fields),
            body,
            remote,
            _text(query) if mark else None,
            _text(path),
        )

    def encode(self) -> bytes:
        """The message; ``query``, ``raw_path`` and ``headers`` are ours, and ignored there."""
        headers: dict[str, list[str]] = {}
        for name, value in self.fields:
            if name.lower() not in HOP:
                headers.setdefault(canonical(name), []).append(value)
        first = {name: values[0] for name, values in headers.items()}
        if self.body:
            first["Content-Length"] = str(len(self.body))
        members: dict[str, Any] = {
            "id": self.id,
            "path": self.path,
            "method": self.method,
            "body": b64encode(self.body).decode("ascii"),
            "remote": self.remote,
            "header": first,
            "headers": headers,
            "raw_path": self.raw_path,
        }
        if self.query is not None:
            members["query"] = self.query
        return _dumped(members)

    @classmethod
    def decode(cls, data: bytes) -> RequestMessage:
        """Read a message; raises RemoteProtocolError."""
        return cls.of_members(_Members(data))

    @classmethod
    def of_members(cls, members: _Members) -> RequestMessage:
        """The request that a message's members make; raises RemoteProtocolError."""
        told = members.header("header" if members.get("headers") is None else "headers")
        fields = [(name, value) for name, values in told.items() for value in values]
        return cls(
            members.id(),
            members.text("method") or "GET",
            members.text("path"),
            tuple(fields),
            members.body(),
            members.text("remote"),
            members.text("query") if members.get("query") is not None else None,
            members.text("raw_path"),
        )

    @property
    def may_hold_query(self) -> bool:
        """Whether the path may have a query behind it: what a newer Go server sends has."""
        return not self.raw_path and bool(self.path.partition("?")[2])

    def parted(self) -> RequestMessage:
        """The same with the query that stands behind its path."""
        path, _, query = self.path.partition("?")
        return replace(self, path=path, query=query)

    def target(self, query: str) -> str:
        """Path and query as they are written to a target.

        :param query: in place of one that the server does not tell; may be empty.
        """
        raw = self.raw_path
        path = raw if raw and quote(raw, safe=_PATH + "%") == raw else ""
        path = path or quote(self.path, safe=_PATH)
        if path == "*":
            return path  # of OPTIONS; nothing may follow it (RFC 9112 section 3.2.4)
        if not path.startswith("/"):
            path = "/" + path
        found = quote(query if self.query is None else self.query, safe=_PATH + '?%[]"{}|^`\\')
        return f"{path}?{found}" if found or self.query is not None else path


@dataclass(frozen=True, slots=True)
class ResponseMessage:
    """A target's response, as it comes from a client.

    :ivar code: the status.
    :ivar fields: with those of framing, which the reader is to judge.
    """

    id: str
    code: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def encode(self) -> bytes:
        """The message."""
        headers: dict[str, list[str]] = {}
        for name, value in self.fields:
            headers.setdefault(canonical(name), []).append(value)
        return _dumped(
            {
                "id": self.id,
                "code": self.code,
                "body": b64encode(self.body).decode("ascii"),
                "header": headers,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> ResponseMessage:
        """Read a message; raises RemoteProtocolError. What the code is worth is not judged."""
        members = _Members(data)
        code = members.get("code")
        if code is not None and type(code) is not int:
            raise RemoteProtocolError("the message's code is not a whole number")
        fields = tuple(
            (name, value) for name, values in members.header("header").items() for value in values
        )
        return cls(members.id(), code or 0, fields, members.body())

    @property
    def is_answer(self) -> bool:
        """Whether it has a final status."""
        return LEAST_CODE <= self.code <= MOST_CODE

    @property
    def is_writable(self) -> bool:
        """Whether its fields may stand in a head: a target can send its client what may not."""
        return all(is_field(name, value) for name, value in self.fields)


class _Members:
    """The members of a message, found as Go finds them."""

    def __init__(self, data: bytes) -> None:
        if sum(map(data.count, (b'"', b",", b"[", b"{"))) > MAX_MARKS:
            raise RemoteProtocolError("the message has too many members")
        try:
            found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as problem:
            # Its text may hold some of the body.
            raise RemoteProtocolError("the message is not JSON") from problem
        if not isinstance(found, dict):
            raise RemoteProtocolError("the message is not a JSON object")
        self._found = {name.lower(): value for name, value in found.items()}

    def get(self, name: str) -> Any:
        return self._found.get(name)

    def text(self, name: str) -> str:
        value = self._found.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise RemoteProtocolError(f"the message's {name} is not a string")
        return value

    def id(self) -> str:
        value = self.text("id")
        if not value or len(value) > MAX_ID:
            raise RemoteProtocolError(f"the message's id has no letter, or more than {MAX_ID}")
        return value

    def body(self) -> bytes:
        # Go skips line ends; everything else must be of the standard alphabet, and padded.
        text = self.text("body")
        try:
            if "\n" in text or "\r" in text:
                text = text.replace("\n", "").replace("\r", "")
            return b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise RemoteProtocolError("the message's body is not base64") from None

    def header(self, name: str) -> dict[str, list[str]]:
        """Names to values, whether they come one by one or as lists."""
        found = self._found.get(name)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise RemoteProtocolError(f"the message's {name} is not an object")
        header: dict[str, list[str]] = {}
        for field, values in found.items():
            if values is None:
                continue
            listed = values if isinstance(values, list) else [values]
            if not all(isinstance(value, str) for value in listed):
                raise RemoteProtocolError(f"the message's {name} holds what is no string")
            header[field] = listed
        return header


def _no_constant(word: str) -> None:
    raise ValueError(word)


class Requests:
    """The server's end of one conversation: one request at a time, each answered once.

    :ivar pending: the id of the request that waits for its answer; empty where there is none.
    """

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending = ""

    def ask(self, request: RequestMessage) -> bytes:
        """The message that asks."""
        if self.pending:
            raise LocalProtocolError("a request is pending")
        self.pending = request.id
        return request.encode()

    def receive(self, data: bytes) -> ResponseMessage:
        """The answer to the pending request; raises RemoteProtocolError for anything else."""
        response = ResponseMessage.decode(data)
        if response.id != self.pending:
            raise RemoteProtocolError("the message answers nothing that was asked")
        self.pending = ""
        return response

    def skip(self) -> None:
        """The answer to the pending request was not looked at."""
        self.pending = ""


class Responses:
    """The client's end of one conversation: any number of requests, each answered once.

    :ivar pending: the ids of the requests that are not answered yet.
    """

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: set[str] = set()

    def receive(self, data: bytes) -> RequestMessage | bytes:
        """A request; or, for what newer servers say of visitors' websockets, the message to answer
        with: that such a one cannot be had. It is empty where nobody waits.

        :raises RemoteProtocolError: the connection must be closed.
        """
        members = _Members(data)
        kind = members.text("type")
        if kind and members.get("id") is None:
            asked = members.get("data")
            if kind != _UPGRADE or not isinstance(asked, dict):
                return b""
            refusal = {"id": asked.get("id"), "accepted": False, "error": _NO_WEBSOCKETS}
            return _dumped({"type": _REFUSAL, "data": refusal})
        request = RequestMessage.of_members(members)
        if request.id in self.pending:
            raise RemoteProtocolError("the message asks with an id that is in use")
        self.pending.add(request.id)
        return request

    def answer(self, response: ResponseMessage) -> bytes:
        """The message that answers."""
        if response.id not in self.pending:
            raise LocalProtocolError("there is no such request, or it is answered")
        self.pending.remove(response.id)
        return response.encode()
