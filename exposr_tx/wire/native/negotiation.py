"""How two ends find out that both speak the native dialect.

Source: docs/protocols/exposr-tx-1.md, "Negotiation".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["DIALECT", "DIALECT_FIELD", "SUBPROTOCOL", "is_native", "offers_native"]

#: The websocket subprotocol that is offered, and stands in a tunnel's ``transport.ws.protocols``.
SUBPROTOCOL: Final = "exposr-tx.1"

#: The field of the 101 that decides: an exposrd echoes any subprotocol, but not this.
DIALECT_FIELD: Final = "Exposr-Dialect"

#: Its value here: version 1, minor 0.
DIALECT: Final = "1"

_VERSION_1: Final = re.compile(r"[ \t]*1(?:\.[0-9]{1,5})?[ \t]*")


def is_native(dialect: str) -> bool:
    """Whether a value of :data:`DIALECT_FIELD` is version 1, in whatever minor version."""
    return _VERSION_1.fullmatch(dialect) is not None


def offers_native(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an upgrade request offers the dialect.

    :param fields: its header fields, names in lower case.
    """
    offered = False
    for name, value in fields:
        if name == b"sec-websocket-protocol":
            tokens = [token.strip() for token in value.split(b",")]
            offered = offered or SUBPROTOCOL.encode() in tokens
        elif name == DIALECT_FIELD.lower().encode() and not is_native(value.decode("latin-1")):
            return False
    return offered
