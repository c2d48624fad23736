"""``some`` with one name at a time, which is all that the embedded engine gets right.

Behind ``some key, value in table`` it takes ``value in {lower(name)}`` for undefined, or for a
mistake: a rule that is to deny would not (tried). So that becomes ``entries := table; some at;
found := entries[at]; key := at; value := found``, and ``some a, b`` becomes ``some a; some b``. The
names are new ones, as the engine crashes where one body finds a name's value by looking it up, and
the next one looks something up by it. Behind ``every key, value in`` and ``key, value in table`` it
is no better; these are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.expressions import OPERATORS, closing, expression_end, opening
from exposr_tx.policy.words import CLOSE, KEYWORDS, NAME, OPEN, SIGN, Word, edited, is_member

__all__ = ["check_pairs", "single"]

#: What new names begin with: of a table, of a key and of what is found by it.
NEW: Final = ("exposr_tx_table", "exposr_tx_at", "exposr_tx_found")


def single(path: str, text: str, found: Sequence[Word]) -> str:
    """A module's text with one name for each ``some``. Lines stay where they are."""
    edits: list[tuple[int, int, str]] = []
    taken = {word.text for word in found}
    numbers = (n for n in count(1) if not taken & {f"{name}_{n}" for name in NEW})
    for place, word in enumerate(found):
        if word.text != "some" or is_member(found, place):
            continue
        parts, end = _declared(found, place + 1)
        if len(parts) == 1:
            continue
        lines = "\n" * (found[end - 1].line - word.line)
        if end == len(found) or found[end].text != "in":
            each = "; ".join(f"some {text[found[a].start : found[b - 1].end]}" for a, b in parts)
            edits.append((word.start, found[end - 1].end, each + lines))
            continue
        over = expression_end(found, end + 1)
        key, value = _pair(path, found, place, parts, over)
        if key == "_":
            edits.append((word.start, found[end].end, f"some {value} in{lines}"))
            continue
        number = next(numbers)
        table, at, entry = (f"{name}_{number}" for name in NEW)
        lone = found[place - 1].text == "if"
        edits.append((word.start, found[end].end, f"{'{ ' if lone else ''}{table} :="))
        rest = f"; some {at}; {entry} := {table}[{at}]; {key} := {at}"
        rest += f"; {value} := {entry}" if value != "_" else ""
        last = found[over - 1].end
        edits.append((last, last, f"{rest}{' }' if lone else ''}{lines}"))
    return edited(text, sorted(edits))


def check_pairs(path: str, found: Sequence[Word]) -> None:
    """Refuse ``key, value in table``, but behind ``some``."""
    for place, word in enumerate(found):
        if word.text != "in" or word.kind != NAME or is_member(found, place):
            continue
        at, commas = place - 1, 0
        while at > 0 and not _begins(found, at):
            commas += found[at].text == ","
            at = opening(found, at) - 1 if found[at].text in CLOSE else at - 1
        if commas and not _is_list(found, at):
            raise PolicyInvalid(
                f"{path}:{word.line}: with the embedded engine, two names stand before in only "
                "where some declares them; write table[key] == value, or in place of every a rule "
                "with some for what must not be, and say not to that"
            )


def _begins(found: Sequence[Word], place: int) -> bool:
    """Whether an expression begins at or behind a word."""
    word, before = found[place], found[place - 1]
    if word.text in (";", "|", ":=", "if", "else", "some", "every", *OPEN):
        return True
    return word.first and before.text not in (",", *OPEN, *OPERATORS)


def _is_list(found: Sequence[Word], place: int) -> bool:
    """Whether a bracket opens at a place for what has commas between: no body of a rule."""
    word, before = found[place], found[place - 1]
    if word.text == "(":
        return word.glued and (before.kind == NAME or before.text in CLOSE)
    is_value = before.kind == SIGN and before.text not in CLOSE
    return word.text == "[" or (word.text == "{" and (is_value or before.text in ("in", "not")))


def _declared(found: Sequence[Word], begin: int) -> tuple[list[tuple[int, int]], int]:
    """What stands between the commas of a ``some``, and where that is over."""
    parts, place, start = [], begin, begin
    while place < len(found):
        word, before = found[place], found[place - 1]
        if word.text in ("in", ";", *CLOSE) or (
            word.first and place > begin and before.text != ","
        ):
            break
        if word.text == ",":
            parts.append((start, place))
            start = place + 1
        place = closing(found, place) + 1 if word.text in OPEN else place + 1
    return [*parts, (start, place)], place


def _pair(
    path: str, found: Sequence[Word], place: int, parts: Sequence[tuple[int, int]], over: int
) -> tuple[str, str]:
    """The two names of ``some key, value in``."""
    names = [found[a].text for a, b in parts if b == a + 1 and found[a].kind == NAME]
    plain = len(names) == len(parts) == 2 and not KEYWORDS & {*names}
    if (
        not plain
        or found[place - 1].text == "not"
        or found[min(over, len(found) - 1)].text == "with"
    ):
        raise PolicyInvalid(
            f"{path}:{found[place].line}: with the embedded engine, `some` takes two names, and "
            "neither not nor with; give what is found a name, and take it apart behind that"
        )
    return names[0], names[1]
