"""The files of a set of policies: where they are, and whether they have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from exposr_tx.errors import PolicyInvalid

__all__ = ["Source", "read_sources", "signature"]

_ENDING = ".rego"
#: How often files are read that change while they are read.
_TRIES = 5

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A file, as it was read."""

    path: str
    text: str


def read_sources(paths: Iterable[str]) -> list[Source]:
    """Every ``*.rego`` file that paths name or contain, in the order of their names.

    All as they were at one moment: where one changes meanwhile, they are read again. Raises
    PolicyInvalid, which names the path and the remedy.
    """
    paths = tuple(paths)
    for _ in range(_TRIES):
        before = signature(paths)
        sources = _read(paths)
        if signature(paths) == before:
            return sources
    raise PolicyInvalid(f"{', '.join(paths)}: changes all the time; write it somewhere else")


def _read(paths: Sequence[str]) -> list[Source]:
    sources = []
    for path in _files(paths):
        try:
            with open(path, encoding="utf-8-sig") as file:
                sources.append(Source(path, file.read()))
        except (OSError, UnicodeDecodeError) as problem:
            raise PolicyInvalid(f"{path}: cannot be read: {problem}") from None
    if not sources:
        raise PolicyInvalid(f"{', '.join(paths)}: no *{_ENDING} file is there; add one")
    return sources


def signature(paths: Iterable[str]) -> Signature:
    """What changes when a file is changed, added or removed; empty while one is missing."""
    try:
        return tuple(
            (path, status.st_mtime_ns, status.st_size, status.st_ino)
            for path in _files(paths)
            for status in [os.stat(path)]
        )
    except (OSError, PolicyInvalid):
        return ()


def _files(paths: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for path in paths:
        if not os.path.exists(path):
            raise PolicyInvalid(f"{path}: there is no such file or folder")
        found |= dict.fromkeys(sorted(_below(path)) if os.path.isdir(path) else [path])
    return list(found)


def _below(folder: str) -> Iterator[str]:
    # A mounted ConfigMap has each file twice, the second time below a name that begins with dots.
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith("..")]
        for path in (os.path.join(base, name) for name in files if name.endswith(_ENDING)):
            # To open a pipe would wait for ever, and nothing would be loaded any more.
            if os.path.exists(path) and not os.path.isfile(path):
                raise PolicyInvalid(f"{path}: is no file; remove it")
            yield path
