"""What ``<`` and ``==`` mean, as Rego has it.

In Rego values of any types have an order: a string is more than any number. The embedded engine
knows that of numbers and of strings among themselves; of others it says the contrary, or anything:
``input.header.Level < 5`` holds for it, where a header field is a string (tried). So the prelude
compares, unless both are numbers for certain. ``==`` that does not hold is undefined to the engine,
and not false, as an argument of a function and as an operand: there it is refused. So is ``-``
beside ``&`` or ``|`` without brackets: Rego works it out first, and the engine last, for which
``blocked | suspended - exempt`` has nobody who is exempt (tried). ``=`` beside a constant gives
the name on its other side that value, whatever it has already: ``x := input.method; x = "GET"``
holds for everybody (tried). Beside what is looked up it compares: ``x = ["GET"][0]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.arguments import wary
from exposr_tx.policy.expressions import (
    OPERATORS,
    called,
    closing,
    comprehension,
    heads,
    opening,
    split,
)
from exposr_tx.policy.prelude import PACKAGE, SOUND
from exposr_tx.policy.words import CLOSE, NAME, NUMBER, OPEN, SIGN, Word, edited, is_member

__all__ = ["check_differences", "check_equality", "check_heads", "check_keys", "ordered", "unified"]

_ORDERING: Final = {"<": "less", "<=": "at_most", ">": "more", ">=": "at_least"}
#: What stands between expressions, and is in none.
_BETWEEN: Final = frozenset(
    {
        *(";", ",", ":", ":=", "=", "==", "!=", *_ORDERING),
        *("as", "contains", "else", "every", "if", "in", "not", "some", "with"),
    }
)
_ARITHMETIC: Final = ("+", "*", "/", "%")
#: What a constant may be made of, besides strings and numbers.
_CONSTANTS: Final = frozenset({"true", "false", "null", "set", "-", ",", ":", *OPEN, *CLOSE})
#: Functions that give numbers, or fail.
_NUMBERS: Final = frozenset(
    {
        *("abs", "count", "strings.count", "time.now_ns", "units.parse", "units.parse_bytes"),
        *(
            f"data.{PACKAGE}.{wary(name)}"
            for name in ("ceil", "floor", "indexof", "round", "time.parse_duration_ns", "to_number")
        ),
    }
)
#: Fields of the input that are numbers.
_FIELDS: Final = (["input", ".", "remote_port"], ["input", ".", "time"])


def ordered(text: str, found: Sequence[Word]) -> str:
    """A module's text in which the prelude compares what may be of different types. Lines stay
    where they are."""
    bars = _bars(found)
    edits: list[tuple[int, int, str]] = []
    for place, word in enumerate(found):
        if word.kind != SIGN or word.text not in _ORDERING:
            continue
        begin, end = _begin(found, place, bars), _end(found, place, bars)
        if begin == place or end == place + 1:
            continue
        if _is_number(found[begin:place]) and _is_number(found[place + 1 : end]):
            continue
        name = f"data.{PACKAGE}.{_ORDERING[word.text]}("
        edits += [
            (found[begin].start, found[begin].start, name),
            (word.start, word.end, ","),
            (found[end - 1].end, found[end - 1].end, ")"),
        ]
    return edited(text, sorted(edits))


def unified(text: str, found: Sequence[Word], imported: Set[str]) -> str:
    """A module's text in which ``=`` compares a constant with what a name has. Lines stay where
    they are.

    :param imported: names of what is imported; with what is looked up beside them the engine dies.
    """
    bars, starts = _bars(found), {*heads(found)}
    edits: list[tuple[int, int, str]] = []
    for place, word in enumerate(found):
        if word.kind != SIGN or word.text != "=":
            continue
        begin, end = _begin(found, place, bars), _end(found, place, bars)
        if begin == place or begin in starts or found[begin].text == "default":
            continue  # the value of a rule
        sides = (begin, place), (place + 1, end)
        for first, past in (part for side in sides for part in _opaque(found, *side)):
            edits.append((found[first].start, found[first].start, f"{SOUND}("))
            edits.append((found[past - 1].end, found[past - 1].end, ")"))
        for (first, past), other in zip(sides, sides[::-1], strict=True):
            if not _is_constant(found[first:past]):
                continue
            is_bound = {part.text for part in found[slice(*other)]} <= imported
            if is_bound or _names_nothing(found, *other):
                edits.append((word.start, word.end, "=="))
            else:
                edits.append((found[first].start, found[first].start, "["))
                edits.append((found[past - 1].end, found[past - 1].end, "][0]"))
            break
    return edited(text, sorted(edits, key=lambda edit: edit[:2]))


def _bars(found: Sequence[Word]) -> Set[int]:
    """The places of comprehensions' bars."""
    return {bar for place in range(len(found)) if (bar := comprehension(found, place))}


def check_differences(path: str, found: Sequence[Word]) -> None:
    """Refuse ``-`` beside other operators of sets, and before 0."""
    bars = _bars(found)
    for place, word in enumerate(found):
        if word.kind != SIGN or word.text != "-":
            continue
        if [following.text for following in found[place + 1 : place + 2]] == ["0"]:
            raise PolicyInvalid(
                f"{path}:{word.line}: to the embedded engine -0 is not 0; leave the sign out"
            )
        at, end = _begin(found, place, bars), _end(found, place, bars)
        while at < end:
            if found[at].text in ("&", "|"):
                raise PolicyInvalid(
                    f"{path}:{word.line}: with the embedded engine, - is not worked out before & "
                    "and |; write brackets, as in: a | (b - c)"
                )
            at = closing(found, at) + 1 if found[at].text in OPEN else at + 1


def check_equality(path: str, found: Sequence[Word]) -> None:
    """Refuse ``==`` where the engine takes it for undefined when it does not hold."""
    for place, word in enumerate(found):
        if word.text in OPEN and found[place - 1].text != "if" and not comprehension(found, place):
            past = closing(found, place) + 1
            signs = {word.text for word in (*found[place - 1 : place], *found[past : past + 1])}
            if (word.text == "(" and called(found, place)) or signs & OPERATORS:
                _refuse(path, found, place)


def check_keys(path: str, found: Sequence[Word], giving: Set[int]) -> None:
    """Refuse keys that are looked for in what stands before ``==``, where ``with`` stands behind
    it: the engine looks for them without what ``with`` says, or finds none.

    :param giving: places of words that give a variable its value.
    """
    bars = _bars(found)
    for place, word in enumerate(found):
        if word.text != "with" or is_member(found, place):
            continue
        sign = _begin(found, place, bars) - 1
        at = _begin(found, sign, bars) if found[sign].text == "==" else sign
        while at < sign:
            key = found[at + 1]
            lone = found[at].text == "[" and found[at].glued and found[at + 2].text == "]"
            if lone and (key.text == "_" or at + 1 in giving):
                raise PolicyInvalid(
                    f"{path}:{key.line}: where with stands behind it, the embedded engine looks "
                    "for no key in front of ==; write x := table[_] with ..., then x == ..."
                )
            at = closing(found, at) + 1 if found[at].text in OPEN else at + 1


def _refuse(path: str, found: Sequence[Word], place: int) -> None:
    """Refuse ``==`` within a bracket, but in the bodies of comprehensions."""
    at, end = place + 1, closing(found, place)
    while at < end:
        if found[at].kind == SIGN and found[at].text == "==":
            raise PolicyInvalid(
                f"{path}:{found[at].line}: here the embedded engine takes a == b for undefined "
                "where it does not hold; give it a name first, as in: x := a == b"
            )
        at = closing(found, at) if comprehension(found, at) else at + 1


def _begin(found: Sequence[Word], place: int, bars: Set[int]) -> int:
    """Where the expression begins that ends before a place."""
    at = place
    while at > 0:
        before = found[at - 1]
        if at < place and found[at].first and not _goes_on(found, at):
            break
        if before.text in OPEN or (before.text in _BETWEEN and not is_member(found, at - 1)):
            break
        if at - 1 in bars:
            break
        at = opening(found, at - 1) if before.text in CLOSE else at - 1
    return at


def _end(found: Sequence[Word], place: int, bars: Set[int]) -> int:
    """Where the expression ends that begins behind a place."""
    at = place + 1
    while at < len(found):
        word = found[at]
        if at > place + 1 and word.first and not _goes_on(found, at):
            break
        if word.text in CLOSE or (word.text in _BETWEEN and not is_member(found, at)):
            break
        if at in bars:
            break
        at = closing(found, at) + 1 if word.text in OPEN else at + 1
    return at


def _goes_on(found: Sequence[Word], place: int) -> bool:
    """Whether a line that begins at a place goes on with the one before."""
    return found[place].text in OPERATORS or found[place - 1].text in OPERATORS


def _is_constant(term: Sequence[Word]) -> bool:
    """Whether nothing of a term is to be found out."""
    return all(word.kind not in (NAME, SIGN) or word.text in _CONSTANTS for word in term)


def _is_written(found: Sequence[Word], begin: int, end: int) -> bool:
    """Whether a term is one bracket."""
    return found[begin].text in ("[", "{") and closing(found, begin) == end - 1


def _is_set(found: Sequence[Word], begin: int, end: int) -> bool:
    """Whether a term is a set that is written out."""
    one = len(split(found[begin + 1 : end - 1], frozenset({":"}))) == 1
    return one and found[begin].text == "{" and _is_written(found, begin, end)


def _names_nothing(found: Sequence[Word], begin: int, end: int) -> bool:
    """Whether a term is a comprehension or a set that is written out: no name in it can get a
    value, and with what is looked up on the other side the engine does not compile it."""
    if not _is_written(found, begin, end):
        return False
    return _is_set(found, begin, end) or bool(comprehension(found, begin))


def _opaque(found: Sequence[Word], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """What of an array or object that is written out the engine takes for equal to anything, where
    ``=`` goes through it: sets, comprehensions and ``in`` (tried)."""
    if not _is_written(found, begin, end) or _names_nothing(found, begin, end):
        return
    at = begin + 1
    for part in split(found[begin + 1 : end - 1], frozenset({",", ":"})):
        at = next(place for place in range(at, end) if found[place] is part[0])
        past = at + len(part)
        asks = len(split(part, frozenset({"in"}))) > 1
        if asks or (_names_nothing(found, at, past) and not _is_constant(part)):
            yield at, past
        else:
            yield from _opaque(found, at, past)


def check_heads(path: str, found: Sequence[Word]) -> None:
    """Refuse sets in the arguments that a function is defined with: there any set fits them."""
    for head in heads(found):
        if [word.text for word in found[head + 1 : head + 2]] != ["("]:
            continue
        for at in range(head + 2, closing(found, head + 1)):
            if found[at].text == "set" or _is_set(found, at, closing(found, at) + 1):
                raise PolicyInvalid(
                    f"{path}:{found[at].line}: to the embedded engine any set fits one in a "
                    "function's arguments; give it a name there, and compare that"
                )


def _is_number(term: Sequence[Word]) -> bool:
    """Whether a term is a number for certain, or fails."""
    if [word.text for word in term] in _FIELDS:
        return True
    if len(term) == 1 or (len(term) == 2 and term[0].text == "-"):
        return term[-1].kind == NUMBER
    place = 0
    while place < len(term):
        if term[place].kind == SIGN and term[place].text in _ARITHMETIC and place:
            return True
        if term[place].text == "(" and closing(term, place) == len(term) - 1:
            return called(term, place) in _NUMBERS
        place = closing(term, place) + 1 if term[place].text in OPEN else place + 1
    return False
