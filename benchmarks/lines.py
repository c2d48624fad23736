"""What a line of the access log costs the reactor's thread.

``python -m benchmarks.lines COUNT FILE`` writes so many lines as the server does, JSON
through :class:`exposr_tx.logs.LogOutput` with its thread running, and prints µs per line:
this thread's CPU time, without that of the loop and of a call of the same arguments.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exposr_tx.accesslog import AccessLog
from exposr_tx.logs import LogOutput

# Lines written without a pause: fewer than may wait for the log's thread.
BATCH = 10_000
# Seconds in which the log's thread writes a batch.
PAUSE = 0.1


def requests(count: int) -> list[tuple[Any, ...]]:
    """Arguments of :meth:`AccessLog.write` for so many different requests."""
    return [
        (
            b"GET",
            b"bench.localhost:8080",
            b"/articles/2026/11/%d/index.html" % number,
            200 if number % 50 else 404,
            0,
            90 + number % 7000,
            0.3 + number / 1000,
            0.4 + number / 1000,
            b"bench",
            secrets.token_hex(16).encode(),
        )
        for number in range(count)
    ]


def nothing(*_: Any) -> None:
    """What the same loop costs without a log."""


def seconds(write: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> float:
    """CPU time of this thread for all the calls."""
    begin = time.thread_time()
    for call in calls:
        write(*call)
    return time.thread_time() - begin


def main(count: int, file: Path) -> None:
    """Measure and print."""
    output = LogOutput(str(file))
    log = AccessLog(output.write, text=False)
    output.start()
    calls = requests(min(count, BATCH))
    seconds(log.write, calls[:1000])
    used = 0.0
    rounds = max(1, count // len(calls))
    for _ in range(rounds):
        used += seconds(log.write, calls) - seconds(nothing, calls)
        time.sleep(PAUSE)
    output.stop()
    written = file.read_bytes().count(b"\n") - 1000
    if written != rounds * len(calls):
        raise SystemExit(f"{rounds * len(calls) - written} lines were lost")
    print(used / written * 1e6)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
