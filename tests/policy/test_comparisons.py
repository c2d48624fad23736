"""What comparisons mean between values of several types."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

#: Bodies of rules, and whether they hold in Rego for a field ``X: 5`` and the port 7 (tried with
#: Open Policy Agent 1.22).
HOLDS = {
    "input.header.X < 9": False,
    "input.header.X >= 18": True,
    "9 > input.header.X": False,
    "not input.header.X < 9": True,
    "not input.header.Y < 9": False,
    "x := input.header.X < 9; x == false": True,
    "[1 | input.header.X < 9] == []": True,
    'x := {"a": input.header.X < 9, "b": 1 < 2}; x == {"a": false, "b": true}': True,
    "every x in [6, 8] { x > 5; x <= 8 }": True,
    "f(input.remote_port)": True,
    "not f(input.header.X) == false": True,
    'input.header.X < "6"; "4" <= input.header.X; input.header.X > "40"': True,
    "to_number(input.header.X) < 9": True,
    "not to_number(input.header.Y) < 9": False,
    "input.remote_port - 1 > 5; 1 + 1 <= count(input.header.X) + 1": True,
    "null < false; true < 1; 100 < `a`; `a` < [1]; [1] < {}; {} < set()": True,
    "input.remote_port > null; input.remote_port < `a`": True,
    "x := {1, 2} | ({3} - {1}); x == {1, 2, 3}": True,
    "x := ({1, 2} | {3}) - {1}; x == {2, 3}": True,
    "x := {1} | {2, 3} & {3}; y := {n - 1 | some n in x}; y == {0, 2}": True,
    "null <= null": False,  # no order is known: the evaluation fails
}

#: The same for the method POST, with ``=`` beside constants.
UNIFIED = {
    'x := input.method; x = "GET"': False,
    'x := input.method; x = "POST"': True,
    'x := input.method; "GET" = x': False,
    'some x in [input.method]; x = "GET"': False,
    "x := count(input.method); x =\n 3": False,
    "x := input.method; y := x; y = `GET`": False,
    'x := input.method; x = ["GET"]': False,
    'x := {"a": input.method}; {"a": "GET"} = x': False,
    'x := input.method; not x = "GET"': True,
    'x := input.method == "GET"; x = false': True,
    "x := -3; x = -4": False,
    'count([1 | x := input.method; x = "GET"]) == 0': True,
    '[x | x := input.method] = ["POST"]': True,
    '{"GET"} = {x | x := input.method}': False,
    '{x: 1 | x := input.method} = {"POST": 1}': True,
    '{"POST"} = {input.method}': True,
    '{method} = {"GET"}': False,
    'not {"GET", "HEAD"} = {input.method, "HEAD"}': True,
    '[{input.method}] = [{"GET"}]': False,
    '[{input.method}, y] = [{"POST"}, 1]; y == 1': True,
    'x := [{"GET"}]; x = [{input.method}]': False,
    '{"a": [{input.method}]} = {"a": [{"GET"}]}': False,
    '[[x | x := input.method]] = [["GET"]]': False,
    '[set()] = [{x | x := input.method; x == "POST"}]': False,
    '["GET" in {input.method}] = [true]': False,
    'method = "GET"': False,
    '"POST" = method': True,
    'imported = "GET"': False,
    'x = "POST"; x == input.method': True,
    '[x, "POST"] = ["POST", method]; x = method': True,
}


class ComparisonTests(SynchronousTestCase):
    """``<`` and its like, and ``==``."""

    skip = SKIP

    def test_types(self) -> None:
        """A header field is a string, and a string is more than any number, not less."""
        files = {
            f"a{number}": f"package a{number}\nf(x) if x > 5 else := false\nallow if {{ {text} }}\n"
            for number, text in enumerate(HOLDS)
        }
        policies = compiled(Folder(self, **files))
        given = {"header": {"X": "5"}, "remote_port": 7}
        decided = {
            text: policies.evaluate(f"a{number}", given).allow for number, text in enumerate(HOLDS)
        }
        self.assertEqual(decided, HOLDS)

    def test_unification(self) -> None:
        """``=`` compares a constant with what a variable, a rule or what is imported has already,
        and gives it to a variable that has none; the engine gave it to all of them."""
        begin = "import input.method as imported\nmethod := input.method\n"
        files = {
            f"a{number}": f"package a{number}\n{begin}allow if {{ {text} }}\n"
            for number, text in enumerate(UNIFIED)
        }
        policies = compiled(Folder(self, **files))
        decided = {
            text: policies.evaluate(f"a{number}", {"method": "POST"}).allow
            for number, text in enumerate(UNIFIED)
        }
        self.assertEqual(decided, UNIFIED)

    def test_imported(self) -> None:
        """What is imported may be compared by = where it is a rule's value, too."""
        for head in ("allow", "allow := x != 1", "rule := x"):
            text = f'package a\nimport input.method as x\n{head} if {{ x = "GET" }}\n'
            policies = compiled(Folder(self, a=text + "allow if rule\nrule := false if not x\n"))
            for method in ("GET", "PUT"):
                allowed = policies.evaluate("a", {"method": method}).allow
                self.assertEqual(allowed, method == "GET", head)

    def test_values_of_rules(self) -> None:
        """Where = gives a rule its value, it stays as it is."""
        text = "package a\ndefault b = 1\nc = [1]\nf(x) = 2 if x else = 3\nd[1] = 4\n"
        self.assertEqual(scan(Source("a", text)).text, text)

    def test_text(self) -> None:
        """Numbers are compared as they are, and lines stay."""
        kept = "package a\nallow if {\n  count(input.path) + 1 <\n    5\n  input.time > -1\n}\n"
        self.assertEqual(scan(Source("a", kept)).text, kept)
        text = "package a\nallow if {\n  x := input.path\n  x\n    <= 5; x > f(\n  1)\n}\nf(x) := x"
        made = scan(Source("a", text)).text
        self.assertIn("\n  data.exposr_tx_prelude.at_most(x\n    , 5); data.", made)
        self.assertIn("_prelude.more(x , f(\n  1))\n}\nf(x) := x", made)

    def test_equality(self) -> None:
        """Where == is an operand or an argument, the engine takes it for undefined when it does
        not hold: refused, with what to do."""
        for text in ("f(x == 1)", "not f([x == 1])", "true != (x == 1)", "[x == 1] == [true]"):
            problem = self.assertRaises(
                PolicyInvalid, scan, Source("a.rego", f"package a\nallow if {{ x := 1; {text} }}")
            )
            self.assertRegex(str(problem), "a.rego:2: .* give it a name first, as in: x := a == b")
        for text in ("(x == 1)", "not (x == 1)", "y := (x == 1); y", "count([1 | x == 1]) == 1"):
            self.assertIn(text[1:5], scan(Source("a", f"package a\nallow if {{ {text} }}")).text)

    def test_sets_in_heads(self) -> None:
        """A function that is defined for a certain set would be called for any: refused."""
        for text in ('f([{"a"}])', 'f(x, {"k": {"a", x}})', "f([set()])"):
            problem = self.assertRaises(
                PolicyInvalid, scan, Source("a.rego", f"package a\n{text} if true")
            )
            self.assertRegex(str(problem), "a.rego:2: .* any set fits one")
        scan(Source("a", 'package a\nf([x, {"a": [y]}], {}) if x == {y}'))

    def test_keys_with(self) -> None:
        """Where with stands behind ==, the engine would look for keys in front of it without what
        with says: refused, with what to do."""
        for text in ("t[_] == 1", "t[i] == 1", "some i; t[i].a == 1", "[y | y := t[_]][_] == 1"):
            text = f"package a\nt := [1]\nallow if {{ {text} with input.a as 1 }}"
            problem = self.assertRaises(PolicyInvalid, scan, Source("a.rego", text))
            self.assertIn("a.rego:3: where with stands behind it, the", str(problem))
        for text in ("x := t[_]", "1 == t[_]", "count([y | y := t[_]]) == 1", "i := 0; t[i] == 1"):
            scan(Source("a", f"package a\nt := [1]\nallow if {{ {text} with input.a as 1 }}"))

    def test_differences(self) -> None:
        """A difference of sets beside & or | needs brackets: the engine would take all of it for
        what is left over, or less of it."""
        for text in (
            "count(blocked | suspended - exempt) > 0",
            "x := {1} - {2} & {3}",
            "x := {1} &\n  {2} - {3}",
            "every x in {1} | {2} - {3} { x }",
            "x := [y | y := {1} | {2} - {3}]",
        ):
            problem = self.assertRaises(
                PolicyInvalid, scan, Source("p.rego", f"package a\nallow if {{ {text} }}")
            )
            self.assertIn("write brackets, as in: a | (b - c)", str(problem))
