"""A second peer of the native dialect, written from docs/protocols/exposr-tx-1.md alone.

It shares nothing with ``exposr_tx``: whole messages only, everything looked up in the
tables of the page, no care for speed. It keeps what it hears as a list of facts, and
says what it is told to say, also what it may not.
"""

from __future__ import annotations

import json
from typing import Any

NAMES = ["DATA", "OPEN", "END", "RESET", "CREDIT", "PING", "PONG", "GOAWAY"]
NAMES += ["ATTACH", "ATTACHED", "REFUSED", "DETACH"]
OF_STREAMS = {"DATA", "OPEN", "END", "RESET"}
OF_BOTH = {"CREDIT"}
WITH_JSON = {"OPEN", "ATTACH", "ATTACHED", "REFUSED", "DETACH"}
WITH_CODE = {"RESET", "GOAWAY"}
EXACT = {"END": 0, "CREDIT": 4, "PING": 8, "PONG": 8}
RESETS = ["NO_ERROR", "INTERNAL", "TARGET_REFUSED", "TARGET_FAILED", "TARGET_RESET", "LIMIT"]
RESETS += ["GOING_AWAY", "TIMEOUT", "UNSUPPORTED"]

Fact = tuple[Any, ...]


class Broken(Exception):
    """A protocol error of the other end's."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Broken(why)


def written(name: str, stream: int, *what: Any) -> bytes:
    """One frame."""
    if name in WITH_JSON:
        payload = json.dumps(what[0], separators=(",", ":")).encode()
    elif name in WITH_CODE:
        payload = int.to_bytes(what[0], 2, "big") + what[1].encode()
    elif name == "CREDIT":
        payload = int.to_bytes(what[0], 4, "big")
    else:
        payload = what[0] if what else b""
    kind = int.to_bytes(NAMES.index(name), 1, "big")
    return kind + len(payload).to_bytes(3, "big") + stream.to_bytes(4, "big") + payload


def depth(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max([0, *map(depth, inner)]) if isinstance(inner, list) else 0


def is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def no_constants(name: str) -> None:
    raise ValueError(name)


def read(message: bytes) -> list[Fact]:
    """The frames of a message, as ``(name, stream, …)``; unknown ones are left out."""
    need(len(message) <= 1 << 20, "long message")
    facts: list[Fact] = []
    while message:
        need(len(message) >= 8, "cut head")
        kind, size = message[0], int.from_bytes(message[1:4], "big")
        stream = int.from_bytes(message[4:8], "big")
        payload, message = message[8 : 8 + size], message[8 + size :]
        need(len(payload) == size, "cut frame")
        if kind < len(NAMES):
            facts.append((NAMES[kind], stream, *meaning(NAMES[kind], stream, payload)))
    return facts


def meaning(name: str, stream: int, payload: bytes) -> Fact:
    need(stream or name not in OF_STREAMS, "no stream")
    need(not stream or name in OF_STREAMS | OF_BOTH, "a stream")
    need(len(payload) == EXACT.get(name, len(payload)), "size")
    if name == "DATA":
        need(payload, "empty")
    if name in WITH_CODE:
        need(2 <= len(payload) <= 258, "size")
        return (int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace"))
    if name == "CREDIT":
        need(any(payload), "no credit")
        return (int.from_bytes(payload, "big"),)
    if name in WITH_JSON:
        need(len(payload) <= 4096, "size")
        try:
            value = json.loads(payload.decode(), parse_constant=no_constants)
        except (ValueError, RecursionError) as error:
            raise Broken(str(error)) from None
        need(isinstance(value, dict) and depth(value) <= 8, "no object")
        return (value,)
    return (payload,) if payload else ()


class Peer:
    """One end, of either role, that knows the rules about streams and credit.

    :ivar facts: what was heard of.
    :ivar out: frames to be sent: what it was told to say, and its answers.
    """

    def __init__(self, role: str) -> None:
        self.mine = {"server": 1, "client": 0}[role]
        self.facts: list[Fact] = []
        self.out: list[bytes] = []
        self.highest = {0: 0, 1: 0}  # by the last bit
        self.may_send = {0: 16_777_216}
        self.may_hear = {0: 16_777_216}
        self.open: dict[int, set[str]] = {}  # halves that are open: "in", "out"

    def say(self, name: str, stream: int, *what: Any) -> None:
        if name == "OPEN":
            self.begin(stream)
        elif name == "DATA":
            assert "out" in self.open[stream]
            for account in (0, stream):
                self.may_send[account] -= len(what[0])
                assert self.may_send[account] >= 0
        elif name == "END":
            self.stop(stream, "out")
        elif name == "RESET":
            self.open.pop(stream, None)
        self.out.append(written(name, stream, *what))

    def begin(self, stream: int) -> None:
        self.highest[stream % 2] = stream
        self.open[stream] = {"in", "out"}
        self.may_send[stream] = self.may_hear[stream] = 262_144

    def stop(self, stream: int, half: str) -> None:
        self.open[stream].discard(half)
        if not self.open[stream]:
            del self.open[stream]

    def hear(self, message: bytes) -> None:
        for fact in read(message):
            name, stream, *what = fact
            if name in OF_STREAMS and name != "OPEN" or name == "CREDIT" and stream:
                need(stream <= self.highest[stream % 2], "never opened")
                if stream not in self.open:
                    if name == "DATA":
                        self.arrived(0, len(what[0]))
                    continue
            getattr(self, f"hear_{name.lower()}", lambda *_: None)(stream, *what)
            self.facts.append(fact)

    def arrived(self, account: int, size: int) -> None:
        """Bytes were received; they are consumed at once, and credited at once."""
        self.may_hear[account] -= size
        need(self.may_hear[account] >= 0, "beyond the credit")
        if account == 0 or "in" in self.open[account]:
            self.may_hear[account] += size
            self.out.append(written("CREDIT", account, size))

    def hear_data(self, stream: int, payload: bytes) -> None:
        need("in" in self.open[stream], "DATA after END")
        self.arrived(0, len(payload))
        self.arrived(stream, len(payload))

    def hear_open(self, stream: int, metadata: dict[str, Any]) -> None:
        need(stream % 2 != self.mine and stream > self.highest[stream % 2], "number")
        need(is_text(metadata.get("kind")), "no kind")
        self.begin(stream)
        if self.mine:
            self.say("RESET", stream, RESETS.index("UNSUPPORTED"), "")

    def hear_end(self, stream: int) -> None:
        need("in" in self.open[stream], "END twice")
        self.stop(stream, "in")

    def hear_reset(self, stream: int, code: int, reason: str) -> None:
        del self.open[stream]

    def hear_credit(self, stream: int, size: int) -> None:
        if not stream or "out" in self.open[stream]:
            self.may_send[stream] += size
            need(self.may_send[stream] < 1 << 31, "31 bits")

    def hear_detach(self, stream: int, what: dict[str, Any]) -> None:
        number, code, reason = (what.get(key) for key in ("attachment", "code", "reason"))
        need(type(number) is int and 0 <= number <= 65535, "number")
        need(code is None or type(code) is int and 1000 <= code <= 4999, "close code")
        need(reason is None or is_text(reason), "reason")

    def hear_ping(self, stream: int, payload: bytes) -> None:
        self.out.append(written("PONG", 0, payload))
