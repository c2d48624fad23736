"""Rules for ``opa test`` beside policies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

POLICY = """package auth.server

allow if input.path == "/a"
"""
BESIDE = """package auth.server_test

import data.auth.server

given := {"path": "/a"}

test_allowed if {
    server.allow with input as {"path": "/a"}
}

test_denied if not server.allow with input as {
    "path": "/b",
}

todo_test_given if { server.allow with input as given }
"""
WITHIN = """package auth.server
test_allowed if {
    allow with input as {"path": "/a"}
} else := false
allow if input.path == "/c"
test_set contains x if { x := 1 }
"""


class CaseTests(SynchronousTestCase):
    """With the real engine."""

    skip = SKIP

    def test_left_out(self) -> None:
        """They may replace the whole input; everything else in their files counts."""
        policy = compiled(Folder(self, policy=POLICY, policy_test=BESIDE, within=WITHIN))
        found = [
            policy.evaluate("auth.server", {"path": path}).outcome for path in ("/a", "/c", "/b")
        ]
        self.assertEqual(found, ["allowed", "allowed", "denied"])
        self.assertEqual(
            [module.rules for module in policy.modules], [{"allow"}, {"given"}, {"allow"}]
        )

    def test_lines(self) -> None:
        """Lines stay where they are."""
        text = scan(Source("a", BESIDE)).text
        self.assertEqual(text.count("\n"), BESIDE.count("\n"))
        self.assertNotIn("with", text)

    def test_named(self) -> None:
        """What another rule names decides, and so stays; so does what may have one behind it."""
        for rules, rest in (
            ("test_a if input.path\nallow if test_a", {"test_a", "allow"}),
            ("test_a if input.path\ntest_b if test_a", set()),
            ("test_a if { true } deny if input.path", {"test_a"}),
            ("test_a := 1; deny if input.path", {"test_a"}),
            ("test_a if true deny if input.path", {"test_a"}),
            ('test_a if input.x == "a" deny if input.path', {"test_a"}),
            ("test_a := input.x deny if input.path", {"test_a"}),
            ("test_a := input.if deny if input.path", {"test_a"}),
            ("test_a := [1] deny if input.path", {"test_a"}),
            ("test_a if every x in [1] { not x } else := true", set()),
            ("test_a if not input.x with input.x as null", set()),
            ("default test_a := false", {"test_a"}),
            ("testing if input.path", {"testing"}),
        ):
            self.assertEqual(scan(Source("a", f"package a\n{rules}\n")).rules, rest, rules)

    def test_named_elsewhere(self) -> None:
        """What a rule of another file names decides as well; what only its tests name does not."""
        library = 'package lib\ntest_get(x) if x == "GET"\ntest_given := {"method": "GET"}\n'
        rules = """package auth.server
import data.lib
allow if lib.test_get(input.method)
test_allowed if { allow with input as lib.test_given }
"""
        policy = compiled(Folder(self, lib=library, policy=rules))
        found = [
            policy.evaluate("auth.server", {"method": method}).outcome for method in ("GET", "PUT")
        ]
        self.assertEqual(found, ["allowed", "denied"])
        self.assertNotIn("test_given", policy.modules[0].text)
