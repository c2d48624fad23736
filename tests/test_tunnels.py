"""Tunnels: who owns an id, what a change does, tokens, ports, lists and expiry."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import (
    BadInput,
    NoToken,
    PermissionDenied,
    StorageUnavailable,
    TunnelNotFound,
)
from exposr_tx.interfaces import Record
from exposr_tx.storage import MemoryStorage
from exposr_tx.tunnels import Change, Tunnel, Tunnels, is_tunnel_id
from exposr_tx.tunnels.values import from_json, merge, to_json

ALICE, BOB = "ALICE", "BOB"
EMPTY = Change()


class TunnelsCase(SynchronousTestCase):
    """A store, a clock, and the tunnels of a server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.storage = _Slow()
        self.disabled: set[str] = set()
        self.changes: list[tuple[str, Tunnel | None, Tunnel | None]] = []
        self.tunnels = self.make()

    def make(self, **settings: Any) -> Tunnels:
        async def is_active(account: str) -> bool:
            return account not in self.disabled

        settings.setdefault("tcp_ports", (20000, 20002))
        tunnels = Tunnels(self.storage, self.clock.seconds, is_active, **settings)
        tunnels.watch(lambda *change: self.changes.append(change))
        return tunnels

    def done(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def fails(self, work: Coroutine[Any, Any, Any], *types: type[Exception]) -> str:
        failure = self.failureResultOf(Deferred.fromCoroutine(work), *types)
        return str(failure.value)

    def put(self, tunnel_id: str, account: str = ALICE, **change: Any) -> Any:
        return self.done(self.tunnels.put(tunnel_id, account, Change(**change)))

    def keys(self, table: str) -> list[str]:
        return [key for key, _ in self.successResultOf(self.storage.list(table, "", 1000))]


class OwnershipTests(TunnelsCase):
    """Ids are globally unique, first come first served."""

    def test_create(self) -> None:
        """A new tunnel has everything switched off."""
        tunnel = self.put("my-tunnel")
        self.assertEqual(("my-tunnel", ALICE), (tunnel.id, tunnel.account))
        self.assertEqual(1_700_000_000_000, tunnel.created_at)
        self.assertFalse(tunnel.http.enabled or tunnel.tcp.enabled or tunnel.ws_enabled)
        self.assertEqual(("", "target"), (tunnel.target_url, tunnel.http.host_header))
        self.assertIs(tunnel, self.tunnels.peek("my-tunnel"))

    def test_two_claims(self) -> None:
        """Of two accounts that claim one id at the same time one gets it."""
        self.storage.hold()
        claims = [
            Deferred.fromCoroutine(self.tunnels.put("tunnel", account, EMPTY))
            for account in (ALICE, BOB)
        ]
        self.storage.release()
        self.assertEqual(ALICE, self.successResultOf(claims[0]).account)
        self.failureResultOf(claims[1], PermissionDenied)
        self.assertEqual(["ALICE/tunnel"], self.keys("account_tunnel"))

    def test_two_servers(self) -> None:
        """Two servers on one store cannot both claim an id."""
        other = self.make()
        self.storage.hold()
        claims = [
            Deferred.fromCoroutine(self.tunnels.put("tunnel", ALICE, EMPTY)),
            Deferred.fromCoroutine(other.put("tunnel", BOB, EMPTY)),
        ]
        self.storage.release()
        self.successResultOf(claims[0])
        self.failureResultOf(claims[1], PermissionDenied)

    def test_foreign(self) -> None:
        """Somebody else's tunnel: PUT is refused, all else does not find it."""
        self.put("tunnel")
        self.fails(self.tunnels.put("tunnel", BOB, EMPTY), PermissionDenied)
        self.fails(self.tunnels.patch("tunnel", BOB, EMPTY), TunnelNotFound)
        self.fails(self.tunnels.get("tunnel", BOB), TunnelNotFound)
        self.fails(self.tunnels.delete("tunnel", BOB), TunnelNotFound)
        self.assertEqual(ALICE, self.done(self.tunnels.get("tunnel")).account)

    def test_missing(self) -> None:
        """What is not there is not found, and PATCH does not make it."""
        self.fails(self.tunnels.patch("tunnel", ALICE, EMPTY), TunnelNotFound)
        self.fails(self.tunnels.get("tunnel"), TunnelNotFound)
        self.fails(self.tunnels.get("../.."), TunnelNotFound)
        self.fails(self.tunnels.delete("tunnel", ALICE), TunnelNotFound)
        self.assertEqual([], self.changes)

    def test_reserved(self) -> None:
        """A label of the server's own hosts cannot be claimed."""
        self.tunnels = self.make(reserved=["tunnel-api"])
        text = self.fails(self.tunnels.put("tunnel-api", ALICE, EMPTY), BadInput)
        self.assertIn("tunnel-api", text)

    def test_ids(self) -> None:
        """Only ids of the documented pattern can be made."""
        good = ["abcd", "1234", "a-1234", "a" * 63, "a" + "-" * 63 + "a"]
        bad = ["abc", "Abcd", "a-bc", "-abcdef", "abcdef-", "a" * 66, "a.bcde", "abcd\n", ""]
        self.assertEqual(good, [text for text in good + bad if is_tunnel_id(text)])
        for text in bad:
            self.fails(self.tunnels.put(text, ALICE, EMPTY), BadInput)

    @given(st.text("ab1-_A", max_size=70))
    def test_ids_by_the_page(self, text: str) -> None:
        """The check agrees with the pattern as the protocol page writes it."""
        page = r"[a-z0-9]{4,63}|[a-z0-9][a-z0-9-]{4,63}[a-z0-9]"
        self.assertEqual(re.fullmatch(page, text) is not None, is_tunnel_id(text))

    def test_secret(self) -> None:
        """A tunnel's repr does not show its account."""
        self.assertNotIn(ALICE, repr(self.put("tunnel")))


class ChangeTests(TunnelsCase):
    """Only what is mentioned changes."""

    def test_merge(self) -> None:
        """A change leaves alone what it does not mention."""
        self.put("tunnel", http_enabled=True, target_url="http://localhost:3000/")
        self.clock.advance(5)
        tunnel = self.put("tunnel", ws_enabled=True)
        self.assertTrue(tunnel.http.enabled and tunnel.ws_enabled)
        self.assertEqual("http://localhost:3000/", tunnel.target_url)
        self.assertEqual(5000, tunnel.updated_at - tunnel.created_at)
        tunnel = self.put("tunnel", http_enabled=False, target_url="", host_header="preserve")
        self.assertFalse(tunnel.http.enabled)
        self.assertEqual(("", "preserve"), (tunnel.target_url, tunnel.http.host_header))

    def test_nothing_changes(self) -> None:
        """A change that changes nothing writes nothing."""
        first = self.put("tunnel", http_enabled=True)
        self.clock.advance(5)
        self.assertIs(first, self.put("tunnel", http_enabled=True))
        self.assertEqual(1, len(self.changes))

    def test_all_at_once(self) -> None:
        """Changes of several at the same time are all made."""
        self.put("tunnel")
        self.storage.hold()
        work = [
            Deferred.fromCoroutine(self.tunnels.patch("tunnel", ALICE, change))
            for change in (
                Change(http_enabled=True),
                Change(ws_enabled=True),
                Change(ssh_enabled=True),
            )
        ]
        self.storage.release()
        self.successResultOf(gatherResults(work))
        tunnel = self.done(self.tunnels.get("tunnel"))
        self.assertTrue(tunnel.http.enabled and tunnel.ws_enabled and tunnel.ssh_enabled)
        self.assertIs(tunnel, self.tunnels.peek("tunnel"))

    def test_watch(self) -> None:
        """Watchers hear of each change, with the old and the new; one that fails harms nobody."""

        def broken(*change: object) -> None:
            raise RuntimeError

        self.tunnels.watch(broken)
        made = self.put("tunnel")
        changed = self.put("tunnel", http_enabled=True)
        self.done(self.tunnels.delete("tunnel", ALICE))
        self.assertEqual(
            [("tunnel", None, made), ("tunnel", made, changed), ("tunnel", changed, None)],
            self.changes,
        )
        self.assertEqual(3, len(self.flushLoggedErrors(RuntimeError)))

    def test_cancelled(self) -> None:
        """A visitor who leaves does not leave memory and storage different."""
        self.storage.hold()
        work = Deferred.fromCoroutine(self.tunnels.put("tunnel", ALICE, EMPTY))
        work.cancel()
        self.storage.release()
        self.failureResultOf(work, CancelledError)
        self.assertIsNotNone(self.tunnels.peek("tunnel"))
        self.assertEqual(["ALICE/tunnel"], self.keys("account_tunnel"))

    def test_storage_down(self) -> None:
        """Without storage changes fail, and what is in memory still serves."""
        tunnel = self.put("tunnel")
        self.storage.down = True
        self.fails(self.tunnels.patch("tunnel", ALICE, Change(ws_enabled=True)), StorageUnavailable)
        self.assertIs(tunnel, self.tunnels.peek("tunnel"))
        self.assertIs(tunnel, self.done(self.tunnels.get("tunnel")))
        self.fails(self.tunnels.get("other"), StorageUnavailable)

    @given(st.builds(Change, st.none() | st.booleans(), st.none(), st.none() | st.just("preserve")))
    def test_stored_form(self, change: Change) -> None:
        """A tunnel comes back from its record as it was."""
        tunnel = merge(Tunnel("tunnel", ALICE, 1, 2, 3), change)
        self.assertEqual(tunnel, from_json("tunnel", to_json(tunnel), 7))


class MemoryTests(TunnelsCase):
    """What is kept in memory, and what another process changes."""

    def test_bounded(self) -> None:
        """The oldest makes room; it is read again when it is asked for."""
        self.tunnels = self.make(cache_size=2)
        for n in range(3):
            self.put(f"tunnel{n}")
        self.assertIsNone(self.tunnels.peek("tunnel0"))
        self.assertIsNotNone(self.tunnels.peek("tunnel2"))
        self.assertEqual("tunnel0", self.done(self.tunnels.get("tunnel0")).id)

    def test_invalidate(self) -> None:
        """A change made elsewhere is seen once memory is told to forget."""
        self.put("tunnel")
        self.done(self.make().patch("tunnel", ALICE, Change(http_enabled=True)))
        self.tunnels.invalidate("tunnel")
        self.assertTrue(self.done(self.tunnels.get("tunnel")).http.enabled)

    def test_stale(self) -> None:
        """A change on top of what somebody else changed loses neither."""
        self.put("tunnel")
        self.done(self.make().patch("tunnel", ALICE, Change(http_enabled=True)))
        tunnel = self.put("tunnel", ws_enabled=True)
        self.assertTrue(tunnel.http.enabled and tunnel.ws_enabled)

    def test_read_while_deleted(self) -> None:
        """An answer from before a removal does not bring the tunnel back to memory."""
        self.put("tunnel")
        self.tunnels.invalidate("tunnel")
        self.storage.hold()
        reading = Deferred.fromCoroutine(self.tunnels.get("tunnel"))
        held, self.storage.held = self.storage.held, None
        self.done(self.tunnels.delete("tunnel", ALICE))
        assert held is not None
        for go in held:
            go()
        self.successResultOf(reading)
        self.assertIsNone(self.tunnels.peek("tunnel"))

    def test_start(self) -> None:
        """After a restart everything is there and in memory."""
        self.put("tunnel1", http_enabled=True)
        self.put("tunnel2")
        tunnels = self.make()
        self.assertIsNone(tunnels.peek("tunnel1"))
        self.assertEqual(["tunnel1", "tunnel2"], [t.id for t in self.done(tunnels.start())])
        known = tunnels.peek("tunnel1")
        assert known is not None
        self.assertTrue(known.http.enabled)


class DeleteTests(TunnelsCase):
    """Removing a tunnel leaves nothing, whatever happens in between."""

    def test_delete(self) -> None:
        """The id is free for others, and no record is left."""
        self.put("tunnel", tcp_enabled=True)
        self.done(self.tunnels.delete("tunnel", ALICE))
        for table in ("tunnel", "account_tunnel", "tcp_port"):
            self.assertEqual([], self.keys(table))
        self.assertEqual(BOB, self.put("tunnel", BOB).account)

    def test_farewell(self) -> None:
        """While the connections are being closed nobody is admitted, and nobody gets the id."""
        self.put("tunnel")
        token = self.tunnels.token("tunnel")
        closed: Deferred[None] = Deferred()
        work = Deferred.fromCoroutine(self.tunnels.delete("tunnel", ALICE, lambda: closed))
        self.fails(self.tunnels.admit("tunnel", token), PermissionDenied)
        self.fails(self.tunnels.put("tunnel", BOB, EMPTY), PermissionDenied)
        closed.callback(None)
        self.successResultOf(work)
        self.assertEqual(BOB, self.put("tunnel", BOB).account)

    def test_old_token(self) -> None:
        """The next owner's tunnel does not take the last owner's token."""
        self.put("tunnel")
        token = self.tunnels.token("tunnel")
        self.done(self.tunnels.delete("tunnel", ALICE))
        self.put("tunnel", BOB)
        self.fails(self.tunnels.admit("tunnel", token), PermissionDenied)

    def test_crash_anywhere(self) -> None:
        """However many of its writes a change or a removal got done: after a restart and a look
        at the list everything fits together, and the id and port can be had again."""
        for work in ("put", "delete"):
            for writes in range(6):
                self.storage = _Slow()
                self.tunnels = self.make()
                if work == "delete":
                    self.put("tunnel", tcp_port=20001, tcp_enabled=True)
                self.storage.crash_after = writes
                change = Change(tcp_port=20001, tcp_enabled=True)
                doing: Deferred[Any] = (
                    Deferred.fromCoroutine(self.tunnels.put("tunnel", ALICE, change))
                    if work == "put"
                    else Deferred.fromCoroutine(self.tunnels.delete("tunnel", ALICE))
                )
                doing.addErrback(lambda _: None)
                self.storage.crash_after = None
                self.tunnels = self.make()
                self.done(self.tunnels.start())
                listed, _ = self.done(self.tunnels.list(ALICE))
                self.assertEqual(self.keys("tunnel"), [tunnel.id for tunnel in listed])
                self.assertEqual(len(listed), len(self.keys("account_tunnel")))
                if not listed:
                    self.clock.advance(61)
                    other = self.put("other", BOB, tcp_port=20001, tcp_enabled=True)
                    self.assertEqual(20001, other.tcp.port)

    def test_list_mended(self) -> None:
        """What was made but not listed, because storage failed, is listed at the next change."""
        self.storage.crash_after = 1
        self.fails(self.tunnels.put("tunnel", ALICE, EMPTY), StorageUnavailable)
        self.storage.crash_after = None
        self.put("tunnel")
        listed, _ = self.done(self.tunnels.list(ALICE))
        self.assertEqual(["tunnel"], [tunnel.id for tunnel in listed])


class ListTests(TunnelsCase):
    """An account's tunnels, in pages."""

    def test_pages(self) -> None:
        """Pages follow each other to the end, and hold nobody else's tunnels."""
        for n in range(5):
            self.put(f"tunnel{n}")
            self.put(f"bobs-{n}", BOB)
        first, cursor = self.done(self.tunnels.list(ALICE, "", 2))
        self.assertEqual((["tunnel0", "tunnel1"], "tunnel1"), ([t.id for t in first], cursor))
        second, cursor = self.done(self.tunnels.list(ALICE, cursor, 2))
        self.assertEqual((["tunnel2", "tunnel3"], "tunnel3"), ([t.id for t in second], cursor))
        third, cursor = self.done(self.tunnels.list(ALICE, cursor, 2))
        self.assertEqual((["tunnel4"], None), ([t.id for t in third], cursor))

    def test_exact(self) -> None:
        """A page that is just full is the last one when nothing follows."""
        self.put("tunnel0")
        self.put("tunnel1")
        self.put("tunnel0b", "ALICE2")
        tunnels, cursor = self.done(self.tunnels.list(ALICE, "", 2))
        self.assertEqual((2, None), (len(tunnels), cursor))

    def test_empty(self) -> None:
        """Who has none gets an empty page."""
        self.assertEqual(([], None), self.done(self.tunnels.list(BOB)))


class AdmissionTests(TunnelsCase):
    """The token with which a client connects."""

    def setUp(self) -> None:
        super().setUp()
        self.put("tunnel")
        self.token = self.tunnels.token("tunnel")

    def assert_admitted(self, token: str) -> None:
        self.done(self.tunnels.admit("tunnel", token))

    def assert_refused(self, token: str) -> None:
        self.fails(self.tunnels.admit("tunnel", token), PermissionDenied)

    def test_shape(self) -> None:
        """86 characters of base64url; reading does not change it."""
        self.assertRegex(self.token, r"^[A-Za-z0-9_-]{86}$")
        self.assertEqual(self.token, self.tunnels.token("tunnel"))

    def test_rotates(self) -> None:
        """A token that was used is replaced before the connection is accepted."""
        self.assert_admitted(self.token)
        self.assertNotEqual(self.token, self.tunnels.token("tunnel"))

    def test_grace(self) -> None:
        """The previous token counts for five seconds more."""
        self.assert_admitted(self.token)
        self.clock.advance(4.9)
        self.assert_admitted(self.token)
        self.clock.advance(0.1)
        self.assert_refused(self.token)

    def test_successor(self) -> None:
        """Once its successor was used the old token does not count, five seconds or not."""
        self.assert_admitted(self.token)
        self.assert_admitted(self.tunnels.token("tunnel"))
        self.assert_refused(self.token)

    def test_grace_keeps_the_successor(self) -> None:
        """Using the previous token does not take the current one from who has read it."""
        self.assert_admitted(self.token)
        current = self.tunnels.token("tunnel")
        self.assert_admitted(self.token)
        self.assert_admitted(current)

    def test_wrong(self) -> None:
        """Wrong, cut, empty and odd tokens are refused and change nothing."""
        for token in ("wrong", self.token[:-1], self.token + "x", "ü\ud800"):
            self.assert_refused(token)
        self.fails(self.tunnels.admit("tunnel", ""), NoToken)
        self.fails(self.tunnels.admit("other", "x"), TunnelNotFound)
        self.assert_admitted(self.token)

    def test_nobody_asked(self) -> None:
        """A tunnel whose token nobody has read admits nobody."""
        self.put("tunnel2")
        self.fails(self.tunnels.admit("tunnel2", "x"), PermissionDenied)

    def test_disabled(self) -> None:
        """The client of a disabled account is refused, and its token stays as it is."""
        self.disabled.add(ALICE)
        self.assert_refused(self.token)
        self.disabled.clear()
        self.assert_admitted(self.token)

    def test_no_writes(self) -> None:
        """A thousand reconnects write nothing to storage."""
        writes = self.storage.writes
        for _ in range(1000):
            self.assert_admitted(self.tunnels.token("tunnel"))
        self.assertEqual(writes, self.storage.writes)


class PortTests(TunnelsCase):
    """TCP ports: stable, one tunnel each, released with the tunnel."""

    def port(self, tunnel_id: str, **change: Any) -> int:
        change.setdefault("tcp_enabled", True)
        return int(self.put(tunnel_id, **change).tcp.port)

    def test_next_free(self) -> None:
        """Without a wish a tunnel gets the next free port, and keeps it."""
        self.assertEqual(20000, self.port("tunnel0"))
        self.assertEqual(20001, self.port("tunnel1"))
        self.assertEqual(20000, self.port("tunnel0", tcp_enabled=False))
        self.assertEqual(20000, self.port("tunnel0"))

    def test_asked(self) -> None:
        """A port that is asked for is given; asking for another one frees the first."""
        self.assertEqual(20002, self.port("tunnel0", tcp_port=20002))
        self.assertEqual(20001, self.port("tunnel0", tcp_port=20001))
        self.assertEqual(20002, self.port("tunnel1", tcp_port=20002))
        self.assertEqual(["20001", "20002"], self.keys("tcp_port"))

    def test_not_enabled(self) -> None:
        """A tunnel without TCP has no port."""
        self.assertEqual(0, self.port("tunnel0", tcp_enabled=None))

    def test_refused(self) -> None:
        """A port out of range, or another tunnel's: the error names field, value and remedy."""
        self.port("tunnel0", tcp_port=20001)
        for port, remedy in ((20001, "choose another"), (80, "20000 to 20002")):
            change = Change(tcp_enabled=True, tcp_port=port)
            text = self.fails(self.tunnels.put("tunnel1", ALICE, change), BadInput)
            self.assertIn(f'"ingress.tcp.port" with value {port}', text)
            self.assertIn(remedy, text)
        self.fails(self.tunnels.get("tunnel1"), TunnelNotFound)

    def test_all_taken(self) -> None:
        """When no port is left the error says so; a removed tunnel frees one."""
        for n in range(3):
            self.port(f"tunnel{n}")
        text = self.fails(self.tunnels.put("tunnel3", ALICE, Change(tcp_enabled=True)), BadInput)
        self.assertIn("all ports from 20000 to 20002", text)
        self.done(self.tunnels.delete("tunnel1", ALICE))
        self.assertEqual(20001, self.port("tunnel3"))

    def test_at_the_same_time(self) -> None:
        """Tunnels that ask at the same time get different ports."""
        self.storage.hold()
        work = [
            Deferred.fromCoroutine(self.tunnels.put(f"tunnel{n}", ALICE, Change(tcp_enabled=True)))
            for n in range(3)
        ]
        self.storage.release()
        ports = [tunnel.tcp.port for tunnel in self.successResultOf(gatherResults(work))]
        self.assertEqual([20000, 20001, 20002], sorted(ports))

    def test_restart(self) -> None:
        """A restart does not change the ports."""
        self.port("tunnel0", tcp_port=20001)
        self.tunnels = self.make()
        self.assertEqual(20001, self.done(self.tunnels.start())[0].tcp.port)
        self.assertEqual(20000, self.port("tunnel1"))

    def test_new_range(self) -> None:
        """A tunnel whose port is out of a new range gets another one when TCP is enabled anew."""
        self.port("tunnel0")
        self.tunnels = self.make(tcp_ports=(30000, 30001))
        self.assertEqual(30000, self.port("tunnel0"))


class ExpiryTests(TunnelsCase):
    """Tunnels that nobody connects to."""

    def setUp(self) -> None:
        super().setUp()
        self.tunnels = self.make(expire=100.0)
        self.connected: set[str] = set()

    def expire(self) -> Any:
        return self.done(self.tunnels.expire(self.connected.__contains__))

    def test_never(self) -> None:
        """Without the option nothing is removed."""
        self.tunnels = self.make()
        self.put("tunnel")
        self.clock.advance(1e9)
        self.assertEqual([], self.expire())

    def test_never_connected(self) -> None:
        """A tunnel that was never connected goes when its time is over."""
        self.put("tunnel", tcp_enabled=True)
        self.clock.advance(99)
        self.assertEqual([], self.expire())
        self.clock.advance(1)
        self.assertEqual(["tunnel"], self.expire())
        self.assertEqual(([], []), (self.keys("tunnel"), self.keys("tcp_port")))
        self.assertEqual("tunnel", self.changes[-1][0])

    def test_connected(self) -> None:
        """A connected tunnel stays; its time runs from the last look at its connection."""
        self.put("tunnel")
        self.connected.add("tunnel")
        self.clock.advance(1000)
        self.assertEqual([], self.expire())
        self.connected.clear()
        self.clock.advance(99)
        self.assertEqual([], self.expire())
        self.clock.advance(1)
        self.assertEqual(["tunnel"], self.expire())

    def test_being_connected(self) -> None:
        """A client that was just admitted keeps its tunnel."""
        self.put("tunnel")
        self.clock.advance(100)
        self.done(self.tunnels.admit("tunnel", self.tunnels.token("tunnel")))
        self.assertEqual([], self.expire())

    def test_restart(self) -> None:
        """The time runs on over a restart."""
        self.put("tunnel")
        self.clock.advance(70)
        self.tunnels = self.make(expire=100.0)
        self.clock.advance(60)
        self.assertEqual(["tunnel"], self.expire())

    def test_return(self) -> None:
        """After a long stop clients get a minute to come back first."""
        self.put("tunnel")
        self.clock.advance(10_000)
        self.tunnels = self.make(expire=100.0)
        self.assertEqual([], self.expire())
        self.clock.advance(59)
        self.assertEqual([], self.expire())
        self.clock.advance(1)
        self.assertEqual(["tunnel"], self.expire())

    def test_connected_before_restart(self) -> None:
        """A tunnel that was connected until the restart has its whole time from there."""
        self.put("tunnel")
        self.connected.add("tunnel")
        for _ in range(200):
            self.clock.advance(1)
            self.expire()
        self.connected.clear()
        self.tunnels = self.make(expire=100.0)
        self.clock.advance(99)
        self.assertEqual([], self.expire())
        self.clock.advance(15)
        self.assertEqual(["tunnel"], self.expire())

    def test_few_writes(self) -> None:
        """Looking at connected tunnels writes at most ten times in their time to expiry."""
        self.put("tunnel")
        self.connected.add("tunnel")
        writes = self.storage.writes
        for _ in range(100):
            self.clock.advance(1)
            self.expire()
        self.assertLessEqual(self.storage.writes - writes, 10)


class _Slow(MemoryStorage):
    """A store that answers later, counts writes, and can fail.

    :ivar down: nothing works.
    :ivar crash_after: so many writes work, then nothing does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] | None = None
        self.writes = 0
        self.down = False
        self.crash_after: int | None = None

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        while self.held:
            self.held.pop(0)()
        self.held = None

    def _later(self, answer: Deferred[Any]) -> Deferred[Any]:
        if self.down or self.crash_after == -1:
            answer.addErrback(lambda _: None)
            return fail(StorageUnavailable("down"))
        if self.held is None:
            return answer
        waiting: Deferred[Any] = Deferred()
        self.held.append(lambda: answer.chainDeferred(waiting))
        return waiting

    def _writing(self) -> bool:
        self.writes += 1
        if self.crash_after is not None and self.crash_after >= 0:
            self.crash_after -= 1
        return not self.down and self.crash_after != -1

    def get(self, table: str, key: str) -> Deferred[Record | None]:
        return self._later(super().get(table, key))

    def put(self, table: str, key: str, value: Any, version: int | None) -> Deferred[int]:
        if not self._writing():
            return fail(StorageUnavailable("down"))
        return self._later(super().put(table, key, value, version))

    def delete(self, table: str, key: str, version: int | None) -> Deferred[bool]:
        if not self._writing():
            return fail(StorageUnavailable("down"))
        return self._later(super().delete(table, key, version))
