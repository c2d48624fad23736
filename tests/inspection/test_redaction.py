"""What files do not hold."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspection.redaction import REDACTED, Redaction

CANARY = "s3cr3t-c4n4ry"


class RedactionTests(SynchronousTestCase):
    """Redaction, with the usual names."""

    redaction = Redaction()

    def test_fields(self) -> None:
        """Header fields with credentials, in any spelling; others stay."""
        for name in (
            *("Authorization", "proxy-authorization", "cOOkie", "Set-Cookie", "X-Api-Key"),
            *("X-Auth-Token", "X_Access_Token", "Api-Key", "X-Amz-Security-Token"),
        ):
            self.assertEqual(self.redaction.field(name, CANARY), REDACTED, name)
        for name in ("Accept", "Sec-WebSocket-Key", "Idempotency-Key", "X-Tokens-Left", "ETag"):
            self.assertEqual(self.redaction.field(name, "seen"), "seen", name)

    def test_urls(self) -> None:
        """Queries and passwords in URLs, also where a field holds a URL."""
        for text, expected in (
            ("http://t/a?token=s&b=1#c", f"http://t/a?token={REDACTED}&b=1#c"),
            (
                "/a?x=1&key=s&sig=s&code=s",
                "/a?x=1" + f"&key={REDACTED}&sig={REDACTED}&code={REDACTED}",
            ),
            ("/a?access%5Ftoken=s", f"/a?access%5Ftoken={REDACTED}"),
            (
                "https://app/#access_token=s&state=x",
                f"https://app/#access_token={REDACTED}&state=x",
            ),
            ("http://me:s@t/", "http://t/"),
            ("/plain?monkey=banana", "/plain?monkey=banana"),
        ):
            self.assertEqual(self.redaction.url(text), expected)
            self.assertEqual(self.redaction.field("Location", text), expected)

    def test_json(self) -> None:
        """Values in JSON, with everything else left as it was spelt."""
        text = (
            '{ "user" : "me", "password" : "s\\"s", "accessToken":"s",'
            '"nested":[{"api_key": 12.5e1}], "token": null, '
            '"pass\\u0077ord": "s", "text": "\\"token\\": \\"x\\""}'
        )
        expected = (
            f'{{ "user" : "me", "password" : "{REDACTED}", "accessToken":"{REDACTED}",'
            f'"nested":[{{"api_key": "{REDACTED}"}}], "token": null, '
            f'"pass\\u0077ord": "{REDACTED}", "text": "\\"token\\": \\"x\\""}}'
        )
        self.assertEqual(self.redaction.body(text, "application/json; charset=utf-8"), expected)
        json.loads(expected)

    def test_json_within(self) -> None:
        """A secret may be an array, as programs write header fields, or an object."""
        text = (
            '{"Set-Cookie": ["a=s", "b=]"], "a": [1], "credential":{"x":{"y":["s"]}} , '
            '"secret":[],"b":{"token":[[{"s":"\\"}]"}]]}}'
        )
        expected = (
            f'{{"Set-Cookie": "{REDACTED}", "a": [1], "credential":"{REDACTED}" , '
            f'"secret":"{REDACTED}","b":{{"token":"{REDACTED}"}}}}'
        )
        self.assertEqual(self.redaction.json(text), expected)
        json.loads(text)

    def test_truncated_json(self) -> None:
        """A secret at the end of what was kept of a body is none the less one."""
        for end in (CANARY, CANARY + "\\", CANARY + '"'):
            for start in ('"', '["', '["a",{"b":"'):
                text = self.redaction.body('{"a": 1, "secret": ' + start + end, "application/json")
                self.assertNotIn(CANARY, text)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
        st.booleans(),
    )
    def test_any_json(self, value: object, spaced: bool) -> None:
        """Whatever JSON there is beside a secret comes out as it went in."""
        separators = (" , ", " : ") if spaced else (",", ":")
        text = json.dumps([value, {"token": CANARY}, value], separators=separators)
        found = json.loads(self.redaction.json(text))
        self.assertEqual(found[1], {"token": REDACTED})
        bare = Redaction(["nobody-has-this-name"])
        self.assertEqual(json.loads(bare.json(text))[0], value)

    def test_forms(self) -> None:
        """Values in forms of both kinds."""
        self.assertEqual(
            self.redaction.body(
                "a=b&password=s&new+token=s&tokens=x", "application/x-www-form-urlencoded"
            ),
            f"a=b&password={REDACTED}&new+token={REDACTED}&tokens=x",
        )
        multipart = (
            '--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n%s\r\n'
            '--b\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n'
            "Content-Type: text/plain\r\n\r\nseen\r\n--b--\r\n"
        )
        self.assertEqual(
            self.redaction.body(multipart % CANARY, "multipart/form-data; boundary=b"),
            multipart % REDACTED,
        )

    def test_hostile_bodies(self) -> None:
        """Bodies that are made to be slow to look through are not."""
        size = 1 << 19
        self.assertEqual(self.redaction.json('\\"' * size + "token"), '\\"' * size + "token")
        for part in ('"token' + " " * 9, '"token":', "-", '{"token":{'):
            text = '"' + part * (size // len(part)) + '": "x" token'
            self.assertLessEqual(len(self.redaction.json(text)), 4 * len(text))
        for part in ("a", "=", "&", "a=", "%3", "+"):
            text = part * (size // len(part))
            self.assertEqual(self.redaction.form(text), text)
        for part in (
            *("a", ";name=a", "; ", "\n", "Content-Disposition: x; name=a\n", "\r\n\r\n"),
            *("content-disposition:;name=", "\ncontent-disposition:" + ";name=a" * 99),
        ):
            text = part * (size // len(part))
            self.assertEqual(self.redaction.body(text, "multipart/form-data"), text)
        for part in ("a", "?", "?a", "://", "://a", "&a=", ";"):
            text = part * (size // len(part)) + "="
            self.assertLessEqual(len(self.redaction.url(text)), len(text))

    def test_names(self) -> None:
        """Names in the ways in which frameworks make them longer."""
        for name in (
            *("user[password]", "user.password", "password2", "password_confirmation"),
            *("newPassword", "tokens[0].token", "__Host-session", "AWSAccessKeyId", "API_KEY_1"),
        ):
            self.assertTrue(self.redaction.is_secret(name), name)
        for name in ("passwordless", "tokenize", "keyboard", "key", "code", "", "-", "7"):
            self.assertFalse(self.redaction.is_secret(name), name)

    def test_other_bodies(self) -> None:
        """Other texts are not looked through; JSON is told by its beginning, too."""
        self.assertEqual(self.redaction.body("token=x", "text/plain"), "token=x")
        self.assertNotIn(CANARY, self.redaction.body(f' {{"token":"{CANARY}"}}', ""))


class ListTests(SynchronousTestCase):
    """The list of names can be changed."""

    def test_added(self) -> None:
        """Names that are given are secret besides the usual ones."""
        redaction = Redaction.parse("X-Custom, pin")
        self.assertEqual(redaction.field("x-custom", "s"), REDACTED)
        self.assertEqual(redaction.json('{"pin":1234,"password":"s"}').count(REDACTED), 2)
        self.assertEqual(redaction.url("/?user_pin=1"), f"/?user_pin={REDACTED}")

    def test_taken_away(self) -> None:
        """A name with a minus before it is no secret any more."""
        redaction = Redaction.parse("-cookie,-code")
        self.assertEqual(redaction.field("Set-Cookie", "a=b"), "a=b")
        self.assertEqual(redaction.url("/?code=1&sig=2"), f"/?code=1&sig={REDACTED}")

    def test_none(self) -> None:
        """Everything can be kept; names behind that word count."""
        redaction = Redaction.parse("none")
        self.assertFalse(redaction)
        self.assertEqual(redaction.field("Authorization", "Basic x"), "Basic x")
        self.assertEqual(redaction.url("http://me:s@t/?token=x"), "http://me:s@t/?token=x")
        self.assertEqual(redaction.body('{"token":"x"}', "application/json"), '{"token":"x"}')
        only = Redaction.parse("none,pin")
        self.assertEqual((only.field("pin", "1"), only.field("Cookie", "a")), (REDACTED, "a"))
