"""``exposr logs`` and ``exposr replay``: what a running client's inspector shows, in a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Final, TextIO

from exposr_tx.client.inspectors import Inspected, InspectorRefusal, NoInspector, find
from exposr_tx.client.options import (
    FAILED,
    REFUSED,
    SUCCESS,
    UNREACHABLE,
    USAGE,
    Command,
    Replay,
)
from exposr_tx.errors import BadInput, ExposrError

__all__ = ["watch"]

#: Ids of exchanges that are not told again; the ring has fewer.
REMEMBERED: Final = 10_000
#: Columns of a terminal below which a table would have no room for paths.
NARROW: Final = 72
HEADINGS: Final = ("ID", "Time", "Method", "Path", "Status", "Duration", "Size")
_STYLES: Final = {"2": "green", "3": "cyan", "4": "yellow", "5": "red"}


def watch(name: str, command: Command, environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Do ``logs`` or ``replay``; the exit status."""
    try:
        inspected = find(command["inspector"], environ)
        if name == "replay":
            assert isinstance(command, Replay)
            return _replay(inspected, command, out)
        return _logs(inspected, command, out, err)
    except ExposrError as error:
        err.write(f"exposr: {_safe(str(error))}\n")
        return _status(error)


def _status(error: ExposrError) -> int:
    if isinstance(error, InspectorRefusal):
        return {400: USAGE, 401: REFUSED, 403: REFUSED}.get(error.http_status, FAILED)
    if isinstance(error, NoInspector):
        return UNREACHABLE
    return USAGE if isinstance(error, BadInput) else FAILED


# logs


def _logs(inspected: Inspected, command: Command, out: TextIO, err: TextIO) -> int:
    as_json = bool(command["json"])
    if command.words:
        if command["follow"]:
            raise BadInput("--follow: is for all exchanges, not for one")
        _one(inspected, command.words[0], as_json, bool(command["show-secrets"]), out)
        return SUCCESS
    if not command["follow"]:
        found = inspected.get("/api/exchanges")["exchanges"]
        if as_json:
            for summary in found:
                _say(out, json.dumps(summary))
        elif out.isatty() and get_terminal_size().columns >= NARROW:
            _table(found, out)
        else:
            for summary in found:
                _say(out, _line(summary))
        return SUCCESS
    for summary in _followed(inspected, as_json, err):
        _say(out, json.dumps(summary) if as_json else _line(summary))
    err.write("exposr: the client has ended\n")
    return FAILED


def _followed(inspected: Inspected, all_states: bool, err: TextIO) -> Iterator[dict[str, Any]]:
    """Exchanges as they end; those that may last as soon as they are answered.

    :param all_states: also when they begin.
    """
    told: dict[str, str] = {}
    for event in inspected.events():
        if event["missed"]:
            err.write(f"exposr: {event['missed']} exchanges went by too quickly to be told\n")
        for summary in event["exchanges"]:
            lasts = summary["status"] == 101 or summary["type"].startswith("text/event-stream")
            over = summary["state"] != "running"
            state = "over" if over else "running" if all_states else "lasting" if lasts else ""
            if not state or told.get(summary["id"]) == state:
                continue
            told[summary["id"]] = state
            if len(told) > REMEMBERED:
                del told[next(iter(told))]
            yield summary


def _one(inspected: Inspected, name: str, as_json: bool, secrets: bool, out: TextIO) -> None:
    query = "?secrets=show" if secrets else ""
    path = f"/api/exchanges/{_id(name)}"
    found = inspected.get(path + query)
    messages = inspected.get(f"{path}/frames{query}")["frames"] if found["frames"] else []
    if as_json:
        _say(out, json.dumps(found | {"messages": messages}))
        return
    parts = [found["request"]] if found["method"] else []
    parts += [found["response"]] if found["response"] else []
    for part in parts:
        _say(out, part["line"])
        for key, value in part["fields"]:
            _say(out, f"{key}: {value}")
        _say(out, "")
        _body(part["body"], out)
    for frame in messages:
        arrow = ">" if frame["sent"] else "<"
        text = frame.get("text", f"({frame['size']} bytes)")
        _say(out, f"{arrow} {frame['kind']}: {text}")
    if found["error"]:
        _say(out, f"({found['error']})")


def _body(body: dict[str, Any], out: TextIO) -> None:
    if "text" in body:
        for line in body["text"].split("\n"):
            _say(out, line.removesuffix("\r"))
    elif body["size"]:
        _say(out, f"({body['size']} bytes, {body['type'] or 'of no type'})")
    for remark in (body["problem"], "" if body["kept"] == body["size"] else "not kept whole"):
        if remark:
            _say(out, f"({remark})")
    if body["size"]:
        _say(out, "")


# replay


def _replay(inspected: Inspected, command: Replay, out: TextIO) -> int:
    name = _id(command.words[0])
    asked: dict[str, Any] = {"id": name, "wait": True}
    if edited := _edited(inspected, name, command):
        asked["edited"] = edited
    summary = inspected.post("/api/replay", asked)
    _say(out, json.dumps(summary) if command["json"] else _line(summary))
    return SUCCESS if summary["state"] == "complete" else FAILED


def _edited(inspected: Inspected, name: str, command: Replay) -> dict[str, Any]:
    edited: dict[str, Any] = {}
    if command["method"] is not None:
        edited["method"] = command["method"]
    if command["path"] is not None:
        edited["target"] = command["path"]
    if command["data"] is not None:
        edited |= _data(command["data"])
    if command.headers:
        fields = inspected.get(f"/api/exchanges/{name}?secrets=show")["request"]["fields"]
        names = {key.lower() for key, _ in command.headers}
        fields = [pair for pair in fields if pair[0].lower() not in names]
        edited["headers"] = fields + [[key, value] for key, value in command.headers if value]
    return edited


def _data(text: str) -> dict[str, str]:
    """``--data``: a text, or ``@FILE`` as curl has it; ``@-`` is standard input."""
    from base64 import b64encode  # noqa: PLC0415

    data = os.fsencode(text)  # the bytes that were typed
    if text.startswith("@"):
        try:
            data = sys.stdin.buffer.read() if text == "@-" else Path(text[1:]).read_bytes()
        except OSError as error:
            raise BadInput(f"--data {text!r}: cannot be read: {error}") from None
    return {"body_base64": b64encode(data).decode("ascii")}


# Lines


def _id(text: str) -> str:
    if not (text.isascii() and text.isdigit()):
        raise BadInput(f"{text!r}: is no id of an exchange; exposr logs shows them")
    return text


def _columns(summary: dict[str, Any]) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(summary["started"]).strftime("%H:%M:%S")
    status = str(summary["status"] or "-")
    if summary["state"] == "failed":
        status += " failed"
    duration = "…" if summary["duration"] is None else f"{summary['duration']:.0f} ms"
    size = f"{summary['response_size']} B"
    if summary["frames"]:
        size = f"{summary['frames']} messages"
    path = summary["target"] or summary["error"]
    return summary["id"], moment, summary["method"] or "-", path, status, duration, size


def _line(summary: dict[str, Any]) -> str:
    line = "  ".join(_columns(summary))
    if summary["replay_of"]:
        line += f"  replay of {summary['replay_of']}"
    return line


def _table(found: list[dict[str, Any]], out: TextIO) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        justify: Any = "right" if heading in ("ID", "Duration", "Size") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "Path", overflow="fold")
    for summary in found:
        failed = summary["state"] == "failed"
        style = "red" if failed else _STYLES.get(str(summary["status"])[:1], "")
        cells = [Text(_safe(cell)) for cell in _columns(summary)]
        cells[4].stylize(style)
        table.add_row(*cells)
    Console(file=out).print(table)


def _say(out: TextIO, line: str) -> None:
    coding = out.encoding or "utf-8"
    out.write((_safe(line) + "\n").encode(coding, "replace").decode(coding))
    out.flush()


def _safe(line: str) -> str:
    """What visitors have sent must not move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in line)
