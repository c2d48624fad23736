"""What is undefined within a negation lets nobody pass."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

#: Negations, and whether they hold in Rego for an input that has a path ``/a`` and nothing else
#: (tried with Open Policy Agent 1.22).
HOLDS = {
    "not input.x": True,
    "not input.not": True,
    'not input.x == "a"': True,
    'not (input.x == "a")': True,
    'not input.path == "/b"': True,
    'not startswith(input.path, "/b")': True,
    'not split(input.path, "/")[7] == "a"': True,
    "not count([y | y := input.x]) > 0": True,
    'not startswith(input.path, "/a")': False,
    'not startswith(input.x, "a")': False,
    "not is_null(input.x)": False,
    'not input.x != "a"': False,
    "not input.x < 5": False,
    'not input.x in ["a"]': False,
    'not "a" in input.x': False,
    'not lower(input.x) == "a"': False,
    'not [input.x] == ["a"]': False,
    'not {"a": input.x}.a == 1': False,
    'not {"/b": 1}[input.path]': True,
    'not {"/b": 1}[input.path] == 1': True,
    'not {"/a": 1}[input.path] == 1': False,
    'not input.path == {"/b": "/a"}[input.path]': True,
    'not {"/b"}[input.path]': True,
    'not ["/a"][count(input.path)]': True,
    'not {"/b": 1}[input.x]': False,
    'not ["/a"][count(input.x)] == 1': False,
    "not count(input.x) > 3": False,
    "not to_number(input.path) > 0": False,
    "not input.x - 1 == 0": False,
    "not 1 / (count(input.path) - 2) == 1": False,
    "not 1 % (count(input.path) - 2)": False,
    "not count(input.path) - 1 == 5": True,
    "not table[input.x]": False,
    "not table[input.x] == 1": False,
    'not {"/b": true}[input.path]': True,
    'not {"/b": {"c": 1}}[input.path].c == 1': True,
    'not ["a"][count(input.path)]': True,
    'not {x | x := input.path}["/b"]': True,
    'not {"/a": true}[input.path]': False,
    'not {"/b": true}[input.x]': False,
    'not {"a": input.x}.b': False,
    "not f(input.x)": False,
    "not f(rule)": False,
    'not trim(split(input.path, "/")[7], "x") == "a"': False,
    "not max([1 | f(input.path)]) == 1": False,
}
OTHERS = 'table := {"a": 1}\nrule := 1 if input.x\nf(x) if x == 1\n'


class NegationTests(SynchronousTestCase):
    """``not``."""

    skip = SKIP

    def test_undefined(self) -> None:
        """A negation whose parts are undefined does not hold: who sends no header field has not
        sent an innocent one."""
        files = {}
        for number, text in enumerate(HOLDS):
            files[f"a{number}"] = f"package a{number}\n{OTHERS}allow if {text}\n"
            files[f"b{number}"] = f"package b{number}\n{OTHERS}allow if {{\n  true\n  {text}\n}}\n"
        policies = compiled(Folder(self, **files))
        for kind in "ab":
            decided = {
                text: policies.evaluate(f"{kind}{number}", {"path": "/a"}).allow
                for number, text in enumerate(HOLDS)
            }
            self.assertEqual(decided, HOLDS)

    def test_lines(self) -> None:
        """Over several lines, with comments, in else and in comprehensions: all the same; and
        lines stay where they are."""
        text = (
            "package a\nallow if input.x else if\n  not startswith(\n    input.path, # )\n"
            '    "/b",\n  )\nb := [1 | not f(input.x); true]\nf(x) if x\nnot_a if '
            'not f("x") # not f(input.x)\n'
        )
        module = scan(Source("a.rego", text))
        self.assertEqual(module.text.count("\n"), text.count("\n"))
        self.assertIn("{ is_array([input.path]); not startswith(", module.text)
        self.assertIn("[1 | is_array([input.x]); not f(input.x); true]", module.text)
        self.assertIn('not_a if not f("x") #', module.text)
        policies = compiled(Folder(self, a=text))
        self.assertTrue(policies.evaluate("a", {"path": "/a"}).allow)
        self.assertFalse(policies.evaluate("a", {"path": "/b"}).allow)
        self.assertFalse(policies.evaluate("a", {}).allow)

    def test_lines_within(self) -> None:
        """In a comprehension within a negation each line is an expression, as anywhere else."""
        for number, body in enumerate(
            (
                "some y in split(input.path, x)\n      y != x",
                "some y\n        in split(input.path, x)\n      y\n        != x\n",
                'y := split(\n        input.path, x)[_]\n      [y] != [""]\n',
                'y :=\n        input.path\n      y == "/a" with input.b as 1\n      ["/a"] == [y]',
            )
        ):
            text = f"""package a
x := ""
allow if {{
    not count({{y |
      {body}
    }}) == 0
}}
"""
            policies = compiled(Folder(self, a=text))
            self.assertEqual(policies.modules[0].text.count("\n"), text.count("\n"))
            self.assertTrue(policies.evaluate("a", {"path": "/a"}).allow, number)
            self.assertFalse(policies.evaluate("a", {"path": ""}).allow, number)

    def test_nested(self) -> None:
        """Within every and not, what the engine gets wrong is refused with its line; a function
        helps."""
        for text in (
            "allow if {\n  every x in {1} {\n    not x == 1\n  }\n}",
            "allow if {\n  every x in f([1]) {\n    y := x; not y\n  }\n}\nf(x) := x",
            "allow if {\n  every i, x in [1] {\n    every y in [1] { x == y + i }\n  }\n}",
            "allow if {\n  every x in [1] {\n    count([1 | not x]) == 0\n  }\n}",
            "allow if {\n  every x in [1] {\n    count({y | some y in [x]}) == 0\n  }\n}",
        ):
            problem = self.assertRaises(PolicyInvalid, scan, Source("a.rego", f"package a\n{text}"))
            self.assertRegex(str(problem), r"a\.rego:4: within every, .* move it into a function")
        for inner in ("not x == 1", "every y in [1] { y == x }"):
            text = f"package a\nallow if not count({{x |\n  some x in [1, 2]; {inner}}}) == 1"
            problem = self.assertRaises(PolicyInvalid, scan, Source("a.rego", text))
            self.assertRegex(str(problem), r"a\.rego:3: within not, .* move it into a function")
        text = "package a\nallow if {\n  every x in [y | y := 1; not f(y)] { x == 1 }\n}\n"
        policies = compiled(Folder(self, a=f"{text}f(x) if not x == input.a\n"))
        self.assertTrue(policies.evaluate("a", {"a": 1}).allow)
