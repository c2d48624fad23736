"""The names of header fields that mean something on the way, and what they mean.

Everything else is ordinary and passes as it is.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

Fields: TypeAlias = list[tuple[bytes, bytes]]

(
    ORDINARY,
    HOST_FIELD,
    LENGTH,
    CODING,
    CONNECTION,
    UPGRADE,
    EXPECT,
    TE,
    HOP,
    FORWARDING,
    REFERRING,
    LOCATING,
    KNOWING,
) = range(13)

KINDS: Final[dict[bytes, int]] = {
    b"host": HOST_FIELD,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"te": TE,
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"proxy-authorization": HOP,
    b"proxy": HOP,  # would become HTTP_PROXY in a CGI target
    b"http2-settings": HOP,
    b"forwarded": FORWARDING,
    b"x-forwarded-for": FORWARDING,
    b"x-forwarded-host": FORWARDING,
    b"x-forwarded-port": FORWARDING,
    b"x-forwarded-proto": FORWARDING,
    b"x-forwarded-server": FORWARDING,
    b"x-forwarded-scheme": FORWARDING,
    b"x-forwarded-ssl": FORWARDING,
    b"x-forwarded-prefix": FORWARDING,
    b"x-scheme": FORWARDING,
    b"x-real-ip": FORWARDING,
    b"x-original-url": FORWARDING,
    b"x-original-host": FORWARDING,
    b"x-rewrite-url": FORWARDING,
    b"x-request-id": FORWARDING,
    b"exposr-via": FORWARDING,
    b"origin": REFERRING,
    b"referer": REFERRING,
    b"destination": REFERRING,  # of WebDAV's MOVE and COPY
    b"location": LOCATING,
    b"content-location": LOCATING,
    b"set-cookie": LOCATING,
    b"authorization": KNOWING,
    b"www-authenticate": KNOWING,
}
#: Schemes by which a target knows who is at the other end of a connection, not of a request.
_BINDING: Final = re.compile(rb"(?:\A|,[ \t]*)(?:ntlm|negotiate)(?=[ ,]|\Z)", re.IGNORECASE)
#: Fields that a ``Connection`` option never removes: without them the message means something else.
NEVER_HOP: Final = frozenset(
    [b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie"]
)
#: Fields that must not come late, behind a body that was judged without them.
NO_TRAILER: Final = frozenset(
    [
        *(*KINDS, b"trailer", b"cookie", b"cache-control", b"max-forwards"),
        *(b"content-encoding", b"content-type", b"content-range"),
    ]
)
#: Spellings seen so far, so that most names are looked up as they stand. Bounded, as names are
#: the peer's.
SPELLINGS: Final[dict[bytes, int]] = dict(KINDS)
MAX_SPELLINGS: Final = 2048


def kind_of(name: bytes) -> int:
    """The kind of a name not seen in this spelling before.

    Underscores stand for dashes in CGI-like targets, so ``X_Forwarded_For`` is treated as its twin.
    """
    lower = name.lower()
    kind = KINDS.get(lower, ORDINARY)
    if kind == ORDINARY and b"_" in lower:
        twin = KINDS.get(lower.replace(b"_", b"-"), ORDINARY)
        if twin != ORDINARY and twin not in (REFERRING, LOCATING, KNOWING):
            kind = FORWARDING if twin == FORWARDING else HOP
    if len(SPELLINGS) < MAX_SPELLINGS:
        SPELLINGS[name] = kind
    return kind


def binds(credentials: bytes) -> bool:
    """Whether what ``Authorization`` or ``WWW-Authenticate`` says holds for the connection: NTLM,
    and Negotiate (RFC 4559)."""
    return _BINDING.search(credentials) is not None


def tokens(values: list[bytes]) -> set[bytes]:
    """The members of a comma-separated list of tokens, in lower case."""
    return {token.strip(b" \t").lower() for token in b",".join(values).split(b",")} - {b""}


def without_named(fields: Fields, options: set[bytes]) -> Fields:
    """Fields without those that ``Connection`` names."""
    return [pair for pair in fields if pair[0].lower() not in options]


def referring(fields: Fields) -> list[int]:
    """Where fields stand that may name the public host to a target."""
    return [index for index, pair in enumerate(fields) if KINDS.get(pair[0].lower()) == REFERRING]
