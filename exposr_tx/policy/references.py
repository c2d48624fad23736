"""Dotted names in a policy: of rules, functions and packages, and of what is read of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exposr_tx.policy.words import KEYWORDS, NAME, STRING, Word, literal

__all__ = ["Reference", "reference_at", "references"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A dotted name: ``input.header["x"]`` is ``input``, ``header``, ``x``.

    :ivar at: the place of its first word.
    :ivar past: the place behind its last word.
    :ivar known: whether all its parts are written out.
    """

    parts: tuple[str, ...]
    line: int
    at: int
    past: int
    known: bool

    @property
    def name(self) -> str:
        return ".".join(self.parts)


def references(found: Sequence[Word], place: int) -> Iterator[Reference]:
    """The dotted names from a place on, but those that are imported."""
    while place < len(found):
        word = found[place]
        before, following = found[place - 1], found[min(place + 1, len(found) - 1)]
        called = word.text == "contains" and following.text == "("
        name = reference_at(found, place)
        if name is None or (word.text in KEYWORDS and not called):
            place += 1
        elif before.text == "import":
            place = name.past
            if place + 1 < len(found) and found[place].text == "as":
                place += 2
        else:
            if not (before.text == "." and word.glued):
                yield name
            place = name.past


def reference_at(found: Sequence[Word], place: int) -> Reference | None:
    """The dotted name that begins at a place."""
    if place >= len(found) or found[place].kind != NAME:
        return None
    first = found[place]
    parts, known, past = [first.text], True, place + 1
    while past + 1 < len(found) and found[past].glued:
        sign, following = found[past], found[past + 1]
        if sign.text == "." and following.kind == NAME:
            parts.append(following.text)
            past += 2
        elif sign.text == "[":
            closed = past + 2 < len(found) and found[past + 2].text == "]"
            if not (following.kind == STRING and closed):
                known = False
                break
            parts.append(_spelled(following))
            past += 3
        else:
            break
    return Reference(tuple(parts), first.line, place, past, known)


def _spelled(word: Word) -> str:
    """What a string stands for; as it is where it stands for nothing, which the engine will say."""
    try:
        return literal(word)
    except ValueError:
        return word.text[1:-1]
