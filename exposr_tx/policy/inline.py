"""Policies evaluated at once, in this process: for tests in memory, where there is no other one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exposr_tx.interfaces import Decision
from exposr_tx.policy.compiled import Compiled
from exposr_tx.policy.sources import read_sources

__all__ = ["Inline"]


class Inline:
    """Evaluators without processes, and so without a time limit.

    Raises PolicyInvalid.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._compiled = Compiled(read_sources(paths))
        self.outline = self._compiled.outline

    def ask(
        self, package: str, document: Mapping[str, Any], told: Callable[[Decision], object]
    ) -> None:
        told(self._compiled.evaluate(package, document))

    def close(self) -> None:
        """There is nothing to end."""
