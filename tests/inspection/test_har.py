"""Exchanges as HAR."""

from __future__ import annotations

import gzip
import json
import unittest
import zlib
from base64 import b64decode
from importlib.util import find_spec
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspection.decoding import MAX_DECODED, MAX_MEMBERS, decoded, text_of
from exposr_tx.inspection.exchanges import MAX_FRAME
from exposr_tx.inspection.har import archive
from exposr_tx.inspection.redaction import REDACTED, Redaction
from tests.inspection.har_schema import faults
from tests.inspection.test_recorder import CHUNKED, CHUNKS, GET, SWITCHING, UPGRADE, frame, started

NOTHING = Redaction.parse("none")
REQUEST = (
    b"POST /a%20b?x=1&token=t0k3n&empty= HTTP/1.1\r\nHost: public\r\nX-Real-IP: 198.51.100.7\r\n"
    b"cOOkie: sid=c00k13; theme=dark\r\nA: 1\r\nA: 2\r\nContent-Type: application/json\r\n"
    b'Content-Length: 22\r\n\r\n{"password":"p4ssw0r"}'
)


def response(body: bytes, *fields: bytes) -> bytes:
    head = [b"HTTP/1.1 200 Very Well", b"Content-Length: %d" % len(body), *fields, b"", b""]
    return b"\r\n".join(head) + body


class EntryTests(SynchronousTestCase):
    """One exchange."""

    def entry(self, sent: bytes, received: bytes, redaction: Redaction = NOTHING) -> dict[str, Any]:
        watching, recording = started()
        recording.connected()
        recording.sent(sent)
        recording.received(received)
        recording.ended()
        return self.valid(watching.ends[0], redaction)

    def valid(self, exchange: Any, redaction: Redaction) -> dict[str, Any]:
        file = json.loads(archive([exchange], redaction))
        self.assertEqual(faults(file), [])
        (entry,) = file["log"]["entries"]
        return dict(entry)

    def content(self, body: bytes, *fields: bytes) -> dict[str, Any]:
        return dict(self.entry(GET, response(body, *fields))["response"]["content"])

    def test_request(self) -> None:
        """All of a request: its URL at the target, each header, cookies, query, body."""
        request = self.entry(REQUEST, response(b""))["request"]
        self.assertEqual(request["method"], "POST")
        self.assertEqual(request["url"], "http://t:80/a%20b?x=1&token=t0k3n&empty=")
        self.assertEqual(request["httpVersion"], "HTTP/1.1")
        self.assertEqual([h["value"] for h in request["headers"] if h["name"] == "A"], ["1", "2"])
        self.assertIn({"name": "sid", "value": "c00k13"}, request["cookies"])
        self.assertIn({"name": "empty", "value": ""}, request["queryString"])
        self.assertEqual(request["postData"]["text"], '{"password":"p4ssw0r"}')
        self.assertEqual(request["postData"]["mimeType"], "application/json")
        self.assertEqual((request["bodySize"], request["headersSize"]), (22, len(REQUEST) - 22))

    def test_response(self) -> None:
        """All of a response; its status text has no number in it."""
        entry = self.entry(
            GET,
            response(
                b"hello",
                b"Content-Type: text/plain",
                b"Location: /there",
                b"Set-Cookie: a=b; Path=/; HttpOnly; Expires=Wed, 21 Oct 2015 07:28:00 GMT",
                b"Set-Cookie: c=d; Secure; SameSite=Lax; Expires=never",
            ),
        )
        found = entry["response"]
        self.assertEqual((found["status"], found["statusText"]), (200, "Very Well"))
        self.assertEqual(found["redirectURL"], "/there")
        self.assertEqual(found["content"], {"size": 5, "mimeType": "text/plain", "text": "hello"})
        self.assertEqual(
            found["cookies"],
            [
                {
                    **{"name": "a", "value": "b", "path": "/", "httpOnly": True},
                    "expires": "2015-10-21T07:28:00+00:00",
                },
                {"name": "c", "value": "d", "secure": True, "sameSite": "Lax"},
            ],
        )
        self.assertNotIn("postData", entry["request"])

    def test_expiry_without_zone(self) -> None:
        """A cookie's date that names no time zone is one in UTC."""
        for date in ("Wed, 21 Oct 2015 07:28:00", "Wed, 21 Oct 2015 07:28:00 -0000"):
            field = f"Set-Cookie: a=b; Expires={date}".encode()
            (cookie,) = self.entry(GET, response(b"", field))["response"]["cookies"]
            self.assertEqual(cookie["expires"], "2015-10-21T07:28:00+00:00")

    def test_no_date(self) -> None:
        """What is no date is left out, however much it looks like one."""
        for date in ("never", "Wed, 99 Oct 2015 07:28:00 GMT", "1 Jan 70 0:0:0 +" + "9" * 30):
            field = f"Set-Cookie: a=b; Expires={date}".encode()
            (cookie,) = self.entry(GET, response(b"", field))["response"]["cookies"]
            self.assertEqual(cookie, {"name": "a", "value": "b"})

    def test_browsers(self) -> None:
        """There is what browsers need beyond the specification: Firefox a list of pages, Chromium
        what has failed in the response."""
        watching, recording = started()
        recording.sent(GET)
        recording.ended("refused")
        log = json.loads(archive(watching.ends, NOTHING))["log"]
        self.assertEqual(log["pages"], [])
        self.assertEqual(log["entries"][0]["response"]["_error"], "refused")

    def test_redacted(self) -> None:
        """Nothing secret is left, wherever it stood."""
        watching, recording = started()
        recording.sent(REQUEST.replace(b"A: 1", b"Authorization: Basic 4uth"))
        recording.received(
            response(b'{"token":"r3ply"}', b"Set-Cookie: sid=n3wc00k13; Path=/", b"X-Api-Key: k3y")
        )
        text = archive(watching.ends, Redaction()).decode()
        for secret in ("t0k3n", "c00k13", "4uth", "p4ssw0r", "r3ply", "k3y"):
            self.assertNotIn(secret, text)
        self.assertGreaterEqual(text.count(REDACTED), 9)
        self.assertEqual(faults(json.loads(text)), [])
        self.assertIn("t0k3n", archive(watching.ends, NOTHING).decode())

    def test_redacted_bytes(self) -> None:
        """Nor in a body in base64: a form with a file, or JSON in a charset that is not told."""
        file = b"Content-Disposition: form-data; name=f; filename=f\r\n\r\n\xff\0\r\n--b--\r\n"
        for kind, start, end in (
            (
                b"multipart/form-data",
                b'--b\r\nContent-Disposition: x; name="password"\r\n\r\n',
                file,
            ),
            (b"application/json", b'{"a": "\xe9", "password": "', b'"}'),
            (b"application/x-www-form-urlencoded", b"a=\xe9&password=", b""),
        ):
            content = self.entry(
                GET,
                response(start + b"s3cr3t\r\n--b\r\n" + end, b"Content-Type: " + kind),
                Redaction(),
            )["response"]["content"]
            self.assertEqual(content["encoding"], "base64")
            data = b64decode(content["text"])
            self.assertNotIn(b"s3cr3t", data)
            self.assertTrue(data.startswith(start + REDACTED.encode()), data)
            self.assertTrue(data.endswith(end), data)

    def test_form(self) -> None:
        """A form's fields stand one by one."""
        body = b"a=b+c&password=s"
        entry = self.entry(
            b"POST / HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
            response(b""),
            Redaction(),
        )
        self.assertEqual(
            entry["request"]["postData"]["params"],
            [{"name": "a", "value": "b c"}, {"name": "password", "value": REDACTED}],
        )

    def test_large_form(self) -> None:
        """Of a form with very many fields the first are told one by one."""
        body = b"a=b&" * 100_000
        head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n" % len(body)
        kind = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        data = self.entry(head + kind + body, response(b""))["request"]["postData"]
        self.assertEqual((len(data["params"]), data["text"]), (1000, body.decode()))

    def test_binary(self) -> None:
        """Bodies that are no text are in base64, whatever they say they are."""
        for data in (b"\x89PNG\r\n\x1a\n\x00", b"\xff\xfe\xfd", b"text\x00with a zero"):
            for kind in (b"Content-Type: image/png", b"Content-Type: text/plain"):
                content = self.content(data, kind)
                self.assertEqual(content["encoding"], "base64")
                self.assertEqual(b64decode(content["text"]), data)
                self.assertEqual(content["size"], len(data))
        entry = self.entry(
            b"PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n\xff\x00", response(b"")
        )
        self.assertEqual(b64decode(entry["request"]["postData"]["text"]), b"\xff\x00")
        self.assertEqual(entry["request"]["postData"]["encoding"], "base64")

    def test_charset(self) -> None:
        """Text is read in the charset that it says, else as UTF-8."""
        for charset, data in (
            (b"", "grüße".encode()),
            (b"; charset=iso-8859-1", "grüße".encode("latin-1")),
            (b'; charset="UTF-16"', "grüße".encode("utf-16")),
        ):
            content = self.content(data, b"Content-Type: text/plain" + charset)
            self.assertEqual(content["text"], "grüße")

    def test_compressed(self) -> None:
        """A compressed body is shown as what it means, with its size on the way."""
        plain = b"again and " * 1000
        coded = gzip.compress(plain)
        entry = self.entry(GET, response(coded, b"Content-Encoding: gzip"))
        found = entry["response"]
        self.assertEqual(found["content"]["text"], plain.decode())
        self.assertEqual((found["content"]["size"], found["bodySize"]), (10_000, len(coded)))
        self.assertEqual(found["content"]["compression"], 10_000 - len(coded))

    def test_chunked(self) -> None:
        """Chunks are no part of a body; trailers are told beside it."""
        request = self.entry(CHUNKED + CHUNKS, response(b""))["request"]
        self.assertEqual(request["postData"]["text"], "onetwo")
        self.assertEqual(request["_trailers"], [{"name": "Sum", "value": "6"}])

    def test_truncated(self) -> None:
        """What is left out of a long body is told, and its size is the whole one's."""
        watching, recording = started(max_body=4)
        recording.sent(GET)
        recording.received(response("abcä".encode() + b"more"))
        content = self.valid(watching.ends[0], NOTHING)["response"]["content"]
        self.assertEqual((content["text"], content["size"]), ("abc", 9))
        self.assertIn("first 4 of 9 bytes", content["comment"])

    def test_failed(self) -> None:
        """A failed exchange has status 0 and says why."""
        watching, recording = started()
        recording.sent(GET)
        recording.ended("the target cannot be connected: refused")
        entry = self.valid(watching.ends[0], NOTHING)
        self.assertEqual(entry["response"]["status"], 0)
        self.assertIn("refused", entry["_error"])

    def test_no_http(self) -> None:
        """What was no HTTP makes a valid file, too."""
        watching, recording = started()
        recording.sent(b"\x16\x03\x01\r\n\r\n")
        entry = self.valid(watching.ends[0], NOTHING)
        self.assertEqual(b64decode(entry["request"]["postData"]["text"]), b"\x16\x03\x01\r\n\r\n")

    def test_timings(self) -> None:
        """Milliseconds with their fractions: connecting, sending, waiting, receiving."""
        clock = Clock()
        watching, recording = started(clock)
        head, body = REQUEST[:-22], REQUEST[-22:]
        answer = response(b"hello")
        for seconds, step in (
            (0.0015, recording.connected),
            (0.0, lambda: recording.sent(head)),
            (0.002, lambda: recording.sent(body)),
            (0.25, lambda: recording.received(answer[:-1])),
            (0.0305, lambda: recording.received(answer[-1:])),
            (1.0, lambda: recording.sent(REQUEST)),
            (0.5, lambda: recording.received(answer)),
        ):
            clock.advance(seconds)
            step()
        one, two = (self.valid(exchange, NOTHING) for exchange in watching.ends)
        known = {k: v for k, v in one["timings"].items() if v != -1}
        self.assertEqual(known, {"connect": 1.5, "send": 2.0, "wait": 250.0, "receive": 30.5})
        self.assertEqual((one["time"], one["startedDateTime"]), (284.0, "1970-01-01T00:16:40.000Z"))
        known = {k: v for k, v in two["timings"].items() if v != -1}
        self.assertEqual(known, {"send": 0.0, "wait": 500.0, "receive": 0.0})
        self.assertEqual(two["startedDateTime"], "1970-01-01T00:16:41.284Z")

    def test_websocket(self) -> None:
        """A websocket's messages, as Chromium writes them."""
        watching, recording = started()
        recording.sent(UPGRADE)
        recording.received(SWITCHING)
        recording.sent(frame(b'{"token":"s"}', 1, True, b"mask"))
        recording.received(frame(b"\xff", 2))
        recording.received(frame(b'{"token":"s"}', 2))
        recording.left()
        entry = self.valid(watching.ends[0], Redaction())
        found = [(m["type"], m["opcode"], m["data"]) for m in entry["_webSocketMessages"]]
        hidden = f'{{"token":"{REDACTED}"}}'
        self.assertEqual(found[:2], [("send", 1, hidden), ("receive", 2, "/w==")])
        self.assertEqual(b64decode(found[2][2]), hidden.encode())
        self.assertEqual(entry["_resourceType"], "websocket")

    def test_text_of_websocket(self) -> None:
        """A message of text is written as text: compressed, ended by a control character as some
        protocols have it, or cut in a letter."""
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        watching, recording = started()
        recording.sent(UPGRADE)
        recording.received(SWITCHING)
        for text in (b'{"token":"s"}', b'{"token":"s"} again'):
            data = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
            recording.sent(frame(data[:-4], 0x41, True, b"mask"))
        recording.received(frame(b'{"token":"s"}\x1e'))
        recording.received(frame(b"a" + "ä".encode() * MAX_FRAME))
        recording.received(frame(b"\xff\xff", 0x41))
        recording.left()
        found = [m["data"] for m in self.valid(watching.ends[0], Redaction())["_webSocketMessages"]]
        hidden = f'{{"token":"{REDACTED}"}}'
        self.assertEqual(found[:3], [hidden, hidden + " again", hidden + "\x1e"])
        self.assertEqual(found[3:], ["a" + "ä" * (MAX_FRAME // 2 - 1), "//8="])

    @settings(max_examples=80)
    @given(
        st.binary(max_size=200),
        st.binary(max_size=60),
        st.sampled_from([b"text/html", b"image/x", b'a/b; charset="x', b"text/x; charset=rot13"]),
        st.sampled_from([b"gzip", b"deflate", b"br", b"gzip, gzip", b""]),
    )
    def test_anything(self, body: bytes, value: bytes, kind: bytes, coding: bytes) -> None:
        """Whatever passes makes a valid file."""
        value = bytes(byte for byte in value if byte > 31 and byte != 127)
        fields = [b"X: " + value, b"Content-Type: " + kind, b"Content-Encoding: " + coding]
        entry = self.entry(b"GET /?%%&=%ff HTTP/1.1\r\nHost: t\r\n\r\n", response(body, *fields))
        self.assertEqual(entry["response"]["bodySize"], len(body))


class DecodingTests(SynchronousTestCase):
    """Codings of bodies."""

    def test_codings(self) -> None:
        """gzip, deflate with its frame and without, and several at once."""
        raw = zlib.compressobj(wbits=-15)
        bare = raw.compress(b"x") + raw.flush()
        for data, coding in (
            (gzip.compress(b"x"), "GZIP"),
            (zlib.compress(b"x"), "deflate"),
            (bare, "deflate"),
            (gzip.compress(zlib.compress(b"x")), "deflate, x-gzip"),
            (b"x", "identity"),
        ):
            self.assertEqual(decoded(data, coding), (b"x", True), coding)

    def test_not_decoded(self) -> None:
        """What is in a coding of others', or in none, stays as it is."""
        self.assertIsNone(decoded(b"x", "zstd"))
        self.assertIsNone(decoded(b"no gzip", "gzip"))
        self.assertIsNone(decoded(b"x", ", gzip" * 9))

    @unittest.skipUnless(find_spec("brotli"), "brotli is not installed")
    def test_brotli(self) -> None:
        """br is undone where the package brotli is there, up to the same limit."""
        import brotli

        self.assertEqual(decoded(brotli.compress(b"hello"), "br"), (b"hello", True))
        bomb = brotli.compress(bytes(64 << 20), quality=5)
        self.assertEqual(decoded(bomb, "br"), (bytes(MAX_DECODED), False))
        self.assertIsNone(decoded(b"no brotli at all", "br"))

    def test_slow_charset(self) -> None:
        """A charset that would take its time is not believed."""
        self.assertIsNone(text_of(b"a" * 9, "text/plain; charset=punycode"))

    def test_bomb(self) -> None:
        """Of a small body that stands for much only so much is made."""
        self.assertEqual(
            decoded(gzip.compress(bytes(64 << 20)), "gzip"), (bytes(MAX_DECODED), False)
        )

    def test_members(self) -> None:
        """gzip may be a series; all of it is undone, up to the same limit."""
        one, two = gzip.compress(b"one "), gzip.compress(b"two")
        self.assertEqual(decoded(one + two, "gzip"), (b"one two", True))
        self.assertEqual(decoded(one + two[:-1], "gzip"), (b"one two", False))
        self.assertEqual(decoded(one + b"\0\0", "gzip"), (b"one ", True))
        half = gzip.compress(bytes(MAX_DECODED // 2))
        self.assertEqual(decoded(half * 3, "gzip"), (bytes(MAX_DECODED), False))
        many = gzip.compress(b"a") * 50_000
        self.assertEqual(decoded(many, "gzip"), (b"a" * MAX_MEMBERS, False))

    def test_beginning(self) -> None:
        """The beginning of a compressed body is the beginning of what it means."""
        coded = gzip.compress(bytes(range(256)) * 9, mtime=0)
        found = decoded(coded[:-20], "gzip")
        assert found is not None
        self.assertEqual((found[0][:64], found[1]), (bytes(range(64)), False))

    def test_no_text(self) -> None:
        """Charsets that are none do no harm."""
        for mime in ("text/plain; charset=rot13", "text/plain; charset=hex", "x; charset=nobody"):
            self.assertIsNone(text_of(b"ab", mime), mime)
