"""Functions that the engine gets wrong with some arguments: they do what Rego's do, or deny."""

from __future__ import annotations

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.scan import check, scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled

GIVEN = {
    "header": {
        "Text": "é",
        "Quoted": 'a"b',
        "Spent": "+2h",
        "Level": "-0",
        "Long": "9007199254740993",
        "Json": '{"a": {"b": 1}, "level": -0, "far": 100000000000000000000, "one": 1.0}',
        "Role": b64encode(b'{"role": "banned", "name": "\\"x\\""}').decode(),
        "Joined": "ab",
    },
    "list": [1, 2],
}
#: Bodies of rules that hold in Rego (tried with Open Policy Agent 1.22).
HOLDS = (
    *('glob.match("*", [], "é")', 'glob.match("/[a-c]/?", ["/"], "/b/x")'),
    *('glob.match("{a,*.b}", ["."], "x.b")', 'not glob.match("/*", ["/"], "/a/b")'),
    *("numbers.range(1, 3) == [1, 2, 3]", "bits.lsh(3, 2) == 12", "bits.and(-1, 255) == 255"),
    *("ceil(-1.5) == -1", 'format_int(-255, 16) == "-ff"', "round(2.5) == 3"),
    *('object.union({"a": {"b": 1}}, {"c": 2}).c == 2', 'to_number("-12.5") == -12.5'),
    'object.union_n([{"a": 1}, {"a": 2}]) == {"a": 2}',
    'object.union({"a": {"b": 1}}, {"a": 2}) == {"a": 2}',
    "time.parse_duration_ns(`1h`) > time.parse_duration_ns(`-2h`)",
    'sprintf("%s: %d of %v, %%", ["a", 1, [2]]) == "a: 1 of [2], %"',
    'sprintf("%s:%s", [lower("GET"), input.header.Joined]) == "get:ab"',
    'sprintf("%v:%v", [concat("", ["a", "b"]), 1]) == "ab:1"',
    *('sprintf("%v:%v", [joined, "c"]) == "ab:c"', 'sprintf("%s", [upper("a")]) == "A"'),
    'json.filter({"a": {"b": 1, "c": 2}}, ["a/b"]) == {"a": {"b": 1}}',
    'json.filter({"a": {"b": 1, "c": 2}}, [[lower("A"), lower("B")]]) == {"a": {"b": 1}}',
    'json.remove({"ab": 1, "c": 2}, [concat("", ["a", "b"])]) == {"c": 2}',
    'json.remove({"a": [1, 2]}, [["a", 0], "b"]) == {"a": [2]}',
    'base64.decode("YSJi") == input.header.Quoted',
    'json.unmarshal(base64.decode(input.header.Role)).name == "\\"x\\""',
    'urlquery.encode("a b") == "a+b"',
    *("object.subset(empty, [])", "not object.subset(empty, set())", 'object.subset(["a"], {"a"})'),
    'object.subset({"a": {"b": ["x", "y"]}}, {"a": {"b": ["y"]}})',
    'not object.subset({"b": 1}, {"a": ["x"]})',
    'regex.replace("abc", "(b)", "<$1>") == "a<b>c"',
    'json.unmarshal(`{"a": "x-0"}`).a == "x-0"',
    *('not base64.decode("!!!")', 'not base64.decode("YWI")', 'not base64.decode("Y-_=")'),
    *('not base64.decode("YWI=YWI=")', 'not base64.decode("====")', 'not base64.decode(`"x`)'),
    *('base64url.decode("YWI") == "ab"', 'base64url.decode("YWI=") == "ab"'),
    *('not base64url.decode("Y")', 'not base64url.decode("YQ=")', 'not base64url.decode("/w==")'),
    *("base64.is_valid(``)", "not base64.is_valid(`YWI`)", "not base64.is_valid(`Y===`)"),
    "not base64.is_valid([`a`, `b`, `c`, `d`])",
    *("not urlquery.decode(`%zz`)", "not urlquery.decode(`a%4`)", "not urlquery.decode(`%`)"),
    *("urlquery.decode(`%C3%a9+%25`) == `é %`", "not io.jwt.decode(`a.b.c`)"),
    *("not io.jwt.decode(`e30.e30`)", "not io.jwt.decode(`e30=.e30.ab`)"),
    *("not io.jwt.decode(`e30.W10.ab`)", 'io.jwt.decode(`e30.e30.ab`) == [{}, {}, "69"]'),
    *("not io.jwt.verify_hs256(`a.b.c`, `k`)", "not io.jwt.verify_rs256(`.!.`, `k`)"),
    "not io.jwt.decode_verify(`a.b.c`, {`secret`: `k`})",
    *(
        'trim("/é/", "/") == "é"',
        'trim_left("tab", "\\t") == "tab"',
        'trim_right("a  ", " ") == "a"',
    ),
    'trim_space(" a\'b ") == "a\'b"',
    *('json.marshal({"a": [1, input.header.Text]}) == `{"a":[1,"é"]}`', "json.marshal([]) == `[]`"),
    "json.marshal([x | some x in input.list]) == `[1,2]`",
    'x := "a"; sprintf("%v:%s", [x, lower("B")]) == "a:b"',
    'sprintf("%v, %v!", [upper(input.header.Joined), [lower("B")]]) == `AB, ["b"]!`',
    'sprintf("%v:%v", [input.header.Quoted, concat("", [input.header.Quoted])]) == `a"b:a"b`',
    *('sprintf("%v-%v", input.list) == "1-2"', 'sprintf("%v", [{"a": [1, 2]}.a]) == "[1, 2]"'),
)
#: Bodies of rules that have a result in Rego, which the engine would not find.
FAILS = (
    *('glob.match(concat("", ["[a-", "]"]), [], "-")', 'glob.match("?", [], input.header.Text)'),
    *('glob.match("*", [input.header.Text], "a")', "bits.lsh(1, 62 + 1) < 0", "round(far) < 0"),
    *("bits.and(far, 1) == 1", "numbers.range(far, 1) == []", 'format_int(far, 10) == "0"'),
    *("format_int(5, 2) == `01`", 'object.union(json_of, {"a": {"c": 1}}).a == {"c": 1}'),
    *('object.union_n([json_of, {"a": {}}]).a == {}', "to_number(input.header.Long) > 1"),
    *("to_number(input.header.Level) == 1", 'sprintf("%s", [1]) == "1"', "to_number(`-0`) == 1"),
    *('sprintf(input.header.Text, ["a"]) == "é"', 'sprintf("%q", ["a"]) == "%q"'),
    *('json.filter(json_of, ["/a/b"]) == {}', 'json.remove(json_of, ["a~1b"]) == json_of'),
    *("crypto.sha256(input.header.Quoted) == `x`", "hex.encode(input.header.Text) == `x`"),
    *("base64.encode(input.header.Quoted) == `x`", 'base64.decode("ImEi") == "a"'),
    *('object.subset(json_of, {"a": []})', 'object.subset({"a": ["x"]}, {"a": {"x"}})'),
    *('hex.decode("226122") == "a"', "crypto.hmac.sha256(`a`, input.header.Quoted) == `x`"),
    *("time.parse_duration_ns(input.header.Spent) < 1", "json.unmarshal(`-0`) == 1"),
    'json.unmarshal(`{"level": -0}`).level == 1',
    *("json.marshal(input.list) == ``", "contains(json.marshal(input), `banned`)"),
    *('sprintf("%v",[x | some x in input.list]) == "1"', 'sprintf("%v", [[1, 2]][0]) == "1"'),
    *('sprintf("%v", input.list) == "1"', 'sprintf("%v%v", [1]) == "1"'),
    *("trim(input.header.Quoted, `/`) == `x`", "trim_left(input.header.Quoted, `/`) == `x`"),
    *("trim_right(input.header.Quoted, `/`) == `x`", "trim_space(input.header.Quoted) == `x`"),
)
RULES = """
json_of := object.remove(json.unmarshal(replace(input.header.Json, "-0", "0")), ["x"])

far := json_of.far

empty := [1 | input.header.Nope]

joined := concat("", ["a", "b"])
"""


class ArgumentsTests(SynchronousTestCase):
    """What stands before the engine's functions."""

    def decided(self, texts: tuple[str, ...], negated: str) -> dict[str, str]:
        """What comes of a rule for each text.

        :param negated: what stands before it.
        """
        files = {
            f"a{n}": f"package a{n}\n{RULES}\nhit if {{ {text} }}\n\nallow if {negated} hit\n"
            for n, text in enumerate(texts)
        }
        policies = compiled(Folder(self, **files))
        return {text: policies.evaluate(f"a{n}", GIVEN).outcome for n, text in enumerate(texts)}

    def test_holds(self) -> None:
        """What the engine gets right with a little help, it does."""
        self.assertEqual(self.decided(HOLDS, ""), dict.fromkeys(HOLDS, "allowed"))

    def test_fails(self) -> None:
        """What it does not, denies: though a rule says not to it, nobody passes."""
        self.assertEqual(self.decided(FAILS, "not"), dict.fromkeys(FAILS, "error"))

    def test_members(self) -> None:
        """What a visitor writes is a text of the decision, and never another member of it."""
        text = 'x","allow":true,"reason":"'
        for name in ("trim(text, `/`)", "trim_space(text)", "concat(``, [text])", "lower(text)"):
            rule = f'allow := {{"allow": false, "reason": {name}}} if text := input.header.A\n'
            policies = compiled(Folder(self, a=f"package a\n{rule}"))
            decision = policies.evaluate("a", {"header": {"A": text}})
            self.assertEqual((name, decision.allow), (name, False))

    test_holds.skip = test_fails.skip = test_members.skip = SKIP  # type: ignore[attr-defined]

    def test_refused(self) -> None:
        """What can be told before is refused, with what to write."""
        for text, said in (
            ('glob.match("[ab-d]", [], input.path)', "classes like [a-z]"),
            ("glob.match(`\\[a\\]`, [], input.path)", "classes like [a-z]"),
            ('regex.split("a*", input.path) == []', "matches nothing at all as well"),
            ('regex.find_n("\\\\b", input.path, 1) == []', "matches nothing at all as well"),
            ('regex.replace(input.path, "(b)", "${1}x") == ""', "must be written out"),
            ('regex.replace(input.path, "b", input.host) == ""', "must be written out"),
            ("input.remote_port == -0", "-0 is not 0"),
            ('json["unmarshal"](input.path) == 0', "write its name with dots"),
            ("time.diff(input.time, 0)[0] == 0", "subtract one time from the other"),
            ('strings.replace_n({"a": "b"}, input.path) == ""', "call replace() for each"),
        ):
            source = Source("a.rego", f"package a\nallow if not {text}")
            problem = self.assertRaises(PolicyInvalid, lambda source=source: check([scan(source)]))
            self.assertIn("a.rego:2: ", str(problem))
            self.assertIn(said, str(problem))

    def test_as_it_is(self) -> None:
        """Where all is written down the engine is asked at once, and lines stay."""
        for call in (
            'glob.match("/a/*", ["/"], input.path)',
            "glob.match(`*.a`, null, input.host)",
            'sprintf("%v-%v", [input.path, 1]) == ""',
        ):
            text = f"package a\nallow if {call}\n"
            self.assertEqual(scan(Source("a", text)).text, text)
