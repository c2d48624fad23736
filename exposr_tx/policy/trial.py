"""``exposr policy test``: policies tried on an input, by what a server has them tried by."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TextIO

from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision
from exposr_tx.policy.compiled import Outline
from exposr_tx.policy.document import Reading, completed, unlike
from exposr_tx.policy.process import REMEDY, EngineDied, Process, start
from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source, read_sources

__all__ = ["trial"]

ALLOWED, DENIED, UNUSABLE = 0, 1, 2
#: Seconds of CPU, about, for a decision that a server would have in 50 ms.
PATIENCE: Final = 5.0


def trial(policies: str, path: str, package: str, explain: bool, out: TextIO, err: TextIO) -> int:
    """Decide on the input in a file; the exit status.

    :param policies: a file or folder.
    :param path: a file with a JSON object; ``-`` is standard input.
    :param explain: tell more than the decision.
    """
    try:
        given = _input(path)
        sources = read_sources([policies])
        (process,), outline = start(sources, 1)
    except PolicyInvalid as problem:
        err.write(f"exposr: {problem}\n")
        return UNUSABLE
    try:
        return _tried(process, sources, outline, package, given, explain, out)
    except EngineDied as problem:
        err.write(
            f"exposr: {problem} when it evaluates {package}: a server would deny this, and what "
            f"else it is asked meanwhile; {REMEDY}\n"
        )
        return UNUSABLE
    finally:
        process.stop()


def _tried(
    process: Process,
    sources: Sequence[Source],
    outline: Outline,
    package: str,
    given: Mapping[str, Any],
    explain: bool,
    out: TextIO,
) -> int:
    reading = Reading(outline.fields)
    read = reading.part_of(completed(given))
    started = perf_counter()
    decision = process.evaluate(package, read, PATIENCE)
    milliseconds = (perf_counter() - started) * 1000
    if explain:
        for module in map(scan, sources):
            fields = ", ".join(sorted(map(_told, module.fields))) or "nothing"
            out.write(f"{module.path}: package {module.package}; reads {fields}\n")
        for line in (*reading.warnings, *unlike(given)):
            out.write(f"warning: {line}\n")
        out.write(f"input: {json.dumps(read, ensure_ascii=False, sort_keys=True)}\n")
        try:
            rules = process.rules(package, read)
        except EngineDied as problem:
            rules = [("*", f"{problem} when it evaluates rules that allow does not need")]
        for rule, value in rules:
            out.write(f"{package}.{rule}: {value}\n")
        kept = "kept for the same millisecond" if reading.timed else "kept for the same input"
        if outline.changing:
            kept = "made anew for each request"
        out.write(f"{package}: {_WHY[decision.outcome]}; {milliseconds:.2f} ms; {kept}\n")
    out.write(json.dumps(_shown(decision), ensure_ascii=False) + "\n")
    return ALLOWED if decision.allow else DENIED


def _input(path: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8-sig")
        given = json.loads(text)
        json.dumps(given, ensure_ascii=False).encode()  # half a character is none
    except (OSError, ValueError, RecursionError) as problem:
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
    if decision.unset_request_headers:
        shown["unset_request_headers"] = [n.decode() for n in decision.unset_request_headers]
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
