"""The inspector's Site: its page, and the JSON that the page and ``exposr logs`` ask for."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from klein import Klein
from twisted.web.resource import Resource
from twisted.web.server import Request
from werkzeug.exceptions import NotFound

from exposr_tx.errors import ExposrError
from exposr_tx.inspection.redaction import Redaction
from exposr_tx.inspection.ring import Ring
from exposr_tx.inspector.answers import send, send_problem
from exposr_tx.inspector.guard import Guard
from exposr_tx.inspector.routes import Replay, Routes
from exposr_tx.quiet import QuietRequest, QuietSite, is_plain

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["InspectorSite"]

#: Bytes of a request's body: an edited body, in JSON.
MAX_BODY: Final = 16 * 1024 * 1024
#: Seconds an idle connection is kept.
IDLE_TIMEOUT: Final = 60.0
#: The page's files, by path.
PAGE: Final = {
    b"/": ("index.html", b"text/html; charset=utf-8"),
    b"/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    b"/parts.js": ("parts.js", b"text/javascript; charset=utf-8"),
    b"/page.css": ("page.css", b"text/css; charset=utf-8"),
}
#: Nothing is loaded from elsewhere, nothing in the page itself is run, nobody frames it.
FIELDS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class _Request(QuietRequest):
    """A request whose body is refused before it is read where it is too long."""

    def gotLength(self, length: int | None) -> None:
        if length is None or length > MAX_BODY:
            channel: Any = self.channel
            channel.transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            channel.loseConnection()
        super().gotLength(length)


class _Root(Resource):
    """Asks the guard, then the page's files or Klein."""

    isLeaf = True

    def __init__(self, app: Klein, guard: Guard) -> None:
        super().__init__()
        self._routes = app.resource()
        self._guard = guard

    def render(self, request: Request) -> Any:
        request.responseHeaders.removeHeader(b"server")
        for name, value in FIELDS:
            request.setHeader(name, value)
        path = (request.uri or b"").partition(b"?")[0]
        method = request.method.decode("latin-1")
        port = request.getHost().port
        found = PAGE.get(path) if method in ("GET", "HEAD") else None
        try:
            if found is not None:
                self._guard.check_place(port, request.getHeader)
                file, content_type = found
                data = files("exposr_tx.inspector").joinpath("page", file).read_bytes()
                body = send(request, 200, content_type, data)
                return b"" if method == "HEAD" else body
            self._guard.check(port, method, request.getHeader)
        except ExposrError as problem:
            return send_problem(request, problem)
        if not all(map(is_plain, request.postpath or [])):
            return send_problem(request, NotFound())
        return self._routes.render(request)


class InspectorSite(QuietSite):
    """The Site.

    :param replay: sends requests again, and knows the program's tunnels.
    :param redaction: what is shown only to who asks for secrets.
    """

    def __init__(
        self,
        ring: Ring,
        guard: Guard,
        replay: Replay,
        redaction: Redaction,
        reactor: IReactorTime,
    ) -> None:
        self._shown = Routes(ring, replay, redaction, reactor)
        super().__init__(_Root(self._shown.app(), guard), reactor, IDLE_TIMEOUT, _Request)

    def close(self) -> None:
        """End what would go on for ever."""
        self._shown.close()
