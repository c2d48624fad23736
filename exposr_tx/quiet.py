"""A twisted.web Site that says no more than it must, for the API and for the inspector.

No log line per request, no answer of twisted.web's own; whose resource it is takes the ``Server``
field away, which twisted.web sets before it asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, AnyStr

from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["QuietRequest", "QuietSite", "is_plain"]


class QuietRequest(Request):
    """A request whose path is always routed, and whose Host never is."""

    defaultContentType = None

    def process(self) -> None:
        if self.path == b"*":  # twisted.web answers OPTIONS * itself
            self.path = b"/*"
        super().process()

    def getHeader(self, key: AnyStr) -> AnyStr | None:
        """The last value of a field. As text it may have any bytes; twisted.web wants UTF-8."""
        if isinstance(key, bytes):
            return super().getHeader(key)
        value = super().getHeader(key.encode("ascii"))
        return None if value is None else value.decode("utf-8", "replace")

    def getRequestHostname(self) -> bytes:
        """The same for all: werkzeug would refuse hosts that IDNA does not know. Whoever stands
        before the routes has looked at the host; there is one set of them."""
        return b"localhost"


class QuietSite(Site):
    """The Site of a resource.

    :param timeout: seconds of idleness, or None.
    :param request: makes its requests.
    """

    noisy = False

    def __init__(
        self,
        resource: Resource,
        reactor: IReactorTime,
        timeout: float | None,
        request: Any = QuietRequest,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=request,
            parsePOSTFormSubmission=False,
            timeout=timeout,
            reactor=reactor,
        )

    def startFactory(self) -> None:
        """Without twisted.web's log, and its timer that ticks each second for the log."""

    def log(self, request: HTTPRequest) -> None:
        """Nothing: ingress writes the access log, and the inspector needs none."""


def is_plain(segment: bytes) -> bool:
    """Whether a decoded segment of a path is one segment of text."""
    try:
        return bool(segment) and b"/" not in segment and bool(segment.decode("utf-8"))
    except UnicodeDecodeError:
        return False
