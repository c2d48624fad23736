"""Cases of long bodies: their speed, the memory of those that stop, and streams of events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks.bench import BENCH, MIB, ORIGIN, SETTLE, Bench, Result, Side, medians, notes
from benchmarks.load import Visit, download, event_delay, upload, wrk
from benchmarks.processes import GIB

SLOW_RATE = 4_000_000
#: Streams at once. With few of them the buffers of a process count that all its streams share.
FEW, MANY = 4, 16


def one_stream(bench: Bench) -> Iterator[Result]:
    """One long body, down and then up."""
    size = GIB // 4 if bench.quick else GIB
    figures = bench.paired(lambda side: download(side.port, BENCH, "/large", size))
    note = f"{size // MIB} MiB; goal ≥"
    yield Result("down", "one stream down", "MB/s", *figures, note=f"{note} 0.8")
    figures = bench.paired(lambda side: upload(side.port, ORIGIN, "/sink", size))
    yield Result("up", "one stream up", "MB/s", *figures, note=f"{note} 0.6")


def far_away(bench: Bench) -> Iterator[Result]:
    """One stream from a client 50 ms away."""
    if bench.ours is None:
        return
    size = (128 if bench.quick else 512) * MIB
    with bench.delayed(0.05) as host:
        port = bench.ours.port
        speeds = [download(port, host, "/large", size) for _ in range(bench.pairs)]
    speed = statistics.median(speeds)
    title = "one stream down, 50 ms away each way"
    yield Result("relay", title, "MB/s", None, speed, note="goal ≥ 30")


def stopped_reader(bench: Bench) -> Iterator[Result]:
    """Memory of server and client while readers stop, or are slow, in the middle of 1 GiB."""
    fast = (128 if bench.quick else 512) * MIB

    def visitors(side: Side, streams: int) -> list[Visit]:
        visits = [Visit(side.port, BENCH, "/large") for _ in range(streams)]
        for visit in visits:
            visit.head()
        return visits

    def uploads(side: Side, streams: int, path: str) -> list[Visit]:
        return [Visit(side.port, ORIGIN, path, upload=GIB) for _ in range(streams)]

    def visitor_stops(side: Side, streams: int) -> list[Visit]:
        visits = visitors(side, streams)
        for visit in visits:
            visit.read(fast)
        return visits

    def visitor_slow(side: Side, streams: int) -> list[Visit]:
        visits = visitors(side, streams)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            for visit in visits:
                visit.read(visit.received + SLOW_RATE // 10)
            time.sleep(0.1)
        return visits

    def target_stops(side: Side, streams: int) -> list[Visit]:
        visits = uploads(side, streams, f"/stall?{fast}")
        for visit in visits:
            visit.send(GIB, patience=SETTLE)
        return visits

    def target_slow(side: Side, streams: int) -> list[Visit]:
        visits = uploads(side, streams, f"/slow?{SLOW_RATE}")
        for _ in range(4):
            for visit in visits:
                visit.send(GIB, patience=1 / streams)
        return visits

    for name, title, act, goal in (
        ("visitor-stops", "visitor stops reading", visitor_stops, "6,000"),
        ("visitor-slow", "visitor always slow", visitor_slow, "1,000"),
        ("target-stops", "target stops reading", target_stops, "6,000"),
        ("target-slow", "target always slow", target_slow, "1,000"),
    ):
        counts, used = (FEW,) if "stops" in name else (FEW, MANY), dict[int, float]()
        for streams in counts:
            with bench.fresh() as side:
                wrk(side.port, BENCH, "/small", 8, 1, False)
                before = side.memory()
                visits = act(side, streams)
                time.sleep(SETTLE if "stops" in name else 0)
                used[streams] = (side.memory() - before) / 1000
                rate = wrk(side.port, BENCH, "/small", 1, 1, False)
                for visit in visits:
                    visit.close()
        most = counts[-1]
        further = ""
        if most > FEW:
            slope = (used[most] - used[FEW]) / (most - FEW)
            further = f"of {FEW}: {used[FEW] / FEW:,.0f} each; each further one {slope:,.0f}"
        others = f"others meanwhile: p50 {rate.p50:.0f} µs, {rate.failed} failed"
        note = notes(f"goal ≤ {goal}; {most} streams", further, others)
        title = f"memory per stream, {title}"
        yield Result(name, title, "KB", None, used[most] / most, more=False, note=note)


def event_stream(bench: Bench) -> Iterator[Result]:
    """How much later than at the target an event is at the visitor."""
    streams, events = (10, 5) if bench.quick else (30, 10)
    later: dict[bool, list[float]] = {True: [], False: []}

    def measure(side: Side) -> float:
        first, after = event_delay(side.port, ORIGIN, streams, events)
        later[side.is_yardstick].append(after)
        return first

    figures = bench.paired(measure)
    title, goal = "event stream, first event's delay", "goal: 2,000 more than nginx's"
    yield Result("event-first", title, "µs", *figures, more=False, note=goal)
    tails = medians(later)
    yield Result("event-later", "event stream, later events' delay", "µs", *tails, more=False)
