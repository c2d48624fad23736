"""What a policy is asked, and what its answers mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.document import ALL_FIELDS, FIELDS, Reading, completed
from exposr_tx.policy.verdict import verdict
from tests.policy.folder import question


class DocumentTests(SynchronousTestCase):
    """The input."""

    def test_fields(self) -> None:
        """Every field is as the page says."""
        self.assertEqual(
            Reading([ALL_FIELDS, "within.198.51.100.0/24", "within.::/0"]).of(
                question(), 1_500_000_000
            ),
            {
                "method": "GET",
                "path": "/a b",
                "raw_path": "/a%20b",
                "query": {"q": ["1", "2"], "r": [""]},
                "raw_query": "q=1&q=2&r=",
                "host": "my-tunnel.tun.test",
                "header": {"X-Role": "user", "Accept": "*/*"},
                "headers": {"x-role": ["user", "admin"], "accept": ["*/*"]},
                "remote": "198.51.100.7:40112",
                "remote_ip": "198.51.100.7",
                "remote_port": 40112,
                "scheme": "https",
                "tunnel": "my-tunnel",
                "account": "1234567890",
                "transport": "http",
                "time": 1_500_000_000,
                "within": {"198.51.100.0/24": True, "::/0": False},
            },
        )

    def test_only_what_is_read(self) -> None:
        """What no policy reads is not worked out."""
        for mentioned, found in (
            (["method"], {"method": "GET"}),
            (["header.Accept", "header.Nope"], {"header": {"Accept": "*/*"}}),
            (["query.r", "query"], {"query": {"q": ["1", "2"], "r": [""]}}),
            (["host.x"], {"host": "my-tunnel.tun.test"}),
            (["nope"], {}),
        ):
            self.assertEqual(Reading(mentioned).of(question(), 0), found)

    def test_whole(self) -> None:
        """A policy that looks through the whole input finds the fields that are documented."""
        found = Reading([ALL_FIELDS]).of(question(), 0)
        self.assertEqual(found.keys(), FIELDS - {"within"})

    def test_ipv6(self) -> None:
        """An IPv6 address stands in brackets beside its port."""
        asked = question(remote_ip="2001:db8::7")
        self.assertEqual(Reading(["remote"]).of(asked, 0), {"remote": "[2001:db8::7]:40112"})

    def test_nothing_secret_is_shown(self) -> None:
        """What a question prints as holds no credentials."""
        asked = question(fields=[(b"Authorization", b"secret")], target=b"/?t=secret")
        self.assertNotIn("secret", repr(asked))
        self.assertNotIn("1234567890", repr(asked))

    def test_completed(self) -> None:
        """What follows from a field need not be written down to try a policy."""
        given = {"remote": "[2001:db8::7]:1", "header": {"A-B": "c"}, "path": "/x"}
        found = completed(given)
        self.assertEqual((found["remote_ip"], found["remote_port"]), ("2001:db8::7", 1))
        self.assertEqual((found["headers"], found["raw_path"]), ({"a-b": ["c"]}, "/x"))
        self.assertEqual(completed({"remote": "192.0.2.1"})["remote_ip"], "192.0.2.1")
        self.assertEqual(completed({"headers": {"a-b": ["c", "d"]}})["header"], {"A-B": "c"})


class VerdictTests(SynchronousTestCase):
    """The decision table."""

    def test_boolean(self) -> None:
        """True allows, false denies."""
        self.assertTrue(verdict(True).allow)
        self.assertEqual((verdict(False).outcome, verdict(False).status), ("denied", 403))
        self.assertEqual(verdict(False).client_status, 403)

    def test_object(self) -> None:
        """An object says how a request is denied, or what an allowed one gets."""
        denied = verdict(
            {
                "allow": False,
                "status": 302,
                "reason": "go",
                "headers": {"Location": "/", "A": ["1", "2"]},
            }
        )
        self.assertEqual((denied.outcome, denied.status, denied.reason), ("denied", 302, "go"))
        self.assertEqual(denied.headers, ((b"Location", b"/"), (b"A", b"1"), (b"A", b"2")))
        allowed = verdict({"allow": True, "set_request_headers": {"X-User": "u"}})
        self.assertTrue(allowed.allow)
        self.assertEqual(allowed.set_request_headers, ((b"X-User", b"u"),))

    def test_no_values(self) -> None:
        """A list without members takes the request's own field away."""
        decision = verdict({"allow": True, "set_request_headers": {"X-Groups": [], "X-A": ["b"]}})
        self.assertEqual(decision.set_request_headers, ((b"X-A", b"b"),))
        self.assertEqual(decision.unset_request_headers, (b"X-Groups",))

    def test_anything_else(self) -> None:
        """What is neither denies, and is a fault of the server for a client."""
        for value in (
            *(None, 1, "true", [True], {}, {"allow": "true"}, {"allow": 1}, {"Allow": True}),
            {"allow": True, "more": 1},
            {"allow": False, "status": 200},
            {"allow": False, "status": 304},
            {"allow": False, "status": 403.5},
            {"allow": False, "status": True},
            {"allow": False, "reason": 1},
            {"allow": False, "headers": {"A": "1\r\nB: 2"}},
            {"allow": False, "headers": {"A b": "1"}},
            {"allow": False, "headers": {"A": "\ud800"}},
            {"allow": False, "reason": "\ud800"},
            {"allow": False, "headers": {"Content-Length": "1"}},
            {"allow": False, "headers": {"content-type": "text/html"}},
            {"allow": True, "set_request_headers": {"x-forwarded-For": "198.51.100.7"}},
            {"allow": True, "set_request_headers": {"X-Request-Id": "1"}},
            {"allow": True, "set_request_headers": {"host": "other"}},
            {"allow": True, "set_request_headers": {"A": 1}},
            {"allow": True, "set_request_headers": ["A"]},
        ):
            decision = verdict(value)
            self.assertEqual((decision.outcome, decision.allow), ("error", False), value)
            self.assertEqual((decision.status, decision.client_status), (403, 500))
