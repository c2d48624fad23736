"""What the script ``exposr`` does: a command line becomes calls, lines of text and an exit status.

The one place of the client that builds and wires its pieces, as ``tap`` is the
server's.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from exposr_tx.client.accounts_file import AccountsFile, StoredAccount, account_in
from exposr_tx.client.answers import AccountRefused, ServerUnreachable, TunnelTaken
from exposr_tx.client.arguments import ConnectArguments
from exposr_tx.client.commands import Commands
from exposr_tx.client.dialling import Dialler
from exposr_tx.client.endpoint import TunnelEndpoint, TunnelPort
from exposr_tx.client.forward import Forward
from exposr_tx.client.gate import GRACE
from exposr_tx.client.http import agent_for
from exposr_tx.client.inspecting import inspector_of
from exposr_tx.client.interruption import Interruption
from exposr_tx.client.options import (
    FAILED,
    REFUSED,
    SUCCESS,
    UNREACHABLE,
    USAGE,
    Command,
    ExposrOptions,
)
from exposr_tx.client.printing import Printer, Progress
from exposr_tx.client.recording import har_folder, recordings
from exposr_tx.client.rest import RestClient
from exposr_tx.client.rewriting import Rules, replacements
from exposr_tx.client.target import Target
from exposr_tx.client.trust import Trust
from exposr_tx.client.tunnel import OwnTunnel
from exposr_tx.errors import BadInput, ExposrError
from exposr_tx.lead import lead
from exposr_tx.memory import keep_freed_memory
from exposr_tx.monotonic import use_monotonic_time

if TYPE_CHECKING:
    from exposr_tx.inspector.service import Inspector

__all__ = ["Script", "exit_status", "run"]


def exit_status(error: BaseException) -> int:
    """The exit status that stands for an error."""
    if isinstance(error, BadInput | UsageError):
        return USAGE
    if isinstance(error, AccountRefused | TunnelTaken):
        return REFUSED
    if isinstance(error, ServerUnreachable):
        return UNREACHABLE
    return FAILED


class Script:
    """One run of the script.

    :param rest: makes the calls; of no account yet.
    :param dialler: opens the tunnel's connections.
    """

    def __init__(
        self,
        reactor: Any,
        options: ExposrOptions,
        environ: Mapping[str, str],
        printer: Printer,
        random: Random,
        rest: RestClient,
        dialler: Dialler,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._printer = printer
        self._random = random
        self._environ = environ
        self._accounts = AccountsFile.of_user(environ)
        self._rest = rest
        self._dialler = dialler
        self._port: TunnelPort | None = None
        self._running: Deferred[int] | None = None

    def start(self) -> Deferred[int]:
        """Do what the command line says; fires with the exit status."""
        name, command = self._options.command()
        is_connect = name == "tunnel connect"
        work = self._connect(command) if is_connect else self._once(name, command)
        self._running = Deferred.fromCoroutine(self._status(work))
        return self._running

    def stop(self) -> None:
        """End in good order: what SIGINT and SIGTERM ask for."""
        if self._port is not None:
            if self._port.streams:
                self._printer.say(
                    f"Finishing what runs, for up to {GRACE:.0f} s; a second Ctrl-C ends it at once"
                )
            self._port.drain().addErrback(self._bug)
        elif self._running is not None:
            self._running.cancel()

    def _bug(self, failure: Failure) -> None:
        self._printer.error(f"internal error: {failure.getTraceback()}")

    async def _status(self, work: Awaitable[None]) -> int:
        try:
            await work
        except CancelledError:
            return FAILED
        except ExposrError as error:
            self._printer.error(str(error))
            return exit_status(error)
        return SUCCESS

    def _account(self) -> StoredAccount | None:
        """-a, --account-file, their variables, the accounts file; in this order."""
        options, given = self._options, self._options.given
        sources = sorted(
            (name for name in ("account", "account-file") if name in given),
            key=lambda name: not given[name].startswith("-"),
        )
        if not sources:
            return self._accounts.account(self._rest.server)
        if sources[0] == "account":
            return StoredAccount(str(options["account"]).strip())
        return account_in(str(options["account-file"]), given["account-file"])

    async def _once(self, name: str, command: Command) -> None:
        commands = Commands(
            self._rest, self._accounts, self._printer.say, self._printer.show, self._random
        )
        if name == "admin tunnel list":
            key = command["api-key"]
            if not key:
                raise BadInput("--api-key (or EXPOSR_API_KEY) is needed")
            verbose = command["verbose"] == "true"
            await commands.admin_tunnel_list(key, int(command["count"]), verbose)
            return
        if name != "account create":
            account = self._account()
            if account is None:
                raise BadInput(
                    "no account was given and none is remembered for this server; use --account, "
                    "--account-file or EXPOSR_ACCOUNT, or register one with: exposr account create"
                )
            self._rest.use(account.account)
        await commands.by_name[name](command.words)

    async def _connect(self, command: Command) -> None:
        short = bool(getattr(command.parent, "short", False))
        words = ConnectArguments.read(command.words, short, command["host-header"] or "")
        trust = Trust(command["target-ca"], not command["insecure"], "--target-ca")
        if words.target is not None:
            words.target.endpoint(self._reactor, trust)  # what is wrong is told before all else
        account = self._account()
        if account is not None:
            self._rest.use(account.account)
        own = OwnTunnel(
            self._rest,
            self._accounts,
            self._printer.say,
            self._random,
            words.tunnel_id,
            words.target,
            words.changes,
            words.host_header,
            account is None or account.automatic,
        )
        for name in ("http-header-replace", "http-header-rewrite"):
            given = command.given.get(name)
            if given and not command["http-mode"]:
                self._printer.error(f"{given} has no effect without --http-mode; add it")
        folder = har_folder(command, "record", self._printer.error)
        watchers = [] if folder is None else [folder]
        max_body = command["record-max-body"]
        connect = self._connector(own, trust)
        inspector = self._inspector(command, words.target, watchers=watchers, max_body=max_body)
        recorder = None
        if inspector is not None:
            recorder = inspector.recorder
            inspector.add(lambda: own.tunnel_id, connect)
        elif watchers:
            # Only here, as in har_folder: most clients look at nothing, and are to stay small.
            from exposr_tx.inspection.recorder import Recorder  # noqa: PLC0415

            recorder = Recorder(watchers, max_body=max_body)
        record = None
        if recorder is not None:
            record = recordings(recorder, lambda: own.tunnel_id, lambda: own.in_use)
        factory = Forward(connect, self._target_failed, _rules(own, command), record)
        endpoint = TunnelEndpoint(
            self._reactor,
            own,
            self._dialler.dial,
            self._random,
            Progress(self._printer, own),
            retry=not command["no-retry"],
        )
        self._port = endpoint.start(factory)
        try:
            await self._port.ended
        finally:
            await self._release(own, bool(command["keep"]))
            if inspector is not None:
                inspector.close()
            if folder is not None:
                folder.close()
        self._printer.say("Tunnel disconnected")

    def _inspector(self, command: Command, target: Target | None, **more: Any) -> Inspector | None:
        terminal = self._printer.at_terminal
        inspector = inspector_of(command, self._reactor, self._environ, terminal, target, **more)
        if inspector is not None:
            inspector.start()
            say = self._printer.say if terminal else self._printer.show
            say(f"Inspector: {inspector.url}")
        return inspector

    def _connector(self, own: OwnTunnel, trust: Trust) -> Callable[[Any], Deferred[Any]]:
        """Connects to the target in use, by an endpoint that is made once."""
        made: dict[Target, Any] = {}

        def connect(factory: Any) -> Deferred[Any]:
            target = own.in_use
            assert target is not None  # it is prepared before anything is connected
            if target not in made:
                made[target] = target.endpoint(self._reactor, trust)
            connected: Deferred[Any] = made[target].connect(factory)
            return connected

        return connect

    def _target_failed(self, reason: Failure) -> None:
        self._printer.error(f"cannot connect to the target: {reason.getErrorMessage()}")

    async def _release(self, own: OwnTunnel, keep: bool) -> None:
        if keep:
            return
        try:
            await own.release()
        except ExposrError as error:
            self._printer.error(f"the tunnel {own.tunnel_id} could not be deleted: {error}")


def _rules(own: OwnTunnel, command: Command) -> Callable[[], Rules | None]:
    """How requests are rewritten here: by --http-mode, and where the server cannot."""
    http_mode = bool(command["http-mode"])
    replace = replacements(command["http-header-replace"] or "") if http_mode else ()
    names = str(command["http-header-rewrite"] or "").lower().split(",") if http_mode else ()
    rewrite = frozenset(name.strip().encode() for name in names)

    def rules() -> Rules | None:
        target = own.in_use
        if target is None or not target.is_http or not (http_mode or own.rewrites):
            return None
        host = own.host_header.encode("ascii") if own.rewrites else b""
        scheme, authority = target.scheme.encode("ascii"), target.authority.encode("ascii")
        return Rules(scheme, authority, host, replace, rewrite)

    return rules


def _log_to(stream: TextIO) -> None:
    """Warnings of the libraries, and what nobody handled, go where errors go."""
    from twisted.logger import (  # noqa: PLC0415
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    observer = FilteringLogObserver(
        textFileLogObserver(stream), [LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def run(options: ExposrOptions, environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Run the reactor for a command line; the exit status.

    The first SIGINT or SIGTERM ends in good order, a second one at once.
    """
    from twisted.internet import reactor as running  # noqa: PLC0415

    reactor: Any = running
    keep_freed_memory()
    use_monotonic_time(reactor)
    lead(reactor)
    printer = Printer(out, err, bool(options["quiet"]))
    _log_to(err)
    status = FAILED

    try:
        if not options["server"]:
            raise BadInput("--server URL (or EXPOSR_SERVER) is needed")
        trust = Trust(options["server-ca"], not options["insecure-server"])
        http = agent_for(reactor, trust)
    except BadInput as error:
        printer.error(str(error))
        return USAGE
    rest = RestClient(options["server"], http, reactor)
    dialler = Dialler(reactor, trust, rest.server, printer.error)
    script = Script(reactor, options, environ, printer, SystemRandom(), rest, dialler)

    def finish(result: int | Failure) -> None:
        nonlocal status
        if isinstance(result, Failure):
            printer.error(f"internal error: {result.getTraceback()}")
        else:
            status = SUCCESS if interruption.asked and result == FAILED else result
        reactor.stop()

    interruption = Interruption(reactor, script.stop)

    def begin() -> None:
        interruption.catch(signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # ignored under nohup
            interruption.catch(signal.SIGHUP)
        script.start().addBoth(finish)

    reactor.callLater(0, begin)
    reactor.run()
    return status
