"""Accounts: their numbers, how people type them, and that they stay secret."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.accounts import (
    ALPHABET,
    Accounts,
    account_number,
    decode_token,
    encode_token,
    human_form,
)
from exposr_tx.errors import AccountNotFound, StorageUnavailable
from exposr_tx.storage import MemoryStorage

NUMBERS = st.text(ALPHABET, min_size=16, max_size=16)


class NumberTests(SynchronousTestCase):
    """How numbers are read and written."""

    @given(NUMBERS, st.data())
    def test_typed_in_any_way(self, number: str, data: st.DataObject) -> None:
        """Spaces, dashes and small letters anywhere in it do not matter."""
        typed = "".join(
            data.draw(st.sampled_from(["", "-", " ", " - "]))
            + data.draw(st.sampled_from([letter, letter.lower()]))
            for letter in number
        )
        self.assertEqual(number, account_number(typed))
        self.assertEqual(number, account_number(human_form(number)))

    def test_not_a_number(self) -> None:
        """Anything else is no account, and the error does not repeat it."""
        for typed in (
            "",
            "MNF4",
            "MNF4P6Y6M2MRRVCTX",
            "MNF4P6Y6M2MRRVC0",
            "ſ" * 16,
            "M" * 15 + "\n",
        ):
            error = self.assertRaises(AccountNotFound, account_number, typed)
            self.assertEqual("no such account", str(error))

    def test_human_form(self) -> None:
        """Four groups of four."""
        self.assertEqual("MNF4-P6Y6-M2MR-RVCT", human_form("MNF4P6Y6M2MRRVCT"))

    @given(NUMBERS)
    def test_token(self, number: str) -> None:
        """The token is standard base64, and comes back with or without its padding."""
        token = encode_token(number)
        self.assertEqual(number.encode(), base64.b64decode(token, validate=True))
        self.assertEqual(number, decode_token(token))
        self.assertEqual(number, decode_token(token.rstrip("=")))

    @given(st.text())
    def test_any_token(self, token: str) -> None:
        """No text makes the decoder fail."""
        self.assertIsInstance(decode_token(token), str)


class AccountsTests(SynchronousTestCase):
    """Making and finding accounts."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000.25)
        self.storage = MemoryStorage()
        self.accounts = Accounts(self.storage, self.clock.seconds)

    def done(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def test_create_and_get(self) -> None:
        """A new account is found under its number, however it is typed."""
        account = self.done(self.accounts.create())
        self.assertEqual(account, self.done(self.accounts.get(human_form(account.id).lower())))
        self.assertEqual(1_700_000_000_250, account.created_at)
        self.assertFalse(account.disabled)

    def test_all_different(self) -> None:
        """Numbers use the whole alphabet, and none comes twice."""
        numbers = {self.done(self.accounts.create()).id for _ in range(200)}
        self.assertEqual(200, len(numbers))
        self.assertEqual(set(ALPHABET), set("".join(numbers)))

    def test_unknown(self) -> None:
        """A number that nobody has, and what is none, give the same error."""
        for typed in ("CCCCCCCCCCCCCCCC", "nonsense"):
            failed = Deferred.fromCoroutine(self.accounts.get(typed))
            self.assertEqual("no such account", str(self.failureResultOf(failed).value))

    def test_secret(self) -> None:
        """An account's repr does not show its number."""
        account = self.done(self.accounts.create())
        self.assertNotIn(account.id, repr(account))

    def test_active(self) -> None:
        """Missing and disabled accounts may not connect."""
        account = self.done(self.accounts.create())
        self.assertTrue(self.done(self.accounts.is_active(account.id)))
        self.assertFalse(self.done(self.accounts.is_active("CCCCCCCCCCCCCCCC")))
        record = self.successResultOf(self.storage.get("account", account.id))
        assert record is not None
        self.storage.put("account", account.id, {**record.value, "disabled": True}, record.version)
        self.assertFalse(self.done(self.accounts.is_active(account.id)))

    def test_no_number_left(self) -> None:
        """When every number is taken creation ends with an error."""
        self.patch(self.accounts, "_storage", _Taken())
        failed = Deferred.fromCoroutine(self.accounts.create())
        self.failureResultOf(failed, StorageUnavailable)


class _Taken(MemoryStorage):
    """A store in which every key exists."""

    def put(self, table: str, key: str, value: Any, version: int | None) -> Deferred[int]:
        super().put(table, key, value, None).addErrback(lambda _: None)
        return super().put(table, key, value, None)
