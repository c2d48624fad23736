"""Regular expressions that mean the same to the embedded engine as to Rego.

The engine's are ECMAScript's. What they do not have (``(?i)``, ``\\pL``) is undefined, other things
of Rego's (``\\A``, ``[]a]``) are taken for something else, both silently: ``not regex.match(…)``
would let everybody pass. So a pattern that is written down is looked at when it is loaded, and one
that is worked out is when it is used, by the prelude.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.words import STRING, Word, literal

__all__ = ["PATTERNS", "check_pattern", "plain"]

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


def _fault(pattern: str) -> str:
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


def check_pattern(where: str, name: str, arguments: Sequence[Sequence[Word]]) -> None:
    """Refuse a regular expression that the engine would take for another one.

    :param where: file and line of the call.
    :param name: of the function, one of :data:`PATTERNS`.
    :param arguments: the words of each; none where the function is named only.
    :raises PolicyInvalid: with what to write.
    """
    pattern = arguments[PATTERNS[name]] if len(arguments) > PATTERNS[name] else ()
    if len(pattern) != 1 or pattern[0].kind != STRING:
        raise PolicyInvalid(
            f"{where}: the pattern of {name} must be written out, with the embedded engine"
        )
    try:
        why = _fault(literal(pattern[0]))
    except ValueError as problem:
        why = f"is no string: {problem}"
    if why:
        raise PolicyInvalid(
            f"{where}: the embedded engine's regular expressions differ from "
            f"Rego's: {pattern[0].text} {why}; write it with characters, groups, classes like "
            r"[A-Za-z] and \d \w \s \b, or use lower() and contains()"
        )
