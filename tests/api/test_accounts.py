"""The API's accounts, who asks for what, and who asks too often."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress

from exposr_tx.accounts import human_form
from exposr_tx.api import ApiSettings
from exposr_tx.errors import StorageUnavailable
from tests.api.rig import ApiCase

NOBODY = "CCCCCCCCCCCCCCCC"


class AccountTests(ApiCase):
    """Registering, and the token of an account."""

    def test_register(self) -> None:
        """A new account comes with its number in both forms, and can be used."""
        bodies: tuple[Any, ...] = (None, {}, b"not json")
        for body in bodies:
            answer = self.request("POST", "/v1/account", body)
            self.assertEqual(201, answer.status)
            self.assertEqual("application/json; charset=utf-8", answer.fields["content-type"])
            number = answer.json["account_id"]
            self.assertEqual({"account_id", "account_id_hr"}, set(answer.json))
            self.assertEqual(human_form(number), answer.json["account_id_hr"])
            self.assertEqual(201, self.request("GET", f"/v1/account/{number}/token").status)

    def test_token(self) -> None:
        """The token is the base64 of the number, however the number is typed."""
        expected = base64.b64encode(self.alice.id.encode()).decode()
        for typed in (self.alice.id, human_form(self.alice.id), self.alice.id.lower()):
            answer = self.request("GET", f"/v1/account/{typed}/token")
            self.assertEqual((201, {"token": expected}), (answer.status, answer.json))

    def test_unknown(self) -> None:
        """An unknown number and what is none get the same answer."""
        for typed in (NOBODY, "x", "%00", "%C3%BC"):
            answer = self.request("GET", f"/v1/account/{typed}/token")
            self.assertEqual(403, answer.status)
            self.assertEqual(b'{"error":"PERMISSION_DENIED"}', answer.body)

    def test_storage_down(self) -> None:
        """No account can be made while storage does not write."""

        def put(*arguments: Any) -> Deferred[int]:
            return fail(StorageUnavailable("/secret/path: no space is left"))

        self.patch(self.storage, "put", put)
        answer = self.request("POST", "/v1/account")
        self.assertEqual((503, b"Service Unavailable"), (answer.status, answer.body))


class NoRegistrationTests(ApiCase):
    """A server that registers nobody."""

    settings = ApiSettings("http://tun.test:8080")

    def test_register(self) -> None:
        """Registering is 404, with what the server's owner can do."""
        answer = self.request("POST", "/v1/account", {})
        self.assertEqual(404, answer.status)
        self.assertEqual("text/plain; charset=utf-8", answer.fields["content-type"])
        self.assertTrue(answer.body.startswith(b"Not Found"))
        self.assertIn(b"exposr admin account create --storage-url", answer.body)


class AuthorisationTests(ApiCase):
    """Whose request it is."""

    def ask(self, authorization: str, **origin: Any) -> tuple[int, bytes]:
        answer = self.request(
            "GET", "/v1/tunnel", fields={"Authorization": authorization}, **origin
        )
        if answer.status == 401:
            self.assertEqual("Bearer", answer.fields["www-authenticate"])
        return answer.status, answer.body

    def test_accepted(self) -> None:
        """Any scheme word; the number in any spelling, with or without padding."""
        for number in (self.alice.id, human_form(self.alice.id).lower()):
            token = base64.b64encode(number.encode()).decode()
            for value in (f"Bearer {token}", f"x {token}", f"bearer {token.rstrip('=')} y"):
                self.assertEqual(200, self.ask(value)[0], value)

    def test_no_token(self) -> None:
        """Without a token, or with one that holds nothing: AUTH_NO_TOKEN."""
        for value in ("-", "", "Bearer", "Bearer ", "Bearer !!!", "Bearer LQ=="):
            self.assertEqual((401, b'{"error":"AUTH_NO_TOKEN"}'), self.ask(value), value)

    def test_wrong(self) -> None:
        """A token of nobody, and one that is no number: PERMISSION_DENIED."""
        for number in (NOBODY, "x", "\u00fc\u0000"):
            token = base64.b64encode(number.encode()).decode()
            expected = (401, b'{"error":"PERMISSION_DENIED"}')
            self.assertEqual(expected, self.ask(f"Bearer {token}"), number)

    def test_any_bytes(self) -> None:
        """Fields that are no UTF-8 are wrong, and no fault of the server's."""
        self.assertEqual((401, b'{"error":"AUTH_NO_TOKEN"}'), self.ask("Bearer \udcff"))
        kind = {"Content-Type": "application/json\udcff"}
        answer = self.mine("PUT", "/v1/tunnel/mine", {}, fields=kind)
        self.assertEqual((400, "BAD_INPUT"), (answer.status, answer.json["error"]))

    def test_request_id(self) -> None:
        """An error names the request, when ingress has given it an id."""
        answer = self.request("GET", "/v1/tunnel", fields={"X-Request-Id": "abc"})
        self.assertEqual({"error": "AUTH_NO_TOKEN", "request_id": "abc"}, answer.json)


class LimitTests(ApiCase):
    """Wrong credentials, a minute and address."""

    wrong = f"/v1/account/{NOBODY}/token"

    def use_up(self, peer: IAddress, count: int = 60) -> list[int]:
        return [self.request("GET", self.wrong, peer=peer).status for _ in range(count)]

    def test_limited(self) -> None:
        """After 60 failures an address waits until its minute is over, right or wrong."""
        peer = IPv4Address("TCP", "203.0.113.1", 1)
        self.assertEqual({403}, set(self.use_up(peer)))
        self.clock.advance(20.5)
        answer = self.request("GET", self.wrong, peer=peer)
        self.assertEqual((429, "40"), (answer.status, answer.fields["retry-after"]))
        self.assertEqual("PERMISSION_DENIED", answer.json["error"])
        self.assertEqual(429, self.mine("GET", "/v1/tunnel", peer=peer).status)
        other = IPv4Address("TCP", "203.0.113.2", 1)
        self.assertEqual(200, self.mine("GET", "/v1/tunnel", peer=other).status)
        self.clock.advance(40)
        self.assertEqual(200, self.mine("GET", "/v1/tunnel", peer=peer).status)

    def test_success_is_free(self) -> None:
        """Right credentials and missing ones are not counted."""
        peer = IPv4Address("TCP", "203.0.113.1", 1)
        for _ in range(100):
            self.assertEqual(200, self.mine("GET", "/v1/tunnel", peer=peer).status)
            self.assertEqual(401, self.request("GET", "/v1/tunnel", peer=peer).status)

    def test_ipv6(self) -> None:
        """Addresses of one /64 count as one; an IPv4 address is one in both spellings."""
        for number in range(60):
            self.use_up(IPv6Address("TCP", f"2001:db8::{number:x}", 1), 1)
        self.assertEqual([429], self.use_up(IPv6Address("TCP", "2001:db8::ffff", 1), 1))
        self.assertEqual([403], self.use_up(IPv6Address("TCP", "2001:db8:0:1::1", 1), 1))
        self.use_up(IPv6Address("TCP", "::ffff:203.0.113.1", 1))
        self.assertEqual([429], self.use_up(IPv4Address("TCP", "203.0.113.1", 1), 1))

    def test_loopback(self) -> None:
        """Loopback addresses and Unix sockets are not counted."""
        for peer in (
            IPv4Address("TCP", "127.0.0.1", 1),
            IPv6Address("TCP", "::1", 1),
            IPv6Address("TCP", "::ffff:127.0.0.2", 1),
            UNIXAddress("/run/socket"),
        ):
            self.assertEqual({403}, set(self.use_up(peer, 100)))


class LoopbackLimitTests(ApiCase):
    """The same with --limit-loopback."""

    loopback = True

    def test_loopback(self) -> None:
        """Loopback addresses are counted when that is asked for."""
        peer = IPv4Address("TCP", "127.0.0.1", 1)
        path = f"/v1/account/{NOBODY}/token"
        statuses = [self.request("GET", path, peer=peer).status for _ in range(61)]
        self.assertEqual([403] * 60 + [429], statuses)
