"""Policies of an Open Policy Agent that runs beside the server and is asked over HTTP.

The agent is asked for a package's whole document, ``POST URL/auth/server``, and
of that ``allow`` is read. What it does not answer in time, or not as it should,
is denied. It is asked by Twisted's Agent: nothing is redirected, and no answer is
inflated (treq would inflate what it gets, however large it becomes). Source: OPA's
Data API, "Get a Document (with Input)".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from OpenSSL.SSL import Error as TLSError
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from exposr_tx.bodies import Body, body_of
from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision, IPolicy, Question
from exposr_tx.policy.counts import Counts
from exposr_tx.policy.document import ALL_FIELDS, MAX_KEPT, PASSING, Reading
from exposr_tx.policy.token import TokenFile
from exposr_tx.policy.verdict import DENIED, FAILED, LATE, NO_PACKAGE, verdict

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
    from twisted.web.client import URI
    from twisted.web.iweb import IAgent, IResponse

__all__ = ["MAX_CONNECTIONS", "RemotePolicies", "agent"]

#: Connections to the agent; what is asked beyond them waits for one, within its time.
MAX_CONNECTIONS: Final = 32
#: Bytes of an answer, at most.
MAX_ANSWER: Final = 65536
#: Seconds an idle connection is kept.
IDLE: Final = 60
#: Seconds between the attempts at a name's addresses, and after a refusal. Twisted's 0.3 are more
#: than there are to decide: ``localhost`` would be late wherever ::1 comes first and has no agent,
#: and no refusal would be told as one (tried).
ATTEMPT_DELAY: Final = 0.005
#: Seconds between two looks at the token's file.
LOOK: Final = 2.0


class _Unusable(Exception):
    """The answer is none; the message may be shown."""


def agent(reactor: Any, timeout: float) -> tuple[Agent, HTTPConnectionPool]:
    """What asks, certificates verified by the platform's authorities, and its connections."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = MAX_CONNECTIONS
    pool.cachedConnectionTimeout = IDLE
    return Agent.usingEndpointFactory(reactor, _Endpoints(reactor, max(timeout, 1.0)), pool), pool


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Where an agent is.

    :param timeout: seconds to connect.
    """

    def __init__(self, reactor: Any, timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._trust = BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host, port = uri.host.decode("ascii"), uri.port
        endpoint = HostnameEndpoint(
            self._reactor, host, port, timeout=self._timeout, attemptDelay=ATTEMPT_DELAY
        )
        if uri.scheme != b"https":
            return endpoint
        return wrapClientTLS(self._trust.creatorForNetloc(uri.host, port), endpoint)


@implementer(IPolicy)
class RemotePolicies:
    """An Open Policy Agent.

    :param url: its documents, as ``http://127.0.0.1:8181/v1/data``.
    :param web: asks.
    :param close: lets go of connections.
    :param now: epoch seconds.
    :param budget: seconds that there are to decide.
    :param keep: seconds for which a decision holds for other requests with the same input, time
        and port left out.
    :param packages: what tunnels may choose.
    :param token: what the agent is to know the server by; None where it asks for nothing.

    Raises PolicyInvalid where there is no token in its file.
    """

    log = Logger()

    def __init__(
        self,
        url: str,
        web: IAgent,
        close: Callable[[], object],
        clock: IReactorTime,
        now: Callable[[], float],
        budget: float,
        keep: float = 0.0,
        packages: Collection[str] = (),
        token: TokenFile | None = None,
    ) -> None:
        self.packages = frozenset({"auth.client", "auth.server", *packages})
        self._url = url.rstrip("/")
        self._web = web
        self._close = close
        self._clock = clock
        self._now = now
        self._budget = budget
        self._keep = keep
        self._token = token
        self._headers = _headers(token)
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._reading = Reading([ALL_FIELDS], overlooked=PASSING)
        self._kept: dict[bytes, tuple[float, Decision]] = {}
        self._free = DeferredSemaphore(MAX_CONNECTIONS)
        self.counts = Counts(
            clock,
            error="the Open Policy Agent does not answer as it should",
            timeout=f"the Open Policy Agent did not answer within {budget:g} s",
        )

    def __repr__(self) -> str:
        return f"<RemotePolicies {self._url}>"

    async def start(self) -> None:
        """Warn of what others would see, and look at the token's file from now on."""
        host = self._url.partition("://")[2].partition("/")[0].rpartition(":")[0]
        plain = self._url.startswith("http:")
        if plain and host not in ("127.0.0.1", "localhost", "[::1]"):
            self.log.warn(
                "requests, with credentials and account numbers, go to {url} unencrypted; use "
                "https:, or an Open Policy Agent on this machine",
                event="policy",
                url=self._url,
            )
        if self._token is not None:
            if self._token.is_open:
                self.log.warn(
                    "everybody on this machine can read {path}, which holds a token; chmod o= it",
                    event="policy",
                    path=self._token.path,
                )
            self._looking.start(LOOK, now=False)

    def stop(self) -> None:
        """Let go of the connections."""
        if self._looking.running:
            self._looking.stop()
        self.counts.tell()
        self._close()

    def reload(self) -> None:
        """Forget decisions that were kept, and read the token anew."""
        self.counts.tell()
        self._kept.clear()
        self._read_token()

    def _look(self) -> None:
        if self._token is not None and self._token.changed:
            self._read_token()

    def _read_token(self) -> None:
        if self._token is None:
            return
        try:
            self._headers = _headers(self._token)
        except PolicyInvalid as problem:
            self.log.error(
                "the Open Policy Agent is asked with the token as before: {problem}",
                event="policy",
                problem=str(problem),
            )

    def decide(self, package: str, question: Question) -> Decision | Deferred[Decision]:
        """See IPolicy."""
        if package not in self.packages:
            self.counts.count(NO_PACKAGE, package)
            return NO_PACKAGE
        key = b""
        if self._keep:
            key = self._reading.key(package, question)
            until, kept = self._kept.get(key, (0.0, DENIED))
            if until > self._clock.seconds():
                self.counts.count(kept, package)
                return kept
        document = self._reading.of(question, int(self._now() * 1_000_000_000))
        deciding = Deferred.fromCoroutine(self._ask(package, document))
        deciding.addTimeout(self._budget, self._clock)
        return deciding.addCallbacks(
            self._decided, self._failed, callbackArgs=(package, key), errbackArgs=(package,)
        )

    def _decided(self, decision: Decision, package: str, key: bytes) -> Decision:
        self.counts.count(decision, package)
        if key and decision.outcome in ("allowed", "denied"):
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = (self._clock.seconds() + self._keep, decision)
        return decision

    def _failed(self, failure: Failure, package: str) -> Decision:
        if failure.check(TimeoutError):
            self.counts.count(LATE, package)
            return LATE
        if failure.check(CancelledError):
            failure.raiseException()
        self.counts.count(FAILED, package, f"the Open Policy Agent: {_why(failure)}")
        return FAILED

    async def _ask(self, package: str, document: dict[str, Any]) -> Decision:
        body = json.dumps({"input": document}).encode()
        url = f"{self._url}/{package.replace('.', '/')}".encode("ascii")
        await self._free.acquire()
        try:
            try:
                return await self._asked(url, body)
            except (ResponseNeverReceived, RequestTransmissionFailed):
                # An idle connection that was closed just now. To be asked twice does no harm.
                return await self._asked(url, body)
        finally:
            self._free.release()

    async def _asked(self, url: bytes, body: bytes) -> Decision:
        try:
            response: IResponse = await self._web.request(b"POST", url, self._headers, Body(body))
        except ConnectingCancelledError:
            raise CancelledError from None
        except (ResponseFailed, RequestTransmissionFailed) as problem:
            if any(reason.check(CancelledError) for reason in problem.reasons):
                raise CancelledError from None  # it is over: to be asked again helps nobody
            raise
        try:
            data = await body_of(response, MAX_ANSWER + 1, measured=True)
        except CancelledError:
            raise
        except Exception:
            raise _Unusable("its answer is cut short") from None
        if len(data) > MAX_ANSWER:
            raise _Unusable(f"its answer has more than {MAX_ANSWER} bytes")
        if response.code in (401, 403):
            raise _Unusable(
                f"it answers with status {response.code}; it must take the token in the file that "
                "--policy-token-file names"
            )
        if response.code != 200:
            raise _Unusable(f"it answers with status {response.code}")
        return decision_of(data)


def _headers(token: TokenFile | None) -> Headers:
    """What stands in the head of each question."""
    fields = dict.fromkeys(("Content-Type", "Accept"), "application/json")
    fields["User-Agent"] = "exposr"
    if token is not None:
        fields["Authorization"] = f"Bearer {token.read()}"
    return Headers({name: [value] for name, value in fields.items()})


def _why(failure: Failure) -> str:
    """What a failure says that does not show what is in a request."""
    if failure.check(_Unusable):
        return failure.getErrorMessage()
    last = [failure, *getattr(failure.value, "reasons", [])][-1]
    if last.check(TLSError):
        return f"TLS fails, {_tls_said(last.value)}; SSL_CERT_FILE names authorities to believe"
    return getattr(last.type, "__name__", "?")


def _tls_said(problem: BaseException) -> str:
    said = problem.args[0] if problem.args else ()
    return ", ".join(words[-1] for words in said if words) or "without a word"


def decision_of(data: bytes) -> Decision:
    """What an answer of the agent's means."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise _Unusable("its answer is no JSON") from None
    if not isinstance(answer, dict):
        raise _Unusable("its answer is no object")
    if "result" not in answer:
        return NO_PACKAGE
    document = answer["result"]
    if not isinstance(document, dict):
        raise _Unusable("its result is no package's document; the URL must end with /v1/data")
    return verdict(document["allow"]) if "allow" in document else DENIED
