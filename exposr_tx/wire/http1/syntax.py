"""The syntax of a head and of chunks, as patterns, and the limits of each.

Sources: RFC 9112 (messages), RFC 9110 (fields), RFC 3986 (targets).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a message is read before it is refused. Sizes in bytes.

    :ivar line: the request line (RFC 9112 section 3 asks for 8,000 at least): 414.
    :ivar head: the whole head: 431.
    :ivar fields: how many header fields: 431.
    :ivar body: the body; 0 is no limit: 413.
    """

    line: int = 8192
    head: int = 32768
    fields: int = 200
    body: int = 0


#: A target's response may have a longer head than a request.
RESPONSE_LIMITS: Final = Limits(line=65536, head=65536, fields=200)

#: The longest chunk-size line: 16 digits, ``;`` and 256 bytes of extensions, which are dropped.
MAX_CHUNK_LINE: Final = 16 + 1 + 256
#: The longest trailer section.
MAX_TRAILERS: Final = 8192
#: How many interim (1xx) responses one request may be answered with.
MAX_INTERIM: Final = 16
#: Lengths beyond this are refused, as 64-bit signed readers could not hold them.
MAX_LENGTH: Final = 2**63 - 1

# -- syntax ---------------------------------------------------------------------------------

# Possessive quantifiers keep every match linear in the length of the head.
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
WORD: Final = rb"[\x21-\x7e\x80-\xff]++"
# A field line without white space at its end; with it, the line takes the detour of tidied().
FIELD_LINES: Final = (
    rb"((?:" + TOKEN + rb":[ \t]*+(?:" + WORD + rb"(?:[ \t]++" + WORD + rb")*+)?+\r\n)*+)\r\n"
)
TARGET: Final = rb"[\x21\x22\x24-\x7e\x80-\xff]++"
REQUEST_HEAD: Final = re.compile(
    rb"(" + TOKEN + rb") (" + TARGET + rb") HTTP/1\.([01])\r\n" + FIELD_LINES
)
# A request line of HTTP/1.1, whose fields are known already.
REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb") (" + TARGET + rb") HTTP/1\.1\r\n")
# What of a target is no ASCII: simple clients send it as it was typed.
HIGH: Final = re.compile(rb"[\x80-\xff]")
SLASH: Final = 0x2F
START: Final = b"HTTP/1."
RESPONSE_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n" + FIELD_LINES
)
TRAILER_SECTION: Final = re.compile(FIELD_LINES)
FIELD: Final = re.compile(rb"([^:\r]++):[ \t]*+([^\r]*+)\r\n")
SPACE_AT_END: Final = re.compile(rb"[ \t]++\r\n")
SPACE_BEFORE_COLON: Final = re.compile(rb"(?<=\r\n)(" + TOKEN + rb")[ \t]++:")
# What no head may hold, wherever it is cut: found at once instead of at the head's time limit.
NEVER: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.\-]{1,255})(?::([0-9]{0,5}))?")
ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]++)([/?].*+)?", re.IGNORECASE | re.DOTALL)
CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?")
KEEP_ALIVE: Final = re.compile(rb"\btimeout=([0-9]{1,6})\b", re.IGNORECASE)
DIGITS: Final = re.compile(rb"[0-9]{1,19}")


def tidied(head: bytes) -> bytes:
    """A head without white space at the ends of its field lines (RFC 9112 section 5)."""
    line, crlf, rest = head.partition(b"\r\n")
    return line + crlf + SPACE_AT_END.sub(b"\r\n", rest)
