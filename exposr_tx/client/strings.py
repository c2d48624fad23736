r"""``exposr:`` in endpoint strings, for the ``--listen`` of any Twisted program.

::

    exposr:TUNNEL[:server=https\://host][:account-file=PATH][:kind=http|tcp][:share=yes|no]

Twisted finds these functions by the names in ``twisted/plugins/exposr_plugin.py``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from zope.interface import implementer

from exposr_tx.client.access import Access
from exposr_tx.client.listening import PublicEndpoint
from exposr_tx.client.sharing import SharedConnections
from exposr_tx.errors import BadInput, ExposrError
from exposr_tx.option_values import shown, url

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

__all__ = ["BadEndpointString", "TunnelIsPublic", "client_endpoint", "server_endpoint"]

SYNTAX = r"exposr:TUNNEL[:server=https\://host][:account-file=PATH][:kind=http|tcp][:share=yes|no]"
KEYS = ("server", "account-file", "kind", "share")
#: What the strings of one program share, who have nothing in common but their reactor.
_shared: WeakKeyDictionary[Any, SharedConnections] = WeakKeyDictionary()
#: What an address begins with that was cut at its colon.
SLASHES = "//"


class BadEndpointString(BadInput, ValueError):
    """An ``exposr:`` endpoint string is not complete, or holds something wrong."""


def server_endpoint(
    reactor: Any, *arguments: str, environ: Mapping[str, str] | None = None, **values: str
) -> PublicEndpoint:
    """The endpoint that a string stands for.

    :param arguments: what stood between colons, without ``exposr`` itself.
    :param values: what had a name there.
    :param environ: the process's, unless given.

    Raises BadEndpointString, which is a ValueError too.
    """
    tunnel_id, *more = arguments or ("",)
    if more:
        _too_many(tunnel_id, more, values)
    for name in values:
        if name not in KEYS:
            raise _bad(f"{name!r} is unknown; write it like {SYNTAX}")
    _check_server(tunnel_id, values)
    share = values.get("share", "no")
    if share not in ("yes", "no"):
        raise _bad(f"share {share!r}: must be yes or no")
    try:
        access = Access.find(
            os.environ if environ is None else environ,
            server=values.get("server", ""),
            account_file=values.get("account-file", ""),
        )
        return PublicEndpoint(
            reactor,
            access,
            tunnel_id,
            values.get("kind", "http"),
            share=_shared.setdefault(reactor, SharedConnections()) if share == "yes" else None,
        )
    except BadInput as error:
        raise _bad(f"{error} (the form is {SYNTAX})") from None


class TunnelIsPublic(ExposrError):
    """Nothing can be connected to by ``exposr:``: tunnels have public addresses."""


@implementer(IStreamClientEndpoint)
class NoClientEndpoint:
    """What ``exposr:`` stands for where a program connects."""

    def __init__(self, tunnel_id: str) -> None:
        self._tunnel_id = tunnel_id

    def __repr__(self) -> str:
        return f"<NoClientEndpoint {self._tunnel_id}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Errbacks with TunnelIsPublic."""
        name = self._tunnel_id or "NAME"
        return fail(
            TunnelIsPublic(
                f"exposr:{name} can be listened at, but there are no private tunnels to connect "
                f"to; use the tunnel's public address, like tls:{name}.tunnels.example:443 for "
                "HTTPS or tcp:tunnels.example:20000 for its TCP port"
            )
        )


def client_endpoint(reactor: Any, *arguments: str, **values: str) -> NoClientEndpoint:
    """The endpoint that a string stands for where a program connects."""
    return NoClientEndpoint(arguments[0] if arguments else "")


def _bad(problem: str) -> BadEndpointString:
    return BadEndpointString(f"endpoint string exposr: {problem}")


def _check_server(tunnel_id: str, values: Mapping[str, str]) -> None:
    """A server without ``://`` is told what it lacks."""
    server = values.get("server")
    if server is None:
        return
    try:
        url("https", "http")(server)
    except ValueError as error:
        raise _bad(f"server {shown(server)}: {error}, with the colon escaped: {SYNTAX}") from None


def _too_many(tunnel_id: str, more: list[str], values: Mapping[str, str]) -> NoReturn:
    """More between colons than a name: most often the pieces of a URL."""
    start = values.get("server", "")
    if start in ("http", "https") and more[0].startswith(SLASHES):
        whole = ":".join((start, *more))
        meant = f"exposr:{tunnel_id}:server={quoteStringArgument(whole)}"
        raise _bad(f"the colons of the server's URL must be escaped; write {meant}")
    if tunnel_id in ("http", "https") and more[0].startswith(SLASHES):
        raise _bad(f"begins with a tunnel's name and not with a URL; write it like {SYNTAX}")
    raise _bad(f"{more[0]!r} is one too many; write it like {SYNTAX}")
