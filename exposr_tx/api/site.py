"""A Klein application as a Site that says no more than it must.

No ``Server`` field, no log line per request, no HTML; paths in any case and
with a slash at the end; whatever the application does not know is 404.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from klein import Klein
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from exposr_tx.api.answers import send_error, send_text

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["QuietSite"]

#: Which segment of a path is a name: ``/v1/tunnel/NAME/disconnect``. The others are ours.
NAME = 2


class _Request(Request):
    """A request whose path is always routed, and whose Host never is."""

    defaultContentType = None

    def process(self) -> None:
        if self.path == b"*":  # twisted.web answers OPTIONS * itself
            self.path = b"/*"
        super().process()

    def getRequestHostname(self) -> bytes:
        """The same for all: werkzeug would refuse hosts that IDNA does not know. Ingress has
        looked at the host; the API has one set of routes."""
        return b"localhost"


class _Root(Resource):
    """Makes a path the way it is written in the routes, then asks Klein."""

    isLeaf = True

    def __init__(self, app: Klein) -> None:
        super().__init__()
        self._routes = app.resource()

    def render(self, request: Request) -> Any:
        request.responseHeaders.removeHeader(b"server")
        segments = request.postpath or []
        if len(segments) > 1 and segments[-1] == b"":
            segments = segments[:-1]
        request.postpath = [
            segment if at == NAME else segment.lower() for at, segment in enumerate(segments)
        ]
        if not (request.method.isascii() and all(map(_is_plain, segments))):
            return send_text(request, 404)
        return self._routes.render(request)


class QuietSite(Site):
    """The Site of an application. :param timeout: seconds of idleness, or None."""

    noisy = False

    def __init__(self, app: Klein, reactor: IReactorTime, timeout: float | None) -> None:
        app.handle_errors(Exception)(cast(Any, send_error))
        super().__init__(
            _Root(app),
            requestFactory=_Request,
            parsePOSTFormSubmission=False,
            timeout=timeout,
            reactor=reactor,
        )

    def startFactory(self) -> None:
        """Without twisted.web's log, and its timer that ticks each second for the log."""

    def log(self, request: HTTPRequest) -> None:
        """Ingress writes the access log."""


def _is_plain(segment: bytes) -> bool:
    """Whether a decoded segment of a path is one segment of text."""
    try:
        return bool(segment) and b"/" not in segment and bool(segment.decode("utf-8"))
    except UnicodeDecodeError:
        return False
