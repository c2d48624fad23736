"""Rules for ``opa test``, which Rego's users keep beside what they test: left out.

They replace the whole input, which the embedded engine cannot do, and no decision reads
them: their names begin with ``test_``, and nothing but the tester asks for those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import pairwise
from typing import Final

from exposr_tx.policy.expressions import heads
from exposr_tx.policy.words import CLOSE, KEYWORDS, NAME, OPEN, Word, edited, ends_term

__all__ = ["names", "without_cases"]

_PREFIXES: Final = ("test_", "todo_test_")


def without_cases(text: str, found: Sequence[Word], named: Set[str] = frozenset()) -> str:
    """A module's text without rules for tests, unless others name them. Lines stay where they are.

    :param named: what other modules name; see :func:`names`.
    """
    cases, kept = _divided(found)
    edits = []
    for begin, past in cases:
        if found[begin].text not in kept | named:
            first, last = found[begin], found[past - 1]
            lines = text.count("\n", first.start, last.end)
            edits.append((first.start, last.end, "\n" * lines))
    return edited(text, edits)


def names(found: Sequence[Word]) -> Set[str]:
    """All that a module names, but for its rules for tests."""
    return _divided(found)[1]


def _divided(found: Sequence[Word]) -> tuple[list[tuple[int, int]], Set[str]]:
    """Where rules for tests begin, with the places behind them; and the words of all others."""
    begins = set(heads(found))
    kept: set[str] = set()
    cases: list[tuple[int, int]] = []
    for begin, past in _statements(found, begins):
        alone = begin in begins and _is_one(found[begin:past])
        if alone and found[begin].text.startswith(_PREFIXES):
            cases.append((begin, past))
        else:
            kept.update(word.text for word in found[begin:past])
    return cases, kept


def _statements(found: Sequence[Word], begins: set[int]) -> Iterator[tuple[int, int]]:
    """Where statements begin, and the places behind them: rules, imports, the package."""
    begin = depth = 0
    for place, word in enumerate(found):
        defaults = word.text == "default" and place + 1 in begins
        is_import = word.text == "import" and word.first and not depth
        after_default = place and place in begins and found[place - 1].text == "default"
        if place and (place in begins or defaults or is_import) and not after_default:
            yield begin, place
            begin = place
        depth += (word.text in OPEN) - (word.text in CLOSE)
    if found:
        yield begin, len(found)


def _is_one(statement: Sequence[Word]) -> bool:
    """Whether no other rule may stand behind on the same line: a name behind a term begins one."""
    depth = 0
    for place, (before, word) in enumerate(pairwise(statement)):
        depth += (before.text in OPEN) - (before.text in CLOSE)
        name = word.kind == NAME and word.text not in KEYWORDS
        behind = name and ends_term(statement, place)
        if not depth and (behind or word.text == ";"):
            return False
    return True
