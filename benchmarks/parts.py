"""Cases of single parts: the client as a process, and a line of the access log."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

from benchmarks.bench import SETTLE, Bench, Result
from benchmarks.processes import CLIENT, PAGE

LINES = 100_000
#: A program that has loaded Twisted's reactor, and tells its memory.
REACTOR = f"""
from twisted.internet import reactor
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * {PAGE} / 1e6)
"""


def client_process(bench: Bench) -> Iterator[Result]:
    """How long ``--help`` takes, how long until a URL answers, and memory at rest."""
    if bench.ours is None:
        return
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        bench.programs.answer(*CLIENT, "--help")
        times.append(time.perf_counter() - begin)
    # The first may compile modules.
    helps = statistics.median(times[1:])
    title = "exposr --help, median of 5"
    yield Result("help", title, "s", None, helps, more=False, note="goal ≤ 0.4")
    starts, sizes = [], []
    for number in range(bench.pairs):
        begin = time.perf_counter()
        client = bench.client(bench.ours.port, f"started-{number}")
        starts.append(time.perf_counter() - begin)
        time.sleep(SETTLE / 3)
        sizes.append(client.usage().memory / 1e6)
        bench.programs.stop(client)
    title = "from starting the client to an answer at its URL"
    yield Result(
        "start", title, "s", None, statistics.median(starts), more=False, note="goal ≤ 1.5"
    )
    reactor = float(bench.programs.answer(sys.executable, "-c", REACTOR))
    title, note = "client's memory, idle", f"goal ≤ 40; Twisted's reactor alone: {reactor:.1f}"
    yield Result("client", title, "MB", None, statistics.median(sizes), more=False, note=note)


def access_line(bench: Bench) -> Iterator[Result]:
    """CPU of the reactor's thread for a line of the access log."""
    file = bench.programs.directory / "lines.log"
    costs = []
    for _ in range(1 if bench.quick else bench.few):
        file.unlink(missing_ok=True)
        costs.append(float(bench.programs.run_python("benchmarks.lines", LINES, file)))
    title, note = "one line of the access log", f"{LINES:,} lines; goal ≤ 4"
    yield Result("log", title, "µs", None, statistics.median(costs), more=False, note=note)
