"""The collection of a server's tunnels: made, changed, found and removed here.

The data path calls :meth:`Tunnels.peek`, a look-up in a dictionary. The API
and the admission of clients wait for storage. Every write is a compare-and-set,
so two servers on one store cannot both claim an id.

Three tables: ``tunnel`` by id, ``account_tunnel`` by ``account/id`` (the list of
an account's tunnels) and ``tcp_port`` by port. The first is the truth. It is
written first and removed first; what a crash leaves of the others is repaired
by :meth:`Tunnels.start`, :meth:`Tunnels.list` and the next claim of a port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from exposr_tx.errors import (
    BadInput,
    Conflict,
    NoToken,
    PermissionDenied,
    StorageUnavailable,
    TunnelNotFound,
)
from exposr_tx.tunnels.ports import Ports
from exposr_tx.tunnels.sightings import Sightings
from exposr_tx.tunnels.tokens import Tokens
from exposr_tx.tunnels.values import (
    Change,
    TcpIngress,
    Tunnel,
    check_tunnel_id,
    from_json,
    is_tunnel_id,
    merge,
    to_json,
)

if TYPE_CHECKING:
    from exposr_tx.interfaces import IStorage, Record

__all__ = ["Tunnels"]

T = TypeVar("T")
Watcher = Callable[[str, Tunnel | None, Tunnel | None], None]
Page = tuple[list[Tunnel], str | None]
Ids = list[str]
Found = list[Tunnel]

#: Tunnels kept in memory, about 1 KiB each; the oldest makes room, and is read again when needed.
CACHE_SIZE = 65536
#: Tries of one change while others change the same tunnel.
ATTEMPTS = 20
#: Records read at once where all are looked at; the reactor runs in between.
PAGE = 200

_TUNNEL, _INDEX = "tunnel", "account_tunnel"


class Tunnels:
    """The tunnels of a server.

    :param now: the time, in seconds since the epoch.
    :param is_active: whether the account with a number exists and is not disabled.
    :param reserved: ids that nobody may claim: labels of the server's own hosts.
    :param tcp_ports: the first and last port for TCP ingress; None where it does not run.
    :param expire: seconds after which an unconnected tunnel is removed; 0 is never.
    """

    _log = Logger()

    def __init__(
        self,
        storage: IStorage,
        now: Callable[[], float],
        is_active: Callable[[str], Awaitable[bool]],
        reserved: Collection[str] = (),
        tcp_ports: tuple[int, int] | None = None,
        expire: float = 0.0,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._storage = storage
        self._now = now
        self._is_active = is_active
        self._reserved = frozenset(reserved)
        self._ports = Ports(storage, now, *(tcp_ports or (1, 0)), self._holds)
        self._porting = DeferredLock()  # from the claim of a port to the write of its tunnel
        self._expire = expire
        self._cache_size = cache_size
        self._cache: dict[str, Tunnel] = {}
        self._removals = 0  # of what was cached: a read from before one must not be kept
        self._tokens = Tokens(now)
        self._watchers: list[Watcher] = []
        self._leaving: set[str] = set()
        self._unlisted: set[str] = set()
        self._sightings = Sightings(now, expire)

    # Reading

    def peek(self, tunnel_id: str) -> Tunnel | None:
        """The tunnel, when it is in memory. None says nothing: then ask :meth:`get`."""
        return self._cache.get(tunnel_id)

    async def get(self, tunnel_id: str, account: str | None = None) -> Tunnel:
        """The tunnel with an id; with ``account``, only when it belongs to that.

        :raises TunnelNotFound: there is none, or it is not the account's.
        """
        tunnel = await self._find(tunnel_id)
        if tunnel is None or account not in (None, tunnel.account):
            raise TunnelNotFound("no such tunnel")
        return tunnel

    async def list(self, account: str, after: str = "", count: int = 25) -> Page:
        """Up to ``count`` tunnels of an account with ids greater than ``after``,
        and what to give as ``after`` for the next ones, or None."""
        found: Found = []
        prefix = f"{account}/"
        position = prefix + after
        while True:
            page = await self._storage.list(_INDEX, position, count + 1)
            for key, record in page:
                if not key.startswith(prefix):
                    return found, None
                tunnel = await self._find(key[len(prefix) :])
                if tunnel is None or tunnel.account != account:
                    # Left by a crash. Made anew meanwhile, it has another version.
                    with suppress(Conflict, StorageUnavailable):
                        await self._storage.delete(_INDEX, key, record.version)
                elif len(found) == count:
                    return found, found[-1].id
                else:
                    found.append(tunnel)
            if len(page) <= count:
                return found, None
            position = page[-1][0]

    def token(self, tunnel_id: str) -> str:
        """The token with which the tunnel's client may connect next."""
        return self._tokens.current(tunnel_id)

    # Changing. A visitor who leaves cancels what he asked for; a change that
    # has begun is finished nevertheless, or memory and storage would differ.

    async def put(self, tunnel_id: str, account: str, change: Change) -> Tunnel:
        """Change an account's tunnel; make it when there is none.

        :raises BadInput: the id, or the TCP port, cannot be had.
        :raises PermissionDenied: somebody else has the id.
        """
        check_tunnel_id(tunnel_id)
        return await _unstoppable(self._change(tunnel_id, account, change, create=True))

    async def patch(self, tunnel_id: str, account: str, change: Change) -> Tunnel:
        """Change an account's tunnel.

        :raises TunnelNotFound: there is none, or it is not the account's.
        :raises BadInput: the TCP port cannot be had.
        """
        return await _unstoppable(self._change(tunnel_id, account, change, create=False))

    async def delete(
        self,
        tunnel_id: str,
        account: str,
        farewell: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Remove an account's tunnel.

        :param farewell: closes the tunnel's connections; awaited while the id
            is not yet free and nobody is admitted to it.
        :raises TunnelNotFound: there is none, or it is not the account's.
        """
        tunnel = await self.get(tunnel_id, account)
        await _unstoppable(self._delete(tunnel, farewell))

    def watch(self, callback: Watcher) -> None:
        """Call back with ``(id, old, new)`` after every change; None where there is no tunnel."""
        self._watchers.append(callback)

    def invalidate(self, tunnel_id: str) -> None:
        """Somebody else changed the tunnel in the store: forget what memory knows of it."""
        self._removals += 1
        self._cache.pop(tunnel_id, None)

    # Connecting

    async def admit(self, tunnel_id: str, token: str) -> None:
        """Take a client's token, which is replaced by that.

        :raises NoToken: there is none.
        :raises TunnelNotFound: there is no such tunnel.
        :raises PermissionDenied: the token does not count, or the account is
            gone or disabled.
        """
        if not token:
            raise NoToken("the request has no transport token")
        tunnel = await self.get(tunnel_id)
        if not await self._is_active(tunnel.account):
            raise PermissionDenied("the tunnel's account may not connect")
        if tunnel_id in self._leaving or not self._tokens.accept(tunnel_id, token):
            raise PermissionDenied("the transport token does not count")
        self._sightings.saw(tunnel_id)

    # The service's part

    async def start(self) -> Found:
        """All tunnels, read once at the start; mends what a crash left of the lists."""
        listed: set[str] = set()
        async for key, _ in self._scan(_INDEX):
            listed.add(key)
        tunnels: Found = []
        async for tunnel_id, record in self._scan(_TUNNEL):
            tunnel = from_json(tunnel_id, record.value, record.version)
            tunnels.append(tunnel)
            self._remember(tunnel)
            if _index_key(tunnel) not in listed:
                await self._enlist(tunnel)
        return tunnels

    async def expire(self, is_connected: Callable[[str], bool]) -> Ids:
        """Remove the tunnels that were not connected for too long, whoever made them.

        To be called every few seconds. The time runs on over a restart, but
        nothing is removed in a server's first minute: clients come back then.

        :param is_connected: whether a tunnel has a live connection now.
        :returns: the ids that were removed.
        """
        removed: Ids = []
        if not self._expire:
            return removed
        async for tunnel_id, record in self._scan(_TUNNEL):
            tunnel = from_json(tunnel_id, record.value, record.version)
            if is_connected(tunnel_id):
                await self._stamp(tunnel)
            elif self._sightings.has_expired(tunnel):
                with suppress(TunnelNotFound):
                    await _unstoppable(self._delete(tunnel, None))
                    removed.append(tunnel_id)
        return removed

    # Inside

    async def _change(self, tunnel_id: str, account: str, change: Change, create: bool) -> Tunnel:
        old = await self._find(tunnel_id)
        for _ in range(ATTEMPTS):
            if old is None:
                if not create:
                    raise TunnelNotFound("no such tunnel")
                if tunnel_id in self._reserved:
                    raise BadInput(f'"tunnel_id" with value "{tunnel_id}" is reserved')
            elif old.account != account and create:
                raise PermissionDenied("another account has this tunnel")
            elif old.account != account:
                raise TunnelNotFound("no such tunnel")
            try:
                if change.tcp_enabled or change.tcp_port:
                    return await self._porting.run(self._store, tunnel_id, account, old, change)
                return await self._store(tunnel_id, account, old, change)
            except Conflict:
                old = await self._read(tunnel_id)
        raise StorageUnavailable("the tunnel is being changed all the time")

    async def _store(
        self, tunnel_id: str, account: str, old: Tunnel | None, change: Change
    ) -> Tunnel:
        time = self._milliseconds()
        base = old or Tunnel(tunnel_id, account, created_at=time, updated_at=time, seen_at=time)
        new = merge(base, change)
        new = replace(new, tcp=TcpIngress(new.tcp.enabled, await self._port(new, change)))
        if new == old:
            new = base
        else:
            # Should this fail, a port that was claimed for it is given up on in
            # a minute; whether the store has written it nobody knows.
            new = await self._write(replace(new, updated_at=time), old)
            if base.tcp.port not in (0, new.tcp.port):
                with suppress(StorageUnavailable):
                    await self._ports.release(tunnel_id, base.tcp.port)
        if tunnel_id in self._unlisted:
            await self._enlist(new)
        return new

    async def _write(self, new: Tunnel, old: Tunnel | None) -> Tunnel:
        version = await self._storage.put(
            _TUNNEL, new.id, to_json(new), old.version if old else None
        )
        new = replace(new, version=version)
        if old is None:
            self._unlisted.add(new.id)
            self._sightings.saw(new.id)
        self._remember(new)
        self._notify(new.id, old, new)
        return new

    async def _port(self, new: Tunnel, change: Change) -> int:
        """The port the tunnel is to have: what it has, unless something else is asked for."""
        port = new.tcp.port
        if change.tcp_port and change.tcp_port != port:
            return await self._ports.claim(new.id, change.tcp_port)
        if change.tcp_enabled and port not in self._ports:
            return await self._ports.claim(new.id, 0)
        return port

    async def _delete(
        self, tunnel: Tunnel, farewell: Callable[[], Awaitable[object]] | None
    ) -> None:
        self._leaving.add(tunnel.id)
        try:
            if farewell is not None:
                await farewell()
            await self._erase(tunnel)
        finally:
            self._leaving.discard(tunnel.id)

    async def _erase(self, tunnel: Tunnel) -> None:
        # Its version is taken first: a tunnel made anew in between has another
        # one, and stays in the list.
        listed = await self._storage.get(_INDEX, _index_key(tunnel))
        account = tunnel.account
        for _ in range(ATTEMPTS):
            with suppress(Conflict):
                if not await self._storage.delete(_TUNNEL, tunnel.id, tunnel.version):
                    if tunnel.id in self._cache:  # removed by another process
                        self._drop(tunnel)
                    raise TunnelNotFound("no such tunnel")
                break
            there = await self._read(tunnel.id)
            if there is None or there.account != account:
                raise TunnelNotFound("no such tunnel")
            tunnel = there
        else:
            raise StorageUnavailable("the tunnel is being changed all the time")
        self._drop(tunnel)
        # From here on the tunnel is gone; what fails now is mended later.
        with suppress(StorageUnavailable, Conflict):
            if tunnel.tcp.port:
                await self._porting.run(self._ports.release, tunnel.id, tunnel.tcp.port)
            if listed is not None:
                await self._storage.delete(_INDEX, _index_key(tunnel), listed.version)

    def _drop(self, tunnel: Tunnel) -> None:
        self.invalidate(tunnel.id)
        self._tokens.forget(tunnel.id)
        self._sightings.forget(tunnel.id)
        self._unlisted.discard(tunnel.id)
        self._notify(tunnel.id, tunnel, None)

    async def _find(self, tunnel_id: str) -> Tunnel | None:
        known = self._cache.get(tunnel_id)
        if known is not None:
            return known
        return await self._read(tunnel_id) if is_tunnel_id(tunnel_id) else None

    async def _read(self, tunnel_id: str) -> Tunnel | None:
        """The tunnel as it is stored."""
        removals = self._removals
        record = await self._storage.get(_TUNNEL, tunnel_id)
        if record is None:
            self._cache.pop(tunnel_id, None)
            return None
        tunnel = from_json(tunnel_id, record.value, record.version)
        if removals == self._removals:
            self._remember(tunnel)
        return tunnel

    async def _holds(self, tunnel_id: str, port: int) -> bool:
        tunnel = await self._read(tunnel_id)
        return tunnel is not None and tunnel.tcp.port == port

    async def _enlist(self, tunnel: Tunnel) -> None:
        """Write the tunnel into its account's list, with a new version in any case."""
        listed = await self._storage.get(_INDEX, _index_key(tunnel))
        with suppress(Conflict):  # then somebody else did so just now
            version = listed.version if listed else None
            await self._storage.put(_INDEX, _index_key(tunnel), {}, version)
        self._unlisted.discard(tunnel.id)

    async def _stamp(self, tunnel: Tunnel) -> None:
        """The tunnel is connected; write that down now and then."""
        time = self._sightings.saw(tunnel.id)
        if not self._sightings.stamp_due(tunnel):
            return
        tunnel = replace(tunnel, seen_at=time)
        with suppress(Conflict):
            version = await self._storage.put(_TUNNEL, tunnel.id, to_json(tunnel), tunnel.version)
            self._remember(replace(tunnel, version=version))

    async def _scan(self, table: str) -> AsyncIterator[tuple[str, Record]]:
        after = ""
        while page := await self._storage.list(table, after, PAGE):
            for key, record in page:
                yield key, record
            after = page[-1][0]

    def _remember(self, tunnel: Tunnel) -> None:
        known = self._cache.get(tunnel.id)
        if known is not None and known.version > tunnel.version:
            return
        if known is None and len(self._cache) >= self._cache_size:
            del self._cache[next(iter(self._cache))]
        self._cache[tunnel.id] = tunnel

    def _notify(self, tunnel_id: str, old: Tunnel | None, new: Tunnel | None) -> None:
        for watcher in self._watchers:
            try:
                watcher(tunnel_id, old, new)
            except Exception:
                self._log.failure("a watcher of tunnel {tunnel} failed", tunnel=tunnel_id)

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _index_key(tunnel: Tunnel) -> str:
    return f"{tunnel.account}/{tunnel.id}"


def _unstoppable(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Run it to its end, even when the Deferred is cancelled, which fires without it then."""
    waiter: Deferred[T] = Deferred()
    Deferred.fromCoroutine(work).addBoth(waiter.callback)
    return waiter
