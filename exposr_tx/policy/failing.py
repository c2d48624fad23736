"""What a built-in function's failure means, as Rego has it: its result is undefined.

``n := to_number(text); not n > 5`` does not hold in Rego for a text that is no number. The embedded
engine takes the failure for a value until something is asked of it: in a variable, in an object, as
the argument of a function. So ``not`` holds, and who sends nonsense would pass (tried). An array
with a failure in it is undefined. So the result is taken out of one: ``n := [to_number(text)][0]``;
and what is compared where the comparison is a value, as of a failure that is false.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from exposr_tx.policy.builtins import HAVE
from exposr_tx.policy.expressions import (
    called,
    closing,
    comprehension,
    every_body,
    expression_end,
    heads,
    keyword,
    opening,
)
from exposr_tx.policy.prelude import SOUND
from exposr_tx.policy.words import CLOSE, NAME, OPEN, SIGN, Word, edited, is_member

__all__ = ["guarded"]

_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in")
_ARITHMETIC: Final = ("+", "-", "*", "/", "%", "&", "|")
_ASSIGN: Final = (":=", "=")
#: Functions that do not fail when an argument has.
_TAKES_ALL: Final = ("type_name", "walk")
_Range = tuple[int, int]


def guarded(text: str, found: Sequence[Word]) -> str:
    """A module's text in which a failure is undefined wherever it would be a value. Lines stay
    where they are."""
    added = []
    for begin, end in {*_values(found)}:
        if _may_fail(found, begin, end):
            # Where sets are joined, the engine would take the array for a comprehension.
            joins = any(word.text == "|" for word in found[begin:end])
            before, behind = (f"{SOUND}(", ")") if joins else ("[", "][0]")
            added += [(found[begin].start, 1, before), (found[end - 1].end, 0, behind)]
    # What ends at a place stands before what begins there.
    return edited(text, ((start, start, new) for start, _, new in sorted(added)))


def _values(found: Sequence[Word]) -> Iterator[_Range]:
    """Where there are expressions whose values are kept or handed on."""
    bodies = {
        every_body(found, place + 1)
        for place in range(len(found))
        if keyword(found, place) == "every"
    }
    starts = {*heads(found)}
    for place, word in enumerate(found):
        member = is_member(found, place)
        assigns = word.kind == SIGN and word.text in _ASSIGN and not _is_pattern(found, place - 1)
        follows = word.text in ("as", "contains") and not member and not _opens(found, place + 1)
        if assigns or follows:
            yield from _operands(found, place + 1, expression_end(found, place + 1))
        elif word.text in OPEN and place not in bodies:
            end = comprehension(found, place) or closing(found, place)
            parts = [*_split(found, place + 1, end, (",", ":"))]
            if found[place - 1].text == "if" and len(parts) == 1:
                continue  # a body
            kept = (
                word.text == "{"
                or _hands_on(found, place)
                or found[place - 1].text in _ASSIGN
                or (word.text == "[" and place - 1 in starts)
            )
            for part in parts:
                operands = [*_operands(found, *part)]
                if kept or len(operands) > 1:
                    yield from operands


def _operands(found: Sequence[Word], begin: int, end: int) -> Iterator[_Range]:
    """An expression, or what it compares."""
    return _split(found, begin, end, _COMPARISONS)


def _split(found: Sequence[Word], begin: int, end: int, at: Sequence[str]) -> Iterator[_Range]:
    """The ranges between words that stand outside of all brackets."""
    place = begin
    while place < end:
        if found[place].kind in (SIGN, NAME) and found[place].text in at:
            if begin < place:
                yield begin, place
            begin = place + 1
        place = closing(found, place) + 1 if found[place].text in OPEN else place + 1
    if begin < end:
        yield begin, end


def _opens(found: Sequence[Word], place: int) -> bool:
    """Whether a bracket opens here for what is called."""
    return place < len(found) and found[place].text == "(" and found[place].glued


def _is_pattern(found: Sequence[Word], place: int) -> bool:
    """Whether a pattern ends at a place. A failure has no parts: it fits none."""
    if found[place].text not in ("]", "}"):
        return False
    return not _ends_term(found, opening(found, place))


def _hands_on(found: Sequence[Word], place: int) -> bool:
    """Whether the bracket that opens at a place is that of a call which may hand its arguments on;
    most of the built-in functions fail when an argument has."""
    name = called(found, place) if found[place].text == "(" else ""
    return name in _TAKES_ALL or (bool(name) and name not in HAVE)


def _may_fail(found: Sequence[Word], begin: int, end: int) -> bool:
    """Whether the value of an expression may be a failure: where it is what a built-in function
    gives, or something is worked out. What is looked up in a failure is undefined anyhow, and may
    be looked for in turn, as in ``split(text, "/")[i]``."""
    last = found[end - 1]
    looked_up = (last.text == "]" and _ends_term(found, opening(found, end - 1))) or (
        last.glued and found[end - 2].text == "."
    )
    place, calls = begin, False
    while place < end:
        word = found[place]
        if word.kind == SIGN and word.text in _ARITHMETIC and place > begin:
            return True
        past = closing(found, place) + 1 if word.text in OPEN else place + 1
        literal = word.text in OPEN and not _ends_term(found, place)
        if literal and not comprehension(found, place):
            calls = calls or any(_is_call(found, at) for at in range(place, past))
            calls = calls or (word.text == "(" and _may_fail(found, place + 1, past - 1))
        calls = calls or _is_call(found, place)
        place = past
    return calls and not looked_up


def _is_call(found: Sequence[Word], place: int) -> bool:
    return found[place].text == "(" and called(found, place) in HAVE


def _ends_term(found: Sequence[Word], place: int) -> bool:
    """Whether a bracket opens right behind a term."""
    before = found[place - 1]
    return found[place].glued and (before.kind == NAME or before.text in CLOSE)
