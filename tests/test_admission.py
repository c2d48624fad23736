"""Which clients are let in."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from exposr_tx.admission import Admission
from exposr_tx.api import FailedCredentials
from exposr_tx.errors import (
    PermissionDenied,
    StorageUnavailable,
    TooManyFailures,
    TunnelNotFound,
)
from exposr_tx.interfaces import IAdmission, Origin
from exposr_tx.routing import Switchboard
from exposr_tx.storage.memory import MemoryStorage
from exposr_tx.tunnels import Change, Tunnels


class AdmissionTests(SynchronousTestCase):
    """Which clients are let in."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.active = True
        self.broken = False

        async def is_active(_account: str) -> bool:
            if self.broken:
                raise StorageUnavailable("no disk")
            return self.active

        self.tunnels = Tunnels(MemoryStorage(), self.clock.seconds, is_active)
        making = self.tunnels.put("demo", "ACCOUNT", Change())
        self.successResultOf(Deferred.fromCoroutine(making))
        switchboard = Switchboard(self.clock, self.clock.seconds, 2, "refuse")
        self.failures = FailedCredentials(self.clock.seconds, limit=3)
        self.admission = Admission(self.tunnels, switchboard, self.failures)
        verifyObject(IAdmission, self.admission)

    def admit(self, token: str, tunnel: str = "demo", peer: str = "192.0.2.7") -> Deferred[None]:
        return self.admission.admit(tunnel, token, Origin("api", IPv4Address("TCP", peer, 4711)))

    def good(self, peer: str = "192.0.2.7") -> Deferred[None]:
        return self.admit(self.tunnels.token("demo"), peer=peer)

    def test_shut_out(self) -> None:
        """Wrong tokens, tunnels and accounts are counted, and shut their address out for a
        while, even with a good token; not another address. The operator is told once."""
        logged: list[Any] = []
        observer: Any = logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.successResultOf(self.good())
        self.failureResultOf(self.admit("bad"), PermissionDenied)
        self.failureResultOf(self.admit("bad", "none"), TunnelNotFound)
        self.active = False
        self.failureResultOf(self.good(), PermissionDenied)
        self.active = True
        refused = self.failureResultOf(self.good(), TooManyFailures)
        self.assertEqual((refused.value.status, refused.value.retry_after), (429, 60))
        said = [e for e in logged if e.get("event") == "credentials-limited"]
        self.assertEqual([(e["address"], e["count"]) for e in said], [("192.0.2.7", 3)])
        self.successResultOf(self.good(peer="192.0.2.8"))
        self.clock.advance(60)
        self.successResultOf(self.good())

    def test_counted_with_accounts(self) -> None:
        """Wrong accounts at the API and wrong tokens here are one count."""
        for _ in range(3):
            self.failures.count(IPv4Address("TCP", "192.0.2.7", 1))
        self.failureResultOf(self.good(), TooManyFailures)

    def test_our_own_faults(self) -> None:
        """A storage that does not answer is nobody's wrong token."""
        self.broken = True
        for _ in range(5):
            self.failureResultOf(self.good(), StorageUnavailable)
        self.broken = False
        self.successResultOf(self.good())
