"""Rego's built-in functions: which of them the embedded engine has.

The engine takes a function that it lacks for undefined, so that ``not f(x)``
holds: a policy would fail open. Hence this list, which a test holds against
the engine, and the scan, which refuses everything else.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CHANGING", "HAVE", "remedy"]


#: Functions that the engine has, each tried by a test, by the number of their arguments. With
#: another number the engine gives undefined, or ends the process (tried).
_BY_ARGUMENTS: Final = {
    0: ("time.now_ns"),
    1: (
        "abs array.reverse base64.decode base64.encode base64.is_valid base64url.decode "
        "base64url.encode base64url.encode_no_pad bits.negate ceil count crypto.md5 "
        "crypto.sha1 crypto.sha256 floor glob.quote_meta hex.decode hex.encode intersection "
        "io.jwt.decode is_array is_boolean is_null is_number is_object is_set is_string "
        "json.is_valid json.marshal json.unmarshal lower max min object.keys object.union_n "
        "product regex.is_valid round semver.is_valid sort strings.reverse sum time.clock "
        "time.date time.parse_duration_ns time.weekday to_number trim_space type_name union "
        "units.parse units.parse_bytes upper urlquery.decode "
        "urlquery.encode urlquery.encode_object uuid.parse uuid.rfc4122"
    ),
    2: (
        "array.concat bits.and bits.lsh bits.or bits.rsh bits.xor concat contains "
        "crypto.hmac.equal crypto.hmac.md5 crypto.hmac.sha1 crypto.hmac.sha256 "
        "crypto.hmac.sha512 endswith format_int graph.reachable graph.reachable_paths "
        "indexof indexof_n io.jwt.verify_es256 io.jwt.verify_hs256 "
        "io.jwt.verify_rs256 json.filter json.patch json.remove numbers.range object.filter "
        "object.remove object.subset object.union regex.match regex.split split sprintf "
        "startswith strings.any_prefix_match strings.any_suffix_match strings.count "
        "strings.replace_n time.diff trim trim_left trim_prefix trim_right trim_suffix walk"
    ),
    3: (
        "array.slice glob.match numbers.range_step object.get "
        "regex.find_all_string_submatch_n regex.find_n regex.replace replace substring"
    ),
    4: ("time.add_date"),
}

#: Functions to the number of their arguments.
HAVE: Final = {name: count for count, names in _BY_ARGUMENTS.items() for name in names.split()}

#: Those whose result is another one at another time.
CHANGING: Final = frozenset({"time.now_ns", "uuid.rfc4122"})

#: What to do without, by the beginning of a name.
_REMEDIES: Final = {
    "opa.runtime": "it would show the server's environment; remove it",
    "http.send": (
        "it would need the network for each request; write what it fetches into the policy, or "
        "let an Open Policy Agent decide (--policy-url)"
    ),
    "net.": "of its family only net.cidr_contains is there",
    "rand.": "a decision must not be a matter of luck; remove it",
    "urlquery.decode_object": "input.query has what is in the query",
    "io.jwt.": "verify with io.jwt.decode_verify",
}


def remedy(name: str) -> str:
    """What to do in place of calling a function that is not there."""
    for beginning, text in _REMEDIES.items():
        if name.startswith(beginning):
            return text
    return "use another one, define it, or let an Open Policy Agent decide (--policy-url)"
