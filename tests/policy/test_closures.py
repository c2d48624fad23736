"""What comprehensions see of the variables around them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

#: Rules, and whether they allow in Rego (tried with Open Policy Agent 1.22).
ALLOWS = {
    'rights(r) := {x | x := table[r][_]}\nallow if "write" in rights("guest")': False,
    'rights(r) := {x | x := table[r][_]}\nallow if "write" in rights("admin")': True,
    'rights(r) := {x | some x in table[r]}\nallow if "write" in rights("guest")': False,
    'rights([r, _]) := [x | x := table[r][_]]\nallow if "write" in rights(["guest", 1])': False,
    'rights(r) := n if { n := count([1 | table[r]]) }\nallow if rights("nobody") > 0': False,
    'allow if { [r, _] := split("guest:x", ":"); "write" in {x | some x in table[r]} }': False,
    'allow if { some r; {"guest": 1}[r]; "write" in {x | some x in table[r]} }': False,
    'allow if { some r; table[r]; count(table[r]) == 1; {r | true} == {"guest"} }': True,
    'allow if { some r; table[r]; {r: y | y := [z | z := table[r][_]]}.guest == ["read"] }': True,
    "allow if { some r; table[r]; x := [y | y := [table[r] | true]]; x == [[[1]]] }": False,
    'allow if { x := "a"; y := [x | x := "b"]; y == ["b"]; x == "a" }': True,
    'allow if { x := "a"; y := [x | some x; x = "b"]; y == ["b"] }': True,
    'allow if { y := [x | x := table[r]]; some r in ["guest"]; count(y) == 1; r == r }': False,
    "allow if { some x in [1, 2]; y := [x | some x in [3]]; y == [3]; x == 2 }": True,
    'allow if { false } else if { x := "admin"; "write" in {y | y := table[x][_]} }': True,
}
TABLE = 'table := {"admin": ["write", "read"], "guest": ["read"]}\n'


class ClosureTests(SynchronousTestCase):
    """Comprehensions."""

    skip = SKIP

    def test_outside(self) -> None:
        """A comprehension looks up what a variable stands for outside, and nobody else's."""
        files = {
            f"a{number}": f"package a{number}\n{TABLE}{text}\n"
            for number, text in enumerate(ALLOWS)
        }
        policies = compiled(Folder(self, **files))
        decided = {
            text: policies.evaluate(f"a{number}", {}).allow for number, text in enumerate(ALLOWS)
        }
        self.assertEqual(decided, ALLOWS)

    def test_text(self) -> None:
        """Members, keys and functions of a variable's name stay, and so do lines."""
        text = scan(
            Source("a", "package a\nallow if {\n  x := 1\n  [y |\n    x.x; x(x)]\n}\nx(y) if y")
        ).text
        self.assertIn("[y | x_1 := x;\n    x_1.x; x(x_1)]\n}", text)
