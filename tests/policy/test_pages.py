"""The examples of the policy page do what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.compiled import Compiled
from exposr_tx.policy.document import completed
from tests.policy.folder import SKIP, Folder, compiled

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "policies.md"
EXAMPLE = re.compile(r"```rego\n(.*?)```\s+```(cases|refused)\n(.*?)```", re.DOTALL)


def examples() -> list[tuple[str, str, str]]:
    """Each policy of the page, with the kind and the text of what follows it."""
    return EXAMPLE.findall(PAGE.read_text())


class PageTests(SynchronousTestCase):
    """docs/howto/policies.md"""

    def test_all_are_told(self) -> None:
        """No policy of the page goes without what it does."""
        self.assertEqual(len(examples()), PAGE.read_text().count("```rego"))

    def test_cases(self) -> None:
        """Each example decides as its cases say."""
        for text, kind, cases in examples():
            folder = Folder(self, example=text)
            if kind == "refused":
                problem = str(self.assertRaises(PolicyInvalid, compiled, folder))
                self.assertIn(cases.strip(), problem)
                continue
            package = re.findall(r"^package (\S+)", text)[0]
            policies = compiled(folder)
            self.assertEqual(policies.warnings, [])
            for case in cases.strip().splitlines():
                given, _, told = case.partition(" -> ")
                self.assertEqual(self.decided(policies, package, json.loads(given)), told, case)

    if SKIP:
        test_cases.skip = SKIP  # type: ignore[attr-defined]

    @staticmethod
    def decided(policies: Compiled, package: str, given: dict[str, Any]) -> str:
        """``denied 302 why``, what goes without saying left out."""
        decision = policies.evaluate(package, policies.reading.part_of(completed(given)))
        status = "" if decision.allow or decision.status == 403 else f" {decision.status}"
        if decision.reason:
            status = f" {decision.status}"
        return f"{decision.outcome}{status} {decision.reason}".strip()
