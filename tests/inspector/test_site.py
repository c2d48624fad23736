"""What the inspector answers."""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64decode, b64encode
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.inspection.replays import Edit, replay_bytes
from exposr_tx.inspector.site import MAX_BODY
from tests.inspector.visits import Visits, request, response

PNG = b"\x89PNG\0"
PNG_IN_BASE64 = b64encode(PNG).decode()
HELLO = response(b"hello", "Content-Type: text/plain")


class SiteTests(SynchronousTestCase):
    """The page, lists and copies."""

    def setUp(self) -> None:
        self.visits = Visits()

    def test_page(self) -> None:
        """The page needs no token, as it has nothing in it; no browser may use it otherwise."""
        for path, kind in (
            ("/?token=right-token", "text/html; charset=utf-8"),
            ("/page.js", "text/javascript; charset=utf-8"),
            ("/parts.js", "text/javascript; charset=utf-8"),
            ("/page.css", "text/css; charset=utf-8"),
        ):
            answer = self.visits.get(path, Authorization="", Content_Type="")
            self.assertEqual((answer.status, answer.fields["content-type"]), (200, kind))
            policy = answer.fields["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(answer.fields["x-frame-options"], "DENY")
            self.assertEqual(answer.fields["referrer-policy"], "no-referrer")
            self.assertEqual(answer.fields["cache-control"], "no-store")
            self.assertNotIn(b"right-token", answer.body)
            self.assertNotIn("set-cookie", answer.fields)

    def test_guarded(self) -> None:
        """Every path asks for Host, Origin and token, and says what is wrong."""
        for path in ("/", "/api/exchanges", "/api/events", "/api/nothing", "/nothing"):
            answer = self.visits.get(path, Host="evil.example:4040")
            self.assertEqual((answer.status, answer.json["error"]), (403, "NOT_ALLOWED"))
            self.assertIn("http://127.0.0.1:4040", answer.json["message"])
            answer = self.visits.get(path, Origin="http://evil.example")
            self.assertEqual(answer.status, 403)
        answer = self.visits.get("/api/exchanges", Authorization="")
        self.assertEqual(answer.status, 401)
        self.assertIn("Authorization: Bearer", answer.json["message"])
        # What is no UTF-8 is wrong, and no fault of the inspector's.
        self.assertEqual(self.visits.get("/api/about", Authorization="Bearer \xff").status, 401)
        self.assertEqual(self.visits.get("/", Host="\xff").status, 403)
        answer = self.visits.ask("DELETE", "/api/exchanges", Content_Type="text/plain")
        self.assertEqual(answer.status, 415)

    def test_unknown(self) -> None:
        """Paths and exchanges that are not there are 404 in JSON."""
        for path in ("/nothing", "/api/exchanges/7", "/api/exchanges/%ff", "/api/exchanges/%2f"):
            answer = self.visits.get(path)
            self.assertEqual(answer.status, 404, path)
            self.assertIn("message", answer.json)

    def test_about_the_server(self) -> None:
        """No answer says what it was made by, not even to OPTIONS * without the token."""
        answer = self.visits.ask("OPTIONS", "*", Authorization="")
        self.assertEqual((answer.status, "server" in answer.fields), (401, False))
        self.assertNotIn("server", self.visits.get("/").fields)

    def test_long_body(self) -> None:
        """A body that is too long is refused before it is read."""
        transport = self.visits.open("POST", "/api/replay", None, Content_Length=str(MAX_BODY + 1))
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 413 "))
        self.assertTrue(transport.disconnecting)

    def test_list_and_filter(self) -> None:
        """The list has all; words find methods, statuses, paths and what is within."""
        self.visits.pass_through(request("GET /shop/tea?q=1"), HELLO)
        self.visits.pass_through(request("POST /login", b"user=alice"), HELLO)
        self.visits.pass_through(request("GET /gone"), response(b"", status="404 Not Found"))
        self.visits.pass_through(request("GET /slow"))

        def found(words: str) -> list[str]:
            answer = self.visits.get(f"/api/exchanges?q={words}").json
            return [summary["target"] for summary in answer["exchanges"]]

        self.assertEqual(found(""), ["/shop/tea?q=1", "/login", "/gone", "/slow"])
        self.assertEqual(found("post"), ["/login"])
        self.assertEqual(found("404"), ["/gone"])
        self.assertEqual(found("2xx+get"), ["/shop/tea?q=1"])
        self.assertEqual(found("running"), ["/slow"])
        self.assertEqual(found("ALICE"), ["/login"])
        self.assertEqual(found("hello"), ["/shop/tea?q=1", "/login"])
        self.assertEqual(found("nowhere"), [])

    def test_filter_decodes(self) -> None:
        """Words find what is read in a body or a message that passed compressed."""
        coded = gzip.compress(b"Needle in a body")
        self.visits.pass_through(request("GET /a"), response(coded, "Content-Encoding: gzip"))
        self.visits.pass_through(request("GET /b"), HELLO)
        self.visits.pass_through(request("PUT /c", coded, "Content-Encoding: gzip"), HELLO)
        recording = self.visits.pass_through(
            request("GET /d", b"", "Upgrade: websocket", "Connection: Upgrade"),
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflate.compress(b"needle") + deflate.flush(zlib.Z_SYNC_FLUSH)
        recording.received(bytes([0xC1, len(data) - 4]) + data[:-4])
        for path, ids in (("q=needle", ["1", "3", "4"]), ("q=needle&from=2", ["3", "4"])):
            found = self.visits.get(f"/api/exchanges?{path}").json["exchanges"]
            self.assertEqual([summary["id"] for summary in found], ids)

    def test_clear(self) -> None:
        """Clearing empties the list."""
        self.visits.pass_through(request("GET /"), HELLO)
        self.assertEqual(self.visits.ask("DELETE", "/api/exchanges").status, 200)
        self.assertEqual(self.visits.get("/api/exchanges").json["exchanges"], [])

    def test_summary(self) -> None:
        """A summary has what a list needs, without secrets."""
        sent = request("GET /a?token=sesame&b=1", b"", "X-Real-IP: 198.51.100.4")
        recording = self.visits.pass_through(sent)
        self.visits.clock.advance(0.25)
        recording.received(HELLO)
        (summary,) = self.visits.get("/api/exchanges").json["exchanges"]
        self.assertEqual(
            summary,
            {
                **{"id": "1", "tunnel": "my-tunnel", "started": 1e9, "visitor": "198.51.100.4"},
                **{"method": "GET", "target": "/a?token=[redacted]&b=1", "state": "complete"},
                **{"status": 200, "type": "text/plain", "request_size": 0, "response_size": 5},
                **{"duration": 250.0, "first_byte": 250.0, "frames": 0, "replay_of": ""},
                "error": "",
            },
        )

    def test_secrets(self) -> None:
        """Credentials are shown, and put into HAR files, only to who asks for them."""
        self.visits.pass_through(
            request(
                "POST /in?api_key=k-sesame",
                b'{"user": "alice", "password": "p-sesame"}',
                *("Content-Type: application/json", "Authorization: Bearer a-sesame"),
                "Cookie: sid=c-sesame",
            ),
            response(
                b"password=f-sesame",
                *("Set-Cookie: sid=s-sesame", "Content-Type: application/x-www-form-urlencoded"),
            ),
        )
        for path in ("/api/exchanges/1", "/api/exchanges/1/har", "/api/har", "/api/exchanges"):
            self.assertNotIn(b"-sesame", self.visits.get(path).body)
        for path in ("/api/exchanges/1", "/api/exchanges/1/har", "/api/har"):
            shown = self.visits.get(f"{path}?secrets=show").body
            for letter in (b"k", b"p", b"a", b"c", b"f", b"s"):
                self.assertIn(letter + b"-sesame", shown)

    def test_secrets_in_bytes(self) -> None:
        """Nor are they among bytes that make no text."""
        kind = "Content-Type: application/json"
        body = b'{"name": "\xe9", "password": "sesame"}'
        self.visits.pass_through(request("PUT /", body, kind), HELLO)
        for query, shown in (("", b'"[redacted]"}'), ("?secrets=show", b'"sesame"}')):
            found = self.visits.get(f"/api/exchanges/1{query}").json["request"]["body"]
            self.assertTrue(b64decode(found["base64"]).endswith(shown))

    def test_har(self) -> None:
        """All exchanges, or one, as a file to keep."""
        for path in ("/a", "/b"):
            self.visits.pass_through(request(f"GET {path}"), HELLO)
        answer = self.visits.get("/api/har")
        self.assertEqual(answer.fields["content-disposition"], 'attachment; filename="exposr.har"')
        urls = [entry["request"]["url"] for entry in answer.json["log"]["entries"]]
        self.assertEqual(urls, ["http://localhost:3000/a", "http://localhost:3000/b"])
        (entry,) = self.visits.get("/api/exchanges/2/har").json["log"]["entries"]
        self.assertEqual(entry["request"]["url"], "http://localhost:3000/b")

    def test_har_as_it_is_read(self) -> None:
        """A large file is made as far as somebody reads it, and not at all for who has left."""
        self.visits.pass_through(request("GET /a"), HELLO)
        for leaves in (False, True):
            transport = self.visits.open("GET", "/api/har")
            producer: Any = transport.producer
            producer.pauseProducing()
            self.visits.clock.advance(1)
            self.assertNotIn(b"localhost:3000/a", transport.value())
            if leaves:
                self.visits.channel.connectionLost(Failure(ConnectionDone()))
            else:
                producer.resumeProducing()
            self.visits.clock.advance(1)
            self.assertEqual(b"localhost:3000/a" in transport.value(), not leaves)

    def test_raw(self) -> None:
        """The request's bytes, and bodies, are given as they passed, for no browser to run."""
        sent = request("POST /a%2fb", b"<script>\xff\0", "X-ODD:  1")
        self.visits.pass_through(sent, HELLO)
        for path, data in (
            ("request", sent),
            ("request-body", b"<script>\xff\0"),
            ("response-body", b"hello"),
        ):
            answer = self.visits.get(f"/api/exchanges/1/{path}")
            self.assertEqual(answer.body, data)
            self.assertEqual(answer.fields["content-type"], "application/octet-stream")
            self.assertTrue(answer.fields["content-disposition"].startswith("attachment"))


class DetailTests(SynchronousTestCase):
    """One exchange."""

    def setUp(self) -> None:
        self.visits = Visits()

    def detail(self, request: bytes, *answers: bytes) -> Any:
        self.visits.pass_through(request, *answers)
        return self.visits.get(f"/api/exchanges/{len(self.visits.ring)}").json

    def body(self, body: bytes, kind: str, *fields: str) -> Any:
        answer = response(body, f"Content-Type: {kind}", *fields)
        return self.detail(request("GET /"), answer)["response"]["body"]

    def test_heads(self) -> None:
        """Lines, fields in their order and spelling, and the query taken apart."""
        found = self.detail(
            request("GET /a?x=1&x=%C3%A9&y", b"", "x-Odd: 1", "X-oDD: naïve"),
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + HELLO,
        )
        self.assertEqual(found["request"]["line"], "GET /a?x=1&x=%C3%A9&y HTTP/1.1")
        self.assertEqual(found["request"]["query"], [["x", "1"], ["x", "é"], ["y", ""]])
        self.assertEqual(
            found["request"]["fields"],
            [["Host", "my-tunnel.example"], ["x-Odd", "1"], ["X-oDD", "naïve"]],
        )
        self.assertEqual(found["interim"][0]["status"], 103)
        self.assertEqual(found["response"]["line"], "HTTP/1.1 200 OK")
        self.assertEqual(found["response"]["body"]["text"], "hello")

    def test_timings(self) -> None:
        """Milliseconds of sending, waiting and receiving."""
        recording = self.visits.pass_through(request("GET /"))
        self.visits.clock.advance(0.5)
        recording.received(HELLO[:-1])
        self.visits.clock.advance(0.25)
        recording.received(HELLO[-1:])
        timings = self.visits.get("/api/exchanges/1").json["timings"]
        self.assertEqual(timings, {"connect": 0.0, "send": 0.0, "wait": 500.0, "receive": 250.0})

    def test_time_of_connecting(self) -> None:
        """A request that has come before the target is connected does not wait for its answer
        meanwhile; nor is it sent while the visitor had not begun."""
        recording = self.visits.recorder.recording("t", "http://x/")
        for seconds, step in (
            (0.0, lambda: recording.sent(request("GET /"))),
            (0.25, recording.connected),
            (0.5, lambda: recording.received(HELLO)),
        ):
            self.visits.clock.advance(seconds)
            step()
        timings = self.visits.get("/api/exchanges/1").json["timings"]
        self.assertEqual(timings, {"connect": 250.0, "send": 0.0, "wait": 500.0, "receive": 0.0})
        recording = self.visits.recorder.recording("t", "http://x/")
        recording.connected()
        self.visits.clock.advance(0.25)
        recording.sent(request("GET /"))
        recording.received(HELLO)
        timings = self.visits.get("/api/exchanges/2").json["timings"]
        self.assertEqual(timings, {"connect": 0.0, "send": 0.0, "wait": 0.0, "receive": 0.0})

    def test_json_and_forms(self) -> None:
        """JSON as it was written, forms taken apart."""
        text = '{"n": 12345678901234567890, "f": 1.50}'
        found = self.body(text.encode(), "application/problem+json")
        self.assertEqual((found["kind"], found["text"]), ("json", text))
        form = self.body(b"a=1+2&b=%C3%A9", "application/x-www-form-urlencoded")
        self.assertEqual((form["kind"], form["form"]), ("form", [["a", "1 2"], ["b", "é"]]))

    def test_bytes_and_images(self) -> None:
        """Images to be shown, other bytes for a hexadecimal view."""
        found = self.body(PNG, "image/png")
        self.assertEqual(found["image"], f"data:image/png;base64,{PNG_IN_BASE64}")
        for name in ("jpg", "vnd.microsoft.icon"):  # what many servers call them
            self.assertIn("image", self.body(PNG, f"image/{name}"))
        found = self.body(b"\0\1\2", "application/octet-stream")
        self.assertEqual((found["kind"], found["base64"]), ("bytes", "AAEC"))

    def test_coded(self) -> None:
        """gzip is undone, up to a limit; what is no gzip is shown as it came."""
        found = self.body(gzip.compress(b"hello"), "text/plain", "Content-Encoding: gzip")
        self.assertEqual((found["text"], found["coding"]), ("hello", "gzip"))
        bomb = gzip.compress(b"\n" * (50 << 20))
        found = self.body(bomb, "text/plain", "Content-Encoding: gzip")
        self.assertEqual(len(found["text"]), 1 << 20)
        self.assertIn("first 1048576 bytes", found["problem"])
        found = self.body(b"hello", "text/plain", "Content-Encoding: gzip")
        self.assertEqual((found["text"], found["coding"]), ("hello", ""))

    def test_curl_for_a_websocket(self) -> None:
        """The line for curl asks for the upgrade, too."""
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        self.visits.pass_through(request("GET /ws", b"", *upgrade))
        line = self.visits.get("/api/exchanges/1/curl").body.decode()
        for field in upgrade:
            self.assertIn(f"--header '{field}'", line)

    def test_failed(self) -> None:
        """A target that cannot be connected, and one that leaves, are shown with the reason."""
        self.visits.recorder.recording("t", "http://x/").ended("the target refuses connections")
        found = self.visits.get("/api/exchanges/1").json
        self.assertEqual(found["state"], "failed")
        self.assertEqual(found["error"], "the target refuses connections")
        self.assertEqual(self.visits.get("/api/exchanges/1/curl").status, 400)
        self.visits.pass_through(request("GET /")).ended()
        found = self.visits.get("/api/exchanges/2").json
        self.assertEqual((found["state"], found["response"]), ("failed", None))


class FeedTests(SynchronousTestCase):
    """The feed of changes."""

    def setUp(self) -> None:
        self.visits = Visits()
        self.visits.pass_through(request("GET /early"), HELLO)
        self.transport = self.visits.open("GET", "/api/events")

    def events(self) -> list[Any]:
        """What has come since the last look."""
        self.visits.clock.advance(0.1)
        data = self.transport.value()
        self.transport.clear()
        return [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]

    def test_changes(self) -> None:
        """First all that is there, then what changes, many changes together."""
        self.assertIn(b"text/event-stream", self.transport.value())
        (first,) = self.events()
        self.assertEqual([x["target"] for x in first["exchanges"]], ["/early"])
        recording = self.visits.pass_through(request("GET /late"))
        (event,) = self.events()
        self.assertEqual([x["state"] for x in event["exchanges"]], ["running"])
        recording.received(HELLO)
        self.visits.pass_through(request("GET /next"), HELLO)
        (event,) = self.events()
        self.assertEqual(
            [(x["target"], x["state"]) for x in event["exchanges"]],
            [("/late", "complete"), ("/next", "complete")],
        )
        self.assertEqual(self.events(), [])

    def test_clear(self) -> None:
        """Listeners hear that all was cleared."""
        self.events()
        self.visits.ask("DELETE", "/api/exchanges")
        (event,) = self.events()
        self.assertEqual((event["cleared"], event["exchanges"]), (True, []))

    def test_slow_listener(self) -> None:
        """Who does not read makes nothing pile up, and is told how many he has missed."""
        self.events()
        producer: Any = self.transport.producer
        producer.pauseProducing()
        for number in range(250):
            self.visits.pass_through(request(f"GET /{number}"), HELLO)
        self.assertEqual(self.events(), [])
        producer.resumeProducing()
        (event,) = self.events()
        self.assertEqual((len(event["exchanges"]), event["missed"]), (100, 150))

    def test_quiet(self) -> None:
        """A connection on which nothing happens shows that it lives."""
        self.events()
        self.visits.clock.advance(15)
        self.assertIn(b":\n\n", self.transport.value())

    def test_leaving(self) -> None:
        """When the listener goes, nothing is done for him any more."""
        self.events()
        self.visits.channel.connectionLost(Failure(ConnectionDone()))
        self.visits.pass_through(request("GET /late"), HELLO)
        self.assertEqual(self.events(), [])
        self.assertEqual(self.visits.clock.getDelayedCalls(), [])

    def test_end(self) -> None:
        """When the inspector ends, its listeners' connections do."""
        self.visits.site.close()
        self.assertTrue(self.transport.disconnecting)


class ReplayTests(SynchronousTestCase):
    """Asking for replays."""

    def setUp(self) -> None:
        self.asked: list[tuple[str, Edit | None]] = []
        self.visits = Visits(self.replay)
        self.visits.pass_through(request("POST /hook", b"body", "X-A: 1"), HELLO)

    def replay(self, exchange: Exchange, edit: Edit | None) -> Exchange:
        sent = replay_bytes(exchange, edit)
        self.asked.append((exchange.id, edit))
        recording = self.visits.recorder.recording("t", "http://x/", replay_of=exchange.id)
        recording.sent(sent)
        self.recording = recording
        assert recording.replayed is not None
        return recording.replayed

    def test_replay(self) -> None:
        """A replay is answered as soon as it runs, with the new exchange."""
        answer = self.visits.ask("POST", "/api/replay", {"id": "1"})
        self.assertEqual((answer.status, self.asked), (201, [("1", None)]))
        self.assertEqual((answer.json["id"], answer.json["replay_of"]), ("2", "1"))
        self.assertEqual(answer.json["state"], "running")

    def test_wait(self) -> None:
        """Who waits is answered when it has ended."""
        transport = self.visits.open("POST", "/api/replay", {"id": "1", "wait": True})
        self.visits.pass_through(request("GET /other"), HELLO)
        self.assertEqual(transport.value(), b"")
        self.recording.received(HELLO)
        self.assertIn(b'"state": "complete"', transport.value())

    def test_edited(self) -> None:
        """An edited replay takes what is given, and the rest from the request."""
        edited = {"method": "PUT", "headers": [["A", "é"]], "body_base64": "AP8="}
        answer = self.visits.ask("POST", "/api/replay", {"id": "1", "edited": edited})
        self.assertEqual(answer.status, 201)
        self.assertEqual(self.asked, [("1", Edit("PUT", None, ((b"A", "é".encode()),), b"\0\xff"))])

    def test_edited_as_it_was(self) -> None:
        """What is not edited keeps its bytes; a body is written in the charset that it says."""
        sent = request("PUT /", "é".encode("latin-1"), "Content-Type: text/plain; charset=latin1")
        self.visits.pass_through(sent.replace(b"Host", b"X: \xe9\r\nHost"), HELLO)
        shown = self.visits.get("/api/exchanges/2").json["request"]
        self.assertEqual((shown["fields"][0], shown["body"]["text"]), (["X", "é"], "é"))
        edited = {"headers": [*shown["fields"], ["Y", "é"]], "body": "éé"}
        answer = self.visits.ask("POST", "/api/replay", {"id": "2", "edited": edited})
        self.assertEqual(answer.status, 201, answer.body)
        ((_, edit),) = self.asked
        assert edit is not None
        assert edit.fields is not None
        self.assertEqual((edit.fields[0], edit.body), ((b"X", b"\xe9"), b"\xe9\xe9"))
        self.assertEqual(edit.fields[-1], (b"Y", "é".encode()))
        answer = self.visits.ask("POST", "/api/replay", {"id": "2", "edited": {"body": "€"}})
        self.assertEqual((answer.status, "latin1" in answer.json["message"]), (400, True))

    def test_refused(self) -> None:
        """What cannot be replayed, and what is asked for wrongly, is refused with the reason."""
        upgrade = ("Connection: Upgrade", "Upgrade: websocket")
        self.visits.pass_through(request("GET /ws", b"", *upgrade))
        for asked, status, why in (
            ({"id": "2"}, 409, "opens a websocket"),
            ({"id": "9"}, 404, "there is none"),
            ({"id": 1}, 400, '"id"'),
            ({}, 400, '"id"'),
            ([], 400, "a JSON object"),
            ({"id": "1", "edited": {"colour": "red"}}, 400, "colour"),
            ({"id": "1", "edited": {"headers": "x"}}, 400, "headers"),
            ({"id": "1", "edited": {"headers": [["A"]]}}, 400, "headers"),
            ({"id": "1", "edited": {"target": "/ x\n"}}, 400, "target"),
            ({"id": "1", "edited": {"method": "G\ud800"}}, 400, "method"),
            ({"id": "1", "edited": {"body": 7}}, 400, "body"),
            ({"id": "1", "edited": {"body_base64": "%"}}, 400, "base64"),
        ):
            answer = self.visits.ask("POST", "/api/replay", asked)
            self.assertEqual(answer.status, status, (asked, answer.body))
            self.assertIn(why, answer.json["message"])
        self.assertEqual(self.asked, [])
