"""Rego's text taken apart into words, with their lines: what the scan reads.

No parser: which words there are is all that it takes to know which functions a
policy calls and what it reads of its input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from exposr_tx.errors import PolicyInvalid

__all__ = [
    "CLOSE",
    "KEYWORDS",
    "NAME",
    "NUMBER",
    "OPEN",
    "SIGN",
    "STRING",
    "Word",
    "edited",
    "ends_term",
    "is_member",
    "literal",
    "words",
]

NAME: Final = "name"
STRING: Final = "string"
NUMBER: Final = "number"
SIGN: Final = "sign"
OPEN: Final = ("(", "[", "{")
CLOSE: Final = (")", "]", "}")
KEYWORDS: Final = frozenset(
    {
        *("as", "contains", "default", "else", "every", "false", "if", "import", "in", "not"),
        *("null", "package", "set", "some", "true", "with"),
    }
)

#: Keywords that are terms.
_VALUES: Final = frozenset({"false", "null", "true"})

_WORD: Final = re.compile(
    r"(?P<blank>[ \t\r\f\v\ufeff]+|#[^\n]*)"
    r"|(?P<line>\n)"
    r"|(?P<template>\$[\"`])"
    r"|(?P<string>\"(?:[^\"\\\n]|\\[^\n])*\"|`[^`]*`)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<sign>:=|==|!=|<=|>=|[^\w\s\"`$])"
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word.

    :ivar text: as it is written; a string with its quotes.
    :ivar line: counted from 1.
    :ivar start: where it begins in the text.
    :ivar first: whether nothing stands before it on its line.
    :ivar glued: whether nothing stands between it and the word before.
    """

    kind: str
    text: str
    line: int
    start: int
    first: bool
    glued: bool

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def words(path: str, text: str) -> list[Word]:
    """The words of a module. Raises PolicyInvalid where there are none to be had."""
    if "\0" in text:  # where the engine would end
        line = text[: text.index("\0")].count("\n") + 1
        raise PolicyInvalid(f"{path}:{line}: a NUL character; see whether the file is whole")
    found: list[Word] = []
    at, line, first, glued = 0, 1, True, False
    while at < len(text):
        matched = _WORD.match(text, at)
        if matched is None:
            what = "a string has no end" if text[at] in '"`' else f"{text[at]!r} is not Rego"
            raise PolicyInvalid(f"{path}:{line}: {what}")
        kind, word = str(matched.lastgroup), matched[0]
        if kind == "template":
            raise PolicyInvalid(
                f"{path}:{line}: template strings are not supported; use sprintf() or concat()"
            )
        if kind == "line":
            line, first = line + 1, True
        elif kind != "blank":
            found.append(Word(kind, word, line, at, first, glued))
            line += word.count("\n")
            first = False
        glued = kind not in ("line", "blank")
        at = matched.end()
    return found


def is_member(found: Sequence[Word], place: int) -> bool:
    """Whether a word is what is asked of something, as ``not`` in ``input.not``: no keyword."""
    return found[place].glued and place > 0 and found[place - 1].text == "."


def ends_term(found: Sequence[Word], place: int) -> bool:
    """Whether a term may end with a word."""
    word = found[place]
    if word.kind == SIGN:
        return word.text in CLOSE
    opens = word.kind == NAME and word.text in KEYWORDS - _VALUES
    return not opens or is_member(found, place)


def edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """A text with others in place of some of its parts.

    :param edits: where a part begins and ends, and what stands there; in this order. Those within
        what is gone are left out.
    """
    pieces, done = [], 0
    for start, end, new in edits:
        if start >= done:
            pieces += [text[done:start], new]
            done = end
    return "".join([*pieces, text[done:]])


def literal(word: Word) -> str:
    """What a string stands for; raises ValueError where it is not spelled as one."""
    return word.text[1:-1] if word.text[0] == "`" else str(json.loads(word.text))
