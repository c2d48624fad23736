"""Console scripts: where a process begins that is not ``twistd``.

``exposr`` hands over to ``client/script.py``, or, for ``admin … --storage-url``,
works on a server's storage itself; ``policy test``, ``logs`` and ``replay`` need
neither; ``backstream`` hands over to ``backstream/script.py``. What a command does
not need is not imported: ``exposr --help`` is to answer at once.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn, TextIO

from twisted.python.usage import UsageError

from exposr_tx.client.options import FAILED, SUCCESS, USAGE, Command, ExposrOptions

__all__ = ["backstream", "exposr"]


def exposr() -> NoReturn:
    """The script ``exposr``."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # With NVX autobahn loads a parser of C, 35 ms and 1.3 MB, for the UTF-8 of text messages, and
    # there are none here. Masking has no need to ask autobahn for it (transport/websocket).
    os.environ.setdefault("AUTOBAHN_USE_NVX", "0")
    _end(lambda: main(sys.argv[1:], os.environ, sys.stdout, sys.stderr))


def backstream() -> NoReturn:
    """The script ``backstream``."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from exposr_tx.backstream.script import main as run

    _end(lambda: run(sys.argv[1:], os.environ, sys.stderr))


def _end(work: Callable[[], int]) -> NoReturn:
    """Do a program's work, and end with the status that it gives."""
    try:
        status = work()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    sys.exit(status)


def _leave(number: int, frame: FrameType | None) -> None:
    """Until the reactor runs there is nothing to tidy up."""
    os._exit(0)


def main(arguments: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Run a command line; its exit status."""
    options = ExposrOptions(environ)
    try:
        options.parseOptions(arguments)
        _choose_reactor(options)
    except UsageError as error:
        err.write(f"exposr: {error}\n")
        return USAGE
    except SystemExit as done:  # --help and --version
        return int(done.code or SUCCESS)
    name, command = options.command()
    if name == "admin account create":
        return _create_account(command, out, err)
    if name == "policy test":
        from exposr_tx.policy.trial import trial

        policies, path = command.words
        return trial(policies, path, command["package"], bool(command["explain"]), out, err)
    if name in ("logs", "replay"):
        from exposr_tx.client.watching import watch

        return watch(name, command, environ, out, err)
    from exposr_tx.client.script import run

    return run(options, environ, out, err)


def _choose_reactor(options: ExposrOptions) -> None:
    """Install what ``--reactor`` names, before anything imports the reactor.

    Raises UsageError.
    """
    name = options["reactor"]
    if not name:
        return
    # Looks through Twisted's plugins, 0.1 s: nothing for a check of every command line.
    from twisted.application.reactors import NoSuchReactor, getReactorTypes, installReactor

    try:
        installReactor(name)
    except NoSuchReactor:
        names = ", ".join(sorted(kind.shortName for kind in getReactorTypes()))
        raise options.error("reactor", f"must be one of {names}") from None
    except ImportError as problem:
        raise options.error(
            "reactor", f"does not work here ({problem}); leave it out, or take asyncio"
        ) from None


def _create_account(command: Command, out: TextIO, err: TextIO) -> int:
    """``admin account create --storage-url URL``"""
    url = command["storage-url"]
    if not url or url.startswith("memory:"):
        err.write(
            "exposr: --storage-url (or EXPOSR_STORAGE_URL) is needed, the URL that the server "
            "runs with, like sqlite:///var/lib/exposr/db; memory belongs to its server alone\n"
        )
        return USAGE
    import time

    from twisted.internet import reactor as running
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from exposr_tx.accounts import Accounts, human_form
    from exposr_tx.errors import BadInput, ExposrError
    from exposr_tx.storage import open_storage

    reactor: Any = running
    status = FAILED
    try:
        storage = open_storage(url, reactor, command.source("storage-url"))
    except BadInput as error:
        err.write(f"exposr: {error}\n")
        return USAGE

    async def create() -> str:
        try:
            account = await Accounts(storage, time.time).create()
        finally:
            await storage.close()
        return human_form(account.id)

    def finish(result: str | Failure) -> None:
        nonlocal status
        if isinstance(result, str):
            out.write(f"{result}\n")
            out.flush()
            status = SUCCESS
        elif isinstance(result.value, (ExposrError, ValueError, OSError)):
            err.write(f"exposr: --storage-url {url!r}: {result.getErrorMessage()}\n")
        else:
            err.write(result.getTraceback())
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(create()).addBoth(finish))
    reactor.run()
    return status
