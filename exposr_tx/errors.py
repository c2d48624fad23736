"""One tree of errors under :class:`ExposrError`.

Every class names the code that stands in error JSON (``{"error": code}``, see
the REST reference) and the HTTP status that goes with it. They are raised in
any room and mapped to an answer once, at the edge: ``ingress/`` and ``api/``.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccountNotFound",
    "BadInput",
    "Conflict",
    "Draining",
    "ExposrError",
    "IngressDisabled",
    "LocalProtocolError",
    "NoToken",
    "PermissionDenied",
    "PolicyDenied",
    "PolicyInvalid",
    "RemoteProtocolError",
    "RequestLoop",
    "StorageUnavailable",
    "StreamLimit",
    "TargetFailed",
    "TargetRefused",
    "TargetReset",
    "TargetTimeout",
    "TooManyConnections",
    "TooManyFailures",
    "TunnelNotConnected",
    "TunnelNotFound",
    "UpstreamGone",
]


class ExposrError(Exception):
    """Something went wrong that has a name in the API."""

    code: ClassVar[str] = "UNKNOWN_ERROR"
    status: int = 500
    #: Seconds after which another try makes sense, where the error knows it.
    retry_after: int = 0
    #: A sentence for whoever gets the answer.
    detail: str = ""
    #: Header fields of the answer.
    fields: tuple[tuple[bytes, bytes], ...] = ()


class BadInput(ExposrError):
    """A request's field, body or parameter is not valid; the message names it."""

    code = "BAD_INPUT"
    status = 400


class NoToken(ExposrError):
    """The request carries no account token."""

    code = "AUTH_NO_TOKEN"
    status = 401


class PermissionDenied(ExposrError):
    """The credentials are wrong, or what they ask for is somebody else's."""

    code = "PERMISSION_DENIED"
    status = 403


class TooManyFailures(ExposrError):
    """Too many wrong credentials came from this address.

    :ivar retry_after: seconds until the next try.
    """

    code = "PERMISSION_DENIED"
    status = 429

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many failed credentials; wait {retry_after} s")
        self.retry_after = retry_after


class PolicyDenied(ExposrError):
    """The operator's policy does not allow the request, or has no answer to it.

    :param status: 403 unless the policy chose another one.
    :param reason: what the policy says of it.
    :param fields: header fields that it gives to the answer.
    """

    code = "POLICY_DENIED"
    status = 403

    def __init__(
        self, status: int = 403, reason: str = "", fields: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(reason or "the policy does not allow it")
        self.status = status
        self.detail = reason
        self.fields = fields


class PolicyInvalid(ExposrError):
    """Policies cannot be loaded: a file is missing, does not compile, or uses what is not there."""


class AccountNotFound(PermissionDenied):
    """No such account; told to the outside as a refused permission."""


class TunnelNotFound(ExposrError):
    """There is no such tunnel, or it is not yours."""

    code = "TUNNEL_NOT_FOUND"
    status = 404


class TunnelNotConnected(ExposrError):
    """No client is connected to the tunnel."""

    code = "TUNNEL_NOT_CONNECTED"
    status = 503


class IngressDisabled(ExposrError):
    """The tunnel does not take this kind of traffic; its owner can enable it."""

    code = "TUNNEL_HTTP_INGRESS_DISABLED"
    status = 403


class StreamLimit(ExposrError):
    """The tunnel, or the machine, carries as many streams as it may."""

    code = "TUNNEL_TRANSPORT_REQUEST_LIMIT"
    status = 503


class Draining(ExposrError):
    """The server is shutting down and takes no new connections of clients."""

    code = "TUNNEL_TRANSPORT_CON_TIMEOUT"
    status = 503


class TooManyConnections(ExposrError):
    """The tunnel has as many live connections as it may."""

    code = "TUNNEL_ALREADY_CONNECTED"
    status = 503


class TargetFailed(ExposrError):
    """The stream to the target could not be opened, or spoke nonsense."""

    code = "TUNNEL_TARGET_CON_FAILED"
    status = 502


class TargetRefused(ExposrError):
    """The target refused the connection or closed it before it answered."""

    code = "TUNNEL_TARGET_CON_RESET"
    status = 502


class TargetReset(TargetRefused):
    """The target's connection broke in the middle."""


class UpstreamGone(TargetFailed):
    """The client's connection was lost while a stream was being opened on it."""


class TargetTimeout(ExposrError):
    """The target did not answer in time."""

    code = "TUNNEL_TARGET_CON_FAILED"
    status = 504


class RequestLoop(ExposrError):
    """The request has been through this server already."""

    code = "HTTP_INGRESS_REQUEST_LOOP"
    status = 508


class StorageUnavailable(ExposrError):
    """Storage does not answer, or refuses to write."""

    status = 503


class Conflict(ExposrError):
    """Somebody else changed the record in the meantime (compare-and-set failed)."""

    status = 409


class LocalProtocolError(ExposrError):
    """Our own code asked a wire parser for something its state does not allow."""


class RemoteProtocolError(ExposrError):
    """The peer broke the protocol.

    :ivar http_status: the status that an HTTP visitor gets for it.
    """

    code = "BAD_INPUT"

    def __init__(self, message: str, http_status: int = 400) -> None:
        super().__init__(message)
        self.http_status = http_status
