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

__all__ = ["GLOB", "PATTERNS", "check_glob", "check_pattern", "plain"]

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


#: What patterns of ``glob.match`` may be made of: the engine takes other classes for something
#: else, and escaped brackets.
GLOB: Final = (
    r"(?:[A-Za-z0-9 _/.,:;%=&~#'!<>@|()$^+*?{}-]|[^ -~]|\\[*?]"
    r"|\[!?(?:[A-Za-z0-9]-[A-Za-z0-9]|[A-Za-z0-9_./:@~ ]+)\])*"
)
#: Texts in which a pattern that matches nothing between two characters does so somewhere.
_SAMPLES: Final = ("", "a", " ", "a b", "  ")
#: In what is put in place of a match: groups, but those whose name would go on.
_REPLACEMENT: Final = re.compile(r"(?:[^$]|\$\$|\$[0-9](?![A-Za-z0-9_]))*")

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
    if not why and name == "regex.replace" and len(arguments) > 2:
        _check_replacement(where, arguments[2])
    if not why and name != "regex.match" and _may_be_empty(literal(pattern[0])):
        why = f"matches nothing at all as well, which {name} takes for something else"
    if why:
        raise PolicyInvalid(
            f"{where}: the embedded engine's regular expressions differ from "
            f"Rego's: {pattern[0].text} {why}; write it with characters, groups, classes like "
            r"[A-Za-z] and \d \w \s \b, or use lower() and contains()"
        )


def _may_be_empty(pattern: str) -> bool:
    """Whether a pattern may match where there is nothing: the engine finds that once more, or
    without end (tried)."""
    compiled = re.compile(pattern)
    return any(
        found.start() == found.end() for text in _SAMPLES for found in compiled.finditer(text)
    )


def _check_replacement(where: str, words: Sequence[Word]) -> None:
    """Refuse what the engine would put in place of a match where Rego puts something else."""
    text = literal(words[0]) if len(words) == 1 and words[0].kind == STRING else "$"
    if not _REPLACEMENT.fullmatch(text):
        raise PolicyInvalid(
            f"{where}: what regex.replace puts there must be written out, with the embedded "
            "engine, and have no $ but those of $$ and of $0 to $9, not before a letter or digit"
        )


def check_glob(where: str, arguments: Sequence[Sequence[Word]]) -> None:
    """Refuse a pattern that is written down and that the prelude would not take.

    :raises PolicyInvalid: with what to write.
    """
    pattern = arguments[0] if arguments else ()
    if len(pattern) == 1 and pattern[0].kind == STRING:
        try:
            good = re.fullmatch(GLOB, literal(pattern[0]))
        except ValueError:
            return  # the engine will say what is wrong with it
        if not good:
            raise PolicyInvalid(
                f"{where}: the embedded engine takes {pattern[0].text} for another pattern than "
                "Rego does; write it with characters, * ? {a,b}, and classes like [a-z] or [abc]"
            )
