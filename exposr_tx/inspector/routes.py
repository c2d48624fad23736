"""What can be asked of the inspector: the JSON for the page and for ``exposr logs``."""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, cast

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

import exposr_tx
from exposr_tx.errors import BadInput, ExposrError
from exposr_tx.inspection.decoding import MAX_DECODED, bytes_of, field_text
from exposr_tx.inspection.exchanges import Exchange, RequestHead, State
from exposr_tx.inspection.har import archive
from exposr_tx.inspection.redaction import Redaction
from exposr_tx.inspection.replays import Edit
from exposr_tx.inspection.ring import Ring
from exposr_tx.inspector.answers import keep_as, send, send_bytes, send_error, send_json
from exposr_tx.inspector.curl import curl
from exposr_tx.inspector.download import Download
from exposr_tx.inspector.feed import Feed
from exposr_tx.inspector.views import detail, frames, matches, summary

if TYPE_CHECKING:
    from twisted.web.server import Request

__all__ = ["Replay", "Routes"]

#: Bytes that are looked through before what passes through the tunnel gets its turn.
AT_ONCE = 4 * 1024 * 1024
#: What ``?secrets=show`` asks for.
SHOWN = Redaction((), ())


class NoExchange(ExposrError):
    """There is no such exchange, or it is kept no more."""

    code, status = "NO_SUCH_EXCHANGE", 404


class Replay(Protocol):
    """Sends requests again."""

    def tunnels(self) -> list[str]:
        """Names of the tunnels whose requests it can send."""

    async def replay(self, exchange: Exchange, edit: Edit | None) -> Exchange:
        """Send a request to where it went; the new exchange, as soon as it has begun.

        :raises ExposrError: NotReplayable, BadInput or TargetFailed.
        """


class Routes:
    """What can be asked for. The guard has let the request in.

    :param redaction: what is left out where ``?secrets=show`` is not given.
    """

    def __init__(
        self,
        ring: Ring,
        replay: Replay,
        redaction: Redaction,
        clock: Any,
    ) -> None:
        self._ring = ring
        self._replay = replay
        self._redaction = redaction
        self._clock = clock
        self._feeds: set[Feed] = set()

    def app(self) -> Klein:
        app = Klein()
        one = "/api/exchanges/<name>"
        for method, path, serve in (
            ("GET", "/api/about", self.about),
            ("GET", "/api/events", self.events),
            ("GET", "/api/exchanges", self.list),
            ("DELETE", "/api/exchanges", self.clear),
            ("GET", one, self.one),
            ("GET", f"{one}/frames", self.frames),
            ("GET", f"{one}/request", self.raw),
            ("GET", f"{one}/curl", self.curl),
            ("GET", f"{one}/har", self.har),
            ("GET", "/api/har", self.all_har),
            ("GET", f"{one}/<which>-body", self.body),
            ("POST", "/api/replay", self.replay),
        ):
            app.route(path, methods=[method])(serve)
        app.handle_errors(Exception)(cast(Any, send_error))
        return app

    def close(self) -> None:
        """End what would go on for ever."""
        for feed in list(self._feeds):
            feed.close()

    def about(self, request: Request) -> bytes:
        """The program's version and its tunnels."""
        about = {"version": exposr_tx.__version__, "tunnels": self._replay.tunnels()}
        return send_json(request, about)

    async def events(self, request: Request) -> None:
        """Changes, until the listener goes."""
        feed = Feed(request, self._ring, self._clock, self._summary)
        self._feeds.add(feed)
        try:
            await feed.over
        finally:
            self._feeds.discard(feed)

    async def list(self, request: Request) -> bytes:
        """Summaries, the oldest first; ``?q=`` has words that all must match, ``from=`` the first
        id to look at."""
        words = _argument(request, b"q").lower().split()
        first = _number(request, b"from")
        found = []
        looked = 0
        for exchange in list(self._ring):
            if int(exchange.id) < first:
                continue
            if matches(exchange, words):
                found.append(self._summary(exchange))
            # What is decoded for it may be so much longer.
            looked += exchange.size + 2 * MAX_DECODED if words else 0
            if looked > AT_ONCE:
                looked = 0
                await deferLater(self._clock, 0, lambda: None)
        return send_json(request, {"exchanges": found, "dropped": self._ring.dropped})

    def clear(self, request: Request) -> bytes:
        """Forget all."""
        self._ring.clear()
        return send_json(request, {})

    def one(self, request: Request, name: str) -> bytes:
        """All of one but the messages of its websocket."""
        return send_json(request, detail(self._exchange(name), self._wanted(request)))

    def frames(self, request: Request, name: str) -> bytes:
        """Messages of a websocket, from number ``?after=`` on."""
        after = _number(request, b"after")
        shown = frames(self._exchange(name), self._wanted(request), after)
        return send_json(request, shown)

    def raw(self, request: Request, name: str) -> bytes:
        """The request's bytes as the target got them."""
        exchange = self._exchange(name)
        return send_bytes(
            request, exchange.request.raw + exchange.request_wire.data, f"{name}.http"
        )

    def body(self, request: Request, name: str, which: str) -> bytes:
        """The bytes of a body that were kept."""
        exchange = self._exchange(name)
        bodies = {"request": exchange.request_body, "response": exchange.response_body}
        if which not in bodies:
            raise NoExchange(f"{which}-body: is request-body or response-body")
        return send_bytes(request, bodies[which].data, f"{name}-{which}.bin")

    def curl(self, request: Request, name: str) -> bytes:
        """A line for a shell that sends the same request."""
        if not self._exchange(name).request.method:
            raise BadInput(f"exchange {name}: does not parse as a request")
        return send(request, 200, b"text/plain; charset=utf-8", curl(self._exchange(name)).encode())

    def har(self, request: Request, name: str) -> bytes:
        """A HAR file of one."""
        data = archive([self._exchange(name)], self._wanted(request))
        return send_bytes(request, data, f"exposr-{name}.har")

    async def all_har(self, request: Request) -> None:
        """A HAR file of all."""
        keep_as(request, "exposr.har")
        await Download(request, list(self._ring), self._wanted(request), self._clock).over

    async def replay(self, request: Request) -> bytes:
        """``{"id": …, "edited": {…}, "wait": true}``: 201 with the new exchange's summary."""
        asked = _object(request)
        name = asked.get("id")
        if not isinstance(name, str):
            raise BadInput('"id": must be the id of an exchange')
        edited = asked.get("edited")
        exchange = self._exchange(name)
        edit = None if edited is None else _edit(edited, exchange.request)
        made = await self._replay.replay(exchange, edit)
        if asked.get("wait") is True:
            await self._ended(made)
        return send_json(request, self._summary(made), 201)

    def _summary(self, exchange: Exchange) -> dict[str, Any]:
        return summary(exchange, self._redaction)

    def _wanted(self, request: Request) -> Redaction:
        return SHOWN if _argument(request, b"secrets") == "show" else self._redaction

    async def _ended(self, exchange: Exchange) -> None:
        while exchange.state is State.RUNNING and exchange.id in self._ring:
            woken: Deferred[None] = Deferred()
            subscription = self._ring.subscribe(lambda: woken.callback(None))  # noqa: B023
            try:
                await woken
            finally:
                subscription.close()

    def _exchange(self, name: str) -> Exchange:
        try:
            return self._ring[name]
        except KeyError:
            raise NoExchange(
                f"exchange {name!r}: there is none, or it is not kept any more"
            ) from None


def _argument(request: Request, name: bytes) -> str:
    value: bytes = (request.args or {}).get(name, [b""])[0]
    return value.decode("utf-8", "replace")


def _number(request: Request, name: bytes) -> int:
    text = _argument(request, name)
    return int(text[:18]) if text.isdecimal() else 0


def _object(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(request.content.read() if request.content else b"")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object")
    return value


def _edit(given: Any, request: RequestHead) -> Edit:
    """Read ``{"method", "target", "headers": [[name, value] …], "body" or "body_base64"}``.

    :param request: what is edited; its fields keep their bytes where they are the same to read.
    """
    if not isinstance(given, dict):
        raise BadInput('"edited": must be an object')
    unknown = sorted(set(given) - {"method", "target", "headers", "body", "body_base64"})
    if unknown:
        raise BadInput(f'"edited": has no {unknown[0]!r}')
    for name in ("method", "target", "body", "body_base64"):
        if not isinstance(given.get(name, ""), str):
            raise BadInput(f'"edited": {name!r} must be a string')
    fields = given.get("headers")
    if fields is not None:
        known = {tuple(map(field_text, pair)): pair for pair in request.fields}
        try:
            fields = tuple(
                known.get((name, value)) or (name.encode("utf-8"), value.encode("utf-8"))
                for name, value in fields
            )
        except (TypeError, ValueError, AttributeError):
            raise BadInput('"edited": "headers" must be a list of [name, value]') from None
    body = None
    if "body" in given:
        kind = _content_type(request.fields if fields is None else fields)
        try:
            body = bytes_of(given["body"], kind)
        except UnicodeEncodeError:
            raise BadInput(f'"edited": "body" cannot be written as {kind!r}') from None
    if "body_base64" in given:
        try:
            body = b64decode(given["body_base64"], validate=True)
        except NotBase64:
            raise BadInput('"edited": "body_base64" is not base64') from None
    return Edit(given.get("method"), given.get("target"), fields, body)


def _content_type(fields: Iterable[tuple[bytes, bytes]]) -> str:
    kinds = (field_text(value) for name, value in fields if name.lower() == b"content-type")
    return next(kinds, "")
