"""A process that evaluates policies, as the one that starts it sees it: :mod:`worker` is in it.

The embedded engine dies of some texts that are right in Rego, and of others it is never done.
So nobody else compiles or evaluates, ``exposr policy test`` included, and a death is an error as
any other, that names the files. Needs no Twisted.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision
from exposr_tx.policy.compiled import Outline
from exposr_tx.policy.sources import Source
from exposr_tx.policy.worker import STUCK_COMPILING, Frames, decision_of, frame

__all__ = ["REMEDY", "EngineDied", "Process", "start"]

REMEDY: Final = (
    "write it in another way, or have it evaluated by an Open Policy Agent (the server's "
    "--policy-url)"
)
_CALL: Final = "from exposr_tx.policy.worker import main; main()"
#: Seconds for a process to end that has closed its socket.
_ENDING: Final = 1.0
#: It was given up, or the system is short of memory; or its time was over. To look for the file
#: would take as long again.
_NO_FAULT: Final = (-signal.SIGKILL, -signal.SIGPROF)


class EngineDied(PolicyInvalid):
    """The process has ended, and has not said why.

    :ivar status: its exit status; negative is a signal.
    """

    def __init__(self, status: int) -> None:
        how = f"dies ({signal.Signals(-status).name})" if status < 0 else f"ends ({status})"
        if status == -signal.SIGPROF:
            how = "takes too long"
        elif status == 0:
            how = "gives up"
        super().__init__(f"the embedded engine {how}")
        self.status = status


class Process:
    """A process that has compiled its policies, or is about to.

    :ivar connection: where it is asked.
    """

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _CALL],  # nothing of the folder it starts in
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def __repr__(self) -> str:
        return f"<Process {self._process.pid}>"

    def compile(self, sources: Sequence[Source], only: Sequence[int] = ()) -> Outline:
        """Let it compile; blocks meanwhile. Raises PolicyInvalid, or EngineDied.

        :param only: numbers of those that the engine gets; all, unless there are any.
        """
        pairs = [(source.path, source.text) for source in sources]
        kind, *told = self._answer((pairs, [*only]))
        if kind == "invalid":
            raise PolicyInvalid(told[0])
        packages, fields, changing = told
        return Outline(frozenset(packages), frozenset(fields), changing)

    def evaluate(self, package: str, given: Mapping[str, Any], within: float) -> Decision:
        """Let it decide on an input; blocks meanwhile. Raises EngineDied.

        :param within: seconds; then it ends soon.
        """
        answers = self._answer((time.monotonic() + within, [(0, package, given)]))
        return decision_of(answers[0][1:])

    def rules(self, package: str, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What each rule of a package gives for an input; blocks meanwhile. Raises EngineDied."""
        return list(self._answer((None, (package, given))))

    def _answer(self, message: Any) -> Any:
        answer = None
        try:
            self.connection.settimeout(STUCK_COMPILING + 1)
            self.connection.sendall(frame(message))
            frames = Frames()
            while answer is None and (data := self.connection.recv(1 << 16)):
                answer = next(frames.receive(data), None)
            if answer is None:
                self._process.wait(_ENDING)  # of itself, for its own status
        except TimeoutError:
            self.stop()
            raise EngineDied(-signal.SIGPROF) from None
        except (OSError, subprocess.TimeoutExpired):
            pass  # it has ended, or is about to
        if answer is None:
            raise EngineDied(self.stop())
        return answer

    def kill(self) -> None:
        """Give it up: whoever waits for it to compile is told that it has ended."""
        self._process.kill()

    def stop(self) -> int:
        """End it; how it has ended."""
        self.connection.close()
        self._process.kill()
        return self._process.wait()


def start(
    sources: Sequence[Source], count: int, processes: list[Process] | None = None
) -> tuple[list[Process], Outline]:
    """Start processes and let them compile, all at once; blocks meanwhile. Raises PolicyInvalid.

    :param processes: gets them as they are started, for another thread to give them up.
    """
    processes = [] if processes is None else processes
    try:
        for _ in range(count):
            processes.append(Process())
        outlines = [process.compile(sources) for process in processes]
    except (PolicyInvalid, OSError) as problem:
        for process in processes:
            process.stop()
        if isinstance(problem, EngineDied):
            raise _named(sources, problem, processes) from None
        raise
    return processes, outlines[0]


def _named(sources: Sequence[Source], death: EngineDied, processes: list[Process]) -> PolicyInvalid:
    """An error that tells of what the engine has died."""
    found = range(len(sources))
    if death.status not in _NO_FAULT:
        found = _fewest(sources, found, processes)
    paths = ", ".join(sources[number].path for number in found)
    return PolicyInvalid(
        f"{paths}: {death} when it compiles this, which may well be right; {REMEDY}"
    )


def _fewest(sources: Sequence[Source], found: range, processes: list[Process]) -> range:
    """Those of the sources of which it dies alone, as far as halves tell."""
    while len(found) > 1:
        middle = len(found) // 2
        halves = (found[:middle], found[middle:])
        half = next((half for half in halves if _dies(sources, half, processes)), None)
        if half is None:
            break
        found = half
    return found


def _dies(sources: Sequence[Source], only: range, processes: list[Process]) -> bool:
    process = Process()
    processes.append(process)
    try:
        process.compile(sources, only)
    except EngineDied as death:
        return death.status not in _NO_FAULT
    except PolicyInvalid:
        return False
    finally:
        process.stop()
    return False
