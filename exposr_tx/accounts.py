"""Accounts: who may own tunnels.

An account is a number of 16 characters and nothing else; whoever knows the
number is the owner. So it is a secret: it stands in no ``repr``, no error and
no log line. The API's authorisation and the admission of client connections
look accounts up here; the data path does not. Facts: protocols/exposr.md I.1.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exposr_tx.errors import AccountNotFound, Conflict, StorageUnavailable

if TYPE_CHECKING:
    from exposr_tx.interfaces import IStorage

__all__ = [
    "Account",
    "Accounts",
    "account_number",
    "decode_token",
    "encode_token",
    "human_form",
]

#: 23 characters that are not mistaken for each other; 16 of them are 72 bits.
ALPHABET = "CDEFHJKMNPRTVWXY2345689"
LENGTH = 16
#: How many numbers are tried; a second try has never been needed by anybody.
ATTEMPTS = 100

_TABLE = "account"
_URL_SAFE = str.maketrans("-_", "+/")
_NUMBER = re.compile(f"[{ALPHABET}]{{{LENGTH}}}")


def account_number(typed: str) -> str:
    """An account's number as it is stored, from how somebody typed it.

    Spaces and dashes are dropped, letters become capitals.

    :raises AccountNotFound: that cannot be an account's number.
    """
    number = typed.replace(" ", "").replace("-", "").upper()
    if not _NUMBER.fullmatch(number):
        raise AccountNotFound("no such account")
    return number


def human_form(number: str) -> str:
    """A number in groups of four: ``MNF4-P6Y6-M2MR-RVCT``."""
    return "-".join(number[i : i + 4] for i in range(0, len(number), 4))


def encode_token(number: str) -> str:
    """The API token of an account: the base64 of its number. It does not expire."""
    return base64.b64encode(number.encode("ascii")).decode("ascii")


def decode_token(token: str) -> str:
    """What a token holds: an account's number as somebody typed it, or anything.

    As lenient as Node's decoder, which today's clients are used to: both
    alphabets, foreign characters skipped, padding optional.
    """
    letters = re.sub("[^A-Za-z0-9+/]", "", token.split("=", maxsplit=1)[0].translate(_URL_SAFE))
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    return base64.b64decode(letters + "=" * (-len(letters) % 4)).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Account:
    """An account. Times are epoch milliseconds.

    :ivar id: the number, without dashes. A secret.
    :ivar disabled: whether its tunnels' connections are refused.
    """

    id: str = field(repr=False)
    disabled: bool
    created_at: int
    updated_at: int


class Accounts:
    """The accounts of a server.

    :param storage: where they are kept.
    :param now: the time, in seconds since the epoch.
    """

    def __init__(self, storage: IStorage, now: Callable[[], float]) -> None:
        self._storage = storage
        self._now = now

    async def create(self) -> Account:
        """Make a new account.

        :raises StorageUnavailable: it could not be stored.
        """
        for _ in range(ATTEMPTS):
            # secrets.choice has no modulo bias.
            number = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
            time = int(self._now() * 1000)
            account = Account(number, disabled=False, created_at=time, updated_at=time)
            try:
                await self._storage.put(_TABLE, number, _to_json(account), None)
            except Conflict:
                continue
            return account
        raise StorageUnavailable(f"no free account number was found in {ATTEMPTS} tries")

    async def get(self, typed: str) -> Account:
        """The account with a number, however it is spelled.

        :raises AccountNotFound: there is none, or that is not a number.
        :raises StorageUnavailable: the store does not answer.
        """
        number = account_number(typed)
        record = await self._storage.get(_TABLE, number)
        if record is None:
            raise AccountNotFound("no such account")
        return _from_json(number, record.value)

    async def is_active(self, number: str) -> bool:
        """Whether an account exists and is not disabled: whether its tunnels may connect."""
        try:
            return not (await self.get(number)).disabled
        except AccountNotFound:
            return False


def _to_json(account: Account) -> dict[str, Any]:
    return {
        "disabled": account.disabled,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }


def _from_json(number: str, value: Mapping[str, Any]) -> Account:
    return Account(number, value["disabled"], value["created_at"], value["updated_at"])
