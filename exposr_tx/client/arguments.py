"""The words of ``tunnel connect``: which of them is the tunnel, the target, a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exposr_tx.client.settings import SETTINGS, Change, changes, unknown
from exposr_tx.client.target import Target, looks_like_target, parse_target
from exposr_tx.errors import BadInput

__all__ = ["ConnectArguments"]


@dataclass(frozen=True, slots=True)
class ConnectArguments:
    """The words of ``tunnel connect``, told apart."""

    tunnel_id: str
    target: Target | None
    changes: tuple[Change, ...]
    host_header: str

    @classmethod
    def read(cls, words: Sequence[str], short: bool, host_header: str) -> ConnectArguments:
        """``[ID] [TARGET]`` in any order, in the short form ``TARGET [ID]``, and pairs."""
        head = list(words)
        for at, word in enumerate(words):
            if word in SETTINGS and not (at == 0 and len(words) > 1 and ":" in words[1]):
                head = list(words[:at])
                break
        pairs = changes(words[len(head) :])
        if len(head) > 2:
            raise unknown(head[2])
        targets = [word for word in head if looks_like_target(word)]
        target = head[0] if short else next((word for word in targets if ":" in word), None)
        if target is None and targets:
            target = targets[-1]
        rest = list(head)
        if target is not None:
            rest.remove(target)
        elif len(head) > 1:
            target = rest.pop()
        if rest and looks_like_target(rest[0]) and ":" in rest[0]:
            raise BadInput(f"two targets: {target!r} and {rest[0]!r}; give one")
        chosen = [pair for pair in pairs if pair.key not in ("target-url", "ingress-http-host")]
        for pair in pairs:
            if pair.key == "target-url":
                target = str(pair.value)
            elif pair.key == "ingress-http-host":
                host_header = str(pair.value)
        if target is None and not rest:
            raise BadInput("nothing to connect; as in: exposr tunnel connect http://localhost:3000")
        return cls(
            rest[0] if rest else "",
            None if target is None else parse_target(target),
            tuple(chosen),
            host_header,
        )
