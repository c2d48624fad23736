"""Who may talk to the inspector: programs and pages that its user has given the token to.

It listens on loopback, but so do web pages in a browser on the same machine: by a
name that leads to 127.0.0.1 (DNS rebinding, told by Host), or as another origin
(told by Origin, and by the type of what they send). Other users of the machine
have the port, but not the token. There are no cookies that a browser would send by
itself. Facts: threats T27 and T40.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from exposr_tx.errors import ExposrError

__all__ = ["Guard", "NotAllowed"]

#: What loopback is called by whoever means it.
NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


class NotAllowed(ExposrError):
    """The inspector does not answer this; the message says what is wrong.

    :param status: 401 without the token, 403 for others' pages, 415 for another type.
    """

    code = "NOT_ALLOWED"

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Guard:
    """Looks at requests' heads.

    :param token: what a request must show.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode("ascii")

    def check_place(self, port: int, field: Callable[[str], str | None]) -> None:
        """Whether it is asked for by its own name, and by its own pages or by a program.

        :param port: where the request arrived.
        :param field: gives a header field's value.
        :raises NotAllowed: it is not.
        """
        hosts = {f"{name}:{port}" for name in NAMES} | (NAMES if port == 80 else set())
        host = field("host") or ""
        if host.lower() not in hosts:
            text = f"Host {host!r} is not this inspector's: ask http://127.0.0.1:{port}"
            raise NotAllowed(403, text)
        origin = field("origin")
        if origin is not None and origin.lower().removeprefix("http://") not in hosts:
            raise NotAllowed(403, f"pages of {origin!r} have nothing to ask here")
        if (field("sec-fetch-site") or "none") not in ("none", "same-origin"):
            raise NotAllowed(403, "pages of other origins have nothing to ask here")

    def check(self, port: int, method: str, field: Callable[[str], str | None]) -> None:
        """The same, and whether it has the token; what changes something must be JSON, which
        a page of another origin could not send unasked.

        :raises NotAllowed: something is missing.
        """
        self.check_place(port, field)
        scheme, _, shown = (field("authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not compare_digest(
            shown.strip().encode("utf-8"), self._token
        ):
            raise NotAllowed(
                401,
                "the token is missing or wrong: send 'Authorization: Bearer TOKEN', with what "
                "follows token= in the address that the client printed",
            )
        kind = (field("content-type") or "").partition(";")[0].strip().lower()
        if method not in ("GET", "HEAD") and kind != "application/json":
            raise NotAllowed(415, f"{method} needs 'Content-Type: application/json'")
