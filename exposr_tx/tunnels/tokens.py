"""Transport tokens: what a client shows when it connects to its tunnel.

They live in memory and are made anew after a restart: clients read the tunnel
before every attempt, so nobody notices, and thousands of reconnecting clients
cost no disk writes. Facts: protocols/exposr.md I, C.2.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Tokens"]

#: Bytes of a token; 86 characters in base64url.
TOKEN_BYTES = 64
#: Seconds for which a replaced token still counts, as long as its successor
#: was not used: a client may have read the tunnel just before another of its
#: connections replaced the token.
GRACE = 5.0


@dataclass(frozen=True, slots=True)
class _Token:
    current: str
    previous: str = ""
    previous_until: float = 0.0


class Tokens:
    """The token of each tunnel. :param now: the time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tokens: dict[str, _Token] = {}

    def current(self, tunnel_id: str) -> str:
        """The token to connect with next; made when it is first asked for."""
        if tunnel_id not in self._tokens:
            self._tokens[tunnel_id] = _Token(secrets.token_urlsafe(TOKEN_BYTES))
        return self._tokens[tunnel_id].current

    def accept(self, tunnel_id: str, shown: str) -> bool:
        """Whether a token counts, in constant time; the current one is replaced by that."""
        token = self._tokens.get(tunnel_id, _Token(""))
        is_current = _same(shown, token.current)
        is_previous = _same(shown, token.previous) and self._now() < token.previous_until
        if is_current:
            self._tokens[tunnel_id] = _Token(
                secrets.token_urlsafe(TOKEN_BYTES), token.current, self._now() + GRACE
            )
        return is_current or is_previous

    def forget(self, tunnel_id: str) -> None:
        """The tunnel is gone."""
        self._tokens.pop(tunnel_id, None)


def _same(shown: str, token: str) -> bool:
    equal = hmac.compare_digest(shown.encode("utf-8", "backslashreplace"), token.encode())
    return equal and bool(token)
