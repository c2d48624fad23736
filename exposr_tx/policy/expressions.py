"""Where rules, expressions and brackets begin and end, as far as words tell.

What the scan and the modules that mend a policy's text share, so that they all see the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from exposr_tx.policy.words import CLOSE, KEYWORDS, NAME, OPEN, SIGN, STRING, Word, is_member

__all__ = [
    "OPERATORS",
    "called",
    "closing",
    "comprehension",
    "every_body",
    "expression_end",
    "heads",
    "keyword",
    "opening",
    "split",
]

OPERATORS: Final = frozenset(
    {"==", "=", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "&", "|", "in"}
)
#: After one of these a line goes on, whatever the next begins with.
_CONTINUED: Final = OPERATORS | {
    *("as", "contains", "else", "every", "if", "not", "some", "with"),
    *(":=", ",", "."),
}


def heads(found: Sequence[Word]) -> Iterator[int]:
    """The places of words that begin a rule: first on their line, outside of all brackets."""
    depth, statement = 0, ""
    for place, word in enumerate(found):
        before = found[place - 1] if place else word
        statement = before.text if before.first else statement
        member = place > 0 and is_member(found, place - 1)
        continued = statement != "import" and before.text in _CONTINUED and not member
        begins = (word.first and word.text not in KEYWORDS) or before.text == "default"
        if word.kind == NAME and not depth and begins and not continued:
            yield place
        depth += (word.text in OPEN) - (word.text in CLOSE)


def closing(words: Sequence[Word], place: int) -> int:
    """Where the bracket that opens at a place closes; the last word where it does not."""
    depth = 0
    for at in range(place, len(words)):
        if words[at].text in ("(", "[", "{"):
            depth += 1
        elif words[at].text in (")", "]", "}"):
            depth -= 1
            if not depth:
                return at
    return len(words) - 1


def opening(found: Sequence[Word], place: int) -> int:
    """Where the bracket opens that closes at a place."""
    depth = 0
    for at in range(place, 0, -1):
        depth += (found[at].text in CLOSE) - (found[at].text in OPEN)
        if not depth:
            return at
    return 0


def called(found: Sequence[Word], place: int) -> str:
    """The name of what is called by the bracket that opens at a place; empty where nothing is."""
    begin = place
    while (
        begin
        and found[begin].glued
        and (found[begin - 1].kind == NAME or found[begin - 1].text == ".")
    ):
        begin -= 1
    return "".join(word.text for word in found[begin:place])


def comprehension(found: Sequence[Word], place: int) -> int:
    """Where the ``|`` of the comprehension that opens at a place is; 0 where there is none."""
    word, before = found[place], found[place - 1]
    index = word.glued and (before.text in CLOSE or before.kind == NAME)
    if word.text not in ("[", "{") or before.text == "if" or index:
        return 0
    end = closing(found, place)
    at = place + 1
    while at < end and found[at].text != "|":
        at = closing(found, at) + 1 if found[at].text in OPEN else at + 1
    return at if at < end else 0


def split(words: Sequence[Word], at: frozenset[str]) -> list[Sequence[Word]]:
    """The parts between words that stand outside of all brackets."""
    parts, begin, place = [], 0, 0
    while place < len(words):
        if words[place].text in at and words[place].kind != STRING:
            parts.append(words[begin:place])
            begin = place + 1
        place = closing(words, place) + 1 if words[place].text in OPEN else place + 1
    return [part for part in [*parts, words[begin:]] if part]


def keyword(words: Sequence[Word], place: int) -> str:
    """``not`` or ``every``; empty for all other words, ``input.not`` among them."""
    word = words[place]
    return word.text if word.text in ("not", "every") and not is_member(words, place) else ""


def every_body(words: Sequence[Word], place: int) -> int:
    """Where the body of an ``every`` opens: behind its domain, which may have braces as well."""
    while place < len(words) - 1 and words[place].text != "in":
        place += 1
    place += 1
    while place < len(words) - 1 and (words[place].text != "{" or not _ends(words, place)):
        place = closing(words, place) + 1 if words[place].text in OPEN else place + 1
    return place


def _ends(words: Sequence[Word], place: int) -> bool:
    """Whether a term ends before a place."""
    before = words[place - 1]
    return before.text in CLOSE or (before.kind != SIGN and before.text != "in")


def expression_end(words: Sequence[Word], place: int) -> int:
    """Where the expression that begins at a place is over."""
    at = place
    while at < len(words):
        word = words[at]
        if at > place:
            before = words[at - 1]
            goes_on = word.text in OPERATORS or before.text in OPERATORS
            if word.text in (";", "else", "if", "with", *CLOSE) or (word.first and not goes_on):
                break
        at = closing(words, at) + 1 if word.text in OPEN else at + 1
    return at
