"""The REST API: its routes, joined to what they work on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from klein import Klein

from exposr_tx.accounts import Accounts
from exposr_tx.api.accounts import AccountRoutes
from exposr_tx.api.credentials import Credentials
from exposr_tx.api.limits import FailedCredentials
from exposr_tx.api.settings import ApiSettings
from exposr_tx.api.site import ApiSite
from exposr_tx.api.tunnels import Connections, TunnelRoutes
from exposr_tx.tunnels import Tunnels

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["Api", "ApiSettings"]


class Api:
    """The REST API of a server.

    :param connections: the live connections of the tunnels (the Switchboard).
    :param failures: counts wrong credentials by address.
    """

    def __init__(
        self,
        accounts: Accounts,
        tunnels: Tunnels,
        connections: Connections,
        settings: ApiSettings,
        failures: FailedCredentials,
    ) -> None:
        credentials = Credentials(accounts, failures)
        self._app = Klein()
        AccountRoutes(accounts, credentials, settings).add_to(self._app)
        TunnelRoutes(tunnels, connections, credentials, settings).add_to(self._app)

    def site(self, reactor: IReactorTime) -> ApiSite:
        """The Site to give to SiteUpstream; it has no time limits of its own."""
        return ApiSite(self._app, reactor, timeout=None)
