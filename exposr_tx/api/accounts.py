"""The API's routes of accounts. Facts: protocols/exposr.md A.4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exposr_tx.accounts import Accounts, encode_token, human_form
from exposr_tx.api.answers import send_json, send_text
from exposr_tx.api.credentials import Credentials
from exposr_tx.api.settings import ApiSettings
from exposr_tx.errors import StorageUnavailable

if TYPE_CHECKING:
    from klein import Klein
    from twisted.web.server import Request

__all__ = ["AccountRoutes"]

_NO_REGISTRATION = (
    "Not Found: this server registers no accounts; who runs it makes them with"
    " `exposr admin account create --storage-url URL`"
)


class AccountRoutes:
    """``/v1/account`` and what is below it."""

    def __init__(self, accounts: Accounts, credentials: Credentials, settings: ApiSettings) -> None:
        self._accounts = accounts
        self._credentials = credentials
        self._settings = settings

    def add_to(self, app: Klein) -> None:
        app.route("/v1/account", methods=["POST"])(self.create)
        app.route("/v1/account/<number>/token", methods=["GET"])(self.token)

    async def create(self, request: Request) -> bytes:
        """Register: 201 with the number in both forms; the body is not looked at."""
        if not self._settings.allow_registration:
            return send_text(request, 404, _NO_REGISTRATION)
        try:
            account = await self._accounts.create()
        except StorageUnavailable:
            return send_text(request, 503)
        return send_json(
            request, 201, {"account_id": account.id, "account_id_hr": human_form(account.id)}
        )

    async def token(self, request: Request, number: str) -> bytes:
        """The token of an account: 201, or 403 whatever is wrong with the number."""
        account = await self._credentials.account(request, number)
        return send_json(request, 201, {"token": encode_token(account.id)})
