"""Cases of a client that looks on: what its requests cost beside those of one that does not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks.bench import BENCH, CONNECTIONS, Bench, Result, Side, each, interleaved, notes
from benchmarks.load import wrk
from benchmarks.processes import DOMAIN, Program

#: Seconds over which a program must be at rest, and the share of a core that is rest.
REST, AT_REST = 0.5, 0.05
#: Seconds that it may take to come to rest.
PATIENCE = 60.0


def recorded(bench: Bench) -> Iterator[Result]:
    """Small requests through a client that writes HAR files."""
    folder = bench.programs.directory / "har"
    note = "goal ≥ 0.67 of without"
    yield from beside_plain(bench, "record", "HAR files", note, "--record", str(folder))


def inspected(bench: Bench) -> Iterator[Result]:
    """Small requests through a client with an inspector that nobody looks at."""
    note = "goal ≥ 0.67 of without"
    yield from beside_plain(bench, "inspect", "inspector", note, "--inspect-port", "0")


def beside_plain(bench: Bench, case: str, title: str, goal: str, *options: str) -> Iterator[Result]:
    """Small requests through a client with some options, in turn with one that has none, on one
    server; each has the machine to itself, as a client that looks on may have work left over."""
    if bench.ours is None:
        return
    server, plain, *_ = bench.ours.programs
    client = bench.client(bench.ours.port, f"bench-{case}", options=options)
    runs = [
        (Side(bench.ours.port, (server, plain)), BENCH),
        (Side(bench.ours.port, (server, client)), f"bench-{case}.{DOMAIN}"),
    ]
    costs: dict[str, list[float]] = {host: [] for _, host in runs}
    failed = 0

    def measure(run: tuple[Side, str]) -> float:
        nonlocal failed
        side, host = run
        come_to_rest(client)
        before = side.cpu()
        rate = wrk(side.port, host, "/small", CONNECTIONS, bench.seconds, False)
        costs[host].append(each(side.cpu() - before, rate.requests))
        failed += rate.failed
        return rate.per_second

    try:
        found = interleaved(bench.pairs, measure, runs)
    finally:
        bench.programs.stop(client)
    without, with_options = map(statistics.median, found)
    for name, rate, (_, host), note in (
        ("off", without, runs[0], ""),
        ("on", with_options, runs[1], notes(f"{with_options / without:.2f} of without", goal)),
    ):
        yield Result(
            f"{case}-{name}",
            f"64 kept-alive connections, {title} {name}",
            "req/s",
            None,
            rate,
            cpu_ours=statistics.median(costs[host]),
            note=notes(note, f"{failed} failed" if failed else ""),
        )


def come_to_rest(program: Program) -> None:
    """Until a program has nothing to do."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        before = program.usage().cpu
        time.sleep(REST)
        if program.usage().cpu - before < AT_REST * REST:
            return
