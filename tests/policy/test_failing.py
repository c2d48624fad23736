"""What it means for a policy that a built-in function fails."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

#: Bodies of rules that look at what cannot be worked out, and whether they hold in Rego for a
#: field ``X: no`` (tried with Open Policy Agent 1.22).
HOLDS = {
    "x := json.unmarshal(input.header.X); not x.admin": False,
    "not json.unmarshal(`[1e5]`)": False,
    "x := json.unmarshal(`[15, -1.5]`); x == [15, -1.5]": True,
    "x := io.jwt.decode(input.header.X); not x[1].guest": False,
    "x := to_number(input.header.X); not x == 5": False,
    "x := to_number(input.header.X) + 1; not x == 5": False,
    "x := 1 / (count(input.header.X) - 2); not x == 5": False,
    "x = to_number(input.header.X); not x == 5": False,
    "_ := to_number(input.header.X)": False,
    "[x, _] := [to_number(input.header.X), 1]; not x == 5": False,
    "x := to_number(input.header.X) > 5; not x": False,
    'x := {"a": to_number(input.header.X)}; not x.a == 5': False,
    'x := {"a": [{"b": to_number(input.header.X)}], "c": 1}; x.c == 1': False,
    "any_of(to_number(input.header.X))": False,
    "walk(to_number(input.header.X), [p, v]); not v == p": False,
    'type_name(to_number(input.header.X)) != "string"': False,
    '{"a": to_number(input.header.X)} != {}': False,
    "not any_of(value)": False,
    "x := sum(split(input.header.X, ``)); not x == 5": False,
    "x := product(split(input.header.X, ``)); not x == 5": False,
    "count({1 | x := to_number(input.header.X)}) == 0": True,
    "count(table) == 1": True,
    'x := split("a/b", "/")[i]; i == 1; x == "b"': True,
    "not max(json.unmarshal(`[1, null]`)) == 5": False,
    "not min(json.unmarshal(`[1, null]`)) == 5": False,
    "sum([1, 2]) + product({3, 4}) + max([1, 2]) + min({1, 2}) == 18": True,
    'max(["a", "b"]) == "b"': True,
    "max([2, input.port]) == 7; min({input.port, 9}) == 7; count(sort([7])) == 1": True,
    "max([2, 10]) == 10; min([2, 10]) == 2; max([-1, 1.5, 1.5]) == 1.5; max({3, 20}) == 20": True,
    "sort([2, 10]) == [10, 2]": False,
    "not max([]) == 1": False,
    'x := sort({"b", "a"}); x == ["a", "b"]; sort(["b", "a"])[0] == "a"; sort([]) == []': True,
    'concat("-", {"b", "a"}) == "a-b"; concat("-", ["b", "a"]) == "b-a"': True,
    'not concat("-", [1]) == "1"': False,
    "not sort(1) == 1": False,
    "x := (input.header.X == (1 % 0.1)); not x": False,
    "x := input.header.X == ((1 / (count(input.header.X) - 2))); not x": False,
    "x := (input.header.X == (1 + 1)); not x": True,
    'some text in ["0x10", " 1", "1 ", "-0", "-0.0e1", "", "."]; n := to_number(text)': False,
    'some text in ["0x10", " 1", "-0", "no"]; not to_number(text) == 5': False,
    'to_number("-0.5") == -0.5; to_number("+1") == 1; to_number("1e3") == 1000': True,
    "to_number(null) == 0; to_number(true) == 1; to_number(1.5) == 1.5": True,
    'base64.is_valid("YQ=="); base64.is_valid(""); base64.is_valid("+/+/YWI=")': True,
    'some text in ["YQ", "YQ=", "YWI==", "-_==", "a", "="]; base64.is_valid(text)': False,
    "base64.is_valid(5)": False,
    'urlquery.decode("a+b%20c%2Bd") == "a b c+d"': True,
    'not indexof(input.header.X, "") == 1': False,
    'indexof("abc", "c") == 2; indexof_n("aba", "a") == [0, 2]': True,
    'format_int(-255, 16) == "-ff"; format_int(255, 16) == "ff"; format_int(0, 10) == "0"': True,
    "x := ({input.header.X} | {lower(`B`)}); x == {`no`, `b`}": True,
    "x := {input.header.X} | {to_number(input.header.X)}; not x == {5}": False,
    "count(keys) == 0": True,
    'x := lower("NO"); x == "no"': True,
    'x := startswith("no", "a"); not x': True,
}
OTHERS = (
    "any_of(_) := true\nvalue := to_number(input.header.X)\n"
    'keys[to_number(x)] := 1 if some x in ["no"]\n'
    'table[x] := to_number(x) if some x in ["no", "5"]\n'
)


class FailingTests(SynchronousTestCase):
    """Functions that fail."""

    skip = SKIP

    def test_undefined(self) -> None:
        """Who sends what cannot be worked out is not taken for somebody who may pass."""
        files = {
            f"a{number}": f"package a{number}\n{OTHERS}allow if {{ {text} }}\n"
            for number, text in enumerate(HOLDS)
        }
        policies = compiled(Folder(self, **files))
        given = {"header": {"X": "no"}, "port": 7}
        decided = {
            text: policies.evaluate(f"a{number}", given).allow for number, text in enumerate(HOLDS)
        }
        self.assertEqual(decided, HOLDS)

    def test_text(self) -> None:
        """What cannot fail, or is only compared, stays as it is; and so do lines."""
        text = (
            'package a\nallow := x if {\n  lower(input.path) == "a"\n  x := [y | y := 1][0]\n'
            "  f(x)\n} else := -1\nf(x) := {\n  y |\n  some y in [1]}\n"
        )
        self.assertEqual(scan(Source("a", text)).text, text)
