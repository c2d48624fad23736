"""Regular expressions that mean the same to the embedded engine as to Rego.

The engine's are ECMAScript's. What they do not have (``(?i)``, ``\\pL``) is undefined, other things
of Rego's (``\\A``, ``[]a]``) are taken for something else, both silently: ``not regex.match(…)``
would let everybody pass. So a pattern that is written down is looked at when it is loaded, and one
that is worked out is when it is used, by the prelude.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PATTERNS", "fault", "plain"]

#: Functions to the place of the pattern among their arguments.
PATTERNS: Final = {
    "regex.find_all_string_submatch_n": 0,
    "regex.find_n": 0,
    "regex.match": 0,
    "regex.replace": 1,
    "regex.split": 0,
}
_SIGNS: Final = r"_/.,:%=&;~#'!<>@|)*+?-"
_MARKED: Final = r"[dDwWsS{}()|^$\[\]_/.,:%=&;~#'!<>@*+?-]"


def plain(backslash: str) -> str:
    """What patterns may be made of, as a pattern: characters, groups, repetitions and classes. No
    quotes, and nothing else that JSON escapes, as to the engine it is two characters.

    :param backslash: how one is written in it.
    """
    return (
        rf"(?:[A-Za-z0-9 {_SIGNS}]|[\^$](?![*+?{{])|\((?:\?:)?(?![*+?{{])|\{{[0-9]+(?:,[0-9]*)?\}}"
        rf"|{backslash}[bB](?![*+?{{])|{backslash}{_MARKED}"
        rf"|\[\^?(?:[A-Za-z0-9 (){{}}^${_SIGNS}]|{backslash}{_MARKED})+\])"
    )


#: Characters beyond ASCII are several to the engine: they are taken as they are, or not at all.
_PLAIN: Final = re.compile(r"(?:" + plain(r"\\") + r"|[^\x00-\x7f](?![*+?{]))*")


def fault(pattern: str) -> str:
    """Why a pattern is not to be used; empty where it is plain."""
    matched = _PLAIN.match(pattern)
    rest = pattern[matched.end() if matched else 0 :]
    if rest:
        return f"has no {rest[:12]!r}"
    try:
        re.compile(pattern)
    except re.error as problem:
        return f"cannot take it: {problem}"
    return ""
