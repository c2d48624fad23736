"""What the script ``backstream`` does: from a command line to an exit status."""

# ruff: noqa: PLC0415

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from random import SystemRandom
from typing import Any, TextIO

from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from exposr_tx.backstream.options import ClientOptions, CommandOptions, ServeOptions, command_line
from exposr_tx.errors import ExposrError

__all__ = ["main"]

SUCCESS, FAILED = 0, 1


def main(arguments: Sequence[str], environ: Mapping[str, str], err: TextIO) -> int:
    """Run a command line; its exit status."""
    try:
        options = command_line(arguments, environ)
        return _run(options, environ, err)
    except (UsageError, ExposrError) as error:
        err.write(f"backstream: {error}\n")
        return FAILED
    except SystemExit as done:  # --help, --version, and a port that is taken
        return done.code if isinstance(done.code, int) else FAILED


def _run(options: CommandOptions, environ: Mapping[str, str], err: TextIO) -> int:
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    from exposr_tx.backstream.log import Observer
    from exposr_tx.backstream.server import logging

    log, output = logging(options)
    globalLogBeginner.beginLoggingTo([Observer(log)], redirectStandardIO=False)
    if isinstance(options, ServeOptions):
        return _serve(reactor, options, log, output)
    assert isinstance(options, ClientOptions)
    return _connect(reactor, options, environ, log, output, err)


def _serve(reactor: Any, options: ServeOptions, log: Any, output: Any) -> int:
    """As ``twistd -n`` would; the service sets the signals and the status by itself."""
    from exposr_tx.backstream.server import service

    serving = service(options, reactor, log, output, "backstream", "")
    serving.privilegedStartService()
    serving.startService()
    reactor.addSystemEventTrigger("before", "shutdown", serving.stopService)
    reactor.run()
    return SUCCESS


def _connect(
    reactor: Any,
    options: ClientOptions,
    environ: Mapping[str, str],
    log: Any,
    output: Any,
    err: TextIO,
) -> int:
    from exposr_tx.backstream.client import BackstreamClient
    from exposr_tx.client.inspecting import start_inspector
    from exposr_tx.client.interruption import Interruption
    from exposr_tx.client.recording import har_folder
    from exposr_tx.inspection.recorder import Recorder
    from exposr_tx.lead import lead
    from exposr_tx.memory import keep_freed_memory
    from exposr_tx.monotonic import use_monotonic_time

    keep_freed_memory()
    use_monotonic_time(reactor)
    lead(reactor)
    folder = har_folder(options, "output", log.warn)
    watchers = [] if folder is None else [folder]
    max_body, page = options["output-max-body"], options["inspect-port"]
    inspector = None
    if options["inspect"] or page is not None:
        inspector = start_inspector(
            page, watchers=watchers, max_body=max_body, environ=environ, reactor=reactor
        )
        # Not into the log: the address is a secret.
        err.write(f"Inspector: {inspector.url}\n")
        err.flush()
        recorder: Recorder | None = inspector.recorder
    else:
        recorder = Recorder(watchers, max_body=max_body) if watchers else None
    client = BackstreamClient(reactor, options, log, SystemRandom(), recorder)
    if inspector is not None:
        inspector.add(lambda: "", client.connect)
    output.start()
    status = FAILED

    def finish(result: int | Failure) -> None:
        nonlocal status
        if isinstance(result, Failure):
            log.error("failed to run app", error=result.getErrorMessage())
        else:
            status = result
        reactor.stop()

    def begin() -> None:
        interruption = Interruption(reactor, client.stop)
        interruption.catch(signal.SIGINT, signal.SIGTERM)
        if output.can_reopen:
            signal.signal(signal.SIGHUP, lambda _number, _frame: output.reopen())
        elif signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # ignored under nohup
            interruption.catch(signal.SIGHUP)  # its terminal is closed
        client.start().addBoth(finish)

    reactor.callLater(0, begin)
    reactor.run()
    if folder is not None:
        folder.close()
    output.stop()
    return status
