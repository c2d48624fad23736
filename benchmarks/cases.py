"""The cases by name, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks.bench import Bench, Result
from benchmarks.connections import accepted, idle_memory, websockets
from benchmarks.parts import access_line, client_process
from benchmarks.policies import policies
from benchmarks.processes import Missing
from benchmarks.requests import (
    beside_download,
    closed,
    constant_rate,
    dialects,
    kept_alive,
    many_tunnels,
    one_connection,
)
from benchmarks.streams import event_stream, far_away, one_stream, stopped_reader
from benchmarks.watching import inspected, recorded

CASES: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "kept-alive": kept_alive,
    "one": one_connection,
    "close": closed,
    "stream": one_stream,
    "beside": beside_download,
    "constant": constant_rate,
    "websockets": websockets,
    "dialects": dialects,
    "record": recorded,
    "inspect": inspected,
    "client": client_process,
    "accepts": accepted,
    "log": access_line,
    "relay": far_away,
    "reader": stopped_reader,
    "events": event_stream,
    "idle": idle_memory,
    "tunnels": many_tunnels,
    "policy": policies,
}
# These have no figure for nginx.
TUNNEL_ONLY = {
    *("relay", "reader", "dialects", "record", "inspect", "policy"),
    *("accepts", "client", "log", "idle", "tunnels"),
}


def run(bench: Bench, name: str) -> Iterator[Result]:
    """The rows of one case; one that could not be measured says why."""
    if time.monotonic() > bench.deadline:
        yield Result(name, name, "", note="not run: out of time")
        return
    try:
        yield from CASES[name](bench)
    except (OSError, RuntimeError, Missing) as failure:
        reason = " ".join(str(failure).split())[-300:]
        yield Result(name, name, "", note=f"failed: {type(failure).__name__}: {reason}")
