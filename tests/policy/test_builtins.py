"""The list of what the engine has is what it has: each function does what Rego says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.builtins import HAVE, remedy
from tests.policy.folder import SKIP, Folder, compiled

JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJtZSJ9."
    "tY5UTzGBi-lx3tE-p_ZIBnGQOEy03LMR98dXC-k32Kk"
)
RSA_KEYS = (
    '{"keys":[{"kty":"RSA","kid":"k","alg":"RS256","use":"sig","n":"ujFJcMG04RSwTBfAwc7Evu8PK'
    "8gBzTzZFaHLX2aTkSqqXcU6ovY67BSrZN6L2JPoG7jAvAbK5tXQCjl79QA8w35EdmU0GEyQXix29dQ6ovkw592Z_"
    "fKq3aTuOJXOBGx1hGfA4WZfHEKfUXRcMsxPEMxcNls6GuXR1mAZXnlI4JDZgZ1yKuljWYUBiTirYOQlSrQR1DKaU"
    "iznS9ALpRy9Tjbozq2YKxheBILrzVQJjZ-tt_7HPMvQYrtl1UCueKu8KC-DeCDRNj19i5BcRRu4P71GejZYo1TBF"
    'YkJBVtR1VCABSiEDWfV6ikNJOB0JUQnHSq_Zes3OYCgaKXepp7JAw","e":"AQAB"}]}'
)
RSA_TOKEN = (
    "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUuY29tIiwiZW1ha"
    "WwiOiJhbGljZUBleGFtcGxlLmNvbSIsImV4cCI6NDEwMjQ0NDgwMH0.ikymhwvjg4CCFWxG3YcgvO6dbfVrgUbn4"
    "MaEUEydarxDRZwoAxVH_FUvOEd-kU_XfhJDfY5Py2dxCinW-VfuN4rK0MnVX5Bm9amcnwNOoIPoL4qQ-J4pdapZu"
    "i4LrHWYsODjhD6S59oCv4NJKcX50Y9Mr28x6xrXGfVlIiCqJ7rNVBfDvO3Dig4ZIBgu0TPShutEIbhDCrGSK5oIs"
    "OcNy-PeAeEAHtDAKBIcNizdx0EZWBGgKxRnfRphk_1ANBDBQLKq-qaGpV0PraNuQWPbhRv4n5e1h9_hStWIPwVrR"
    "tF8Tx5fXfUeF5hJ09LATBy2ljV3hMpdjb_mdt4cbnDzXA"
)
EC_KEYS = (
    '{"keys":[{"kty":"EC","kid":"k","alg":"ES256","use":"sig","crv":"P-256","x":"q4kU2wYC8QPS'
    '82F_CgHG567LbJoG5NbEUXsKMY8E_BQ","y":"gFt_JhXn3VZ0fEzdiI0cLSj0lDEkh1oHLYORL5hd1iQ"}]}'
)
EC_TOKEN = (
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUuY29tIiwiZW1ha"
    "WwiOiJhbGljZUBleGFtcGxlLmNvbSIsImV4cCI6NDEwMjQ0NDgwMH0.wzTVn0LepcTGPWK9arM8Kio8A3mlhLWs_"
    "IVtZyo_t4gPwdi5R7csga1M-EdjRF45ztTB_vPTWqrUJD6IwdZcig"
)
#: For each function something that is true where it works, and undefined where it is not there.
PROBES = {
    "abs": "abs(-1) == 1",
    "ceil": "ceil(1.5) == 2",
    "floor": "floor(1.5) == 1",
    "round": "round(1.6) == 2",
    "numbers.range": "numbers.range(1, 3) == [1, 2, 3]",
    "numbers.range_step": "numbers.range_step(1, 5, 2) == [1, 3, 5]",
    "count": "count([1, 2]) == 2",
    "max": "max([1, 3, 2]) == 3",
    "min": "min([2, 1]) == 1",
    "product": "product([2, 3]) == 6",
    "sort": 'sort(["b", "a"]) == ["a", "b"]',
    "sum": "sum([1, 2]) == 3",
    "to_number": 'to_number("12") == 12',
    "intersection": "intersection({{1, 2}, {2, 3}}) == {2}",
    "union": "union({{1}, {2}}) == {1, 2}",
    "concat": 'concat("-", ["a", "b"]) == "a-b"',
    "contains": 'contains("abc", "b")',
    "endswith": 'endswith("abc", "bc")',
    "format_int": 'format_int(255, 16) == "ff"',
    "indexof": 'indexof("abc", "c") == 2',
    "indexof_n": 'indexof_n("abab", "b") == [1, 3]',
    "lower": 'lower("ABC") == "abc"',
    "replace": 'replace("aba", "a", "x") == "xbx"',
    "split": 'split("a/b", "/") == ["a", "b"]',
    "sprintf": 'sprintf("%s-%d", ["a", 1]) == "a-1"',
    "startswith": 'startswith("abc", "ab")',
    "substring": 'substring("abcd", 1, 2) == "bc"',
    "trim": 'trim("xax", "x") == "a"',
    "trim_left": 'trim_left("xax", "x") == "ax"',
    "trim_prefix": 'trim_prefix("abc", "a") == "bc"',
    "trim_right": 'trim_right("xax", "x") == "xa"',
    "trim_space": 'trim_space(" a ") == "a"',
    "trim_suffix": 'trim_suffix("abc", "c") == "ab"',
    "upper": 'upper("abc") == "ABC"',
    "is_array": "is_array([])",
    "is_boolean": "is_boolean(false)",
    "is_null": "is_null(null)",
    "is_number": "is_number(1)",
    "is_object": "is_object({})",
    "is_set": "is_set(set())",
    "is_string": 'is_string("")',
    "type_name": 'type_name([]) == "array"',
    "walk": "count([p | walk([1], [p, _])]) == 2",
    "array.concat": "array.concat([1], [2]) == [1, 2]",
    "array.reverse": "array.reverse([1, 2]) == [2, 1]",
    "array.slice": "array.slice([1, 2, 3], 1, 3) == [2, 3]",
    "base64.decode": 'base64.decode("YQ==") == "a"',
    "base64.encode": 'base64.encode("a") == "YQ=="',
    "base64.is_valid": 'base64.is_valid("YQ==")',
    "base64url.decode": 'base64url.decode("Pz8_") == "???"',
    "base64url.encode": 'base64url.encode("a") == "YQ=="',
    "base64url.encode_no_pad": 'base64url.encode_no_pad("a") == "YQ"',
    "bits.and": "bits.and(6, 3) == 2",
    "bits.lsh": "bits.lsh(1, 3) == 8",
    "bits.negate": "bits.negate(0) == -1",
    "bits.or": "bits.or(6, 1) == 7",
    "bits.rsh": "bits.rsh(8, 3) == 1",
    "bits.xor": "bits.xor(6, 3) == 5",
    "crypto.md5": 'crypto.md5("a") == "0cc175b9c0f1b6a831c399e269772661"',
    "crypto.sha1": 'crypto.sha1("a") == "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"',
    "crypto.sha256": 'startswith(crypto.sha256("a"), "ca978112ca1bbdcafac231b39a23dc4d")',
    "crypto.hmac.equal": 'crypto.hmac.equal("aa", "aa")',
    "crypto.hmac.md5": 'crypto.hmac.md5("a", "k") == "ddcf3d210049e7135f61affae73731cd"',
    "crypto.hmac.sha1": 'count(crypto.hmac.sha1("a", "k")) == 40',
    "crypto.hmac.sha256": 'count(crypto.hmac.sha256("a", "k")) == 64',
    "crypto.hmac.sha512": 'count(crypto.hmac.sha512("a", "k")) == 128',
    "glob.match": 'glob.match("*.test", ["."], "a.test")',
    "glob.quote_meta": 'glob.quote_meta("*") == "\\\\*"',
    "graph.reachable": 'graph.reachable({"a": ["b"], "b": []}, {"a"}) == {"a", "b"}',
    "graph.reachable_paths": 'graph.reachable_paths({"a": ["b"], "b": []}, {"a"}) == {["a", "b"]}',
    "hex.decode": 'hex.decode("61") == "a"',
    "hex.encode": 'hex.encode("a") == "61"',
    "io.jwt.decode": f'io.jwt.decode("{JWT}")[1].iss == "me"',
    "io.jwt.verify_hs256": f'io.jwt.verify_hs256("{JWT}", "secret")',
    "io.jwt.verify_rs256": f'io.jwt.verify_rs256("{RSA_TOKEN}", `{RSA_KEYS}`)',
    "io.jwt.verify_es256": f'io.jwt.verify_es256("{EC_TOKEN}", `{EC_KEYS}`)',
    "json.filter": 'json.filter({"a": 1, "b": 2}, ["a"]) == {"a": 1}',
    "json.is_valid": 'json.is_valid("{}")',
    "json.marshal": 'json.marshal([1]) == "[1]"',
    "json.patch": 'json.patch({}, [{"op": "add", "path": "/a", "value": 1}]) == {"a": 1}',
    "json.remove": 'json.remove({"a": 1, "b": 2}, ["a"]) == {"b": 2}',
    "json.unmarshal": 'json.unmarshal("[1]") == [1]',
    "object.filter": 'object.filter({"a": 1, "b": 2}, ["a"]) == {"a": 1}',
    "object.get": 'object.get({}, "a", 1) == 1',
    "object.keys": 'object.keys({"a": 1}) == {"a"}',
    "object.remove": 'object.remove({"a": 1, "b": 2}, ["a"]) == {"b": 2}',
    "object.subset": 'object.subset({"a": 1, "b": 2}, {"a": 1})',
    "object.union": 'object.union({"a": 1}, {"b": 2}) == {"a": 1, "b": 2}',
    "object.union_n": 'object.union_n([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}',
    "regex.find_all_string_submatch_n": (
        'regex.find_all_string_submatch_n("a(.)", "ab", -1) == [["ab", "b"]]'
    ),
    "regex.find_n": 'regex.find_n("a.", "abac", -1) == ["ab", "ac"]',
    "regex.match": 'regex.match("^a+$", "aa")',
    "regex.replace": 'regex.replace("aba", "a", "x") == "xbx"',
    "regex.split": 'regex.split("/+", "a//b") == ["a", "b"]',
    "strings.any_prefix_match": 'strings.any_prefix_match("abc", ["x", "ab"])',
    "strings.any_suffix_match": 'strings.any_suffix_match("abc", ["x", "bc"])',
    "strings.count": 'strings.count("aba", "a") == 2',
    "strings.reverse": 'strings.reverse("ab") == "ba"',
    "time.add_date": "time.add_date(0, 0, 0, 1) == 86400000000000",
    "time.clock": "time.clock(3723000000000) == [1, 2, 3]",
    "time.date": "time.date(0) == [1970, 1, 1]",
    "time.now_ns": "time.now_ns() > 1700000000000000000",
    "time.parse_duration_ns": 'time.parse_duration_ns("1s") == 1000000000',
    "time.weekday": 'time.weekday(0) == "Thursday"',
    "units.parse": 'units.parse("1K") == 1000',
    "units.parse_bytes": 'units.parse_bytes("1KiB") == 1024',
    "urlquery.decode": 'urlquery.decode("a%20b") == "a b"',
    "urlquery.encode": 'urlquery.encode("a&b") == "a%26b"',
    "uuid.parse": 'uuid.parse("00000000-0000-4000-8000-000000000000").version == 4',
    "uuid.rfc4122": 'count(uuid.rfc4122("x")) == 36',
}


class BuiltinsTests(SynchronousTestCase):
    """Functions of Rego that policies may call."""

    def test_each_is_tried(self) -> None:
        """There is a probe for each function of the list, and for no other one."""
        self.assertEqual(set(PROBES), set(HAVE))

    def test_the_engine_has_them(self) -> None:
        """Each function gives what Rego says, and not one is silently undefined."""
        rules = "\n".join(
            f"package p{number}\nallow if {probe}\n" for number, probe in enumerate(PROBES.values())
        ).split("package ")[1:]
        folder = Folder(self, **{f"m{n}": f"package {text}" for n, text in enumerate(rules)})
        policies = compiled(folder)
        lacking = [
            name
            for number, name in enumerate(PROBES)
            if not policies.evaluate(f"p{number}", {}).allow
        ]
        self.assertEqual(lacking, [])

    if SKIP:
        test_the_engine_has_them.skip = SKIP  # type: ignore[attr-defined]

    def test_remedies(self) -> None:
        """For what is not there is always something to do."""
        for name in ("http.send", "opa.runtime", "net.cidr_merge", "rand.intn", "foo"):
            self.assertNotEqual(remedy(name), "")
