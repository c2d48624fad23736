"""Bodies of rules, which begin with ``if``.

The embedded engine takes those without one as well: Rego before v1, to which the same words mean
something else.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.words import CLOSE, OPEN, SIGN, Word

__all__ = ["check_bodies"]


def check_bodies(path: str, found: Sequence[Word], heads: Set[int]) -> None:
    """Refuse a body without ``if``. Raises PolicyInvalid.

    :param heads: the places of words that begin a rule.
    """
    depth, every = 0, False
    for place, word in enumerate(found):
        if place in heads:
            every = False
        every = every or word.text == "every"
        if word.text == "{" and not depth and not every and not word.first:
            before = found[place - 1]
            value = before.kind != SIGN or before.text in CLOSE
            if value and before.text not in ("if", "else", "in", "not", "contains"):
                raise PolicyInvalid(f"{path}:{word.line}: a body needs if before it")
        depth += (word.text in OPEN) - (word.text in CLOSE)
