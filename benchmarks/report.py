"""The table, as text and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.bench import Result

HEADINGS = ("case", "unit", "nginx", "ours", "ratio", "CPU µs nginx", "CPU µs ours", "note")


def figure(value: float | None) -> str:
    """Three digits that matter, no more."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def row(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    return (
        result.title,
        result.unit,
        figure(result.yardstick),
        figure(result.ours),
        figure(result.ratio) + ("" if result.more or result.ratio is None else " ×"),
        figure(result.cpu_yardstick),
        figure(result.cpu_ours),
        result.note,
    )


def text(results: Sequence[Result]) -> str:
    """A Markdown table that is aligned, so that it can be read as it is too."""
    rows = [HEADINGS, *map(row, results)]
    widths = [max(len(line[i]) for line in rows) for i in range(len(HEADINGS))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    ruler = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([line(HEADINGS), ruler, *map(line, rows[1:])])


def save(path: Path, results: Sequence[Result], quick: bool, seconds: float) -> None:
    """The same as JSON, with what is to be known about the machine."""
    document = {
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "quick": quick,
        "seconds": round(seconds, 1),
        "results": [asdict(r) | {"ratio": r.ratio} for r in results],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
