"""The store that lives and ends with the process."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping
from itertools import count as counting
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from exposr_tx.errors import Conflict
from exposr_tx.interfaces import IStorage, Record

__all__ = ["MemoryStorage"]


@implementer(IStorage)
class MemoryStorage:
    """Records in dictionaries, kept as JSON text: nobody holds a mutable value of ours."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[str, tuple[str, int]]] = defaultdict(dict)
        self._keys: dict[str, list[str]] = defaultdict(list)  # sorted, for list()
        self._versions = counting(1)  # never the same twice, even for a key made anew

    def get(self, table: str, key: str) -> Deferred[Record | None]:
        return succeed(self._record(table, key))

    def put(
        self, table: str, key: str, value: Mapping[str, Any], version: int | None
    ) -> Deferred[int]:
        text = json.dumps(value)
        there = self._texts[table].get(key)
        if (there and there[1]) != version:
            return fail(Conflict(f"{table}: changed by somebody else"))
        if there is None:
            insort(self._keys[table], key)
        new = next(self._versions)
        self._texts[table][key] = (text, new)
        return succeed(new)

    def delete(self, table: str, key: str, version: int | None) -> Deferred[bool]:
        there = self._texts[table].get(key)
        if there is None:
            return succeed(False)
        if version not in (None, there[1]):
            return fail(Conflict(f"{table}: changed by somebody else"))
        del self._texts[table][key]
        keys = self._keys[table]
        del keys[bisect_left(keys, key)]
        return succeed(True)

    def list(self, table: str, after: str, count: int) -> Deferred[list[tuple[str, Record]]]:
        keys = self._keys[table]
        start = bisect_right(keys, after)
        found = []
        for key in keys[start : start + count]:
            record = self._record(table, key)
            if record is not None:
                found.append((key, record))
        return succeed(found)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def _record(self, table: str, key: str) -> Record | None:
        there = self._texts[table].get(key)
        return None if there is None else Record(json.loads(there[0]), there[1])
