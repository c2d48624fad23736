"""Functions that look at their arguments before the embedded engine's are called, in Rego.

Part of the prelude. What the engine gets right is handed on, and what it does not fails, so that
the decision is a denial: what is merely undefined, ``not`` would let pass. What it was seen to get
wrong stands beside each. A failure is taken out of an array, as in :mod:`failing`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from exposr_tx.policy.expressions import closing, split
from exposr_tx.policy.patterns import GLOB
from exposr_tx.policy.words import NUMBER, STRING, Word, literal

__all__ = ["LOOKING", "RULES", "is_plain", "wary"]

#: By the number of arguments.
LOOKING: Final = {
    **dict.fromkeys(("max", "min", "product", "sort", "sum", "to_number", "urlquery.encode"), 1),
    **dict.fromkeys(("base64.is_valid", "json.marshal", "json.unmarshal", "urlquery.decode"), 1),
    **dict.fromkeys(("concat", "format_int", "indexof", "indexof_n"), 2),
    **dict.fromkeys(("bits.negate", "base64.decode", "base64.encode", "base64url.decode"), 1),
    **dict.fromkeys(("base64url.encode", "base64url.encode_no_pad", "ceil", "floor", "round"), 1),
    **dict.fromkeys(("crypto.md5", "crypto.sha1", "crypto.sha256", "hex.decode", "hex.encode"), 1),
    **dict.fromkeys(("object.union_n", "time.parse_duration_ns", "trim_space"), 1),
    **dict.fromkeys(("bits.and", "bits.lsh", "bits.or", "bits.rsh", "bits.xor"), 2),
    **dict.fromkeys(("crypto.hmac.md5", "crypto.hmac.sha1", "crypto.hmac.sha256"), 2),
    **dict.fromkeys(("crypto.hmac.sha512", "json.filter", "json.remove", "numbers.range"), 2),
    **dict.fromkeys(("object.subset", "object.union", "sprintf"), 2),
    **dict.fromkeys(("trim", "trim_left", "trim_right"), 2),
    **dict.fromkeys(("glob.match", "replace"), 3),
    "io.jwt.decode": 1,
    **dict.fromkeys(("io.jwt.verify_es256", "io.jwt.verify_hs256", "io.jwt.verify_rs256"), 2),
}


def wary(name: str) -> str:
    """What a function is called that stands before another one; without its package."""
    return f"{name.replace('.', '_')}_of"


def is_plain(name: str, arguments: Sequence[Sequence[Word]]) -> bool:
    """Whether arguments are written down with which the engine gets it right, whatever the others
    are."""
    if name == "sprintf" and len(arguments) == 2:
        form, values = _text(arguments[0], "%"), arguments[1]
        if values[0].text != "[" or closing(values, 0) < len(values) - 1:
            return False
        parts = split(values[1:-1], frozenset({","}))
        plain = len(parts) == form.count("%v") and all(_is_whole(part) for part in parts)
        return plain and "%" not in form.replace("%v", "")
    if name == "glob.match" and len(arguments) == 3:
        between = [word.text for word in arguments[1] if word.text not in ("[", "]", ",")]
        plain = all(_DELIMITER.fullmatch(text) for text in between)
        return plain and not _SINGLE.search(_text(arguments[0], "?"))
    return False


def _is_whole(value: Sequence[Word]) -> bool:
    """Whether a value is written out, or stands in the input."""
    lone = len(value) == 1 and value[0].kind in (STRING, NUMBER)
    return lone or (value[0].text == "input" and all(word.text not in _JOINING for word in value))


_JOINING: Final = ("(", "&", "|", "+", "-", "*", "/", "%")
_DELIMITER: Final = re.compile(r'"[ -!#-[\]-~]"|null')
#: What stands for one character.
_SINGLE: Final = re.compile(r"[?\[]")


def _text(argument: Sequence[Word], otherwise: str) -> str:
    """What a string stands for that is all there is of an argument."""
    try:
        return (
            literal(argument[0]) if len(argument) == 1 and argument[0].kind == STRING else otherwise
        )
    except ValueError:
        return otherwise


#: Functions of one text that see each character that JSON escapes as several.
_OF_TEXT: Final = (
    *("base64.encode", "base64url.encode", "base64url.encode_no_pad"),
    *("crypto.md5", "crypto.sha1", "crypto.sha256"),
)
_VERIFYING: Final = tuple(name for name in LOOKING if name.startswith("io.jwt.verify_"))
_OF_TEXT_AND_KEY: Final = tuple(
    f"crypto.hmac.{name}" for name in ("md5", "sha1", "sha256", "sha512")
)
#: What takes characters away gives the rest without its escapes: it equals no literal, and a quote
#: in it ends the text where it stands in a result, so that what a visitor writes behind it would be
#: members of the decision (tried: "allow": true).
_TRIMMING: Final = ("trim", "trim_left", "trim_right")
_OF_TWO_NUMBERS: Final = tuple(f"bits.{name}" for name in ("and", "or", "rsh", "xor"))

#: Numbers as Rego takes them.
_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"

_FORWARDING: Final = "".join(
    [
        *(
            f"{wary(name)}(text) := {name}(text) if is_plain(text) else := unknown(text)\n"
            for name in (*_OF_TEXT, "trim_space")
        ),
        *(
            f"{wary(name)}(text, marks) := {name}(text, marks) if {{\n"
            "    is_plain(text)\n} else := unknown(text)\n"
            for name in _TRIMMING
        ),
        *(
            f"{wary(name)}(text, key) := {name}(text, key) if {{\n"
            "    is_plain(text)\n    is_plain(key)\n} else := unknown(text)\n"
            for name in _OF_TEXT_AND_KEY
        ),
        *(
            f"{wary(name)}(a, b) := [{name}(a, b)][0] if {{\n"
            "    is_near(a)\n    is_near(b)\n} else := unknown(a)\n"
            for name in _OF_TWO_NUMBERS
        ),
        *(
            f"{wary(name)}(number) := {name}(number) if is_near(number) else := unknown(number)\n"
            for name in ("bits.negate", "ceil", "floor", "round")
        ),
        *(
            f"{wary(name)}(token, key) := {name}(token, key) if is_token(token)\n"
            for name in _VERIFYING
        ),
    ]
)

RULES: Final = rf"""
# A backslash is in each text in which JSON escapes something.
is_plain(text) if not contains(text, hex.decode("5c"))

# Beyond it the engine's whole numbers go round.
is_near(number) if {{
    is_number(number)
    number <= 4611686018427387903
    number >= -4611686018427387904
}}

{_FORWARDING}
# Of what are no numbers, the engine's are false; it compares numbers by their digits, and finds
# anything among several types.
sum_of(values) := sum(values) if are_numbers(values)
product_of(values) := product(values) if are_numbers(values)
max_of(values) := found if {{
    are_numbers(values)
    some found in values
    every other in values {{ other <= found }}
}} else := max(values) if are_strings(values) else := unknown(values) if count(values) > 0
min_of(values) := found if {{
    are_numbers(values)
    some found in values
    every other in values {{ other >= found }}
}} else := min(values) if are_strings(values) else := unknown(values) if count(values) > 0

# A set is left as it is.
sort_of(values) := sort([value | some value in values]) if {{
    type_name(values) in {{"array", "set"}}
    are_strings(values)
}} else := [value | some value in values] if {{
    type_name(values) in {{"array", "set"}}
    count(values) < 2
}} else := unknown(values) if type_name(values) in {{"array", "set"}}
concat_of(between, values) := concat(between, sort([value | some value in values])) if {{
    is_set(values)
}} else := concat(between, values)

are_numbers(values) if {{ every value in values {{ is_number(value) }} }}

are_strings(values) if {{ every value in values {{ is_string(value) }} }}

# Nothing is found for arrays of the input, and for those that functions give.
json_marshal_of(value) := text if {{ text := [json.marshal(value)][0] }} else := unknown(value)

# Numbers with an exponent fail, and -0 is not 0.
json_unmarshal_of(text) := unknown(text) if {{
    contains(text, "-0")
    regex.match(`(^|[\[,: ]|\\[nrt])-0([\],}} ]|\\[nrt]|$)`, text)
}} else := value if {{ value := [json.unmarshal(text)][0] }} else := unknown(text) if {{
    json.is_valid(text)
}}

# Hexadecimal digits and blanks would be taken, -0 is not 0, and the 16th digit may be another one.
to_number_of(text) := [to_number(text)][0] if {{
    not regex.match(`^-[0.]+([eE].*)?$`, text)
    regex.match(`{_NUMBER}`, text)
    count(text) <= 15
}} else := unknown(text) if regex.match(`{_NUMBER}`, text) else := [to_number(text)][0] if {{
    not is_string(text)
}}

# Nothing is found at 0, and replaced without end.
indexof_of(text, part) := indexof(text, part) if part != ""
indexof_n_of(text, part) := indexof_n(text, part) if part != ""
replace_of(text, old, new) := replace(text, old, new) if old != "" else := unknown(text)

# Negative numbers have another form, and those to base 2 lose digits.
format_int_of(number, base) := unknown(number) if {{
    not is_near(number)
}} else := unknown(number) if {{
    base == 2
}} else := format_int(number, base) if {{
    number >= 0
}} else := concat("", ["-", format_int(0 - number, base)])

# How the text is filled up is not looked at.
base64_is_valid_of(text) if is_base64(text)
base64_is_valid_of(text) := false if {{
    is_string(text)
    not is_base64(text)
}}

# + is left as it is; a % without two digits ends the whole evaluation.
urlquery_decode_of(text) := urlquery.decode(replace(text, "+", " ")) if {{
    not regex.match(`%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)`, text)
}}

# Bits on the left are lost.
bits_lsh_of(number, by) := bits.lsh(number, by) if {{
    is_near(number)
    number >= 0
    by >= 0
    by <= 61
    number <= bits.rsh(4611686018427387903, by)
}} else := unknown(number)

# What is decoded has its quotes as they are, and would equal no literal; those around all of it
# are left out, and what follows a backslash is read as JSON would. Of what is not base64 some is
# decoded all the same, some ends the whole evaluation; and line ends would be passed over.
base64_decode_of(text) := unknown(text) if {{
    is_odd_base64(text)
}} else := respelled([base64.decode(text)][0]) if is_base64(text)
base64url_decode_of(text) := unknown(text) if {{
    is_odd_base64(text)
}} else := respelled([base64url.decode(text)][0]) if is_base64url(text)

is_odd_base64(text) if regex.match(`^I[g-v]`, text)
is_odd_base64(text) if contains(text, hex.decode("5c6e"))
is_odd_base64(text) if contains(text, hex.decode("5c72"))

# What is wrong is looked for: to match the whole of a long text the engine needs too much stack.
is_base64(text) if {{
    is_string(text)
    count(text) % 4 == 0
    not regex.match(`[^A-Za-z0-9+/=]|=[^=]|===`, text)
}}
is_base64url(text) if {{
    count(text) % 4 == 0
    not regex.match(`[^A-Za-z0-9_=-]|=[^=]|===`, text)
}}
is_base64url(text) if {{
    count(text) % 4 > 1
    not regex.match(`[^A-Za-z0-9_-]`, text)
}}

hex_decode_of(text) := unknown(text) if {{
    startswith(text, "22")
}} else := respelled([hex.decode(text)][0])

respelled(text) := replace(
    replace(replace(text, hex.decode("5c"), "\\"), hex.decode("22"), "\""), hex.decode("0a"), "\n")

# Characters beyond ASCII are numbers below zero.
hex_encode_of(text) := hex.encode(text) if {{
    regex.match(`^[ !#-Z^-~]*$`, text)
}} else := unknown(text)

# What is no token ends the whole evaluation, and either part may be another value than an object.
io_jwt_decode_of(token) := found if {{
    is_token(token)
    found := [io.jwt.decode(token)][0]
    is_object(found[0])
    is_object(found[1])
}}

is_token(text) if {{
    parts := split(text, ".")
    count(parts) == 3
    every part in parts {{ count(part) % 4 != 1 }}
    not regex.match(`[^A-Za-z0-9_.-]`, text)
}}

# A blank is +.
urlquery_encode_of(text) := replace([urlquery.encode(text)][0], "%20", "+")

# A plus in front is no failure.
time_parse_duration_ns_of(text) := unknown(text) if {{
    startswith(text, "+")
}} else := [time.parse_duration_ns(text)][0]

# Paths that begin with a slash, or in which something is escaped, are not found.
json_filter_of(value, paths) := [json.filter(value, bare_paths(paths))][0] if {{
    are_paths(paths)
}} else := unknown(paths)
json_remove_of(value, paths) := [json.remove(value, bare_paths(paths))][0] if {{
    are_paths(paths)
}} else := unknown(paths)

bare_paths(paths) := [bare_path(path) | some path in paths]

bare_path(path) := [bare(step) | some step in path] if is_array(path)
bare_path(path) := bare(path) if not is_array(path)

are_paths(paths) if {{
    every path in paths {{
        is_path(path)
    }}
}}

is_path(path) if is_array(path)
is_path(path) if {{
    not startswith(path, "/")
    not contains(path, "~")
}}

# 1.0 is no whole number.
numbers_range_of(first, last) := numbers.range(floor(first), floor(last)) if {{
    is_near(first)
    is_near(last)
    floor(first) == first
    floor(last) == last
}} else := unknown(first) if {{
    is_number(first)
    is_number(last)
}}

# Not deep: what both have at a key is not joined.
object_union_of(one, other) := object.union(one, other) if {{
    is_object(one)
    is_object(other)
    count({{key | some key in object.keys(one); is_object(one[key]); is_object(other[key])}}) == 0
}} else := unknown(one) if {{
    is_object(one)
    is_object(other)
}}
object_union_n_of(objects) := object.union_n(objects) if {{
    keys := [key | some one in objects; some key in object.keys(one); is_object(one[key])]
    count(keys) == count({{key | some key in keys}})
}} else := unknown(objects)

# An empty array to look for ends the process, an empty set is in an empty array, and below a key
# a set may be in an array.
object_subset_of(whole, wanted) := object.subset(whole, wanted) if {{
    is_set(wanted)
    type_name(whole) in {{"array", "set"}}
    whole != []
}} else := object.subset(whole, wanted) if {{
    is_array(wanted)
    is_array(whole)
    count(wanted) > 0
}} else := object.subset(whole, wanted) if {{
    is_object(wanted)
    is_object(whole)
    count([1 | walk(wanted, [path, part]); is_odd(object.get(whole, path, null), part)]) == 0
}} else := unknown(wanted) if {{
    is_object(wanted)
    is_object(whole)
}} else := is_array(wanted) if {{
    type_name(wanted) in {{"array", "set"}}
    is_array(whole)
}}

is_odd(_, part) if part == []
is_odd(whole, part) if {{
    is_array(whole)
    is_set(part)
}}
is_odd(whole, part) if {{
    is_set(whole)
    is_array(part)
}}

# Of others than numbers and texts, %s and %d make something else, and some verbs are none. A text
# that was worked out, or has a name, would be within quotes.
sprintf_of(form, values) := sprintf(form, [bare(value) | some value in values]) if {{
    regex.match(`^([^%]|%[%vds])*$`, form)
    verbs := [verb | some verb in regex.find_n(`%[%vds]`, form, -1); verb != "%%"]
    count(verbs) == count(values)
    count([1 | verb := verbs[i]; value := values[i]; is_fit(verb, value)]) == count(verbs)
}} else := unknown(form)

bare(value) := substring(value, 0, -1) if is_string(value)
bare(value) := value if not is_string(value)

is_fit("%v", _)
is_fit("%s", value) if is_string(value)
is_fit("%d", value) if {{
    is_near(value)
    floor(value) == value
}}

# Classes are others but for the plainest; characters beyond ASCII are several, and end nothing.
glob_match_of(pattern, delimiters, text) := [glob.match(pattern, delimiters, text)][0] if {{
    regex.match(`^{GLOB}$`, pattern)
    is_fit_for(text, pattern)
    are_ascii(delimiters)
}} else := unknown(pattern)

is_fit_for(text, _) if regex.match(`^[ -~]*$`, text)
is_fit_for(_, pattern) if {{
    not contains(pattern, "?")
    not contains(pattern, "[")
}}

are_ascii(null)
are_ascii(texts) if {{
    every text in texts {{
        regex.match(`^[ -~]$`, text)
    }}
}}
"""
