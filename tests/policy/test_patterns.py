"""Regular expressions that the engine would take for other ones are refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

#: Patterns with something that they match, and something that they do not.
PLAIN = {
    "": ("a", None),
    "^$": ("", "a"),
    "^/admin(/|$)": ("/admin/x", "/administrator"),
    r"^/v\d+/[\w.-]+\.js$": ("/v12/a-b.js", "/v12/a-b-js"),
    r"(?:curl|wget)/\S*": ("curl/8.1", "Mozilla"),
    r"\bbot\b": ("a bot.", "robots"),
    "^[A-Z]{2,3}$": ("DE", "DEUX"),
    r"^[^\s/]+@example\.com$": ("a@example.com", "a@example-com"),
    "a+?b*?": ("ab", "b"),
}
#: What Rego takes for something else than the engine, or only one of them at all.
OTHERS = [
    *("(?i)admin", "(?s).", "(?P<name>a)", "(?<name>a)", "(?=a)", r"\Aa", r"a\z", r"\pL", r"\p{L}"),
    *(
        r"\Qa.b\E",
        r"\x41",
        r"\u0041",
        r"\t",
        r"\\",
        '"',
        "[]a]",
        "[^]a]",
        "[[:alpha:]]",
        "[[:^alpha:]]",
    ),
    *("{", "a{,2}", "a{b}", "^*a", "(*a)", "é+", "[é]", "(", ")", r"\1"),
]


class PatternTests(SynchronousTestCase):
    """Patterns of ``regex.match`` and the like."""

    def refusal(self, rule: str) -> str:
        text = f"package a\n{rule}"
        return str(self.assertRaises(PolicyInvalid, scan, Source("a.rego", text)))

    def test_refused(self) -> None:
        """A pattern that would silently match nothing, or something else, ends the start."""
        for pattern in OTHERS:
            said = self.refusal(f"allow if not regex.match(`{pattern}`, input.path)")
            self.assertRegex(said, r"a\.rego:2: .* differ from Rego's: .*; write it with")
        for call in (
            r'regex.match("\x41", x)',
            'regex["match"](`(?i)a`, x)',
            "regex.replace(x, `(?i)a`, x)",
        ):
            self.assertIn("differ from Rego's", self.refusal(f'x := "a"\nallow if {call}'))

    def test_written_out(self) -> None:
        """Where a pattern is worked out cannot be told what it is: but for regex.match it is
        refused."""
        for call in (
            "regex.split(input.x, x)",
            "regex.replace(x, x, `a`)",
            "f(1) with f as regex.match",
        ):
            said = self.refusal(f'x := "a"\nf(y) := y\nallow if {call}')
            self.assertRegex(said, r"a\.rego:4: the pattern of regex\.\w+ must be written out")

    def test_same(self) -> None:
        """Plain patterns match what they match in Rego, written down or worked out; another one
        that is worked out is an error, which denies."""
        files = {}
        for number, pattern in enumerate(PLAIN):
            files[f"a{number}"] = (
                f"package a{number}\nallow if regex.match(`{pattern}`, input.path)"
            )
        files["b"] = "package b\nallow if regex.match(input.query, input.path)"
        files["c"] = "package c\nallow if not regex.match(input.query, input.path)"
        policies = compiled(Folder(self, **files))
        for number, (pattern, (matched, other)) in enumerate(PLAIN.items()):
            for text, allowed in ((matched, True), (other, False)):
                if text is not None:
                    given = {"path": text, "query": pattern}
                    for package in (f"a{number}", "b"):
                        found = policies.evaluate(package, given).allow
                        self.assertEqual((pattern, text, found), (pattern, text, allowed))
        for pattern in OTHERS:
            outcome = policies.evaluate("c", {"path": "x", "query": pattern}).outcome
            self.assertEqual((pattern, outcome), (pattern, "error"))

    test_same.skip = SKIP  # type: ignore[attr-defined]
