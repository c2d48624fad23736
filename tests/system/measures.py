"""What a process uses, from /proc: memory, descriptors and processor time."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import Process, wait_until

MB = 1 << 20


def _status(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1]) * 1024


def descriptors(process: Process) -> int:
    """How many files and sockets it has open."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def processor_seconds(process: Process) -> float:
    """User and system time since it started."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Growth:
    """How far the memory of processes rises above where it was when this was made.

    Linux keeps the highest resident size, and takes a wish to forget it.
    """

    def __init__(self, **processes: Process) -> None:
        self._before = {}
        self._processes = processes
        for name, process in processes.items():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
            self._before[name] = _status(process.pid, "VmRSS")

    def peaks(self) -> dict[str, int]:
        """Bytes above the start, at the highest, by name."""
        return {
            name: _status(process.pid, "VmHWM") - self._before[name]
            for name, process in self._processes.items()
        }

    def check(self, limit: int) -> None:
        """None of them may have grown by more than ``limit`` bytes."""
        peaks = self.peaks()
        print("memory grew by", {name: f"{peak / MB:.1f} MB" for name, peak in peaks.items()})
        too_big = {name: peak for name, peak in peaks.items() if peak > limit}
        assert not too_big, f"grew by more than {limit} bytes: {too_big}"


class Flat:
    """Descriptors that processes have, and must have again."""

    def __init__(self, *processes: Process) -> None:
        self._before = [(process, descriptors(process)) for process in processes]

    def check(self, spare: int = 4) -> None:
        """Wait until each has about as many again: a few may be kept for the next request."""
        wait_until(
            lambda: all(descriptors(p) <= before + spare for p, before in self._before),
            f"as many descriptors as before, and {spare} at most",
        )


def many_descriptors(test: SynchronousTestCase, count: int) -> None:
    """Let this process, and those it starts, have so many for this test; skip it otherwise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        test.skipTest(f"the hard limit of descriptors is {hard}; {count} are needed")
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
        test.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
