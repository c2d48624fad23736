"""What cases work on: the two sides, measurements taken in turn, and rows of the table."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.load import Rate, Visit, wrk
from benchmarks.processes import DOMAIN, Program, Programs, free_port, wait_until

MIB = 1 << 20
#: Connections of a visitor's that stay, in most cases of small requests.
CONNECTIONS = 64
# Seconds for memory to come to rest before it is read.
SETTLE = 1.5
#: Descriptors that a program needs besides its clients' connections.
SPARE_DESCRIPTORS = 200
BENCH, ORIGIN, ECHO = (f"{name}.{DOMAIN}" for name in ("bench", "origin", "echo"))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table.

    :ivar yardstick: nginx without a tunnel; None where it has no such figure.
    :ivar ours: the tunnel; None while it could not be measured.
    :ivar more: whether more is better.
    :ivar cpu_yardstick: CPU µs per request, or message, of nginx.
    :ivar cpu_ours: CPU µs per request, or message, of server and client together.
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
    is_yardstick: bool = False

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return sum(program.usage().cpu for program in self.programs)

    def memory(self) -> int:
        """Resident bytes of all its processes."""
        return sum(program.usage().memory for program in self.programs)


def interleaved(
    rounds: int, measure: Callable[[T], float], subjects: Sequence[T]
) -> list[list[float]]:
    """So many measurements of each subject, taken in turn.

    Every second round goes backwards, so that nobody always comes first.
    """
    found: list[list[float]] = [[] for _ in subjects]
    turns = list(enumerate(subjects))
    for _ in range(rounds):
        for place, subject in turns:
            found[place].append(measure(subject))
        turns.reverse()
    return found


class Bench:
    """What runs, and how long cases may take."""

    def __init__(self, programs: Programs, quick: bool, deadline: float) -> None:
        self.programs = programs
        self.quick = quick
        self.pairs = 3 if quick else 5
        #: Pairs of cases whose runs are long, or whose rows are made of many.
        self.few = 3
        self.seconds = 1 if quick else 5
        self.deadline = deadline
        self._target, self._origin, self._echo = free_port(), free_port(), free_port()
        programs.origin(self._origin)
        programs.echo(self._echo)
        programs.target(self._target)
        #: Tunnels by name: the port of the target, and a path that is answered with 200.
        self._targets = {
            "bench": (self._target, "/small"),
            "origin": (self._origin, "/sink"),
            "echo": (self._echo, "/"),
        }
        self.yardstick = self.proxy("yardstick")
        self.ours: Side | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """nginx, and ours where it runs."""
        return (self.yardstick, self.ours) if self.ours is not None else (self.yardstick,)

    def start(self) -> None:
        """Our side: a server and two clients. Raises Missing when it does not come up."""
        self.ours = self.tunnel()

    def proxy(self, name: str) -> Side:
        """An nginx of its own as a reverse proxy to all targets."""
        port = free_port()
        program = self.programs.yardstick(name, port, self._target, self._origin, self._echo)
        return Side(port, (program,), is_yardstick=True)

    def tunnel(self, *names: str, options: Sequence[str | Path] = ()) -> Side:
        """A server of its own with a client for each of the tunnels, bench and origin if none.

        :param options: further ones of the server.
        """
        port = free_port()
        server = self.programs.server(port, *options)
        clients = [self.client(port, name, name) for name in names or ("bench", "origin")]
        return Side(port, (server, *clients))

    def client(
        self,
        port: int,
        name: str,
        target: str = "bench",
        through: int = 0,
        native: bool = True,
        options: Sequence[str] = (),
    ) -> Program:
        """A client whose tunnel answers.

        :param through: the port of a relay to the server.
        :param native: False for one that speaks exposr v2 only.
        :param options: more of its command line.
        """
        to, path = self._targets[target]
        client = self.programs.client(name, through or port, to, native, options)

        def answers() -> bool:
            with suppress(OSError, RuntimeError):
                visit = Visit(port, f"{name}.{DOMAIN}", path)
                try:
                    visit.head()
                finally:
                    visit.close()
                return True
            return False

        wait_until(client, answers, "answer through the tunnel")
        return client

    def stop(self, side: Side) -> None:
        """End a side's programs, clients first."""
        for program in reversed(side.programs):
            self.programs.stop(program)

    @contextmanager
    def fresh(self, *names: str, options: Sequence[str | Path] = ()) -> Iterator[Side]:
        """A tunnel's side whose memory nobody has used before, ended afterwards."""
        side = self.tunnel(*names, options=options)
        try:
            yield side
        finally:
            self.stop(side)

    @contextmanager
    def fresh_pair(self, *names: str) -> Iterator[tuple[Side, ...]]:
        """The same for both sides; the tunnel's is left out where only nginx is measured."""
        sides = [self.proxy("fresh")]
        try:
            if self.ours is not None:
                sides.append(self.tunnel(*names))
            yield tuple(sides)
        finally:
            for side in sides:
                self.stop(side)

    def tunnels(self, connections: int) -> int:
        """How many idle tunnels are many, with so many connections each."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS
        return min(500 if self.quick else 10_000, descriptors // connections)

    @contextmanager
    def idle(
        self,
        port: int,
        count: int,
        connections: int,
        begins: Callable[[], object] = lambda: None,
    ) -> Iterator[Program]:
        """So many idle tunnels on a server, connected.

        :param begins: called when the tunnels are there and begin to be connected.
        """
        program = self.programs.python("idle", "benchmarks.idle", port, count, connections)
        try:
            patience = max(20.0, self.deadline - time.monotonic())
            wait_until(program, lambda: "connecting" in program.output(), "tunnels", patience)
            begins()
            wait_until(program, lambda: "ready" in program.output(), "ready line", patience)
            yield program
        finally:
            self.programs.stop(program)

    @contextmanager
    def delayed(self, delay: float) -> Iterator[str]:
        """A tunnel of our server whose client is ``delay`` seconds away; gives its host."""
        assert self.ours is not None
        relay, port = self.programs.relay(self.ours.port, delay)
        client = self.client(self.ours.port, "delayed", through=port)
        try:
            yield f"delayed.{DOMAIN}"
        finally:
            self.programs.stop(client)
            self.programs.stop(relay)

    def paired(
        self, measure: Callable[[Side], float], sides: tuple[Side, ...] = ()
    ) -> tuple[float, float | None]:
        """The medians of so many measurements of nginx and of ours, taken in turn."""
        found = interleaved(self.pairs, measure, sides or self.sides)
        middle = [statistics.median(figures) for figures in found]
        return middle[0], middle[1] if len(middle) > 1 else None


def medians(figures: dict[bool, list[float]]) -> tuple[float | None, float | None]:
    """Of nginx (True) and of ours (False)."""
    yardstick, ours = (statistics.median(f) if f else None for f in (figures[True], figures[False]))
    return yardstick, ours


def each(seconds: float, requests: int) -> float:
    """µs per request, of CPU seconds for so many."""
    return seconds / max(1, requests) * 1e6


class Cpu:
    """CPU µs per request of each side, gathered while a case runs."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._costs: dict[bool, list[float]] = {True: [], False: []}
        self.failed = 0

    def spent(self, side: Side, before: float, requests: int) -> float:
        """Count what so many requests have cost since :meth:`Side.cpu` was ``before``."""
        cost = each(side.cpu() - before, requests)
        self._costs[side.is_yardstick].append(cost)
        return cost

    def wrk(self, side: Side, host: str, path: str, connections: int, close: bool = False) -> Rate:
        """Like :func:`benchmarks.load.wrk`, and count what it cost."""
        before = side.cpu()
        rate = wrk(side.port, host, path, connections, self._bench.seconds, close)
        self.spent(side, before, rate.requests)
        self.failed += rate.failed
        return rate

    def put(self, result: Result) -> Result:
        """The row with the costs in it."""
        yardstick, ours = medians(self._costs)
        note = notes(result.note, f"{self.failed} failed" if self.failed else "")
        return replace(result, cpu_yardstick=yardstick, cpu_ours=ours, note=note)


def notes(*parts: str) -> str:
    """What there is to say, in one line."""
    return "; ".join(part for part in parts if part)
