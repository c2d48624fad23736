"""backstream's messages: what is written is read again, and what no peer may say is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.backstream import (
    HOP,
    Closing,
    Payload,
    RequestMessage,
    Requests,
    ResponseMessage,
    Responses,
    Upgrade,
    UpgradeAnswer,
)

NAMES = st.from_regex(r"[A-Z][a-z]{0,8}(-[A-Z][a-z]{0,8}){0,2}", fullmatch=True)
#: Of fields that are neither one hop's nor a handshake's.
PASSED_ON = NAMES.filter(
    lambda name: name.lower() not in HOP and not name.startswith("Sec-Websocket-")
)
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
        response = requests.receive(message(id="1", code=200))
        assert isinstance(response, ResponseMessage)
        self.assertEqual(response.code, 200)
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
        """What a newer server says of visitors' websockets disturbs no request; what is none of a
        server's, and what nobody knows, is ignored."""
        responses = Responses()
        responses.receive(message(id="1", path="/"))
        data = {"id": "2", "path": "/a b?x", "header": {"Cookie": "k", "Upgrade": "websocket"}}
        self.assertEqual(
            responses.receive(message(type="websocket_upgrade_request", data=data)),
            Upgrade("2", "/a b?x", (("Cookie", "k"),)),
        )
        frame = message(type="websocket_frame", data={"connection_id": "2", "TYPE": 1})
        self.assertEqual(responses.receive(frame), Payload("2", 1, b""))
        for kind in ("x", "websocket_upgrade_response"):
            self.assertIsNone(responses.receive(message(type=kind, data={"id": "1"})))
        self.assertEqual(responses.pending, {"1"})


URL_ERROR = "failed to parse request path: x"


class NewerClientTests(SynchronousTestCase):
    """The first request finds out what the client is, and does nobody any harm."""

    def setUp(self) -> None:
        self.requests = Requests()
        self.request = RequestMessage.of("1", b"POST", b"/a%20b?x=%2F", [], b"hello", "")

    def refuse(self, error: str) -> dict[str, Any]:
        """A client answers that it can make no such websocket; what it is asked then."""
        data = {"id": "1", "accepted": False, "error": error}
        asked = self.requests.receive(message(type="websocket_upgrade_response", data=data))
        assert isinstance(asked, bytes)
        found: dict[str, Any] = json.loads(asked)
        return found

    def test_older(self) -> None:
        """An older one sees the request; later ones have nothing else in them."""
        found = json.loads(self.requests.ask(self.request))
        self.assertEqual(
            (found["path"], found["method"], found["body"]), ("/a b", "POST", "aGVsbG8=")
        )
        self.requests.receive(message(id="1", code=200))
        self.assertIs(self.requests.is_newer, False)
        found = json.loads(self.requests.ask(self.request))
        self.assertEqual((found["path"], "type" in found), ("/a b", False))

    def test_newer(self) -> None:
        """A newer one fails to make the websocket before it goes anywhere, and is asked once more:
        with a URL. So are the next ones."""
        found = json.loads(self.requests.ask(self.request))
        self.assertEqual(found["data"]["path"], ":")  # no URL
        self.assertIn("sec-websocket-key", found["data"]["header"])  # nobody's to give
        found = self.refuse(URL_ERROR)
        self.assertEqual((found["path"], found["body"]), ("/a%20b?x=%2F", "aGVsbG8="))
        self.assertNotIn("type", found)
        self.assertIsInstance(self.requests.receive(message(id="1", code=200)), ResponseMessage)
        self.assertEqual(json.loads(self.requests.ask(self.request))["path"], "/a%20b?x=%2F")

    def test_in_between(self) -> None:
        """One that knows of websockets and reads no URL gets the path as an older one."""
        self.requests.ask(self.request)
        self.assertEqual(self.refuse("duplicate header not allowed")["path"], "/a b")
        self.requests.receive(message(id="1", code=200))
        self.assertEqual(json.loads(self.requests.ask(self.request))["path"], "/a b")

    def test_refuses_twice(self) -> None:
        """A second refusal answers nothing that was asked."""
        self.requests.ask(self.request)
        self.refuse(URL_ERROR)
        with self.assertRaises(RemoteProtocolError):
            self.refuse(URL_ERROR)

    def test_not_wanted(self) -> None:
        """Where the first answer was skipped, the next request tries again."""
        self.requests.ask(self.request)
        self.requests.skip()
        self.assertIn("type", json.loads(self.requests.ask(self.request)))

    def test_urls(self) -> None:
        """A path is a URL without a host, and has no escapes but real ones."""
        for target, url in (
            (b"/a%2Fb?", "/a%2Fb?"),
            (b"//a/b?c", "http://x//a/b?c"),
            (b"/100%/a?%", "/100%25/a?%"),
            (b"/%3Fa", "/%3Fa"),
            (b"/\xff", "/%EF%BF%BD"),
            (b"*", "*"),
        ):
            request = RequestMessage.of("1", b"GET", target, [], b"", "")
            self.assertEqual(json.loads(request.encode(True))["path"], url)

    def test_websocket(self) -> None:
        """A visitor's websocket is asked for in the same way, and says what the client is."""
        handshake = [(b"Cookie", b"k"), (b"Sec-WebSocket-Key", b"x"), (b"Upgrade", b"websocket")]
        request = RequestMessage.of("1", b"GET", b"/ws?x", handshake, b"", "")
        found = json.loads(self.requests.ask(request, websocket=True))
        self.assertEqual((found["method"], found["path"], found["query"]), ("GET", "/ws", "x"))
        self.assertEqual(found["data"]["path"], "/ws?x")
        self.assertEqual(found["data"]["header"], {"Cookie": "k"})
        answer = UpgradeAnswer("1", True, (("A", "b"),))
        self.assertEqual(self.requests.receive(answer.encode()), answer)
        self.assertIs(self.requests.is_newer, True)
        self.assertNotIn("id", json.loads(self.requests.ask(request, websocket=True)))

    def test_websocket_is_refused(self) -> None:
        """A target that takes none tells nothing of the client."""
        self.requests.ask(self.request, websocket=True)
        self.requests.receive(UpgradeAnswer("1", False, error="bad handshake").encode())
        self.assertIsNone(self.requests.is_newer)


class WebsocketTests(SynchronousTestCase):
    """What is said of visitors' websockets."""

    @settings(max_examples=100)
    @given(
        st.text(min_size=1, max_size=40),
        st.integers(0, 10),
        st.binary(max_size=300),
        st.dictionaries(PASSED_ON, st.lists(VALUES, min_size=1, max_size=2), max_size=4),
    )
    def test_round_trip(
        self, id: str, number: int, data: bytes, header: dict[str, list[str]]
    ) -> None:
        """What one end says, the other one reads."""
        id = id.encode("utf-8", "replace").decode()
        fields = tuple((name, value) for name, values in header.items() for value in values)
        responses, requests = Responses(), Requests()
        for said in (
            Upgrade(id, "/a?b", tuple((n, v) for n, (v, *_) in header.items()), "192.0.2.1:5"),
            Payload(id, number, data),
            Closing(id, number, "why"),
        ):
            self.assertEqual(responses.receive(said.encode()), said)
            if not isinstance(said, Upgrade):
                self.assertEqual(requests.receive(said.encode()), said)
        requests.ask(RequestMessage(id, "GET", "/"), websocket=True)
        answer = UpgradeAnswer(id, True, fields)
        self.assertEqual(requests.receive(answer.encode()), answer)

    def test_what_was_meant(self) -> None:
        """Go programs say 1006, and the code that was meant in the reason; what no close frame may
        have is nobody's to tell, but that there is none: an empty one says that."""
        for code, reason, meant in (
            (1006, "websocket: close 4001: see you", (4001, "see you")),
            (1006, "websocket: close 1001 (going away): x", (1001, "x")),
            (1006, "websocket: close 1000 (normal)", (1000, "")),
            (1006, "websocket: close 1005 (no status)", (1005, "")),
            (1006, "unexpected EOF", None),
            (1000, "bye", (1000, "bye")),
            (1006, "websocket: close 1012: restart", (1012, "restart")),
            (1013, "later", (1013, "later")),
            (1014, "", None),
            (0, "", None),
            (99999, "", None),
        ):
            found = Closing("1", code, reason).meant
            self.assertEqual(found and (found.code, found.reason), meant, reason)
        payload = Payload("1", 8, b"\x0f\xa1bye")
        self.assertEqual(payload.closing, Closing("1", 4001, "bye"))
        self.assertEqual(Closing("1", 4001, "bye").payload, payload)
        empty = Payload("1", 8, b"")
        self.assertEqual(
            (empty.closing, Closing("1", 1005, "x").payload), (Closing("1", 1005), empty)
        )
        self.assertEqual(len(Closing("1", 1000, "é" * 100).payload.data), 2 + 122)

    def test_lies(self) -> None:
        """What is no message of theirs ends the connection, as anything else that is none."""
        for kind, data in (
            ("websocket_frame", {"connection_id": "1", "type": "1"}),
            ("websocket_frame", {"connection_id": "1", "type": 1, "data": "!"}),
            ("websocket_frame", {"type": 1}),
            ("websocket_frame", []),
            ("websocket_close", {"connection_id": "1", "code": 1.5}),
            ("websocket_close", {"connection_id": 1}),
            ("websocket_upgrade_response", {"id": "1", "accepted": True}),
        ):
            with self.assertRaises(RemoteProtocolError):
                Requests().receive(message(type=kind, data=data))
        with self.assertRaises(RemoteProtocolError):
            Responses().receive(message(type="websocket_upgrade_request", data={"path": "/"}))
