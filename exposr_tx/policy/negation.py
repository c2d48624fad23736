"""What ``not`` means where something is undefined, as Rego has it.

``not f(input.a)`` does not hold in Rego where ``input.a`` is undefined: what is within the
negated expression is worked out before it. The embedded engine takes the whole for undefined,
so that ``not`` holds: who leaves a header field out would pass. So what is within is required in
front of it: ``is_array([input.a]); not f(input.a)``. Only a name by itself, or compared by ``==``,
may be undefined, and what is looked up in an object or array that is written there (tried with Open
Policy Agent 1.22).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.expressions import (
    OPERATORS,
    closing,
    every_body,
    expression_end,
    keyword,
    split,
)
from exposr_tx.policy.words import CLOSE, NAME, NUMBER, OPEN, STRING, Word, edited

__all__ = ["check_nested", "required"]

_EQUAL: Final = ("==", "=")
_COMPARISONS: Final = frozenset({*_EQUAL, "!=", "<", "<=", ">", ">=", "in"})
_ARITHMETIC: Final = OPERATORS - _COMPARISONS
_BAR: Final = frozenset({"|"})
#: Behind one of these an expression is not over.
_OPENING: Final = (":=", ",", ";", ".", "as", "some", "with")
#: What is always defined, or cannot be asked for.
_PLAIN: Final = frozenset({"true", "false", "null", "_"})


def required(text: str, words: Sequence[Word]) -> str:
    """A module's text with what its negations need in front of them. Lines stay where they are."""
    added: list[tuple[int, str]] = []
    for place, word in enumerate(words):
        if keyword(words, place) != "not":
            continue
        end = expression_end(words, place + 1)
        needed = ", ".join(_spelled(part) for part in _needed(words[place + 1 : end]))
        if not needed:
            continue
        lone = words[place - 1].text == "if"
        added.append((word.start, f"{'{ ' if lone else ''}is_array([{needed}]); "))
        if lone:
            added.append((words[end - 1].end, " }"))
    # What ends at a place stands before what begins there; inner ends come first.
    added.sort(key=lambda edit: (edit[0], edit[1] != " }"))
    return edited(text, ((start, start, new) for start, new in added))


def check_nested(path: str, words: Sequence[Word]) -> None:
    """Refuse what the engine gets wrong within ``not`` and ``every``: there another negation of
    what depends on a variable holds always, an ``every`` never does, and what a comprehension finds
    is not what it should (tried)."""
    for place in range(len(words)):
        if not (kind := keyword(words, place)):
            continue
        if kind == "not":
            begin, end = place + 1, expression_end(words, place + 1)
        else:
            begin = every_body(words, place + 1)
            end = closing(words, begin) + 1
        for at in range(begin, end):
            inner = words[at]
            what = keyword(words, at)
            # A bracket within the body that has a | outside of its own brackets.
            if kind == "every" and at > begin and inner.text in ("[", "{"):
                parts = split(words[at + 1 : closing(words, at)], _BAR)
                what = "comprehension" if len(parts) > 1 else ""
            if what:
                raise PolicyInvalid(
                    f"{path}:{inner.line}: within {kind}, the embedded engine has no {what}; "
                    "move it into a function or a rule, and name that"
                )


def _needed(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """The terms that must be defined for a negation of an expression to hold."""
    if not words or words[0].text in ("some", "every"):
        return
    if words[0].text == "(" and closing(words, 0) == len(words) - 1:
        yield from _needed(words[1:-1])
        return
    terms = split(words, _COMPARISONS | {","})
    between = [word.text for word in words if word.text in OPERATORS]
    if any(len(split(term, _ARITHMETIC)) > 1 for term in terms):
        for term in terms:
            yield from _worth(term)  # what is worked out may fail, as by dividing by 0
    elif len(terms) == 1 or (len(terms) == 2 and _compares(words, terms)):
        for term in terms:
            yield from _within(term, len(terms) == 1)
    elif between:
        for term in terms:
            yield from _worth(term)


def _compares(words: Sequence[Word], terms: Sequence[Sequence[Word]]) -> bool:
    return words[len(terms[0])].text in _EQUAL


def _worth(term: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """A term, where it may be undefined."""
    if len(term) > 1 or (term[0].kind not in (STRING, NUMBER) and term[0].text not in _PLAIN):
        yield term


def _within(term: Sequence[Word], alone: bool) -> Iterator[Sequence[Word]]:
    """What must be defined of a term that need not be itself.

    :param alone: whether it is all that is negated.
    """
    place = 1
    if term[0].kind != NAME:
        place = closing(term, 0) + 1 if term[0].text in OPEN else len(term)
        if place == len(term):
            yield from _worth(term) if not alone or term[0].text in OPEN else ()
            return
        yield term[:place]  # it is looked up in what is written out here
    while place < len(term):
        word = term[place]
        if word.text not in OPEN:
            place += 1
            continue
        past = closing(term, place) + 1
        inside = term[place + 1 : past - 1]
        if word.text == "[":
            yield from _worth(inside) if inside else ()
        elif alone and past == len(term):
            for argument in split(inside, frozenset({","})):
                for part in split(argument, OPERATORS):
                    yield from _worth(part)
        else:
            yield term[:past]
        place = past


def _spelled(term: Sequence[Word]) -> str:
    """A term on one line."""
    pieces: list[str] = []
    bodies: list[bool] = []  # of each bracket that is open, whether it has a | already
    before = term[0]
    for word in term:
        ends = word.text in OPERATORS or before.text in OPERATORS or before.text in _OPENING
        if word.first and any(bodies[-1:]) and not ends and word.text not in (*CLOSE, ";", "with"):
            pieces.append(";")  # what a line's end is between expressions
        if word.text in OPEN:
            bodies.append(False)
        elif word.text in CLOSE:
            bodies.pop()
        elif word.text == "|" and bodies:
            bodies[-1] = True
        pieces += [word.text] if word.glued else [" ", word.text]
        before = word
    return "".join(pieces).strip()
