"""Names that ``some`` declares, and what the engine makes of two of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

BAD = 'some w in {lower(v)}; w == "bad"'
#: Whether rules hold in Rego for a field ``X: BAD`` (tried with Open Policy Agent 1.22).
HOLDS = {
    f"if {{ some k, v in input.header; {BAD} }}": True,
    f"if {{ some k, v in [input.header.X]; k == 0; {BAD} }}": True,
    f"if {{ some k, v in {{input.header.X}}; k == v; {BAD} }}": True,
    f"if {{ some k, v in object.union(input.header, {{}}); {BAD} }}": True,
    f'if {{ some k, v in {{"a": "good"}}; {BAD} }}': False,
    f"if {{\n  some k, # name\n    v in input.header # all\n  {BAD}\n}}": True,
    f"if {{ some _, v in input.header; {BAD} }}": True,
    'if { some k, _ in input.header; lower(k) in {lower("X")} }': True,
    "if some k, v in input.header": True,
    # Where the engine crashed.
    'if { v := input.headers.X[k]; v == "no" } else := true if { some v, k in input.header }': True,
    "if some k, v in input.none": False,
    'if false else := true if some k, v in {"a": "b",\n "c": "d"}': True,
    f"if {{ some k, v in input.header; some a, b in {{k: v}}; {BAD}; b == v }}": True,
    'if { found := {lower(v) | some k, v in input.header}; "bad" in found }': True,
    "if { some i, n in [count(v) | some k, v in input.headers]; n == i + 1 }": True,
    'if { some i, j; input.headers[i][j] == "BAD"; lower(i) in {lower("X")} }': True,
    'if {\n  some i,\n    j\n  input.headers[i][j] == "BAD" }': True,
    'if { second("X", "BAD" in {"BAD"}) }': True,
    'if { [1, "BAD" in {"BAD"}] == [1, true]; count({1, "BAD" in {"BAD"}}) == 2 }': True,
    'if { replace(input.header.X, "A", "-") == "B-D" }': True,
    'if { replace(input.header.X, "", "-") == "BAD" }': False,
}


class SomesTests(SynchronousTestCase):
    """``some`` with two names."""

    def test_holds(self) -> None:
        """What is declared by one statement does not change what the next ones find."""
        files = {
            f"a{number}": f"package a{number}\nsecond(_, b) if b\nallow {text}\n"
            for number, text in enumerate(HOLDS)
        }
        policies = compiled(Folder(self, **files))
        given = {"header": {"X": "BAD"}, "headers": {"X": ["BAD"]}}
        decided = {
            text: policies.evaluate(f"a{number}", given).allow for number, text in enumerate(HOLDS)
        }
        self.assertEqual(decided, HOLDS)

    test_holds.skip = SKIP  # type: ignore[attr-defined]

    def test_refused(self) -> None:
        """What the engine would pass over is refused with its line."""
        for text in (
            'some k, "b" in input.header',
            "some k, [a, b] in input.header",
            "some a, b, c in input.header",
            "some k, v in f with input.header as {}",
            'every k, v in {"a": 1} { k == v }',
            '"X", "BAD" in input.header',
            'x := ("X", "BAD" in input.header)',
            'count({1 | "X", "BAD" in input.header}) == 1',
            'true;\n "X", "BAD" in input.header',
        ):
            problem = self.assertRaises(
                PolicyInvalid, scan, Source("a.rego", f"package a\nallow if {{ {text} }}\n")
            )
            self.assertRegex(str(problem), r"^a\.rego:[23]: with the embedded engine")

    def test_lines(self) -> None:
        """What stands behind stays on its line."""
        text = "package a\nallow if {\n  some k,\n    v in [\n      1,\n    ]\n  k == v\n}\n"
        lines = scan(Source("a", text)).text.splitlines()
        self.assertEqual(len(lines), len(text.splitlines()))
        self.assertIn("k == v", lines[6])
