"""Rules for ``opa test``, which Rego's users keep beside what they test: left out.

They replace the whole input, which the embedded engine cannot do, and no decision reads
them: their names begin with ``test_``, and nothing but the tester asks for those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from exposr_tx.policy.expressions import heads
from exposr_tx.policy.words import CLOSE, KEYWORDS, NAME, OPEN, Word, edited

__all__ = ["without_cases"]

_PREFIXES: Final = ("test_", "todo_test_")


def without_cases(text: str, found: Sequence[Word]) -> str:
    """A module's text without rules for tests, unless others in it name them. Lines stay where
    they are."""
    begins = set(heads(found))
    kept: set[str] = set()
    cases: list[tuple[str, int, int]] = []
    for begin, past in _statements(found, begins):
        name = found[begin].text
        alone = begin in begins and _is_one(found[begin:past])
        if alone and name.startswith(_PREFIXES):
            cases.append((name, begin, past))
        else:
            kept.update(word.text for word in found[begin:past])
    edits = []
    for name, begin, past in cases:
        if name not in kept:
            first, last = found[begin], found[past - 1]
            lines = text.count("\n", first.start, last.end)
            edits.append((first.start, last.end, "\n" * lines))
    return edited(text, edits)


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
    """Whether no other rule may stand behind on the same line."""
    depth = 0
    for before, word in pairwise(statement):
        depth += (before.text in OPEN) - (before.text in CLOSE)
        behind = before.text == "}" and word.kind == NAME and word.text not in KEYWORDS
        if not depth and (behind or word.text == ";"):
            return False
    return True
