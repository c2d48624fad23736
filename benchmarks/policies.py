"""The case of policies: what it costs to be asked about each request."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import BENCH, CONNECTIONS, Bench, Result, Side, each, interleaved, notes
from benchmarks.load import wrk

#: Kept: the same input comes again and again. Of a connection: the port belongs to the input. Of a
#: moment: the time does. Anew: each request is evaluated.
_RULE = """allow if {{
    startswith(input.path, "/small")
    not input.headers.authorization
    {more}
}}"""
POLICIES = {
    "kept": _RULE.format(more='input.tunnel == "bench"'),
    "connection": _RULE.format(more="input.remote_port > 0"),
    "moment": _RULE.format(more="input.time > 0"),
    "anew": _RULE.format(more="time.now_ns() > 0"),
}


def policies(bench: Bench) -> Iterator[Result]:
    """Small requests with a policy, by those without one; five servers in turn."""
    with ExitStack() as stack:
        sides = {"none": stack.enter_context(bench.fresh("bench"))}
        for name, text in POLICIES.items():
            path = bench.programs.policies(name, text)
            files = ("--policy", path, "--policy", path.with_name("clients.rego"))
            sides[name] = stack.enter_context(bench.fresh("bench", options=files))
        names = {side: name for name, side in sides.items()}
        costs: dict[str, list[float]] = {name: [] for name in sides}
        failed = 0

        def measure(side: Side) -> float:
            nonlocal failed
            before = side.cpu()
            rate = wrk(side.port, BENCH, "/small", CONNECTIONS, bench.seconds, False)
            failed += rate.failed
            costs[names[side]].append(each(side.cpu() - before, rate.requests))
            return rate.per_second

        found = interleaved(bench.pairs, measure, [*sides.values()])
    titles = {
        "none": "the same without policies",
        "kept": "64 kept-alive connections, decisions kept",
        "connection": "the same, kept for a connection",
        "moment": "the same, kept for a millisecond",
        "anew": "the same, evaluated for each request",
    }
    rates = dict(zip(sides, map(statistics.median, found), strict=True))
    for name, rate in rates.items():
        note = "" if name == "none" else f"{rate / rates['none']:.2f} of without; goal ≥ 0.5"
        yield Result(
            f"policy-{name}",
            titles[name],
            "req/s",
            None,
            rate,
            cpu_ours=statistics.median(costs[name]),
            note=notes(note, f"{failed} failed" if failed else ""),
        )
