"""An Open Policy Agent that is asked: what it gets, and what its answers mean."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from OpenSSL.SSL import Error as TLSError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import TransportProxyProducer
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from exposr_tx.interfaces import Decision, IPolicy
from exposr_tx.policy.remote import LOOK, MAX_ANSWER, MAX_CONNECTIONS, RemotePolicies, agent
from exposr_tx.policy.token import TokenFile
from tests.policy.folder import question

BUDGET = 0.05
ALLOW = b'{"result":{"allow":true,"other":1}}'


class Response:
    """An answer of the agent's.

    :ivar end: why its body has ended; None while it has not.
    :ivar connection: where it comes by.
    """

    def __init__(self, data: bytes, code: int = 200, end: Any = ResponseDone) -> None:
        self.data, self.code, self.end = data, code, end
        self.connection = StringTransport()

    def deliverBody(self, protocol: Any) -> None:
        # As Twisted's: not all that a connection can is offered.
        protocol.makeConnection(TransportProxyProducer(self.connection))
        for at in range(0, len(self.data), 20000):
            protocol.dataReceived(self.data[at : at + 20000])
        if self.end is not None:
            protocol.connectionLost(Failure(self.end()))


@implementer(IAgent)
class Web:
    """Keeps requests; what they are answered with comes from the test.

    :ivar cut: what becomes of a request that is cancelled.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, dict[str, Any]]] = []
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0
        self.cut: type[ResponseFailed] = ResponseNeverReceived

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Any:
        body = StringTransport()
        bodyProducer.startProducing(body)
        self.requests.append((method, uri, json.loads(body.value())))
        self.headers = headers
        self.waiting.append(Deferred(self._cancel))
        return self.waiting[-1]

    def _cancel(self, deferred: Deferred[Any]) -> None:
        # As Twisted's does where the request has been sent.
        self.cancelled += 1
        deferred.errback(self.cut([Failure(CancelledError())]))


class RemoteTests(SynchronousTestCase):
    """On a clock."""

    def setUp(self) -> None:
        self.clock, self.web = Clock(), Web()
        self.policies = self.made()

    def made(self, keep: float = 0.0, token: TokenFile | None = None) -> RemotePolicies:
        return RemotePolicies(
            "http://opa.test/v1/data/",
            self.web,
            lambda: None,
            self.clock,
            lambda: 1.5,
            BUDGET,
            keep,
            ("tunnels.office",),
            token,
        )

    def ask(self, package: str = "auth.server", **changed: Any) -> Deferred[Decision]:
        asked = self.policies.decide(package, question(**changed))
        assert isinstance(asked, Deferred)
        return asked

    def decided(self, *answer: Any) -> Decision:
        """What becomes of an answer."""
        asked = self.ask()
        self.web.waiting[-1].callback(Response(*answer))
        return self.successResultOf(asked)

    def test_asked(self) -> None:
        """A package's document is asked for, with all fields of the input."""
        self.assertTrue(verifyObject(IPolicy, self.policies))
        self.ask("tunnels.office")
        ((method, url, body),) = self.web.requests
        self.assertEqual((method, url), (b"POST", b"http://opa.test/v1/data/tunnels/office"))
        given = body["input"]
        self.assertEqual(
            (given["method"], given["path"], given["remote"], given["time"]),
            ("GET", "/a b", "198.51.100.7:40112", 1_500_000_000),
        )
        self.assertEqual(given["headers"]["x-role"], ["user", "admin"])
        self.assertNotIn("within", given)

    def test_table(self) -> None:
        """The rows of the decision table, and whatever else an agent may answer."""
        for data, outcome in (
            (ALLOW, "allowed"),
            (b'{"result":{"allow":false}}', "denied"),
            (b'{"result":{}}', "denied"),
            (b"{}", "undefined"),
            (b'{"result":{"allow":"true"}}', "error"),
            (b'{"result":{"allow":{"allow":false,"status":1e999}}}', "error"),
            (b'{"result":{"allow":{"allow":false,"status":NaN}}}', "error"),
            (b'{"result":true}', "error"),
            (b'{"result":null}', "error"),
            (b"[]", "error"),
            (b"", "error"),
            (b"<html>", "error"),
            (b"\xff", "error"),
            (b"[" * 60000, "error"),
        ):
            self.assertEqual(self.decided(data).outcome, outcome, data[:60])

    def test_object(self) -> None:
        """An object says how a request is denied."""
        data = {"result": {"allow": {"allow": False, "status": 402, "reason": "pay"}}}
        decision = self.decided(json.dumps(data).encode())
        self.assertEqual((decision.status, decision.reason), (402, "pay"))

    def test_broken(self) -> None:
        """Another status than 200, a body that is cut short or too long: denied."""
        self.assertEqual(self.decided(ALLOW, 500).outcome, "error")
        self.assertEqual(self.decided(ALLOW, 302).outcome, "error")
        self.assertEqual(self.decided(ALLOW, 200, PotentialDataLoss).outcome, "error")
        self.assertEqual(self.decided(ALLOW + b" " * MAX_ANSWER).outcome, "error")
        self.assertEqual(self.policies.counts.by_outcome["error"], 4)

    def test_too_long(self) -> None:
        """An answer without end is not read to it."""
        asked = self.ask()
        endless = Response(ALLOW + b" " * MAX_ANSWER, 200, None)
        self.web.waiting[-1].callback(endless)
        self.assertTrue(endless.connection.disconnecting)
        self.clock.advance(BUDGET)
        self.assertEqual(self.successResultOf(asked).outcome, "timeout")

    def test_late(self) -> None:
        """What has no answer in time is denied, and is not asked again."""
        asked = self.ask()
        self.clock.advance(BUDGET)
        self.assertEqual(self.successResultOf(asked).outcome, "timeout")
        self.assertEqual((len(self.web.requests), self.web.cancelled), (1, 1))
        self.web.cut = ResponseFailed  # of its head something has come
        asked = self.ask()
        self.clock.advance(BUDGET)
        self.assertEqual(self.successResultOf(asked).outcome, "timeout")
        body, begun = self.ask(), Response(b"{", 200, None)
        self.web.waiting[-1].callback(begun)
        self.clock.advance(BUDGET)
        self.assertEqual(self.successResultOf(body).outcome, "timeout")
        self.assertTrue(begun.connection.disconnecting)

    def test_unreachable(self) -> None:
        """An agent that cannot be reached denies; nothing of the request is in the log."""
        asked = self.ask()
        self.web.waiting[-1].errback(OSError("secret"))
        self.assertEqual(self.successResultOf(asked).outcome, "error")

    def test_unbelieved(self) -> None:
        """A certificate that is not believed is told as such, with what to do."""
        asked, reason = self.ask(), Failure(TLSError([("SSL", "", "certificate verify failed")]))
        with capturedLogs() as events:
            for _ in range(2):
                self.web.waiting[-1].errback(ResponseNeverReceived([reason]))
        self.assertEqual(self.successResultOf(asked).outcome, "error")
        line = formatEvent(events[0])
        self.assertIn("TLS fails, certificate verify failed; SSL_CERT_FILE", line)

    def test_refused(self) -> None:
        """Where no agent listens, that is told within the time that there is to decide."""
        reactor = MemoryReactorClock()
        web, _ = agent(reactor, BUDGET)
        policies = RemotePolicies(
            "http://127.0.0.1:8181/v1/data", web, lambda: None, reactor, lambda: 0.0, BUDGET
        )
        asked: Any = policies.decide("auth.server", question())
        connecting: Any = reactor.tcpClients[0][2]
        connecting.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        reactor.pump([BUDGET / 10] * 9)
        self.assertEqual(self.successResultOf(asked).outcome, "error")

    def test_asked_again(self) -> None:
        """A connection that was closed just now is no reason to deny; a second one is."""
        asked = self.ask()
        self.web.waiting[-1].errback(ResponseNeverReceived([]))
        self.web.waiting[-1].callback(Response(ALLOW))
        self.assertTrue(self.successResultOf(asked).allow)
        asked = self.ask()
        for _ in range(2):
            self.web.waiting[-1].errback(ResponseNeverReceived([]))
        self.assertEqual(self.successResultOf(asked).outcome, "error")

    def test_visitor_leaves(self) -> None:
        """Who leaves is not asked for any more."""
        asked = self.ask()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual((self.web.cancelled, self.clock.getDelayedCalls()), (1, []))

    def test_bounded(self) -> None:
        """So many are asked at once; the others wait, and are late if it takes too long."""
        asked = [self.ask() for _ in range(MAX_CONNECTIONS + 2)]
        self.assertEqual(len(self.web.requests), MAX_CONNECTIONS)
        self.web.waiting[0].callback(Response(ALLOW))
        self.assertEqual(len(self.web.requests), MAX_CONNECTIONS + 1)
        self.clock.advance(BUDGET)
        self.assertEqual(self.successResultOf(asked[-1]).outcome, "timeout")
        before = len(self.web.requests)
        self.ask()
        self.assertEqual(len(self.web.requests), before + 1)

    def test_token(self) -> None:
        """The agent gets the token that is in its file: the new one soon after a change, the old
        one as long as there is none; the log has neither."""
        path = self.mktemp()
        write = Path(path).write_text
        write("first\n")
        os.chmod(path, 0o644)
        self.policies = self.made(token=TokenFile(path))
        with capturedLogs() as events:
            self.successResultOf(Deferred.fromCoroutine(self.policies.start()))
            self.assertIn("everybody on this machine can read", formatEvent(events[-1]))

            def sent() -> Any:
                self.decided(ALLOW)
                return self.web.headers.getRawHeaders("authorization")

            self.assertEqual(sent(), ["Bearer first"])
            write("second token\n")
            self.clock.advance(LOOK)
            self.assertIn("with the token as before", formatEvent(events[-1]))
            self.assertEqual(sent(), ["Bearer first"])
            write("third\n")
            self.clock.advance(LOOK)
            self.assertEqual(sent(), ["Bearer third"])
            write("fourth\n")
            self.policies.reload()
            self.assertEqual(sent(), ["Bearer fourth"])
            self.assertEqual(self.decided(b"{}", 401).outcome, "error")
        self.assertIn("status 401; it must take the token", formatEvent(events[-1]))
        self.assertNotRegex(
            "".join(map(str, map(formatEvent, events))), "first|second|third|fourth"
        )
        self.policies.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_packages(self) -> None:
        """Only packages that the operator has named are asked for."""
        denied = self.policies.decide("system.log", question())
        assert isinstance(denied, Decision)
        self.assertEqual((denied.outcome, self.web.requests), ("undefined", []))

    def test_kept(self) -> None:
        """Decisions are kept only when that is asked for, for so long, and for the same input."""
        self.decided(ALLOW)
        self.decided(ALLOW)
        self.assertEqual(len(self.web.requests), 2)
        self.policies = self.made(keep=10.0)
        self.decided(ALLOW)
        again = self.policies.decide("auth.server", question(remote_port=1))
        self.assertEqual(again, Decision("allowed"))
        self.ask(method="POST")
        self.assertEqual(len(self.web.requests), 4)
        self.clock.advance(10)
        self.assertEqual(self.decided(b"<html>").outcome, "error")
        self.decided(ALLOW)
        self.assertEqual(len(self.web.requests), 6)
        self.policies.reload()
        self.decided(ALLOW)
        self.assertEqual(len(self.web.requests), 7)
