"""The command line of ``exposr``: which part of the package does what it says.

Mostly ``client/script.py``; ``admin … --storage-url`` works on a server's storage
itself; ``policy test``, ``logs`` and ``replay`` need neither. What a command does not
need is not imported: ``exposr --help`` is to answer at once.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from twisted.python.usage import UsageError

from exposr_tx.client.options import FAILED, SUCCESS, USAGE, Command, ExposrOptions

__all__ = ["main"]


def main(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    out: TextIO,
    err: TextIO,
    imported: Callable[[], object] = lambda: None,
) -> int:
    """Run a command line; its exit status.

    :param imported: called when a client has loaded what it needs, and by everything else at once
        (:mod:`~exposr_tx.lean`).
    """
    options = ExposrOptions(environ)
    try:
        options.parseOptions(arguments)
        if options["reactor"]:
            imported()
            _choose_reactor(options)
    except UsageError as error:
        err.write(f"exposr: {error}\n")
        return USAGE
    except SystemExit as done:  # --help and --version
        return int(done.code or SUCCESS)
    name, command = options.command()
    if name == "admin account create":
        imported()
        return _create_account(command, out, err)
    if name == "policy test":
        imported()
        from exposr_tx.policy.trial import trial

        policies, path = command.words
        return trial(policies, path, command["package"], bool(command["explain"]), out, err)
    if name in ("logs", "replay"):
        imported()
        from exposr_tx.client.watching import watch

        return watch(name, command, environ, out, err)
    from twisted.internet import reactor  # noqa: F401

    from exposr_tx.client.script import run

    imported()
    return run(options, environ, out, err)


def _choose_reactor(options: ExposrOptions) -> None:
    """Install what ``--reactor`` names, before anything imports the reactor.

    Raises UsageError.
    """
    name = options["reactor"]
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
