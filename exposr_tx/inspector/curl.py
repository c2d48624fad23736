"""An exchange's request as a line for curl.

The line ends up in somebody's shell, and its parts are a stranger's: all of them are
quoted, and bytes that a terminal would act on are written as numbers.
"""

from __future__ import annotations

import shlex
from base64 import b64encode
from typing import Final
from urllib.parse import unquote, urlsplit

from exposr_tx.inspection.exchanges import Exchange

__all__ = ["curl"]

#: Fields that curl makes by itself: but for no length without a body, and no Connection: Upgrade.
_OWN: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"expect"})
#: Fields that curl would add where they are missing.
_ADDED: Final = (b"user-agent", b"accept")
#: Linux lets no word of a command be longer than 128 KiB; a quote is written as five bytes.
_MAX_WORD: Final = 24 * 1024


def curl(exchange: Exchange) -> str:
    """The line; it sends the request's header fields and body to the target.

    Where the body was not kept whole, it sends what was kept.
    """
    request = exchange.request
    body = exchange.request_body.data
    words = ["curl", "--globoff", "--path-as-is"]
    if exchange.target.startswith("unix:"):
        words += ["--unix-socket", _word(unquote(exchange.target[5:]).encode())]
    if request.method == "HEAD":
        words.append("--head")
    elif request.method != ("POST" if body else "GET"):
        words += ["--request", _word(request.method.encode("latin-1"))]
    words.append(_word(exchange.url.encode("latin-1", "replace")))
    names = {name.lower() for name, _ in request.fields}
    own = set(_OWN)
    if not exchange.request_body.size:
        own.discard(b"content-length")
    if b"upgrade" in names:
        own.discard(b"connection")
    for name, value in request.fields:
        if name.lower() not in own and not _is_default(name, value, exchange):
            words += ["--header", _word(name + b": " + value if value else name + b";")]
    missing = [name for name in _ADDED if name not in names]
    missing += [b"content-type"] if body and b"content-type" not in names else []
    for name in missing:
        words += ["--header", _word(name + b":")]
    if b"accept-encoding" in names:
        words.append("--compressed")
    if not body:
        return " ".join(words)
    if len(body) <= _MAX_WORD and _is_plain(body):
        return " ".join([*words, "--data-raw", shlex.quote(body.decode())])
    coded = b64encode(body).decode("ascii")
    return f"printf %s {coded} | base64 -d | " + " ".join([*words, "--data-binary", "@-"])


def _is_default(name: bytes, value: bytes, exchange: Exchange) -> bool:
    """Whether curl sends this Host anyway."""
    return name.lower() == b"host" and value.decode("latin-1") == urlsplit(exchange.url).netloc


def _is_plain(data: bytes) -> bool:
    """Whether a terminal takes data for nothing but text."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\n\t" for letter in text)


def _word(data: bytes) -> str:
    """One word of a shell's line."""
    if _is_plain(data) and b"\n" not in data and b"\t" not in data:
        return shlex.quote(data.decode())
    octal = "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03o}" for byte in data
    )
    return f"\"$(printf '{octal}')\""
