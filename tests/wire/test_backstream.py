"""backstream's messages: what is written is read again, and what no peer may say is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.backstream import RequestMessage, Requests, ResponseMessage, Responses

NAMES = st.from_regex(r"[A-Z][a-z]{0,8}(-[A-Z][a-z]{0,8}){0,2}", fullmatch=True)
LETTERS = st.text(st.characters(codec="utf-8"), max_size=30)
VALUES = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


def message(**members: Any) -> bytes:
    """A message with these members."""
    return json.dumps(members).encode()


class RequestTests(SynchronousTestCase):
    """Requests on their way to a client."""

    def test_as_the_go_program_reads_it(self) -> None:
        """Path decoded, the first value of each field, canonical names, no Host, base64."""
        request = RequestMessage.of(
            "an-id",
            b"POST",
            b"/a%20b%2Fc?x=1&y",
            [(b"x-foo", b"1"), (b"X-FOO", b"2"), (b"Host", b"h"), (b"Connection", b"close")],
            b"hello",
            "203.0.113.9:51234",
        )
        found = json.loads(request.encode())
        self.assertEqual(found["id"], "an-id")
        self.assertEqual(found["path"], "/a b/c")
        self.assertEqual(found["method"], "POST")
        self.assertEqual(found["body"], "aGVsbG8=")
        self.assertEqual(found["remote"], "203.0.113.9:51234")
        self.assertEqual(found["header"], {"X-Foo": "1", "Content-Length": "5"})

    def test_what_it_ignores(self) -> None:
        """Query, the path as written and all values stand in members of their own."""
        request = RequestMessage.of(
            "i", b"GET", b"/a%2Fb?x=1", [(b"A", b"1"), (b"A", b"2")], b"", ""
        )
        found = json.loads(request.encode())
        self.assertEqual(found["query"], "x=1")
        self.assertEqual(found["raw_path"], "/a%2Fb")
        self.assertEqual(found["headers"], {"A": ["1", "2"]})
        known = {"id", "path", "method", "body", "remote", "header"}
        self.assertEqual(
            {name for name in found if name.lower() in known}, known, "keys match in any case there"
        )

    def test_go_escapes(self) -> None:
        """What HTML knows is escaped, as Go does."""
        request = RequestMessage("i", "GET", "/<a>&b")
        self.assertIn(rb'"/\u003ca\u003e\u0026b"', request.encode())

    @given(
        LETTERS,
        st.lists(st.tuples(NAMES, VALUES), max_size=5),
        st.binary(max_size=100),
        st.none() | st.text("abc=&1", max_size=10),
    )
    @settings(max_examples=60)
    def test_round_trip(
        self, path: str, fields: list[tuple[str, str]], body: bytes, query: str | None
    ) -> None:
        """What is written is read again."""
        request = RequestMessage("i", "PUT", "/" + path, (), body, "r", query, "")
        self.assertEqual(RequestMessage.decode(request.encode()), request)
        with_fields = RequestMessage("i", "PUT", "/", tuple(fields), body)
        read = RequestMessage.decode(with_fields.encode())
        hop = {"connection", "host", "te", "upgrade", "trailer"}
        self.assertEqual(
            sorted(read.fields), sorted(pair for pair in fields if pair[0].lower() not in hop)
        )

    def test_target(self) -> None:
        """A target is written as the visitor wrote it, else encoded anew; never with line ends."""
        told = RequestMessage("i", "GET", "/a/b", query="x", raw_path="/a%2Fb")
        self.assertEqual(told.target("dst"), "/a%2Fb?x")
        self.assertEqual(RequestMessage("i", "GET", "/a b?c%").target("q=1"), "/a%20b%3Fc%25?q=1")
        self.assertEqual(RequestMessage("i", "GET", "/é").target(""), "/%C3%A9")
        self.assertEqual(RequestMessage("i", "OPTIONS", "*").target("q=1"), "*")
        lying = RequestMessage("i", "GET", "x", query="a b\r\nX: y", raw_path="/\r\nX: y")
        self.assertEqual(lying.target(""), "/x?a%20b%0D%0AX:%20y")


class ResponseTests(SynchronousTestCase):
    """Responses of a client."""

    def test_as_the_go_program_writes_it(self) -> None:
        """Lists of values; null, absent and unknown members; names in any case."""
        found = ResponseMessage.decode(
            b'{"ID":"i","Code":201,"body":null,"header":{"Set-Cookie":["a","b"],"X":null},"z":{}}'
        )
        self.assertEqual(
            found, ResponseMessage("i", 201, (("Set-Cookie", "a"), ("Set-Cookie", "b")))
        )
        self.assertTrue(found.is_answer)

    def test_codes(self) -> None:
        """Codes that are no final status are no answer: 0, 99, 101, 1000."""
        for code in (None, 0, 99, 100, 101, 199, 1000, -200):
            found = ResponseMessage.decode(message(id="i", code=code))
            self.assertFalse(found.is_answer, code)
        for code in (200, 302, 404, 599, 999):
            self.assertTrue(ResponseMessage.decode(message(id="i", code=code)).is_answer)

    def test_fields_that_cannot_be_written(self) -> None:
        """A name that is no token, or a value with a line end, is not to reach a head."""
        for name, value in (("A B", "x"), ("", "x"), ("A", "x\r\nB: y"), ("A", "\0")):
            found = ResponseMessage.decode(message(id="i", code=200, header={name: [value]}))
            self.assertFalse(found.is_writable)

    def test_not_a_message(self) -> None:
        """What is no JSON object with members of the right kind is refused."""
        for data in (
            b"",
            b"null",
            b"[]",
            b"{",
            b"\xff",
            b"[" * 100_000,
            b'{"id":NaN}',
            message(code=200),
            message(id=""),
            message(id="i" * 1000),
            message(id=7),
            message(id="i", code="200"),
            message(id="i", code=200.0),
            message(id="i", code=True),
            message(id="i", header=[]),
            message(id="i", header={"A": [1]}),
            message(id="i", header={"A": {"B": "c"}}),
            message(id="i", body=7),
        ):
            with self.assertRaises(RemoteProtocolError):
                ResponseMessage.decode(data)

    def test_too_many_members(self) -> None:
        """What would take long to read is not read: no head that is passed on is so full."""
        many: tuple[dict[str, Any], ...] = (
            {"header": {"A": [""] * 70_000}},
            {"x": [0] * 140_000},
            {"x": [{}] * 70_000},
        )
        for members in many:
            with self.assertRaises(RemoteProtocolError):
                ResponseMessage.decode(message(id="i", code=200, **members))
        found = ResponseMessage.decode(message(id="i", header={"A": [",[{" * 30_000]}))
        self.assertEqual(len(found.fields[0][1]), 90_000)

    def test_base64(self) -> None:
        """The standard alphabet with its padding; line ends do not count."""
        body = b"\xfb\xff" * 30
        good = b64encode(body).decode()
        self.assertEqual(ResponseMessage.decode(message(id="i", body=good)).body, body)
        lines = good[:8] + "\r\n" + good[8:]
        self.assertEqual(ResponseMessage.decode(message(id="i", body=lines)).body, body)
        for bad in ("-_-_", "YQ", "YQ=", "Y Q=", "é", "YQ==YQ=="):
            with self.assertRaises(RemoteProtocolError):
                ResponseMessage.decode(message(id="i", body=bad))

    def test_errors_tell_no_secrets(self) -> None:
        """An error's text holds nothing of the message."""
        with self.assertRaises(RemoteProtocolError) as caught:
            ResponseMessage.decode(b'{"id":"i","body":"c2VjcmV0\\"}')
        self.assertNotIn("c2Vj", str(caught.exception))

    @given(JSON, st.binary(max_size=60))
    @settings(max_examples=150)
    def test_anything(self, found: Any, noise: bytes) -> None:
        """Whatever comes is read or refused; nothing else happens."""
        for data in (json.dumps(found).encode(), json.dumps({"id": found}).encode(), noise):
            for kind in (RequestMessage, ResponseMessage):
                try:
                    read = kind.decode(data)
                except RemoteProtocolError:
                    continue
                self.assertIsInstance(read, kind)

    @given(st.integers(200, 599), st.lists(st.tuples(NAMES, VALUES), max_size=5), st.binary())
    @settings(max_examples=60)
    def test_round_trip(self, code: int, fields: list[tuple[str, str]], body: bytes) -> None:
        """What is written is read again."""
        read = ResponseMessage.decode(ResponseMessage("i", code, tuple(fields), body).encode())
        self.assertEqual((read.id, read.code, read.body), ("i", code, body))
        self.assertEqual(sorted(read.fields), sorted(fields))


class ConversationTests(SynchronousTestCase):
    """Each request is answered exactly once."""

    def test_server(self) -> None:
        """An answer is that of the request that is pending."""
        requests = Requests()
        requests.ask(RequestMessage("1", "GET", "/"))
        with self.assertRaises(LocalProtocolError):
            requests.ask(RequestMessage("2", "GET", "/"))
        self.assertEqual(requests.receive(message(id="1", code=200)).code, 200)
        requests.ask(RequestMessage("2", "GET", "/"))

    def test_lying_client(self) -> None:
        """Another id, the same one twice, and an answer that nobody asked for are refused."""
        requests = Requests()
        with self.assertRaises(RemoteProtocolError):
            requests.receive(message(id="1", code=200))
        requests.ask(RequestMessage("1", "GET", "/"))
        with self.assertRaises(RemoteProtocolError):
            requests.receive(message(id="2", code=200))
        requests = Requests()
        requests.ask(RequestMessage("1", "GET", "/"))
        requests.receive(message(id="1", code=200))
        with self.assertRaises(RemoteProtocolError):
            requests.receive(message(id="1", code=200))

    def test_client(self) -> None:
        """Requests may overlap and be answered in any order, each once."""
        responses = Responses()
        for id in ("1", "2"):
            responses.receive(message(id=id, method="GET", path="/"))
        with self.assertRaises(RemoteProtocolError):
            responses.receive(message(id="1"))
        responses.answer(ResponseMessage("2", 200))
        responses.answer(ResponseMessage("1", 200))
        with self.assertRaises(LocalProtocolError):
            responses.answer(ResponseMessage("1", 200))

    def test_newer_server(self) -> None:
        """A newer server's visitor who wants a websocket is refused; no request is disturbed."""
        responses = Responses()
        responses.receive(message(id="1", path="/"))
        said = message(type="websocket_upgrade_request", data={"id": "2", "path": "/chat"})
        refusal = responses.receive(said)
        assert isinstance(refusal, bytes)
        found = json.loads(refusal)
        self.assertEqual(found["type"], "websocket_upgrade_response")
        self.assertEqual((found["data"]["id"], found["data"]["accepted"]), ("2", False))
        for other in ({"type": "websocket_frame", "data": {"connection_id": "2"}}, {"type": "x"}):
            self.assertEqual(responses.receive(message(**other)), b"")
        self.assertEqual(responses.pending, {"1"})
