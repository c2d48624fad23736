"""backstream's command lines: its flags, its variables, its defaults.

``backstream [global flags] serve|client [flags]``. A flag's short name means what it
means at the place where it stands: before the command ``-o`` is the log's output and
``-s`` its stack traces, after ``client`` they are its own. Whole names mean the
same everywhere. Go's spelling counts: ``-addr``, ``--a`` and ``-a=:80`` are flags.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from twisted.python import usage

from exposr_tx import __version__, policy_options
from exposr_tx.client.folder_options import folder_parameters
from exposr_tx.option_values import choice, comma_list, network, port, seconds, url
from exposr_tx.options import EnvironOptions
from exposr_tx.wire.backstream import is_field, tokens_only

__all__ = ["Address", "ClientOptions", "CommandOptions", "ServeOptions", "Top", "command_line"]

#: The handshake's own fields, which a user's would break.
_RESERVED = frozenset(
    {
        *("connection", "content-length", "sec-websocket-extensions"),
        *("sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version"),
        *("transfer-encoding", "upgrade"),
    }
)
#: Commas in a variable that begin another header: a name and a colon follow, and no URL.
_NEXT = re.compile(r"\n|,\s*(?=[!#$%&'*+.^_`|~0-9A-Za-z-]+:(?!//))")


def status(text: str) -> int:
    """A status, or 0 for the default's."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else -1
    if number and not 200 <= number <= 599:
        raise ValueError("must be a status from 200 to 599, or 0 for 503")
    return number or 503


class Address:
    """``host:port`` as Go reads it; without a host all addresses of the machine are meant.

    :ivar interface: an address, or ``::`` for all.
    """

    def __init__(self, text: str) -> None:
        host, colon, digits = text.rpartition(":")
        if not colon or not (digits.isascii() and digits.isdigit() and int(digits) <= 65535):
            raise ValueError("must be host:port, like localhost:8080, or :8080 for all addresses")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError("must have its IPv6 address in brackets, like [::1]:8080")
        self.port = int(digits)
        self.interface = {"": "::", "localhost": "127.0.0.1"}.get(host, host.strip("[]"))

    def __repr__(self) -> str:
        return f"<Address {self.interface} {self.port}>"


def header(text: str) -> tuple[str, str]:
    """``Name: value``; the value may hold commas and colons."""
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name or not is_field(name, value):
        raise ValueError("must be like 'Name: value'")
    if name.lower() in _RESERVED:
        raise ValueError(f"{name} belongs to the websocket's handshake and cannot be given")
    return name, value


def _log_parameters(output: str | None) -> list[list[Any]]:
    """The log's, with the short name that its output has at some place of the line."""
    return [
        [
            "log-level",
            "l",
            "info",
            "debug, info, warn or error.",
            choice("debug", "info", "warn", "error"),
        ],
        ["log-format", "f", "text", "text or json.", choice("text", "json")],
        ["log-output", output, "stdout", "stdout or -, stderr, or a file to append to."],
    ]


_SOURCE = url("http", "https", "ws", "wss", instead="give the credentials with --header")
_STACK = "Show where errors come from, in the text format."


class CommandOptions(EnvironOptions):
    """What all lines have in common.

    :cvar variables: variables, without their prefix, whose names do not follow from the option's.
    :cvar plain: options without a variable.
    """

    prefix = "BACKSTREAM_"
    synopsis: ClassVar[str] = ""
    variables: ClassVar[Mapping[str, str]] = {}
    plain: ClassVar[frozenset[str]] = frozenset({"log-stack", "output", "ready-file"})

    def _variables(self) -> dict[str, str]:
        renamed = self.variables.values()
        found = {
            variable: name
            for variable, name in super()._variables().items()
            if name not in self.plain and name not in renamed
        }
        return found | {self.prefix + variable: name for variable, name in self.variables.items()}

    def _recognise(self, word: str) -> list[str] | None:
        """As Go does: one dash or two, whole name or short one, never several in a word."""
        name = word[2:] if word.startswith("--") else word[1:]
        name = name.partition("=")[0]
        name = self.synonyms.get(name, name)
        return [name] if name in self._takes_value else None

    def _values(
        self, names: list[str], word: str, pending: deque[str]
    ) -> Iterator[tuple[str, str, str]]:
        _, equals, text = word.partition("=")
        return super()._values(names, f"--{names[0]}{equals}{text}", pending)

    def _warn_of_unknown_variables(self) -> None:
        """One environment may serve both commands, and other programs have names like it."""

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r}: the command takes flags only")

    opt_h = usage.Options.opt_help

    def getSynopsis(self) -> str:
        if self.parent is None:
            return f"Usage: {self.synopsis}"
        return f"{self.parent.getSynopsis()} {self.parent.subCommand} [flags]"

    def opt_version(self) -> None:
        """Show this program's version and exit."""
        sys.stdout.write(f"backstream (exposr_tx) {__version__}\n")
        raise SystemExit(0)


class ServeOptions(CommandOptions):
    """``backstream serve`` and ``twistd backstream``."""

    synopsis = "backstream [global flags] serve [flags]"
    variables = {"NO_CLIENT_CODE": "code"}

    optFlags: ClassVar[list[list[Any]]] = [["log-stack", "s", _STACK], *policy_options.FLAGS]
    optParameters: ClassVar[list[list[Any]]] = [
        *_log_parameters("o"),
        ["addr", "a", None, "Address to listen on; localhost:8080, or 0.0.0.0:$PORT.", Address],
        ["code", "c", 503, "Status of the answer when no client is connected.", status],
        *policy_options.parameters("p"),
        [
            "ingress-timeout",
            None,
            300.0,
            "Seconds for a client to answer, then 504; 0: any.",
            seconds,
        ],
        ["grace-period", None, 8.0, "Seconds running requests get after SIGTERM.", seconds],
        [
            "trusted-proxy",
            None,
            (),
            "Address or network whose X-Forwarded-* fields count; may be repeated.",
            comma_list(lambda text: str(network(text))),
        ],
        ["ready-file", None, None, "Write the addresses as JSON to this file once listening."],
    ]
    lists = frozenset({"trusted-proxy"}) | policy_options.LISTS

    def postOptions(self) -> None:
        policy_options.check(self)
        if self["addr"] is None:
            self["addr"] = self._from_port()

    def _from_port(self) -> Address:
        text = self.environ.get("PORT", "")
        if not text:
            return Address("localhost:8080")
        try:
            return Address(f"0.0.0.0:{text}")
        except ValueError:
            raise usage.UsageError(
                f"PORT {text!r}: must be a port number from 0 to 65535; or give --addr"
            ) from None

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """As the base class; under twistd an error is one line on stderr and status 1."""
        try:
            super().parseOptions(options)
        except usage.UsageError as problem:
            if self.parent is None:
                raise
            raise SystemExit(f"twistd backstream: {problem}") from None


class ClientOptions(CommandOptions):
    """``backstream client``.

    :ivar headers: the fields for the handshake.
    """

    synopsis = "backstream [global flags] client --src URL --dst URL [flags]"
    variables = {"SRC_URL": "src", "DST_URL": "dst"}

    optFlags: ClassVar[list[list[Any]]] = [
        ["log-stack", None, _STACK],
        ["insecure-server", None, "Take any certificate of the server."],
        ["insecure", None, "Take any certificate of an https: destination."],
        ["inspect", None, "Show what passes on a page on this machine."],
    ]
    optParameters: ClassVar[list[list[Any]]] = [
        *_log_parameters(None),
        ["src", "s", None, "The server's URL.", _SOURCE],
        ["dst", "d", None, "The local application's URL.", url("http", "https")],
        *folder_parameters("output", "o"),
        ["inspect-port", None, None, "The page's port: 4040 or the next that is free.", port],
        ["server-ca", None, None, "A PEM file with the authorities of the server."],
        ["target-ca", None, None, "A PEM file with the authorities of an https: destination."],
    ]

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(environ)
        self.headers: list[tuple[str, str]] = []

    def opt_header(self, text: str) -> None:
        """'Name: value' for the connection to the server; may be repeated."""
        variable = self.given.get("header", "").startswith(self.prefix)
        parts = _NEXT.split(text) if variable else [text]
        for part in parts:
            if variable and not part.strip():
                continue
            try:
                self.headers.append(header(part))
            except ValueError as problem:
                # What has no colon, or stands before it and is no name, may hold the value.
                name = part.partition(":")[0].strip() if ":" in part else ""
                shown = f"{name[:64]!r}: " if tokens_only(name) else ""
                raise self.error("header", f"{shown}{problem}") from None

    opt_H = opt_header

    def postOptions(self) -> None:
        for name, variable in (("src", "SRC_URL"), ("dst", "DST_URL")):
            if self[name] is None:
                raise usage.UsageError(f"--{name}: is needed (or {self.prefix}{variable})")


class Top(CommandOptions):
    """What stands before the command."""

    synopsis = "backstream [global flags] serve|client [flags]"
    longdesc = (
        "Commands: serve (also server, s) listens for visitors and clients; client (also c) "
        "connects a local application to a server. COMMAND --help lists a command's flags."
    )
    optFlags: ClassVar[list[list[Any]]] = [["log-stack", "s", _STACK]]
    optParameters: ClassVar[list[list[Any]]] = _log_parameters("o")


_HELP = "backstream --help lists them"
_COMMANDS: dict[str, type[CommandOptions]] = {
    **dict.fromkeys(("serve", "server", "s"), ServeOptions),
    **dict.fromkeys(("client", "c"), ClientOptions),
}


def command_line(words: Sequence[str], environ: Mapping[str, str]) -> CommandOptions:
    """Read a whole command line. Raises UsageError; SystemExit for --help and --version."""
    top = Top(environ)
    before: list[str] = []
    pending = list(words)
    if pending[:1] in (["help"], ["h"]):
        pending = [*pending[1:2], "--help"]
    while pending and pending[0].startswith("-"):
        word = pending.pop(0)
        names = top._recognise(word)
        if names is None:
            raise usage.UsageError(f"{word.partition('=')[0]}: is no global flag; {_HELP}")
        values = deque(pending)
        before += [f"--{name}={text}" for name, text, _ in top._values(names, word, values)]
        pending = list(values)
    if not pending:
        top.parseOptions(before)  # --help and --version end here
        raise usage.UsageError(f"a command is needed: serve or client; {_HELP}")
    kind = _COMMANDS.get(pending[0])
    if kind is None:
        raise usage.UsageError(f"{pending[0]!r}: no such command; it is serve or client")
    options = kind(environ)
    options.parseOptions([*before, *pending[1:]])
    return options
