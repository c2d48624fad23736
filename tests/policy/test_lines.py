"""Where a line ends is no matter to a policy."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

#: Bodies of rules that hold for the path ``/a/b``, on one line as on several (tried with Open
#: Policy Agent 1.4).
HOLDS = (
    'parts := split(\n  input.path,\n  "/"\n)\nparts[1] == "a"',
    '[\n  "/a/b", "/c"\n][_] == input.path',
    '{\n  "/a/b": 1 # of a table\n}[input.path] == 1',
    'x := {\n  "/a/b": 1\n}[input.path]; x == 1',
    'f(\n  [\n    "/a/b"\n  ]\n)[0] == input.path',
    'input.path in {\n  "/a/b",\n  "/c"\n}',
    'not [\n  "/c"\n][0] == input.path',
    "count([x |\n  some x in [1, 2]\n  x > 1\n]) == 1",
    'every x in [\n  "/a/b"\n] {\n  x == input.path\n}',
)


class LinesTests(SynchronousTestCase):
    """Brackets that close on a line of their own."""

    def test_brackets(self) -> None:
        """What they hold is found as on one line: a rule that is to deny does."""
        files = {
            f"a{number}": f"package a{number}\nhit if {{\n{text}\n}}\nallow if not hit\nf(x) := x\n"
            for number, text in enumerate(HOLDS)
        }
        policies = compiled(Folder(self, **files))
        decided = {
            text: policies.evaluate(f"a{number}", {"path": "/a/b"}).outcome
            for number, text in enumerate(HOLDS)
        }
        self.assertEqual(decided, dict.fromkeys(HOLDS, "denied"))

    test_brackets.skip = SKIP  # type: ignore[attr-defined]

    def test_text(self) -> None:
        """What stands behind a bracket stays on its line; bodies of rules stay as they are."""
        text = (
            "package a\nallow if {\n  f(\n    input.path\n  )\n} else if {\n  f(1)\n}\nf(x) := x\n"
        )
        made = scan(Source("a", text)).text
        self.assertEqual(made, text.replace("f(\n    input.path\n  )", "f(\n\n    input.path )"))

    def test_goes_on(self) -> None:
        """What an expression names on its next line belongs to it: it begins no rule, and what of
        the input it reads is there."""
        for text in (
            "not",
            "input.path in",
            "input.path !=",
            "input.path <",
            "input.path ==",
            "1 %",
        ):
            text = (
                f"package a\nallow if {text}\ninput.method\nother := input.query.not\nlast := 1\n"
            )
            module = scan(Source("a", text))
            self.assertLessEqual({"method", "query.not"}, module.fields, text)
            self.assertEqual(module.rules, {"allow", "other", "last"}, text)
