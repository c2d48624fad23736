"""Cases of small requests: how many, how late, and what each costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import (
    BENCH,
    CONNECTIONS,
    SETTLE,
    Bench,
    Cpu,
    Result,
    Side,
    each,
    interleaved,
    medians,
    notes,
)
from benchmarks.load import Background, Flow, Rate, Visitors, download, wrk
from benchmarks.processes import DOMAIN, GIB

#: Seconds in which the server pings every idle client once.
PING_CYCLE = 6
#: Pairs of measurements with few and with many tunnels: what is looked for is less than what one
#: measurement differs from the next.
TUNNEL_PAIRS = 7


def kept_alive(bench: Bench) -> Iterator[Result]:
    """Small requests on 64 connections that stay."""
    cpu = Cpu(bench)
    figures = bench.paired(lambda side: cpu.wrk(side, BENCH, "/small", CONNECTIONS).per_second)
    title, goal = "64 kept-alive connections, small GET", "goal ≥ 0.40, CPU ≤ 60 µs"
    yield cpu.put(Result("kept-alive", title, "req/s", *figures, note=goal))


def one_connection(bench: Bench) -> Iterator[Result]:
    """The median latency of small requests, one after the other."""
    cpu = Cpu(bench)
    figures = bench.paired(lambda side: cpu.wrk(side, BENCH, "/small", 1).p50)
    title, goal = "1 kept-alive connection, p50", "goal ≤ 3.2 ×"
    yield cpu.put(Result("one", title, "µs", *figures, more=False, note=goal))


def closed(bench: Bench) -> Iterator[Result]:
    """Small requests, each on a new connection: visitors' connections accepted per second."""
    cpu = Cpu(bench)
    figures = bench.paired(
        lambda side: cpu.wrk(side, BENCH, "/small", CONNECTIONS, True).per_second
    )
    title, goal = "64 connections, Connection: close", "goal ≥ 0.45, and ≥ 1,000"
    yield cpu.put(Result("close", title, "req/s", *figures, note=goal))


def beside_download(bench: Bench) -> Iterator[Result]:
    """Small requests while a download of 1 GiB runs through the same tunnel, over and over."""
    rates: dict[bool, list[Rate]] = {True: [], False: []}
    failures: list[Exception] = []

    def measure(side: Side) -> float:
        with Background(side.port, BENCH, "/large", GIB) as stream:
            rate = wrk(side.port, BENCH, "/small", 1, max(2, bench.seconds), False)
        if stream.failure is not None:
            failures.append(stream.failure)
        rates[side.is_yardstick].append(rate)
        return rate.p50

    figures = bench.paired(measure)
    note = f"download failed: {failures[0]}" if failures else ""
    title = "small request while 1 GiB runs"
    yield Result("beside-p50", f"{title}, p50", "µs", *figures, more=False, note=note)
    tails = medians({k: [rate.p99 for rate in v] for k, v in rates.items()})
    note = notes("goal ≤ 10,000", note)
    yield Result("beside-p99", f"{title}, p99", "µs", *tails, more=False, note=note)


def constant_rate(bench: Bench) -> Iterator[Result]:
    """Latencies at half of what each side can do, counted from when each request was due."""
    with ExitStack() as stack:
        visitors = {
            side: stack.enter_context(
                Visitors(bench.programs, "http", side.port, BENCH, "/small", CONNECTIONS)
            )
            for side in bench.sides
        }
        found = interleaved(
            1 if bench.quick else bench.few,
            lambda side: (
                wrk(side.port, BENCH, "/small", CONNECTIONS, bench.seconds, False).per_second
            ),
            bench.sides,
        )
        halves = [statistics.median(rates) / 2 for rates in found]
        runs = list(zip(bench.sides, halves, strict=True))
        if bench.ours is not None:
            runs.append((bench.yardstick, halves[-1]))
        flows: dict[tuple[Side, float], list[Flow]] = {run: [] for run in runs}

        def measure(run: tuple[Side, float]) -> float:
            flow = visitors[run[0]].run(run[1], bench.seconds)
            flows[run].append(flow)
            return flow.p50

        interleaved(bench.few, measure, runs)
    ours = flows[runs[1]] if bench.ours is not None else []
    rates = " and ".join(f"{rate:,.0f}" for rate in halves)
    yield from percentiles("constant", f"{rates} req/s", flows[runs[0]], ours)
    if ours:
        yield from percentiles("same-rate", f"{halves[-1]:,.0f} req/s", flows[runs[-1]], ours)


def percentiles(case: str, rate: str, yardstick: list[Flow], ours: list[Flow]) -> Iterator[Result]:
    """Rows of p50, p99 and p99.9: the medians of the runs'."""
    titles = {"constant": "half of its own saturation", "same-rate": "half of ours, nginx too"}
    both = yardstick + ours
    late, share = max(flow.late_p99 for flow in both), max(flow.cpu for flow in both)
    failed = sum(flow.failed for flow in both)
    note = notes(
        rate,
        f"generator: {late:.0f} µs late (p99), {share:.0%} of a core",
        f"{failed} failed" if failed else "",
    )
    for name, pick in (
        ("p50", lambda flow: flow.p50),
        ("p99", lambda flow: flow.p99),
        ("p99.9", lambda flow: flow.p999),
    ):
        figures = medians({True: [*map(pick, yardstick)], False: [*map(pick, ours)]})
        title = f"constant rate, {titles[case]}, {name}"
        yield Result(f"{case}-{name}", title, "µs", *figures, more=False, note=note)
        note = ""


def many_tunnels(bench: Bench) -> Iterator[Result]:
    """What a request costs with 10 and with 10,000 other tunnels connected; two servers in turn."""
    counts = (10, bench.tunnels(1))
    with ExitStack() as stack:
        sides = [stack.enter_context(bench.fresh("bench")) for _ in counts]
        idles = [
            stack.enter_context(bench.idle(side.port, count, 1))
            for side, count in zip(sides, counts, strict=True)
        ]
        time.sleep(SETTLE)
        before = [side.cpu() for side in sides]
        time.sleep(PING_CYCLE)
        at_rest = [(side.cpu() - b) / PING_CYCLE for side, b in zip(sides, before, strict=True)]
        seconds = bench.seconds if bench.quick else PING_CYCLE
        costs: dict[Side, list[float]] = {side: [] for side in sides}
        alone: dict[Side, list[float]] = {side: [] for side in sides}
        failed = 0

        def measure(side: Side) -> float:
            nonlocal failed
            before = side.cpu()
            rate = wrk(side.port, BENCH, "/small", CONNECTIONS, seconds, False)
            used = side.cpu() - before
            costs[side].append(each(used, rate.requests))
            idle = at_rest[sides.index(side)] * seconds
            alone[side].append(each(used - idle, rate.requests))
            failed += rate.failed
            return rate.per_second

        figures = interleaved(bench.few if bench.quick else TUNNEL_PAIRS, measure, sides)
        lost = sum("lost" in idle.output() for idle in idles)
    for side, count, rates, rest in zip(sides, counts, figures, at_rest, strict=True):
        yield Result(
            f"tunnels-{count}",
            f"64 kept-alive connections, {count:,} tunnels connected",
            "req/s",
            None,
            statistics.median(rates),
            cpu_ours=statistics.median(costs[side]),
            note=notes(f"at rest {rest:.1%} of a core", f"{failed} failed" if failed else ""),
        )
    ratio, ratio_alone = (
        statistics.median(many / few for few, many in zip(*both.values(), strict=True))
        for both in (costs, alone)
    )
    title = f"CPU per request, {counts[1]:,} tunnels by 10"
    note = f"goal ≤ 1.05; {ratio_alone:.2f} without what they use at rest"
    note = notes(note, "connections were lost" if lost else "")
    yield Result("tunnels-cost", title, "×", None, ratio, more=False, note=note)


def dialects(bench: Bench) -> Iterator[Result]:
    """The same client speaking exposr v2 beside the native dialect, on one server."""
    if bench.ours is None:
        return
    server = bench.ours.programs[0]
    client = bench.client(bench.ours.port, "dialect-v2", native=False)
    runs = [
        (bench.yardstick, BENCH),
        (bench.ours, BENCH),
        (Side(bench.ours.port, (server, client)), f"dialect-v2.{DOMAIN}"),
    ]
    costs: dict[str, list[float]] = {}
    size = GIB // (8 if bench.quick else 2)
    failed = 0

    def small(run: tuple[Side, str]) -> float:
        nonlocal failed
        side, host = run
        before = side.cpu()
        rate = wrk(side.port, host, "/small", CONNECTIONS, bench.seconds, False)
        failed += rate.failed
        key = "nginx" if side.is_yardstick else host
        costs.setdefault(key, []).append(each(side.cpu() - before, rate.requests))
        return rate.per_second

    try:
        rates = interleaved(bench.few, small, runs)
        speeds = interleaved(
            bench.few, lambda run: download(run[0].port, run[1], "/large", size), runs
        )
    finally:
        bench.programs.stop(client)
    cpu = [statistics.median(costs[key]) for key in ("nginx", BENCH, f"dialect-v2.{DOMAIN}")]
    for name, title, unit, found in (
        ("small", "64 kept-alive connections", "req/s", rates),
        ("down", "one stream down", "MB/s", speeds),
    ):
        nginx, native, v2 = map(statistics.median, found)
        for place, dialect, figure in ((1, "native", native), (2, "v2", v2)):
            note = f"{figure / native:.2f} of native" if dialect == "v2" else ""
            yield Result(
                f"{dialect}-{name}",
                f"{title}, {dialect} dialect",
                unit,
                nginx,
                figure,
                cpu_yardstick=cpu[0] if name == "small" else None,
                cpu_ours=cpu[place] if name == "small" else None,
                note=notes(note, f"{failed} failed" if failed else ""),
            )
