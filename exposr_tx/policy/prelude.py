"""What the embedded engine lacks or gets wrong and policies need, written in Rego.

Calls of it are rewritten before a module is compiled.

- ``net.cidr_contains``: where a network that is written down is to have the visitor's address, the
  answer comes with the input (``within``); else the prelude's function is called. Its second
  argument is an address, with or without a port. IPv4 and IPv6 are compared by their hexadecimal
  digits.
- ``io.jwt.decode_verify``: the engine passes over constraints that it does not know, or that are
  no strings, and verifies HS256 with a ``cert``: who has read the public key could sign (tried).
- ``json.unmarshal``: the engine fails where a number has an exponent.
- ``regex.match`` with a pattern that is worked out: see :mod:`patterns`.
- ``<``, ``<=``, ``>`` and ``>=``: see :mod:`comparisons`.
- ``sum`` and ``product`` of what are no numbers are false to the engine, and ``max``, ``min``
  and ``sort`` compare numbers by their digits, and of several types find any; ``sort`` leaves a set
  as it is, and ``concat`` does not sort it; nothing is found at 0 by ``indexof``, and replaced
  without end by ``replace``; ``format_int`` gives negative numbers another form; ``to_number``
  takes ``"0x10"`` and ``" 1"``, and its ``"-0"`` is not 0, so there it has none (tried).
- ``urlquery.decode``: the engine leaves ``+`` as it is.
- ``base64.is_valid``: the engine's does not look at how the text is filled up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from exposr_tx.policy.expressions import closing
from exposr_tx.policy.patterns import plain
from exposr_tx.policy.words import STRING, Word, edited, is_member, literal

__all__ = ["DECODE_VERIFY", "PACKAGE", "PRELUDE", "PROVIDED", "rewritten"]

PACKAGE: Final = "exposr_tx_prelude"

#: What is known to be the visitor's address.
_VISITORS: Final = ([",", "input", ".", "remote", ")"], [",", "input", ".", "remote_ip", ")"])
CIDR_CONTAINS: Final = f"data.{PACKAGE}.cidr_contains"
DECODE_VERIFY: Final = f"data.{PACKAGE}.decode_verify"
SOUND: Final = f"data.{PACKAGE}.sound"
IS_BASE64: Final = f"data.{PACKAGE}.is_base64"
URL_DECODED: Final = f"data.{PACKAGE}.url_decoded"
UNMARSHAL: Final = f"data.{PACKAGE}.unmarshal"
REGEX_MATCH: Final = f"data.{PACKAGE}.regex_match"
#: Functions that look at their arguments first, by the number of these.
_LOOKING: Final = {
    **dict.fromkeys(("concat", "format_int", "indexof", "indexof_n"), 2),
    "replace": 3,
    **dict.fromkeys(("max", "min", "product", "sort", "sum", "to_number"), 1),
}
#: What is here, by the number of arguments.
PROVIDED: Final = {
    **dict.fromkeys((CIDR_CONTAINS, DECODE_VERIFY, REGEX_MATCH), 2),
    IS_BASE64: 1,
    UNMARSHAL: 1,
    URL_DECODED: 1,
    **{f"data.{PACKAGE}.{name}_of": arguments for name, arguments in _LOOKING.items()},
}

#: A pattern's backslash is two characters to the engine, and each of them is spelled by two.
_TAKEN: Final = plain(r"\\\\")

#: Comparisons by their names.
_COMPARISONS: Final = {"less": "<", "at_most": "<=", "more": ">", "at_least": ">="}
_COMPARED: Final = "".join(
    f"""
{name}(a, b) := a {sign} b if {{
    is_number(a)
    is_number(b)
}} else := a {sign} b if {{
    is_string(a)
    is_string(b)
}} else := ranks[type_name(a)] {sign} ranks[type_name(b)] if {{
    type_name(a) != type_name(b)
}} else := unknown(a)
"""
    for name, sign in _COMPARISONS.items()
)

#: Functions with several bodies and tables of digits made it 20 ms; now it is one.
PRELUDE: Final = f"""
package {PACKAGE}

cidr_contains(network, address) := found if {{
    parts := split(network, "/")
    base := digits(parts[0])
    other := digits(host(address))
    found := same(base, other, length_of(parts, count(base) * 4))
}}

length_of(parts, most) := most if count(parts) == 1
length_of(parts, most) := length if {{
    count(parts) == 2
    length := to_number(parts[1])
    length >= 0
    length <= most
}}

same(base, other, length) := found if {{
    whole := bits.rsh(length, 2)
    shift := 4 - bits.and(length, 3)
    mine := indexof("0123456789abcdef", substring(base, whole, 1))
    theirs := indexof("0123456789abcdef", substring(other, whole, 1))
    found := [count(base), substring(base, 0, whole), bits.rsh(mine, shift)] ==
        [count(other), substring(other, 0, whole), bits.rsh(theirs, shift)]
}}

# An address without its port, zone and brackets; a mapped IPv4 address as IPv4.
host(text) := unmapped(trim_prefix(split(split(text, "]")[0], "%")[0], "[")) if {{
    startswith(text, "[")
}}
host(text) := split(text, ":")[0] if {{
    not startswith(text, "[")
    count(split(text, ":")) <= 2
}}
host(text) := unmapped(split(text, "%")[0]) if {{
    not startswith(text, "[")
    count(split(text, ":")) > 2
}}

unmapped(text) := trim_prefix(lower(text), "::ffff:") if {{
    startswith(lower(text), "::ffff:")
    contains(text, ".")
}}
unmapped(text) := text if not contains(text, ".")

digits(text) := concat("", [pair |
    some octet in split(text, ".")
    pair := octet_digits(octet)
]) if {{
    regex.match(`^[0-9]{{1,3}}(\\.[0-9]{{1,3}}){{3}}$`, text)
    every octet in split(text, ".") {{ to_number(octet) <= 255 }}
}}
digits(text) := concat("", [group |
    some word in groups(lower(text))
    group := substring(concat("", ["0000", word]), count(word), 4)
]) if {{
    regex.match(`^[0-9A-Fa-f:]*:[0-9A-Fa-f:]*$`, text)
    every word in split(text, ":") {{ count(word) <= 4 }}
    count(groups(lower(text))) == 8
}}

octet_digits(octet) := concat("", [high, low]) if {{
    number := to_number(octet)
    high := substring("0123456789abcdef", bits.rsh(number, 4), 1)
    low := substring("0123456789abcdef", bits.and(number, 15), 1)
}}

groups(text) := split(text, ":") if {{
    not contains(text, "::")
    every word in split(text, ":") {{ word != "" }}
}}
groups(text) := array.concat(array.concat(left, middle), right) if {{
    not contains(text, ":::")
    halves := split(text, "::")
    count(halves) == 2
    left := [word | some word in split(halves[0], ":"); word != ""]
    right := [word | some word in split(halves[1], ":"); word != ""]
    missing := 8 - (count(left) + count(right))
    missing > 0
    middle := array.slice(["0", "0", "0", "0", "0", "0", "0", "0"], 0, missing)
}}

decode_verify(token, constraints) := io.jwt.decode_verify(token, constraints) if {{
    object.keys(constraints) - {{"alg", "aud", "cert", "iss", "secret", "time"}} == set()
    object.remove(constraints, ["time"]) == {{name: text |
        some name, text in constraints
        name != "time"
        is_string(text)
    }}
    is_number(object.get(constraints, "time", 0))
    key := {{"HS": "secret", "RS": "cert", "PS": "cert", "ES": "cert"}}[
        substring(io.jwt.decode(token)[0].alg, 0, 2)
    ]
    object.keys(constraints) & {{"cert", "secret"}} == {{key}}
}} else := [false, {{}}, {{}}]

regex_match(pattern, text) := regex.match(pattern, text) if taken(pattern)
regex_match(pattern, _) := unknown(pattern) if not taken(pattern)

taken(pattern) if {{
    regex.match(`^{_TAKEN}*$`, pattern)
    regex.is_valid(pattern)
}}

sum_of(values) := sum(values) if numbers(values)
product_of(values) := product(values) if numbers(values)
max_of(values) := found if {{
    numbers(values)
    some found in values
    every other in values {{ other <= found }}
}} else := max(values) if strings(values) else := unknown(values) if count(values) > 0
min_of(values) := found if {{
    numbers(values)
    some found in values
    every other in values {{ other >= found }}
}} else := min(values) if strings(values) else := unknown(values) if count(values) > 0

sort_of(values) := sort([value | some value in values]) if {{
    type_name(values) in {{"array", "set"}}
    strings(values)
}} else := [value | some value in values] if {{
    type_name(values) in {{"array", "set"}}
    count(values) < 2
}} else := unknown(values) if type_name(values) in {{"array", "set"}}
concat_of(between, values) := concat(between, sort([value | some value in values])) if {{
    is_set(values)
}} else := concat(between, values)

unmarshal(text) := value if {{ value := [json.unmarshal(text)][0] }} else := unknown(text) if {{
    json.is_valid(text)
}}

to_number_of(text) := [to_number(text)][0] if {{
    not regex.match(`^-[0.]+([eE].*)?$`, text)
    regex.match(`^[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?$`, text)
}} else := [to_number(text)][0] if not is_string(text)

indexof_of(text, part) := indexof(text, part) if part != ""
indexof_n_of(text, part) := indexof_n(text, part) if part != ""
replace_of(text, old, new) := replace(text, old, new) if old != "" else := unknown(text)
format_int_of(number, base) := format_int(number, base) if number >= 0
format_int_of(number, base) := concat("", ["-", format_int(0 - number, base)]) if number < 0

is_base64(text) := regex.match(
    `^([A-Za-z0-9+/]{{4}})*([A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?$`, text)

url_decoded(text) := urlquery.decode(replace(text, "+", " "))

# What is no failure.
sound(value) := value if is_array([value])

numbers(values) if {{ every value in values {{ is_number(value) }} }}

strings(values) if {{ every value in values {{ is_string(value) }} }}

ranks := {{"null": 0, "boolean": 1, "number": 2, "string": 3, "array": 4, "object": 5, "set": 6}}
{_COMPARED}
# Two values are an error, which denies.
unknown(pattern) := number if some number in [1, 2]
"""


def rewritten(text: str, words: Sequence[Word]) -> str:
    """A module's text with what is provided here in place of what the engine lacks. Lines stay
    where they are.

    Strings are brought to the one spelling that inputs have, as the engine compares what is
    written (``"\\u00e9"`` would not be ``"é"``, tried); and ``print``, which would write requests
    to standard output, becomes ``true``.
    """
    return edited(text, _edits(words))


def _edits(words: Sequence[Word]) -> Iterator[tuple[int, int, str]]:
    spelled = [word.text for word in words]
    for place, word in enumerate(words):
        call = tuple(spelled[place : place + 4])
        member = is_member(words, place)
        if call == ("net", ".", "cidr_contains", "(") and not member:
            network = words[place + 4] if place + 4 < len(words) else word
            visitor = spelled[place + 5 : place + 10]
            if network.kind == STRING and visitor in _VISITORS:
                # A tenth of what the prelude's function takes. Nor does the input then differ
                # from one visitor of a network to the next.
                yield word.start, words[place + 9].end, f"input.within[{network.text}]"
            else:
                yield word.start, words[place + 2].end, CIDR_CONTAINS
        elif call == ("regex", ".", "match", "(") and not member:
            if [w.kind == STRING or w.text for w in words[place + 4 : place + 6]] != [True, ","]:
                yield word.start, words[place + 2].end, REGEX_MATCH
        elif spelled[place : place + 5] == ["io", ".", "jwt", ".", "decode_verify"] and not member:
            yield word.start, words[place + 4].end, DECODE_VERIFY
        elif call == ("json", ".", "unmarshal", "(") and not member:
            yield word.start, words[place + 2].end, UNMARSHAL
        elif call == ("base64", ".", "is_valid", "(") and not member:
            yield word.start, words[place + 2].end, IS_BASE64
        elif call == ("urlquery", ".", "decode", "(") and not member:
            yield word.start, words[place + 2].end, URL_DECODED
        elif word.text in _LOOKING and call[1:2] == ("(",) and not member:
            yield word.start, word.end, f"data.{PACKAGE}.{word.text}_of"
        elif word.text == "print" and call[1:2] == ("(",) and not member:
            last = words[closing(words, place + 1)]
            yield word.start, last.end, "true" + "\n" * (last.line - word.line)
        elif word.kind == STRING and "\\" in word.text and word.text[0] == '"':
            yield word.start, word.end, plain_string(word)


def plain_string(word: Word) -> str:
    """A string literal with no more escapes than it needs."""
    try:
        return json.dumps(literal(word), ensure_ascii=False)
    except ValueError:
        return word.text  # the engine will say what is wrong with it
