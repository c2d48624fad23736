"""Console scripts: where a process begins that is not ``twistd``.

``exposr`` hands over to ``command_line.py``, ``backstream`` to ``backstream/script.py``. First of
all they mind signals, as loading the rest takes a moment, and streams that are closed.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from exposr_tx.lean import Hidden, without_tls

__all__ = ["backstream", "exposr"]

STDOUT: Final = 1
STDERR: Final = 2
#: What writing to a standard stream fails with.
UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def exposr() -> NoReturn:
    """The script ``exposr``."""
    _begin()
    # With NVX autobahn loads a parser of C, 35 ms and 1.3 MB, for the UTF-8 of text messages, and
    # there are none here. Masking has no need to ask autobahn for it (transport/websocket).
    os.environ.setdefault("AUTOBAHN_USE_NVX", "0")
    words = [*sys.argv[1:], *(v for k, v in os.environ.items() if k.startswith("EXPOSR_"))]
    hidden = Hidden()
    if without_tls(words):
        hidden.hide()
    from exposr_tx.command_line import main

    _end(lambda: main(sys.argv[1:], os.environ, sys.stdout, sys.stderr, hidden.restore))


def backstream() -> NoReturn:
    """The script ``backstream``."""
    _begin()
    from exposr_tx.backstream.script import main as run

    _end(lambda: run(sys.argv[1:], os.environ, sys.stderr))


def _begin() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # The number of a standard stream that is closed goes to nothing, or the next socket would have
    # it. Python has None for the stream.
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(opened)
    sys.stdout = sys.stdout or os.fdopen(STDOUT, "w")
    sys.stderr = sys.stderr or os.fdopen(STDERR, "w")


def _end(work: Callable[[], int]) -> NoReturn:
    """Do a program's work, and end with the status that it gives."""
    try:
        status = work()
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        if error.errno != errno.EPIPE:  # whoever reads, such as head, has had enough
            name = os.path.basename(sys.argv[0])
            sys.stderr.write(f"{name}: the output cannot be written: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _leave(number: int, frame: FrameType | None) -> None:
    """Until the reactor runs there is nothing to tidy up."""
    os._exit(0)
