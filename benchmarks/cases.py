"""The cases: what is asked of nginx and of the tunnel in turn, and what is told of it."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from benchmarks.load import Background, Rate, Visit, download, event_delay, upload, wrk
from benchmarks.processes import (
    DOMAIN,
    GIB,
    Missing,
    Program,
    Programs,
    free_port,
    wait_until,
)

MIB = 1 << 20
# Seconds for memory to come to rest before it is read.
SETTLE = 1.5
#: Descriptors that a program needs besides its clients' connections.
SPARE_DESCRIPTORS = 200
SLOW_RATE = 4_000_000


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table.

    :ivar yardstick: nginx without a tunnel; None where it has no such figure.
    :ivar ours: the tunnel; None while it could not be measured.
    :ivar more: whether more is better.
    :ivar cpu_yardstick: CPU µs per request of nginx.
    :ivar cpu_ours: CPU µs per request of server and client together.
    """

    case: str
    title: str
    unit: str
    yardstick: float | None = None
    ours: float | None = None
    more: bool = True
    cpu_yardstick: float | None = None
    cpu_ours: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours by nginx's."""
        if self.ours is None or not self.yardstick:
            return None
        return self.ours / self.yardstick


@dataclass(frozen=True, slots=True)
class Side:
    """nginx, or our server with its clients: where it listens and which processes it is."""

    port: int
    programs: tuple[Program, ...]

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return sum(program.usage().cpu for program in self.programs)

    def memory(self) -> int:
        """Resident bytes of all its processes."""
        return sum(program.usage().memory for program in self.programs)


class Bench:
    """What runs, and how long cases may take."""

    def __init__(self, programs: Programs, quick: bool, deadline: float) -> None:
        self.programs = programs
        self.quick = quick
        self.pairs = 3 if quick else 5
        self.seconds = 2 if quick else 5
        self.deadline = deadline
        self._target, self._origin = free_port(), free_port()
        programs.origin(self._origin)
        programs.target(self._target)
        port = free_port()
        self.yardstick = Side(port, (programs.yardstick(port, self._target, self._origin),))
        self.ours: Side | None = None

    def start(self) -> None:
        """Our side: a server and two clients. Raises Missing when it does not come up."""
        self.ours = self.tunnel()

    def tunnel(self, *options: str) -> Side:
        """A server of its own with a tunnel to nginx (bench) and one to the origin (origin)."""
        port = free_port()
        server = self.programs.server(port, *options)
        clients = (
            self.client(port, "bench", self._target, "/small"),
            self.client(port, "origin", self._origin, "/sink"),
        )
        return Side(port, (server, *clients))

    def client(self, port: int, name: str, target: int, path: str, through: int = 0) -> Program:
        """A client whose tunnel answers; ``through`` is the port of a relay to the server."""
        client = self.programs.client(name, through or port, target)

        def answers() -> bool:
            with suppress(OSError, RuntimeError):
                visit = Visit(port, f"{name}.{DOMAIN}", path)
                visit.head()
                visit.close()
                return True
            return False

        wait_until(client, answers, "answer through the tunnel")
        return client

    @contextmanager
    def fresh(self, *options: str) -> Iterator[Side]:
        """A side whose memory nobody has used before, ended afterwards."""
        side = self.tunnel(*options)
        try:
            yield side
        finally:
            for program in reversed(side.programs):
                self.programs.stop(program)

    @contextmanager
    def delayed(self, delay: float) -> Iterator[str]:
        """A tunnel of our server whose client is ``delay`` seconds away; gives its host."""
        assert self.ours is not None
        relay, port = self.programs.relay(self.ours.port, delay)
        client = self.client(self.ours.port, "delayed", self._target, "/small", through=port)
        try:
            yield f"delayed.{DOMAIN}"
        finally:
            self.programs.stop(client)
            self.programs.stop(relay)

    def paired(self, measure: Callable[[Side], float]) -> tuple[float, float | None]:
        """The medians of so many measurements of nginx and of ours, taken in turn."""
        yardstick, ours = [], []
        for _ in range(self.pairs):
            yardstick.append(measure(self.yardstick))
            if self.ours is not None:
                ours.append(measure(self.ours))
        return statistics.median(yardstick), statistics.median(ours) if ours else None


BENCH, ORIGIN = f"bench.{DOMAIN}", f"origin.{DOMAIN}"


def medians(figures: dict[bool, list[float]]) -> tuple[float | None, float | None]:
    """Of nginx (True) and of ours (False)."""
    yardstick, ours = (statistics.median(f) if f else None for f in (figures[True], figures[False]))
    return yardstick, ours


class Cpu:
    """CPU µs per request of each side, gathered while a case runs."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._costs: dict[bool, list[float]] = {True: [], False: []}
        self.failed = 0

    def wrk(self, side: Side, host: str, path: str, connections: int, close: bool = False) -> Rate:
        """Like :func:`benchmarks.load.wrk`, and count what it cost."""
        before = side.cpu()
        rate = wrk(side.port, host, path, connections, self._bench.seconds, close)
        cost = (side.cpu() - before) / max(1, rate.requests) * 1e6
        self._costs[side is self._bench.yardstick].append(cost)
        self.failed += rate.failed
        return rate

    def put(self, result: Result) -> Result:
        """The row with the costs in it."""
        yardstick, ours = medians(self._costs)
        note = f"{self.failed} failed" if self.failed else result.note
        return replace(result, cpu_yardstick=yardstick, cpu_ours=ours, note=note)


def kept_alive(bench: Bench) -> Iterator[Result]:
    """Small requests on 64 connections that stay."""
    cpu = Cpu(bench)
    figures = bench.paired(lambda side: cpu.wrk(side, BENCH, "/small", 64).per_second)
    yield cpu.put(Result("kept-alive", "64 kept-alive connections, small GET", "req/s", *figures))


def one_connection(bench: Bench) -> Iterator[Result]:
    """The median latency of small requests, one after the other."""
    cpu = Cpu(bench)
    figures = bench.paired(lambda side: cpu.wrk(side, BENCH, "/small", 1).p50)
    yield cpu.put(Result("one", "1 kept-alive connection, p50", "µs", *figures, more=False))


def closed(bench: Bench) -> Iterator[Result]:
    """Small requests, each on a new connection of the visitor's."""
    cpu = Cpu(bench)
    figures = bench.paired(lambda side: cpu.wrk(side, BENCH, "/small", 64, True).per_second)
    yield cpu.put(Result("close", "64 connections, Connection: close", "req/s", *figures))


def one_stream(bench: Bench) -> Iterator[Result]:
    """One long body, down and then up."""
    size = GIB // 4 if bench.quick else GIB
    figures = bench.paired(lambda side: download(side.port, BENCH, "/large", size))
    note = f"{size // MIB} MiB"
    yield Result("down", "one stream down", "MB/s", *figures, note=note)
    figures = bench.paired(lambda side: upload(side.port, ORIGIN, "/sink", size))
    yield Result("up", "one stream up", "MB/s", *figures, note=note)


def beside_download(bench: Bench) -> Iterator[Result]:
    """Small requests while a download of 1 GiB runs through the same tunnel, over and over."""
    rates: dict[bool, list[Rate]] = {True: [], False: []}
    failures: list[Exception] = []

    def measure(side: Side) -> float:
        with Background(side.port, BENCH, "/large", GIB) as stream:
            rate = wrk(side.port, BENCH, "/small", 1, bench.seconds, False)
        if stream.failure is not None:
            failures.append(stream.failure)
        rates[side is bench.yardstick].append(rate)
        return rate.p50

    figures = bench.paired(measure)
    note = f"download failed: {failures[0]}" if failures else ""
    title = "small request while 1 GiB runs"
    yield Result("beside-p50", f"{title}, p50", "µs", *figures, more=False, note=note)
    tails = medians({k: [rate.p99 for rate in v] for k, v in rates.items()})
    yield Result("beside-p99", f"{title}, p99", "µs", *tails, more=False, note=note)


def idle_memory(bench: Bench) -> Iterator[Result]:
    """What a tunnel costs the server while nothing happens on it."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS
    for connections in (1, 2):
        count = min(1_000 if bench.quick else 10_000, descriptors // connections)
        port = free_port()
        server = bench.programs.server(port)
        before = server.usage().memory
        idle = bench.programs.python("idle", "benchmarks.idle", port, count, connections)
        try:
            patience = max(20.0, bench.deadline - time.monotonic())
            wait_until(idle, lambda: "ready" in idle.output(), "ready line", patience)  # noqa: B023
            time.sleep(SETTLE)
            used = (server.usage().memory - before) / count / 1000
            note = " ".join(idle.output().split()[1:])
        finally:
            bench.programs.stop(idle)
            bench.programs.stop(server)
        title = f"server memory per idle tunnel, {connections} connection{'s'[: connections - 1]}"
        note = f"{count} tunnels {note}".strip()
        yield Result(f"idle-{connections}", title, "KB", None, used, more=False, note=note)


def far_away(bench: Bench) -> Iterator[Result]:
    """One stream from a client 50 ms away."""
    if bench.ours is None:
        return
    size = (128 if bench.quick else 512) * MIB
    with bench.delayed(0.05) as host:
        port = bench.ours.port
        speeds = [download(port, host, "/large", size) for _ in range(bench.pairs)]
    speed = statistics.median(speeds)
    yield Result("relay", "one stream down, 50 ms away each way", "MB/s", None, speed)


def stopped_reader(bench: Bench) -> Iterator[Result]:
    """Memory of server and client while readers stop, or are slow, in the middle of 1 GiB."""
    streams = 4
    fast = (128 if bench.quick else 512) * MIB

    def visitors(side: Side) -> list[Visit]:
        visits = [Visit(side.port, BENCH, "/large") for _ in range(streams)]
        for visit in visits:
            visit.head()
        return visits

    def uploads(side: Side, path: str) -> list[Visit]:
        return [Visit(side.port, ORIGIN, path, upload=GIB) for _ in range(streams)]

    def visitor_stops(side: Side) -> list[Visit]:
        visits = visitors(side)
        for visit in visits:
            visit.read(fast)
        return visits

    def visitor_slow(side: Side) -> list[Visit]:
        visits = visitors(side)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            for visit in visits:
                visit.read(visit.received + SLOW_RATE // 10)
            time.sleep(0.1)
        return visits

    def target_stops(side: Side) -> list[Visit]:
        visits = uploads(side, f"/stall?{fast}")
        for visit in visits:
            visit.send(GIB, patience=SETTLE)
        return visits

    def target_slow(side: Side) -> list[Visit]:
        visits = uploads(side, f"/slow?{SLOW_RATE}")
        for _ in range(4):
            for visit in visits:
                visit.send(GIB, patience=0.25)
        return visits

    for name, title, act in (
        ("visitor-stops", "visitor stops reading", visitor_stops),
        ("visitor-slow", "visitor always slow", visitor_slow),
        ("target-stops", "target stops reading", target_stops),
        ("target-slow", "target always slow", target_slow),
    ):
        with bench.fresh() as side:
            wrk(side.port, BENCH, "/small", 8, 1, False)
            before = side.memory()
            visits = act(side)
            time.sleep(SETTLE if "stops" in name else 0)
            used = (side.memory() - before) / streams / 1000
            rate = wrk(side.port, BENCH, "/small", 1, 1, False)
            for visit in visits:
                visit.close()
        note = f"{streams} streams; others meanwhile: p50 {rate.p50:.0f} µs, {rate.failed} failed"
        title = f"memory per stream, {title}"
        yield Result(name, title, "KB", None, used, more=False, note=note)


def event_stream(bench: Bench) -> Iterator[Result]:
    """How much later than at the target an event is at the visitor."""
    streams, events = (10, 5) if bench.quick else (30, 10)
    later: dict[bool, list[float]] = {True: [], False: []}

    def measure(side: Side) -> float:
        first, after = event_delay(side.port, ORIGIN, streams, events)
        later[side is bench.yardstick].append(after)
        return first

    figures = bench.paired(measure)
    yield Result("event-first", "event stream, first event's delay", "µs", *figures, more=False)
    tails = medians(later)
    yield Result("event-later", "event stream, later events' delay", "µs", *tails, more=False)


CASES: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "kept-alive": kept_alive,
    "one": one_connection,
    "close": closed,
    "stream": one_stream,
    "beside": beside_download,
    "relay": far_away,
    "reader": stopped_reader,
    "events": event_stream,
    "idle": idle_memory,
}
# These have no figure for nginx.
TUNNEL_ONLY = {"relay", "reader", "idle"}


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
