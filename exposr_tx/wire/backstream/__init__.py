"""The messages between a backstream server and a backstream client, bytes in and messages out.

One websocket text message holds one JSON object: a request, or the response with
the same id, or what newer programs say of visitors' websockets. :class:`Requests` is the
server's end of a conversation and :class:`Responses` the client's. Source:
docs/protocols/backstream.md.

Reading is as lenient as Go's ``encoding/json`` where existing programs might rely
on it: member names in any case, ``null`` and absent members, unknown members.
"""

from __future__ import annotations

from typing import Final

from exposr_tx.wire.backstream.conversation import Requests, Responses
from exposr_tx.wire.backstream.members import HOP, MAX_ID, canonical, is_field, tokens_only
from exposr_tx.wire.backstream.messages import RequestMessage, ResponseMessage
from exposr_tx.wire.backstream.websockets import (
    BINARY,
    NO_STATUS,
    TEXT,
    Closing,
    Payload,
    Upgrade,
    UpgradeAnswer,
)

__all__ = [
    "BINARY",
    "CLIENT_FIELD",
    "HOP",
    "MAX_ID",
    "MAX_REQUEST_BODY",
    "MAX_REQUEST_MESSAGE",
    "MAX_RESPONSE_BODY",
    "MAX_RESPONSE_MESSAGE",
    "MAX_SKIPPED_MESSAGE",
    "NO_STATUS",
    "TEXT",
    "Closing",
    "Payload",
    "RequestMessage",
    "Requests",
    "ResponseMessage",
    "Responses",
    "Upgrade",
    "UpgradeAnswer",
    "canonical",
    "is_field",
    "tokens_only",
]

#: The header field, with any value but the empty one, that makes a request a client's.
CLIENT_FIELD: Final = b"backstream-client"

#: Bytes of a visitor's body that our server puts into a message; more is 413. The message holds
#: it in base64, and the Go client some copies more.
MAX_REQUEST_BODY: Final = 16 * 1024 * 1024
#: Bytes of a message that our server takes from a client: a response's body of some 22 MiB. The
#: rest of a longer one is skipped, as it can be honest; one without an end is not.
MAX_RESPONSE_MESSAGE: Final = 32 * 1024 * 1024
MAX_SKIPPED_MESSAGE: Final = 1024 * 1024 * 1024

#: Bytes of a message that our client takes: the Go server has no limit of its own, and a request
#: that is not read cannot be answered.
MAX_REQUEST_MESSAGE: Final = 256 * 1024 * 1024
#: Bytes of a target's body that our client puts into an answer; more is a 502.
MAX_RESPONSE_BODY: Final = 64 * 1024 * 1024
