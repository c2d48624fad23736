"""What Twisted finds: names only, so that looking for plugins imports nothing of ours.

This module is read by every program that reads an endpoint string or is
``twistd``, whatever it is about.
"""

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from twisted.python.reflect import namedAny
from zope.interface import implementer

exposr = ServiceMaker(
    "exposr",
    "exposr_tx.tap",
    "A reverse-tunnel server: public names for services behind NAT.",
    "exposr",
)

backstream = ServiceMaker(
    "backstream",
    "exposr_tx.backstream.server",
    "A reverse-tunnel server for one tunnel, by backstream's flags.",
    "backstream",
)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerString:
    """``exposr:`` where a program listens."""

    prefix = "exposr"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        return namedAny("exposr_tx.client.strings.server_endpoint")(reactor, *args, **kwargs)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientString:
    """``exposr:`` where a program connects."""

    prefix = "exposr"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        return namedAny("exposr_tx.client.strings.client_endpoint")(reactor, *args, **kwargs)


server_string = ServerString()
client_string = ClientString()
