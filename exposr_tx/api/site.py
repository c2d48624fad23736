"""A Klein application as a Site that says no more than it must.

No ``Server`` field, no log line per request, no HTML; paths in any case and
with a slash at the end; whatever the application does not know is 404.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from klein import Klein
from twisted.web.resource import Resource

from exposr_tx.api.answers import send_error, send_text
from exposr_tx.quiet import QuietSite, is_plain

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

__all__ = ["ApiSite"]

#: Which segment of a path is a name: ``/v1/tunnel/NAME/disconnect``. The others are ours.
NAME = 2


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
        if not (request.method.isascii() and all(map(is_plain, segments))):
            return send_text(request, 404)
        return self._routes.render(request)


class ApiSite(QuietSite):
    """The Site of an application. :param timeout: seconds of idleness, or None."""

    def __init__(self, app: Klein, reactor: IReactorTime, timeout: float | None) -> None:
        app.handle_errors(Exception)(cast(Any, send_error))
        super().__init__(_Root(app), reactor, timeout)
