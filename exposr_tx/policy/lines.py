"""Line ends in front of closing brackets, which the embedded engine takes for more.

``x := ["a", "b"`` with ``][i]`` on a line of its own has no value to it: where a bracket closes
behind a line's end, what is looked up in the whole is not found. So was what a function gave that
is written on several lines, and a rule that is to deny did not (tried). In front of the bracket's
first word a line's end means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from exposr_tx.policy.words import CLOSE, OPEN, SIGN, Word, edited

__all__ = ["closed"]


def closed(text: str, found: Sequence[Word]) -> str:
    """A module's text in which brackets, but for those of rules' bodies, close where their last
    word ends. What stands behind them stays on its line."""
    edits: list[tuple[int, int, str]] = []
    opened: list[int] = []
    for place, word in enumerate(found):
        if word.kind != SIGN:
            continue
        if word.text in OPEN:
            opened.append(place)
        elif word.text in CLOSE and opened:
            begin = opened.pop()
            if word.first and found[begin - 1].text not in ("if", "else"):
                first, last = found[begin].end, found[place - 1].end
                edits.append((first, first, "\n" * text.count("\n", last, word.start)))
                edits.append((last, word.start, " "))
    return edited(text, sorted(edits))
