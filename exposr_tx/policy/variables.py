"""Which names of a policy are variables, and where: rule by rule, scope by scope.

A variable is known where it gets a value, and in what is within that: a branch of a rule, the
brackets of a comprehension, the body of an ``every``. What is within a ``not`` gives no value to
anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

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
from exposr_tx.policy.words import CLOSE, KEYWORDS, NAME, OPEN, Word, is_member

__all__ = ["Scope", "giving", "known", "scopes"]

#: What may stand between the names of a declaration.
_PATTERN: Final = (",", "[", "]", "{", "}", ":")
#: What a reference is made of besides names.
_LINKS: Final = (".", "]", ")")
_WORKED_OUT: Final = frozenset({"+", "-", "*", "/", "%", "&", "|", "<", "<=", ">", ">="})


@dataclass(slots=True)
class Scope:
    """A branch of a rule, a comprehension, or an ``every``.

    :ivar bar: the place of a comprehension's ``|``; 0 for the others.
    :ivar own: places of words that are not those of a scope within.
    :ivar declared: variables that are its own, whatever there is outside.
    :ivar bound: variables that get a value in it, if they have none outside; with the place of the
        word that gives it.
    :ivar inner: scopes within.
    :ivar last: whether it stands in what the scope around it results in.
    :ivar loose: what is used before it has a value where the engine then finds nothing; mostly
        keys, as the ``i`` of ``f(table[i])``.
    :ivar hiding: declared where the engine would take a rule of the same name.
    """

    bar: int = 0
    own: list[int] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    bound: dict[str, int] = field(default_factory=dict)
    inner: list[Scope] = field(default_factory=list)
    last: bool = False
    loose: list[Word] = field(default_factory=list)
    hiding: list[Word] = field(default_factory=list)


def scopes(found: Sequence[Word]) -> list[Scope]:
    """The branches of all rules, in their order."""
    made = []
    for head, past in pairwise([*heads(found), len(found)]):
        arguments: set[str] = set()
        if head + 1 < past and found[head + 1].text == "(":
            arguments = _names(found[head + 2 : closing(found, head + 1)])
        for begin, end in pairwise([head, *_elses(found, head, past), past]):
            value = _head_ends(found, begin) if begin == head else begin
            body = next((at for at in range(value, end) if found[at].text == "if"), end)
            scope = _scope(found, range(begin, end), range(value, body), arguments)
            scope.declared |= arguments
            made.append(scope)
    return made


def known(within: Iterable[Scope], outside: Set[str] = frozenset({"_"})) -> dict[int, Set[str]]:
    """The variables that are known at each place."""
    found: dict[int, Set[str]] = {}
    for scope in within:
        here = outside | scope.bound.keys()
        found |= dict.fromkeys(scope.own, here) | known(scope.inner, here)
    return found


def giving(within: Iterable[Scope]) -> set[int]:
    """The places of words that give a variable its value."""
    return {place for scope in within for place in (*scope.bound.values(), *giving(scope.inner))}


def _elses(found: Sequence[Word], begin: int, past: int) -> Iterator[int]:
    depth = 0
    for place in range(begin, past):
        if found[place].text == "else" and not depth:
            yield place
        depth += (found[place].text in OPEN) - (found[place].text in CLOSE)


def _head_ends(found: Sequence[Word], place: int) -> int:
    """Where the name of a rule is over, with arguments and keys: they give no values."""
    while place < len(found) and found[place].text not in (":=", "=", "if", "contains"):
        place = closing(found, place) + 1 if found[place].text in OPEN else place + 1
    return place


def _scope(
    found: Sequence[Word], places: range, head: range, given: Iterable[str], bar: int = 0
) -> Scope:
    """The scope that certain places make.

    :param head: those of what it results in, which is worked out last.
    :param given: what has a value before.
    """
    scope = Scope(bar, bound=dict.fromkeys(given, places.start))
    bodies: dict[int, int] = {}  # of every: where they open and end
    body: list[int] = []
    place, negated = places.start, places.start
    while place < places.stop:
        kind = keyword(found, place)
        if kind == "not":
            negated = max(negated, expression_end(found, place + 1))
        elif kind == "every":
            opens, names_end = every_body(found, place + 1), place + 1
            while names_end < opens and found[names_end].text != "in":
                names_end += 1
            bodies[opens] = end = closing(found, opens)
            names = _names(found[place + 1 : names_end])
            scope.inner.append(_scope(found, range(opens + 1, end), range(0), names))
            scope.inner[-1].own += [opens, *range(place + 1, names_end)]
            scope.inner[-1].declared |= names
            place = names_end
            continue
        if place in bodies:
            place = bodies[place] + 1
            continue
        scope.own.append(place)
        if place < negated:
            scope.loose += [found[place]] if _is_any_key(found, place) else []
        elif place >= head.stop and place != bar:
            body.append(place)
        if inside := comprehension(found, place):
            end = closing(found, place)
            inner = _scope(found, range(place + 1, end), range(place + 1, inside), (), inside)
            inner.last = place in head
            scope.inner.append(inner)
            place = end
        else:
            place += 1
    last = [at for at in scope.own if at in head and at >= negated]
    _values(found, body, scope)
    _values(found, last, scope)
    early = [at for at in body if _is_name(found, at) and at < scope.bound.get(found[at].text, 0)]
    scope.loose += [found[at] for at in early if not _is_declaration(found, at)]
    return scope


def _is_declaration(found: Sequence[Word], place: int) -> bool:
    """Whether a name stands in what ``some`` declares."""
    while found[place - 1].text == "," or (found[place - 1].kind == NAME and place):
        if found[place - 1].text == "some":
            return True
        place -= 1
    return False


def _is_any_key(found: Sequence[Word], place: int) -> bool:
    return [word.text for word in found[place - 1 : place + 2]] == ["[", "_", "]"]


def _values(found: Sequence[Word], places: Sequence[int], scope: Scope) -> None:
    """Enter into a scope what words that follow each other say of its variables.

    Declared are those with ``:=`` and ``some``. Those get a value that stand before ``:=`` and
    ``=``, alone or in a pattern, between ``some`` and ``in``, and in brackets behind a reference
    that is an operand of a statement by itself.
    """
    depth, some = 0, False
    around: list[int] = []  # the brackets that are open
    for nth, place in enumerate(places):
        word = found[place]
        before = found[places[nth - 1]] if nth else found[place - 1]
        following = found[places[nth + 1]].text if nth + 1 < len(places) else ""
        if word.text == ";" or (word.first and not depth):
            some = False
        if word.text in ("[", "{"):
            end = closing(found, place)
            past = bisect_left(places, end)
            inside = [at for at in places[nth + 1 : past] if _is_name(found, at)]
            follows = end + 1 in places[past : past + 2]
            sign = found[end + 1].text if follows else ""
            if word.glued and _ends_term(before):
                if word.text == "[" and end == place + 2 and len(inside) == 1:
                    loose = bool(depth) or _is_operand(found, place, some, scope.bar)
                    _key(found, scope, inside[0], loose)
            elif sign in (":=", "=") or (around and called(found, around[-1]) == "walk"):
                _bind(found, scope, inside)
            if sign == ":=":
                scope.declared |= {found[at].text for at in inside}
                scope.hiding += [found[at] for at in inside]
        elif word.text == "some":
            some = True
            end = _declared(found, place + 1)
            inside = [at for at in range(place + 1, end) if _is_name(found, at)]
            scope.declared |= {found[at].text for at in inside}
            if end < len(found) and found[end].text == "in":
                _bind(found, scope, inside)
            else:
                scope.hiding += [found[at] for at in inside]
        elif _is_name(found, place) and following in (":=", "="):
            scope.declared |= {word.text} if following == ":=" else set()
            _bind(found, scope, [place])
        if word.text in OPEN:
            around.append(place)
        elif word.text in CLOSE and around:
            around.pop()
        if not (word.text == "{" and before.text == "if"):
            depth += (word.text in OPEN) - (word.text in CLOSE)


def _bind(found: Sequence[Word], scope: Scope, places: Iterable[int]) -> None:
    for place in places:
        scope.bound.setdefault(found[place].text, place)


def _key(found: Sequence[Word], scope: Scope, place: int, within: bool) -> None:
    """Enter a key.

    :param within: whether it stands within something else.
    """
    word = found[place]
    if within and (word.text == "_" or word.text not in scope.bound):
        scope.loose.append(word)
    _bind(found, scope, [place])


def _is_operand(found: Sequence[Word], place: int, some: bool, bar: int) -> bool:
    """Whether a reference, whose key opens at a place, stands where something is worked out,
    or compared by a function.

    :param some: whether its statement begins with ``some``.
    :param bar: the comprehension's.
    """
    begin, past = place - 1, closing(found, place) + 1
    while found[begin + 1].glued and (found[begin].kind == NAME or found[begin].text in _LINKS):
        begin = opening(found, begin) - 1 if found[begin].text in CLOSE else begin - 1
    while past < len(found) and found[past].glued and found[past].text in (".", "["):
        past = closing(found, past) + 1 if found[past].text == "[" else past + 2
    signs = {
        "" if begin == bar else found[begin].text,
        found[past].text if past < len(found) else "",
    }
    return bool(signs & _WORKED_OUT) or ("in" in signs and not some)


def _is_name(found: Sequence[Word], place: int) -> bool:
    word = found[place]
    return word.kind == NAME and word.text not in KEYWORDS and not is_member(found, place)


def _ends_term(word: Word) -> bool:
    return word.text in CLOSE or (word.kind == NAME and word.text not in KEYWORDS)


def _declared(found: Sequence[Word], place: int) -> int:
    """Where a declaration ends: with its last name."""
    while place < len(found) and (found[place].kind == NAME or found[place].text in _PATTERN):
        if found[place].text == "in" or (found[place].first and found[place - 1].text != ","):
            break
        place += 1
    return place


def _names(found: Sequence[Word]) -> set[str]:
    """All names among words that may be those of variables."""
    return {word.text for word in found if word.kind == NAME} - KEYWORDS
