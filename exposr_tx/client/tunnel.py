"""The tunnel that a run of the client connects, as the REST API knows it.

Sees to it that the account, the tunnel and its settings are there before the
first connection, reads it before each one, and takes it away at the end when
this run has made it. The calls and their order are protocol page B.2's, so
that an existing exposrd is content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from exposr_tx.client import names
from exposr_tx.client.accounts_file import AccountsFile, StoredAccount
from exposr_tx.client.answers import AccountRefused, ServerRefusal, Tunnel, TunnelTaken
from exposr_tx.client.rest import RestClient
from exposr_tx.client.settings import Change
from exposr_tx.client.target import Target, parse_target
from exposr_tx.errors import BadInput, ExposrError, TunnelNotFound

__all__ = ["OwnTunnel", "apply", "check_known", "create_account", "create_named"]

#: How often another name is invented when somebody else has it.
NAME_ATTEMPTS = 5


async def create_account(rest: RestClient, say: Callable[[str], object]) -> str:
    """Register an account and tell its user the number."""
    shown = await rest.create_account()
    say(f"Creating account...success ({shown})")
    return shown


async def check_known(rest: RestClient, tunnel: Tunnel, wanted: Sequence[Change]) -> None:
    """Raise an error that names the first setting that the server does not know."""
    ours = [change.key for change in wanted if change.ours]
    if ours and not await rest.is_ours(tunnel):
        raise ExposrError(f"this server does not know the setting {ours[0]}; leave it out")


async def apply(rest: RestClient, tunnel_id: str, change: Change) -> Tunnel:
    """One PATCH."""
    try:
        return await rest.patch(tunnel_id, change.body)
    except ServerRefusal as refusal:
        wrong = refusal.detail.split(", ")
        if change.key != "ingress-http-altnames" or not set(wrong) <= set(change.value or ()):
            raise
        # All that an exposrd says (protocol page A.4).
        raise ServerRefusal(
            f"the server does not accept {refusal.detail}: the CNAME record of each must be the "
            f"tunnel's own host, which exposr tunnel info {tunnel_id} shows",
            refusal.error_code,
            refusal.http_status,
            refusal.detail,
        ) from None


async def create_named(rest: RestClient, random: Random) -> tuple[str, Tunnel]:
    """Make a tunnel by an invented name, or another where somebody has that; the name and it."""
    for _ in range(NAME_ATTEMPTS - 1):
        name = names.invent(random)
        try:
            return name, await rest.create(name)
        except TunnelTaken:
            continue
    name = names.invent(random)
    return name, await rest.create(name)


class OwnTunnel:
    """A ``Source`` for :class:`~exposr_tx.client.endpoint.TunnelEndpoint`.

    :param rest: its account is empty when one is to be registered.
    :param tunnel_id: empty when a name is to be invented.
    :param target: None where the stored one is to be used.
    :param changes: what the user sets.
    :param host_header: what the target is to get as its Host, or empty.
    :param automatic: the account may be replaced when the server does not know
        it: nobody was told to keep it.
    :ivar in_use: the target that streams go to, once prepared.
    :ivar created: whether this run made the tunnel.
    :ivar rewrites: whether the host header is left to us, as the server cannot set it.
    """

    def __init__(
        self,
        rest: RestClient,
        accounts: AccountsFile,
        say: Callable[[str], object],
        random: Random,
        tunnel_id: str,
        target: Target | None,
        changes: Sequence[Change],
        host_header: str = "",
        automatic: bool = False,
    ) -> None:
        self._rest = rest
        self._accounts = accounts
        self._say = say
        self._random = random
        self.tunnel_id = tunnel_id
        self.target = target
        self._changes = list(changes)
        self.host_header = host_header
        self._automatic = automatic
        self.created = False
        self.rewrites = False
        self.in_use = target

    def __repr__(self) -> str:
        return f"<OwnTunnel {self.tunnel_id or '(to be named)'}>"

    # Source

    async def prepare(self) -> Tunnel:
        """Account, tunnel and settings; may be called again after a failure."""
        if not self._rest.account:
            await self._register()
        try:
            return await self._prepare()
        except AccountRefused:
            if not self._automatic:
                raise
            await self._register()
            return await self._prepare()

    async def read(self) -> Tunnel:
        """The tunnel, by a fresh account token as the Node client does."""
        try:
            await self._rest.authorise()
            return await self._rest.read(self.tunnel_id)
        except AccountRefused:
            if not self._automatic:
                raise
            # The server has forgotten us; nobody else knows the account.
            return await self.prepare()

    async def release(self) -> None:
        """Delete the tunnel if this run made it."""
        if not self.created:
            return
        try:
            await self._rest.delete(self.tunnel_id)
        except ServerRefusal as refusal:
            if refusal.error_code != TunnelNotFound.code:
                raise
        self._say(f"Deleting tunnel {self.tunnel_id}...success")

    # The steps

    async def _register(self) -> None:
        self._accounts.check()
        shown = await create_account(self._rest, self._say)
        self._automatic = True
        self._accounts.remember(self._rest.server, StoredAccount(shown, automatic=True))

    async def _prepare(self) -> Tunnel:
        await self._rest.authorise()
        tunnel = await self._found_or_made()
        for change in await self._user_changes(tunnel):
            tunnel = await apply(self._rest, self.tunnel_id, change)
            self._say(f"Setting {change.key} to '{change.shown}'...done")
        tunnel = await self._defaults(tunnel)
        tunnel = await self._set_host_header(tunnel)
        await self._rest.authorise()
        tunnel = await self._rest.read(self.tunnel_id)
        if not tunnel.websocket_url:
            raise ServerRefusal(
                "the server offers no websocket transport for the tunnel", "", 200, ""
            )
        self.in_use = self.target or self._stored_target(tunnel)
        return tunnel

    def _stored_target(self, tunnel: Tunnel) -> Target:
        if not tunnel.target_url:
            raise ExposrError(
                f"the tunnel {self.tunnel_id} has no target; give one, as in: "
                f"exposr tunnel connect {self.tunnel_id} http://localhost:3000"
            )
        try:
            return parse_target(tunnel.target_url, from_server=True)
        except BadInput as error:
            raise ExposrError(str(error)) from None

    async def _found_or_made(self) -> Tunnel:
        if self.tunnel_id:
            try:
                tunnel = await self._rest.read(self.tunnel_id)
            except ServerRefusal as refusal:
                if refusal.error_code != TunnelNotFound.code:
                    raise
                tunnel = await self._rest.create(self.tunnel_id)
            else:
                self._say(f"Checking tunnel {self.tunnel_id}...found")
                return tunnel
        else:
            self.tunnel_id, tunnel = await create_named(self._rest, self._random)
        self.created = True
        self._say(f"Creating tunnel...success ({self.tunnel_id})")
        return tunnel

    async def _user_changes(self, tunnel: Tunnel) -> list[Change]:
        changes = list(self._changes)
        await check_known(self._rest, tunnel, changes)
        if self.target is not None:
            changes.append(Change("target-url", self.target.url, self.target.url))
        return changes

    async def _defaults(self, tunnel: Tunnel) -> Tunnel:
        """The ingress that fits the target, unless the user has chosen, and the transport."""
        chosen = {change.key for change in self._changes}
        if self.target is not None and self.target.is_http and "ingress-http" not in chosen:
            tunnel = await apply(self._rest, self.tunnel_id, Change("ingress-http", True, "on"))
        if (
            self.target is not None
            and self.target.scheme == "tcp"
            and "ingress-tcp" not in chosen
            and tunnel.runs_tcp
        ):
            tunnel = await apply(self._rest, self.tunnel_id, Change("ingress-tcp", True, "on"))
        if "transport-ws" not in chosen:
            tunnel = await apply(self._rest, self.tunnel_id, Change("transport-ws", True, "on"))
        return tunnel

    async def _set_host_header(self, tunnel: Tunnel) -> Tunnel:
        if not self.host_header:
            return tunnel
        if not await self._rest.is_ours(tunnel):
            self.rewrites = True
            return tunnel
        shown = self.host_header
        return await apply(self._rest, self.tunnel_id, Change("ingress-http-host", shown, shown))
