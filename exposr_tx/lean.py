"""What a client without TLS need not load: a third of its memory.

Twisted, asyncio and the standard library load OpenSSL, twice, wherever it is there, and autobahn
loads WAMP. A client whose server and target are ``http:`` uses nothing of them. While such a
client's own modules are imported, theirs are out of reach, which all of the importers are ready
for. Later they are to be had as ever, and :mod:`~exposr_tx.client.tls` loads TLS for the first
connection that needs it.

Measured, idle: 56 MB with everything, 38 MB without; and it starts 0.1 s sooner.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

__all__ = ["Hidden", "without_tls"]

#: What a server without TLS begins with.
_PLAIN: Final = "http://"
#: Words that tell of TLS: in URLs, in Twisted's endpoint strings, in names of options.
_TLS: Final = ("https", "wss", "tls", "ssl", "tcps", "-ca")
#: Hashes of Python's own, in place of OpenSSL's: SHA-1 for the handshake of websockets. Not every
#: Python has them.
_OWN_HASHES: Final = ("_md5", "_sha1")


def without_tls(words: Iterable[str]) -> bool:
    """Whether a command line, with its variables, names a server and nothing of TLS.

    Where it seems so and is not, TLS is loaded later; the other way round it costs memory.
    """
    said = [word.lower() for word in words]
    named = any(_PLAIN in word for word in said)
    return named and not any(sign in word for word in said for sign in _TLS)


class Hidden:
    """The modules that are out of reach: they are imported by others only if they can be."""

    def __init__(self) -> None:
        self._hidden: list[str] = []

    def __repr__(self) -> str:
        return f"<Hidden {' '.join(self._hidden)}>"

    def hide(self) -> None:
        """From now on they cannot be imported; nothing may have imported them so far."""
        wamp = ModuleType("autobahn.twisted.wamp")
        wamp.ApplicationSession = None  # type: ignore[attr-defined]  # which autobahn passes on
        stand_ins: dict[str, Any] = {"ssl": None, "OpenSSL": None, wamp.__name__: wamp}
        if all(map(find_spec, _OWN_HASHES)):
            stand_ins["_hashlib"] = None
        for name, stand_in in stand_ins.items():
            if name not in sys.modules:
                sys.modules[name] = stand_in
                self._hidden.append(name)

    def restore(self) -> None:
        """They can be imported again."""
        while self._hidden:
            del sys.modules[self._hidden.pop()]
