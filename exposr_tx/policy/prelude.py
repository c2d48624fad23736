"""What the embedded engine lacks or gets wrong and policies need, written in Rego.

Calls of it are rewritten before a module is compiled.

- ``net.cidr_contains``: where a network that is written down is to have the visitor's address, the
  answer comes with the input (``within``); else the prelude's function is called. Its second
  argument is an address, with or without a port, or a network. IPv4 and IPv6 are compared by
  their hexadecimal digits.
- ``io.jwt.decode_verify``: the engine passes over constraints that it does not know, or that are
  no strings, and verifies HS256 with a ``cert``: who has read the public key could sign (tried).
- ``regex.match`` with a pattern that is worked out: see :mod:`patterns`.
- ``<``, ``<=``, ``>`` and ``>=``: see :mod:`comparisons`.
- Functions that look at their arguments first: see :mod:`arguments`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from exposr_tx.policy.arguments import LOOKING, RULES, is_plain, wary
from exposr_tx.policy.expressions import closing, split
from exposr_tx.policy.patterns import plain
from exposr_tx.policy.words import NAME, STRING, Word, edited, ends_term, is_member, literal

__all__ = ["DECODE_VERIFY", "GLOB_MATCH", "PACKAGE", "PROVIDED", "prelude", "rewritten"]

PACKAGE: Final = "exposr_tx_prelude"

#: What is known to be the visitor's address.
_VISITORS: Final = ([",", "input", ".", "remote", ")"], [",", "input", ".", "remote_ip", ")"])
CIDR_CONTAINS: Final = f"data.{PACKAGE}.cidr_contains"
DECODE_VERIFY: Final = f"data.{PACKAGE}.decode_verify"
SOUND: Final = f"data.{PACKAGE}.sound"
GLOB_MATCH: Final = f"data.{PACKAGE}.{wary('glob.match')}"
REGEX_MATCH: Final = f"data.{PACKAGE}.regex_match"
#: What is here, by the number of arguments.
PROVIDED: Final = {
    **dict.fromkeys((CIDR_CONTAINS, DECODE_VERIFY, REGEX_MATCH), 2),
    **{f"data.{PACKAGE}.{wary(name)}": arguments for name, arguments in LOOKING.items()},
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
_RULES: Final = f"""
cidr_contains(network, address) := found if {{
    parts := split(network, "/")
    base := digits(parts[0])
    other := digits(host(address))
    found := same(base, other, length_of(parts, count(base) * 4))
}}
cidr_contains(network, inner) := found if {{
    contains(inner, "/")
    parts := split(network, "/")
    others := split(inner, "/")
    base := digits(parts[0])
    other := digits(others[0])
    length := length_of(parts, count(base) * 4)
    found := [true, true] == [
        length <= length_of(others, count(other) * 4),
        same(base, other, length),
    ]
}}

length_of(parts, most) := most if count(parts) == 1
length_of(parts, most) := length if {{
    count(parts) == 2
    regex.match(`^[0-9]{{1,3}}$`, parts[1])
    length := to_number(parts[1])
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
    regex.match(`^(0|[1-9][0-9]{{0,2}})(\\.(0|[1-9][0-9]{{0,2}})){{3}}$`, text)
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
    is_token(token)
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
}} else := [false, {{}}, {{}}] if is_token(token)

regex_match(pattern, text) := regex.match(pattern, text) if taken(pattern)
regex_match(pattern, _) := unknown(pattern) if not taken(pattern)

taken(pattern) if {{
    regex.match(`^{_TAKEN}*$`, pattern)
    regex.is_valid(pattern)
}}

{RULES}
# What is no failure.
sound(value) := value if is_array([value])

ranks := {{"null": 0, "boolean": 1, "number": 2, "string": 3, "array": 4, "object": 5, "set": 6}}
{_COMPARED}
# Two values are an error, which denies.
unknown(pattern) := number if some number in [1, 2]
"""


def _by_name(rules: str) -> dict[str, str]:
    """The texts of rules, all bodies of each: from lines that begin with its name on."""
    found: dict[str, str] = {}
    for text in re.split(r"^(?=[a-z])", rules, flags=re.MULTILINE)[1:]:
        name = re.split(r"\W", text, maxsplit=1)[0]
        found[name] = found.get(name, "") + text
    return found


_BY_NAME: Final = _by_name(_RULES)


def prelude(texts: Iterable[str]) -> str:
    """What of the prelude is called by modules; empty where nothing is. All of it took 90 µs more
    for each evaluation.

    :param texts: theirs, for the engine.
    """
    wanted: dict[str, None] = {}
    found = [name for text in texts for name in re.findall(rf"data\.{PACKAGE}\.(\w+)", text)]
    while found:
        name = found.pop()
        if name in _BY_NAME and name not in wanted:
            wanted[name] = None
            found += re.findall(r"\w+", _BY_NAME[name])
    return (
        "\n".join([f"package {PACKAGE}\n", *(_BY_NAME[name] for name in wanted)]) if wanted else ""
    )


def rewritten(text: str, words: Sequence[Word]) -> str:
    """A module's text with what is provided here in place of what the engine lacks. Lines stay
    where they are.

    Strings are brought to the one spelling that inputs have, as the engine compares what is
    written (``"\\u00e9"`` would not be ``"é"``, tried); ``print``, which would write requests to
    standard output, becomes ``true``; and a line that begins with a bracket begins an expression,
    where the engine would call what the line before ends with (tried).
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
        elif word.text == "print" and call[1:2] == ("(",) and not member:
            last = words[closing(words, place + 1)]
            yield word.start, last.end, "true" + "\n" * (last.line - word.line)
        elif word.text == "(" and word.first and ends_term(words, place - 1):
            yield words[place - 1].end, words[place - 1].end, ";"
        elif word.kind == NAME and not member:
            past = _past(words, place)
            name = "".join(spelled[place:past])
            if name in LOOKING and spelled[past : past + 1] == ["("]:
                inside = words[past + 1 : closing(words, past)]
                if not is_plain(name, split(inside, frozenset({","}))):
                    yield word.start, words[past - 1].end, f"data.{PACKAGE}.{wary(name)}"
        elif word.kind == STRING and "\\" in word.text and word.text[0] == '"':
            yield word.start, word.end, plain_string(word)


def _past(words: Sequence[Word], place: int) -> int:
    """The place behind a dotted name."""
    place += 1
    while place + 1 < len(words) and words[place].text == "." and words[place + 1].kind == NAME:
        place += 2
    return place


def plain_string(word: Word) -> str:
    """A string literal with no more escapes than it needs."""
    try:
        return json.dumps(literal(word), ensure_ascii=False)
    except ValueError:
        return word.text  # the engine will say what is wrong with it
