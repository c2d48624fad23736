"""A request and its response, as messages."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from exposr_tx.wire.backstream.members import HOP, Members, by_name, dumped, is_field
from exposr_tx.wire.http1 import Fields

__all__ = ["RequestMessage", "ResponseMessage"]

#: Statuses that a response may have: 1xx are no answers.
LEAST_CODE: Final = 200
MOST_CODE: Final = 999

#: Characters of a path that are written as they are (RFC 3986 section 3.3).
_PATH: Final = "/-._~!$&'()*+,;=:@"
_NO_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


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

    def encode(self, reads_urls: bool = False, more: Mapping[str, Any] | None = None) -> bytes:
        """The message; ``query``, ``raw_path`` and ``headers`` are ours, and ignored there.

        :param reads_urls: whether the client takes the path for a URL, as newer ones do.
        :param more: further members.
        """
        headers = by_name(pair for pair in self.fields if pair[0].lower() not in HOP)
        first = {name: values[0] for name, values in headers.items()}
        if self.body:
            first["Content-Length"] = str(len(self.body))
        members: dict[str, Any] = {
            "id": self.id,
            "path": self.url if reads_urls else self.path,
            "method": self.method,
            "body": b64encode(self.body).decode("ascii"),
            "remote": self.remote,
            "header": first,
            "headers": headers,
            "raw_path": self.raw_path,
        }
        if self.query is not None:
            members["query"] = self.query
        return dumped({**members, **(more or {})})

    @property
    def url(self) -> str:
        """Path and query as Go reads a URL: two slashes would begin a host, and what is no escape
        is an error, which ends its client."""
        broken = _NO_ESCAPE.search(self.raw_path)
        url = (replace(self, raw_path="") if broken else self).target("")
        return f"http://x{url}" if url.startswith("//") else url

    @classmethod
    def decode(cls, data: bytes) -> RequestMessage:
        """Read a message; raises RemoteProtocolError."""
        return cls.of_members(Members.read(data))

    @classmethod
    def of_members(cls, members: Members) -> RequestMessage:
        """The request that a message's members make; raises RemoteProtocolError."""
        return cls(
            members.id(),
            members.text("method") or "GET",
            members.text("path"),
            members.fields("header" if members.get("headers") is None else "headers"),
            members.data("body"),
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
        return dumped(
            {
                "id": self.id,
                "code": self.code,
                "body": b64encode(self.body).decode("ascii"),
                "header": by_name(self.fields),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> ResponseMessage:
        """Read a message; raises RemoteProtocolError. What the code is worth is not judged."""
        return cls.of_members(Members.read(data))

    @classmethod
    def of_members(cls, members: Members) -> ResponseMessage:
        """The response that a message's members make; raises RemoteProtocolError."""
        code = members.number("code")
        return cls(members.id(), code, members.fields("header"), members.data("body"))

    @property
    def is_answer(self) -> bool:
        """Whether it has a final status."""
        return LEAST_CODE <= self.code <= MOST_CODE

    @property
    def is_writable(self) -> bool:
        """Whether its fields may stand in a head: a target can send its client what may not."""
        return all(is_field(name, value) for name, value in self.fields)
