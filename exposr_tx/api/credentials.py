"""Who asks: from a request's Authorization field to an account. Facts: protocols/exposr.md A.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exposr_tx.accounts import Account, Accounts, decode_token
from exposr_tx.api.answers import Unauthorised
from exposr_tx.api.limits import FailedCredentials
from exposr_tx.errors import AccountNotFound, NoToken

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.web.server import Request

__all__ = ["Credentials"]


class Credentials:
    """Looks accounts up, and counts who is wrong too often."""

    def __init__(self, accounts: Accounts, failures: FailedCredentials) -> None:
        self._accounts = accounts
        self._failures = failures

    async def of(self, request: Request) -> Account:
        """The account that a request is made for.

        The scheme word is not looked at; the second word is the base64 of the number.

        :raises NoToken: there is no token.
        :raises Unauthorised: it is nobody's.
        :raises TooManyFailures: the address has been wrong too often.
        """
        _, _, rest = (request.getHeader("authorization") or "").partition(" ")
        typed = decode_token(rest.partition(" ")[0])
        if not typed.replace(" ", "").replace("-", ""):
            raise NoToken("the request has no account token")
        try:
            return await self.account(request, typed)
        except AccountNotFound:
            raise Unauthorised("no such account") from None

    async def account(self, request: Request, typed: str) -> Account:
        """The account with a number, as typed; raises AccountNotFound, TooManyFailures."""
        peer = _visitor(request)
        self._failures.check(peer)
        try:
            return await self._accounts.get(typed)
        except AccountNotFound:
            self._failures.count(peer)
            raise


def _visitor(request: Request) -> IAddress:
    """The visitor's address, as the trusted proxies tell it."""
    origin = getattr(request.transport, "origin", None)
    peer: IAddress = request.getClientAddress() if origin is None else origin.peer
    return peer
