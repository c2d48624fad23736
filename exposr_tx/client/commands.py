"""The commands of the script that make a few REST calls and end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from exposr_tx.client.accounts_file import AccountsFile, StoredAccount
from exposr_tx.client.answers import ServerRefusal, Tunnel
from exposr_tx.client.rest import RestClient
from exposr_tx.client.settings import Change, changes, unsettings
from exposr_tx.client.tunnel import apply, check_known, create_account, create_named
from exposr_tx.errors import BadInput, ExposrError

__all__ = ["Commands"]


class Commands:
    """One-shot commands, by the words that call them.

    :param say: prints a line of progress, which ``--quiet`` leaves out.
    :param show: prints a line that was asked for.
    """

    def __init__(
        self,
        rest: RestClient,
        accounts: AccountsFile,
        say: Callable[[str], object],
        show: Callable[[str], object],
        random: Random,
    ) -> None:
        self._rest = rest
        self._accounts = accounts
        self._say = say
        self._show = show
        self._random = random
        self.by_name: dict[str, Callable[[Sequence[str]], Awaitable[None]]] = {
            "account create": self.account_create,
            "tunnel create": self.create,
            "tunnel configure": self.configure,
            "tunnel info": self.info,
            "tunnel list": self.list,
            "tunnel disconnect": self.disconnect,
            "tunnel delete": self.delete,
        }

    async def account_create(self, words: Sequence[str]) -> None:
        """Register an account, show it, remember it."""
        before = self._accounts.account(self._rest.server)
        shown = await create_account(self._rest, self._show)
        self._accounts.remember(self._rest.server, StoredAccount(shown))
        if before is not None:
            # Nobody else knows the number, and the tunnels can be had by nothing else.
            self._say(f"It is remembered instead of {before.account}; keep that for its tunnels")

    async def create(self, words: Sequence[str]) -> None:
        """``[ID] [KEY VALUE ...]``"""
        tunnel_id = ""
        if len(words) % 2:
            tunnel_id, words = words[0], words[1:]
        wanted = changes(words)
        if tunnel_id:
            tunnel = await self._rest.create(tunnel_id)
        else:
            tunnel_id, tunnel = await create_named(self._rest, self._random)
        self._say(f"Creating tunnel...success ({tunnel_id})")
        await self._apply_all(tunnel_id, tunnel, wanted)

    async def configure(self, words: Sequence[str]) -> None:
        """``ID set KEY VALUE ...`` and ``ID unset KEY ...``"""
        tunnel_id, verb, *rest = words
        if verb not in ("set", "unset"):
            raise BadInput(f"{verb!r}: must be set or unset, as in: configure ID set KEY VALUE")
        wanted = changes(rest) if verb == "set" else unsettings(rest)
        tunnel = None
        if any(change.ours for change in wanted):
            tunnel = await self._rest.read(tunnel_id)
        await self._apply_all(tunnel_id, tunnel, wanted, verb)

    async def _apply_all(
        self, tunnel_id: str, tunnel: Tunnel | None, wanted: Sequence[Change], verb: str = "set"
    ) -> None:
        if tunnel is not None:
            await check_known(self._rest, tunnel, wanted)
        for change in wanted:
            await apply(self._rest, tunnel_id, change)
            if verb == "set":
                self._say(f"Setting {change.key} to '{change.shown}'...done")
            else:
                self._say(f"Unsetting {change.key}...done")

    async def info(self, words: Sequence[str]) -> None:
        tunnel = await self._rest.read(words[0])
        for line in _described(tunnel):
            self._show(line)

    async def list(self, words: Sequence[str]) -> None:
        try:
            found = await self._rest.tunnels()
        except ServerRefusal as refusal:
            if refusal.http_status != 404:
                raise
            raise ExposrError("this server does not list tunnels") from None
        for tunnel in found:
            state = "connected" if tunnel.part("connection", "connected") else "not connected"
            urls = " ".join(url for _kind, url in tunnel.ingress_urls())
            self._show(f"{tunnel.tunnel_id}  {state}  {urls}".rstrip())

    async def disconnect(self, words: Sequence[str]) -> None:
        if not await self._rest.disconnect(words[0]):
            raise ExposrError(f"the tunnel {words[0]} was not disconnected")
        self._say(f"Disconnecting tunnel {words[0]}...disconnected")

    async def delete(self, words: Sequence[str]) -> None:
        await self._rest.delete(words[0])
        self._say(f"Deleting tunnel {words[0]}...success")

    async def admin_tunnel_list(self, api_key: str, count: int, verbose: bool) -> None:
        """What exposrd's administration API lists: objects, or bare names without ``verbose``."""
        for item in await self._rest.admin_tunnels(api_key, count, verbose):
            if isinstance(item, dict):
                self._show(
                    f"{item.get('tunnel_id')}  {item.get('account_id')}  "
                    f"{item.get('updated_at')}  {item.get('created_at')}"
                )
            else:
                self._show(str(item))


def _time(value: Any) -> str:
    """An API time, epoch milliseconds or already text, in ISO form."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        moment = datetime.fromtimestamp(value / 1000, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def _described(tunnel: Tunnel) -> list[str]:
    """A tunnel in lines; tokens are left out."""
    lines = [f"Tunnel: {tunnel.tunnel_id}"]
    connected = tunnel.part("connection", "connected") is True
    count = tunnel.part("connection", "connections")
    lines.append(f"Connected: {'yes' if connected else 'no'}")
    if isinstance(count, int):
        lines.append(f"Connections: {count}/{tunnel.max_connections}")
    for name in ("connected_at", "alive_at", "disconnected_at"):
        value = tunnel.part("connection", name)
        if value is not None:
            lines.append(f"{name.replace('_', ' ').capitalize()}: {_time(value)}")
    lines.append(f"Target: {tunnel.target_url or '(none)'}")
    for kind in ("ws", "ssh"):
        if isinstance(tunnel.part("transport", kind), dict):
            enabled = tunnel.part("transport", kind, "enabled") is True
            lines.append(f"Transport {kind.upper()}: {'enabled' if enabled else 'disabled'}")
    urls = tunnel.ingress_urls()
    for kind in ("http", "sni", "tcp"):
        mine = [url for name, url in urls if name == kind.upper()]
        if mine:
            lines += [f"Ingress {kind.upper()}: {url}" for url in mine]
        elif isinstance(tunnel.part("ingress", kind), dict):
            lines.append(f"Ingress {kind.upper()}: disabled")
    names_ = tunnel.part("ingress", "http", "alt_names")
    if isinstance(names_, list) and names_:
        lines.append(f"Alternative names: {', '.join(str(name) for name in names_)}")
    host = tunnel.part("ingress", "http", "host_header")
    if host is not None:
        lines.append(f"Host header: {host}")
    # A server without policies does not tell.
    if (policy := tunnel.part("policy")) is not None:
        lines.append(f"Policy: {policy}")
    if tunnel.part("created_at") is not None:
        lines.append(f"Created at: {_time(tunnel.part('created_at'))}")
    return lines
