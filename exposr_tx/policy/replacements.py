"""``with``: what of the input, or below ``data``, is another while something is asked.

The embedded engine passes over all but the plainest: a rule asked about another address would
be about the visitor's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.references import reference_at
from exposr_tx.policy.words import SIGN, Word, is_member

__all__ = ["check_replacements"]


def check_replacements(path: str, found: Sequence[Word]) -> None:
    """Refuse ``with`` where the engine passes over it. Raises PolicyInvalid."""
    for place, word in enumerate(found):
        if word.text != "with" or is_member(found, place):
            continue
        target = reference_at(found, place + 1)
        value = found[target.past + 1 :][:2] if target else []
        simple = bool(value) and value[0].kind != SIGN
        goes_on = len(value) > 1 and value[1].glued and value[1].text not in (";", "}")
        if (
            target is None
            or not target.known
            or len(target.parts) < 2
            or target.parts[0] not in ("input", "data")
            or target.parts[1] in ("remote", "remote_ip")
            or not simple
            or goes_on
        ):
            raise PolicyInvalid(
                f"{path}:{word.line}: with the embedded engine, `with` takes a field of the "
                "input but remote and remote_ip, or a whole path below data, and a literal or a "
                "variable; or write a function, and give it what differs"
            )
