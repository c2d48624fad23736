"""The process in which policies are evaluated: questions come by a socket, decisions go back.

A policy may take for ever, and the embedded engine has been seen to end its
process: neither is to happen to the server. Nor do evaluation and server then
wait for the same interpreter: threads took three times what evaluating took.
:mod:`process` and :mod:`workers` are the other end.
"""

from __future__ import annotations

import marshal
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision
from exposr_tx.policy.compiled import Compiled
from exposr_tx.policy.engine import NoReason
from exposr_tx.policy.sources import Source
from exposr_tx.policy.verdict import PLAIN

__all__ = ["STUCK_COMPILING", "Frames", "decision_of", "frame", "main", "serve"]

#: Seconds for which answers are gathered before they are sent. With 2 ms the server had nothing to
#: do meanwhile, and then this process: 64 visitors were served 13,400 times a second, and 17,900
#: times so, for 2 % more CPU each.
GATHERING: Final = 0.0003
#: Seconds of CPU over its time after which an evaluation is taken to go on for ever: the process
#: ends. By the clock on the wall a busy machine would end it, and deny everybody meanwhile (tried).
STUCK: Final = 1.0
#: Seconds of CPU for compiling.
STUCK_COMPILING: Final = 60.0
#: Bytes read at once: what is larger, the allocator asks the system for, each time.
_READ: Final = 1 << 16
_LENGTH: Final = 4
#: Bytes of stack; only what is used of it takes memory. The engine's regular expressions take up to
#: 500 for each character: of the usual 8 MiB a header field of 20 KB made an end (tried).
STACK: Final = 256 << 20
#: Bytes that evaluations may take, besides what is there when all is compiled: within its second
#: one took 0.7 GB. Then the engine aborts.
MEMORY: Final = 256 << 20


def frame(message: Any) -> bytes:
    """A message, of what marshal takes: both ends are the same Python."""
    data = marshal.dumps(message)
    return len(data).to_bytes(_LENGTH, "big") + data


class Frames:
    """Messages from the bytes that they come in."""

    def __init__(self) -> None:
        self._data = bytearray()

    def receive(self, data: bytes) -> Iterator[Any]:
        """The messages that are complete."""
        self._data += data
        while len(self._data) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._data[:_LENGTH], "big")
            if len(self._data) < end:
                break
            message = bytes(self._data[_LENGTH:end])
            del self._data[:end]
            yield marshal.loads(message)  # noqa: S302


def decision_of(members: Sequence[Any]) -> Decision:
    """The decision that an answer tells, its number left out."""
    return Decision(*members) if len(members) > 1 else PLAIN[members[0]]


def main() -> None:
    """Serve the socket that is this process' standard input, until it is closed."""
    # What ends the server's process group does not end this one: the server drains first, and
    # needs decisions meanwhile. The end of the socket is the end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # It would hold what is in requests.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(STACK)
    with socket.socket(fileno=0) as connection:
        end_after = partial(signal.setitimer, signal.ITIMER_PROF)
        serving = threading.Thread(target=serve, args=(connection, end_after, bound_memory))
        serving.start()
        serving.join()


def bound_memory() -> None:
    """Let this process have MEMORY more than it has; where the system does not tell that, as
    before."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            found = re.search(r"^VmData:\s*(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        return
    if found:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = int(found[1]) * 1024 + MEMORY
        if most == resource.RLIM_INFINITY or limit < most:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def serve(
    connection: socket.socket,
    end_after: Callable[[float], object],
    compiled_all: Callable[[], object],
) -> None:
    """Compile what the first message holds, and answer the others.

    :param end_after: ends the process after so many seconds, unless it is called again; 0 is never.
    :param compiled_all: called between the two.
    """
    messages = _messages(connection)
    end_after(STUCK_COMPILING)
    try:
        pairs, only = next(messages)
        compiled = Compiled([Source(*pair) for pair in pairs], only)
    except NoReason:
        return  # as where the engine dies: then files are tried one by one
    except PolicyInvalid as problem:
        connection.sendall(frame(("invalid", str(problem))))
        return
    outline = compiled.outline
    for package in outline.packages:
        compiled.evaluate(package, {})
    ready = (sorted(outline.packages), sorted(outline.fields), outline.changing)
    end_after(0)
    compiled_all()
    connection.sendall(frame(("ready", *ready)))
    for until, asked in messages:
        if until is None:  # a person wants to know more
            end_after(STUCK_COMPILING)
            connection.sendall(frame([*compiled.rules(*asked)]))
        else:
            _answer(connection, compiled, until, asked, end_after)
        end_after(0)


def _answer(
    connection: socket.socket,
    compiled: Compiled,
    until: float,
    questions: list[Any],
    end_after: Callable[[float], object],
) -> None:
    answers: list[tuple[Any, ...]] = []
    now = gathered = time.monotonic()
    end_after(max(0.0, until - now) + STUCK)
    for number, package, document in questions:
        if now > until:
            # Nobody waits for it any more; those behind it shall not be late as well.
            answers.append((number, "timeout"))
            continue
        decision = compiled.evaluate(package, document)
        if PLAIN.get(decision.outcome) is decision:
            answers.append((number, decision.outcome))
        else:
            said = (decision.outcome, decision.status, decision.reason, decision.headers)
            changed = (decision.set_request_headers, decision.unset_request_headers)
            answers.append((number, *said, *changed))
        now = time.monotonic()
        if now > gathered + GATHERING:
            connection.sendall(frame(answers))
            answers, gathered = [], now
    if answers:
        connection.sendall(frame(answers))


def _messages(connection: socket.socket) -> Iterator[Any]:
    frames = Frames()
    while data := connection.recv(_READ):
        yield from frames.receive(data)
