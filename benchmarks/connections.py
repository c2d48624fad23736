"""Cases of many connections: what an idle one costs, how many come in a second, and websockets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import ECHO, SETTLE, Bench, Cpu, Result, Side, interleaved, medians, notes
from benchmarks.load import Flow, Visitors
from benchmarks.processes import free_port

#: Visitors' websockets.
WEBSOCKETS = 1_000


def idle_memory(bench: Bench) -> Iterator[Result]:
    """What a tunnel costs the server while nothing happens on it."""
    for connections in (1, 2):
        count = bench.tunnels(connections)
        port = free_port()
        server = bench.programs.server(port)
        before = server.usage().memory
        try:
            with bench.idle(port, count, connections) as idle:
                time.sleep(SETTLE)
                used = (server.usage().memory - before) / count / 1000
                note = " ".join(idle.output().split()[3:])
        finally:
            bench.programs.stop(server)
        title = f"server memory per idle tunnel, {connections} connection{'s'[: connections - 1]}"
        note = notes("goal ≤ 16" if connections == 1 else "", f"{count} tunnels {note}".strip())
        yield Result(f"idle-{connections}", title, "KB", None, used, more=False, note=note)


def accepted(bench: Bench) -> Iterator[Result]:
    """Clients' connections: websocket handshakes with a token, 64 under way at a time."""
    count = 200 if bench.quick else 1_000
    rates, costs, before = [], [], 0.0
    port = free_port()
    server = bench.programs.server(port)

    def begins() -> None:
        nonlocal before
        before = server.usage().cpu

    try:
        for _ in range(bench.few):
            with bench.idle(port, count, 1, begins) as idle:
                costs.append((server.usage().cpu - before) / count * 1e6)
                rates.append(float(idle.output().split()[2]))
            time.sleep(SETTLE / 3)
    finally:
        bench.programs.stop(server)
    yield Result(
        "accepts",
        "clients' connections accepted",
        "conn/s",
        None,
        statistics.median(rates),
        cpu_ours=statistics.median(costs),
        note=f"{count} tunnels; goal ≥ 1,000 (visitors' connections: Connection: close)",
    )


def websockets(bench: Bench) -> Iterator[Result]:
    """A thousand visitors' websockets: idle ones' memory, messages a second, round trips."""
    with bench.fresh_pair("echo") as sides, ExitStack() as stack:
        visitors: dict[Side, Visitors] = {}
        idle: dict[bool, list[float]] = {True: [], False: []}
        shares = []
        for side in sides:
            # What the first few need is not the idle ones' share.
            with Visitors(bench.programs, "websocket", side.port, ECHO, "/", 20) as few:
                few.run(0, 0.5)
            before = [program.usage().memory for program in side.programs]
            visitors[side] = stack.enter_context(
                Visitors(bench.programs, "websocket", side.port, ECHO, "/", WEBSOCKETS)
            )
            time.sleep(SETTLE)
            after = [program.usage().memory for program in side.programs]
            used = [(b - a) / WEBSOCKETS / 1000 for a, b in zip(before, after, strict=True)]
            idle[side.is_yardstick].append(sum(used))
            if not side.is_yardstick:
                shares = [f"server {used[0]:.1f}, client {used[1]:.1f}"]
        title = "memory per idle websocket of a visitor"
        figures = medians(idle)
        note = notes(f"{WEBSOCKETS} websockets", *shares)
        yield Result("websocket-idle", title, "KB", *figures, more=False, note=note)
        yield from messages(bench, sides, visitors)


def messages(
    bench: Bench, sides: tuple[Side, ...], visitors: dict[Side, Visitors]
) -> Iterator[Result]:
    """Messages on websockets that are open: as fast as they go, then half as fast."""
    cpu, flows = Cpu(bench), dict[tuple[Side, bool], list[Flow]]()
    half = 0.0

    def measure(run: tuple[Side, bool]) -> float:
        side, paced = run
        before = side.cpu()
        flow = visitors[side].run(half if paced else 0, bench.seconds)
        if not paced:
            cpu.spent(side, before, flow.answered)
        cpu.failed += flow.failed
        flows.setdefault(run, []).append(flow)
        return flow.per_second

    found = interleaved(bench.few, measure, [(side, False) for side in sides])
    rates = [statistics.median(rates) for rates in found]
    half = rates[-1] / 2
    interleaved(bench.few, measure, [(side, True) for side in sides])
    share = {side: statistics.median(flow.cpu for flow in flows[side, False]) for side in sides}
    load = ", ".join(f"{share[side]:.0%}" for side in sides)
    title = f"{WEBSOCKETS:,} websockets, messages echoed"
    both = (rates[0], rates[1] if len(rates) > 1 else None)
    note = f"the generator used {load} of a core"
    yield cpu.put(Result("websocket-rate", title, "msg/s", *both, note=note))
    for paced, name, what in (
        (False, "websocket-p99", "as fast as they go"),
        (True, "websocket-even-p99", f"{half:,.0f} msg/s"),
    ):
        tails: dict[bool, list[float]] = {True: [], False: []}
        for side in sides:
            tails[side.is_yardstick] += [flow.p99 for flow in flows[side, paced]]
        title = f"round trip on {WEBSOCKETS:,} websockets, {what}, p99"
        yield Result(name, title, "µs", *medians(tails), more=False)
