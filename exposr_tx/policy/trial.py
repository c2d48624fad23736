"""``exposr policy test``: policies tried on an input, without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision
from exposr_tx.policy.compiled import Compiled
from exposr_tx.policy.document import completed
from exposr_tx.policy.sources import read_sources

__all__ = ["trial"]

ALLOWED, DENIED, UNUSABLE = 0, 1, 2


def trial(policies: str, path: str, package: str, explain: bool, out: TextIO, err: TextIO) -> int:
    """Decide on the input in a file; the exit status.

    :param policies: a file or folder.
    :param path: a file with a JSON object; ``-`` is standard input.
    :param explain: tell more than the decision.
    """
    try:
        given = _input(path)
        loaded = Compiled(read_sources([policies]))
    except PolicyInvalid as problem:
        err.write(f"exposr: {problem}\n")
        return UNUSABLE
    read = loaded.reading.part_of(completed(given))
    started = perf_counter()
    decision = loaded.evaluate(package, read)
    milliseconds = (perf_counter() - started) * 1000
    if explain:
        _explain(loaded, package, read, decision, milliseconds, out)
    out.write(json.dumps(_shown(decision), ensure_ascii=False) + "\n")
    return ALLOWED if decision.allow else DENIED


def _input(path: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
        given = json.loads(text)
    except (OSError, ValueError) as problem:
        raise PolicyInvalid(f"{path}: is no JSON that can be read: {problem}") from None
    if not isinstance(given, dict):
        raise PolicyInvalid(f'{path}: must hold an object like {{"method": "GET", "path": "/"}}')
    return given


def _shown(decision: Decision) -> dict[str, Any]:
    shown: dict[str, Any] = {"allow": decision.allow, "outcome": decision.outcome}
    if not decision.allow:
        shown["status"] = decision.status
        shown |= {"reason": decision.reason} if decision.reason else {}
    for name in ("headers", "set_request_headers"):
        if pairs := getattr(decision, name):
            shown[name] = [[text.decode("utf-8", "replace") for text in pair] for pair in pairs]
    return shown


def _told(field: str) -> str:
    return f"whether remote_ip is in {field[7:]}" if field.startswith("within.") else field


_WHY = {
    "allowed": "the rule allow holds",
    "denied": "the rule allow does not hold",
    "undefined": "no file defines the package: visitors get 403, clients 500",
    "error": "the evaluation fails, or allow is neither a boolean nor an object of the known "
    "form: visitors get 403, clients 500",
}


def _explain(
    loaded: Compiled,
    package: str,
    read: dict[str, Any],
    decision: Decision,
    milliseconds: float,
    out: TextIO,
) -> None:
    for module in loaded.modules:
        fields = ", ".join(sorted(map(_told, module.fields))) or "nothing"
        out.write(f"{module.path}: package {module.package}; reads {fields}\n")
    for line in loaded.warnings:
        out.write(f"warning: {line}\n")
    out.write(f"input: {json.dumps(read, ensure_ascii=False, sort_keys=True)}\n")
    for rule, value in loaded.rules(package, read):
        out.write(f"{package}.{rule}: {value}\n")
    anew = loaded.outline.changing or loaded.reading.timed
    kept = "made anew for each request" if anew else "kept for the same input"
    out.write(f"{package}: {_WHY[decision.outcome]}; {milliseconds:.2f} ms; {kept}\n")
