"""Clients that have no token: the policy is all that keeps strangers out."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from exposr_tx.errors import PolicyDenied, TooManyFailures
from exposr_tx.interfaces import Decision, IPolicy, Origin, Question
from exposr_tx.policy.clients import ClientGuard

PEER = IPv4Address("TCP", "203.0.113.9", 1)
ASKED = Origin("api", PEER, asked=Question("GET", b"/", ()))


@implementer(IPolicy)
class Rule:
    """Answers what it is told to."""

    packages = ()

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.asked: list[tuple[str, str]] = []

    def decide(self, package: str, question: Question) -> Decision | Deferred[Decision]:
        self.asked.append((package, question.tunnel))
        return self.decision


class Failures:
    """Allows one failure."""

    def __init__(self) -> None:
        self.counted: list[IAddress] = []

    def check(self, peer: IAddress) -> None:
        if self.counted:
            raise TooManyFailures(5)

    def count(self, peer: IAddress) -> None:
        self.counted.append(peer)


class ClientGuardTests(SynchronousTestCase):
    """Whether a client may connect."""

    def test_allowed(self) -> None:
        """The package for clients is asked, about the tunnel that they would serve."""
        rule, failures = Rule(Decision("allowed")), Failures()
        guard = ClientGuard(rule, "backstream", failures)
        self.assertIsNone(self.successResultOf(guard.judge(ASKED)))
        self.assertEqual((rule.asked, failures.counted), ([("auth.client", "backstream")], []))

    def test_denied(self) -> None:
        """A denial is the policy's own; that it has no answer is the server's fault."""
        for decision, status in ((Decision("denied", 402, "pay"), 402), (Decision("error"), 500)):
            denied = self.failureResultOf(
                ClientGuard(Rule(decision), "backstream").judge(ASKED), PolicyDenied
            )
            self.assertEqual((denied.value.status, denied.value.detail), (status, decision.reason))

    def test_counted(self) -> None:
        """Denials count as wrong credentials: who has too many is not even asked about."""
        rule, failures = Rule(Decision("denied")), Failures()
        guard = ClientGuard(rule, "backstream", failures)
        self.failureResultOf(guard.judge(ASKED), PolicyDenied)
        self.failureResultOf(guard.judge(ASKED), TooManyFailures)
        self.assertEqual((len(rule.asked), failures.counted), (1, [PEER]))

    def test_nothing_known(self) -> None:
        """Where nothing is known of the request, it is denied."""
        rule = Rule(Decision("allowed"))
        denied = ClientGuard(rule, "backstream").judge(Origin("api", PEER))
        self.assertEqual(self.failureResultOf(denied, PolicyDenied).value.status, 500)
        self.assertEqual(rule.asked, [])
