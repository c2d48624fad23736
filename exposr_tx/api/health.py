"""The admin port: ``/ping`` says that the process runs, ``/health`` that it wants requests.

A balancer asks ``/health``; it is 503 while the server starts and from the
moment it begins to drain. ``/health?verbose`` tells an operator more. Facts:
contract "Admin port".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from klein import Klein

from exposr_tx.api.answers import send_json, send_text
from exposr_tx.api.site import ApiSite

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

__all__ = ["Health", "admin_site"]

#: Seconds an idle connection to the admin port is kept.
IDLE_TIMEOUT = 60.0


class Health:
    """What the server tells balancers. ``reason`` is empty when all is well.

    :ivar details: what ``?verbose`` adds, by name.
    """

    def __init__(self) -> None:
        self.reason = "starting"
        self.details: dict[str, Callable[[], object]] = {}

    def __repr__(self) -> str:
        return f"<Health {self.reason or 'ready'}>"

    def ready(self) -> None:
        """The server listens, and wants requests."""
        self.reason = ""

    def draining(self) -> None:
        """The server is about to stop."""
        self.reason = "draining"


def admin_site(health: Health, reactor: IReactorTime) -> ApiSite:
    """The Site for the admin port."""

    def ping(request: Request) -> bytes:
        return send_text(request, 200)

    def ask(request: Request) -> bytes:
        more: dict[str, object] = {}
        if b"verbose" in request.uri.partition(b"?")[2]:
            more = {name: tell() for name, tell in health.details.items()}
        if health.reason:
            answer = {"status": "unavailable", "reason": health.reason}
            return send_json(request, 503, answer | more)
        return send_json(request, 200, {"status": "ok"} | more)

    app = Klein()
    app.route("/ping", methods=["GET"])(ping)
    app.route("/health", methods=["GET"])(ask)
    return ApiSite(app, reactor, IDLE_TIMEOUT)
