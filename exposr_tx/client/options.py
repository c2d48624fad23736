"""The command line of the script ``exposr``.

Options stand anywhere on the line and are environment variables as well (see
:mod:`exposr_tx.options`). This module only takes the line apart: it imports
nothing that talks to a network, so that ``--help`` is quick. What the words
mean is judged by ``client/script.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.python import usage

import exposr_tx
from exposr_tx.client.folder_options import folder_parameters
from exposr_tx.option_values import choice, count, port, url
from exposr_tx.options import EnvironOptions

__all__ = [
    "FAILED",
    "REFUSED",
    "SUCCESS",
    "UNREACHABLE",
    "USAGE",
    "Command",
    "ExposrOptions",
    "Replay",
]

#: Exit statuses, as ``--help`` tells them.
SUCCESS, FAILED, USAGE, REFUSED, UNREACHABLE = range(5)


class Command(EnvironOptions):
    """A word of the command line, its options, and its arguments as they were written.

    :ivar words: the arguments.
    """

    synopsis_words: ClassVar[str] = ""
    least: ClassVar[int] = 0
    most: ClassVar[int | None] = None

    def __init__(self, environ: Any = None) -> None:
        super().__init__(environ)
        self.words: tuple[str, ...] = ()
        self._names_command = False

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        words = list(options or ())
        rest = self._sort(list(words))[1]
        names = [entry[0] for entry in self._commands()]
        self._names_command = any(word in names for word in rest)
        if names and rest and not rest[0].startswith("-") and rest[0] not in names:
            raise usage.UsageError(
                f"unknown command {rest[0]!r}; the commands are: {', '.join(names)}"
            )
        super().parseOptions(words)

    def _recognise(self, word: str) -> list[str] | None:
        # Help is about the last command that the line names.
        if self._names_command and word in ("--help", "-h", "--version"):
            return None
        return super()._recognise(word)

    opt_h = usage.Options.opt_help

    def parseArgs(self, *words: str) -> None:
        if self._commands():
            names = ", ".join(entry[0] for entry in self._commands())
            raise usage.UsageError(f"which command? One of: {names} (see --help)")
        if len(words) < self.least or (self.most is not None and len(words) > self.most):
            raise usage.UsageError(f"wrong number of arguments; usage: {self.path()}")
        self.words = words

    def path(self) -> str:
        """The command as one writes it."""
        names: list[str] = []
        options: Any = self.parent
        while options is not None:
            names.insert(0, options.subCommand)
            options = options.parent
        return " ".join(["exposr", *names, self.synopsis_words]).rstrip()

    def getSynopsis(self) -> str:
        return f"Usage: {self.path()} [options]"

    def getUsage(self, width: int | None = None) -> str:
        usage = super().getUsage(width)
        if self.parent is None:
            return usage
        return (
            f"{usage}\nexposr --help shows the options of all commands: --server, --account ...\n"
        )

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"exposr-tx {exposr_tx.__version__}")
        raise SystemExit(0)


class AccountCreate(Command):
    longdesc = "Register an account with the server, print it and remember it."
    most = 0


class Account(Command):
    synopsis_words = "create"
    subCommands = [("create", None, AccountCreate, "Register an account with the server.")]


class Create(Command):
    synopsis_words = "[ID] [KEY VALUE ...]"
    longdesc = "Make a tunnel; without an ID a name is invented."


class Connect(Command):
    """Connects a tunnel to a target."""

    synopsis_words = "[ID] [TARGET] [KEY VALUE ...]"
    longdesc = (
        "Connect a tunnel to a target, for as long as this runs. A TARGET is http://host:port, "
        "https://host, tcp://host:port, host:port, a port, unix:/path or any Twisted client "
        "endpoint string. A tunnel that does not exist is made, and deleted at the end."
    )
    optFlags = [
        ["keep", None, "Do not delete the tunnel at the end, even if this run has made it."],
        ["no-retry", None, "End when a connection fails; do not try again."],
        ["insecure", "k", "Take any certificate of an https target."],
        ["http-mode", None, "Rewrite requests here (-H, -R), for servers that do not."],
        ["inspect", None, "Show what passes on a page on this machine; on at a terminal."],
        ["no-inspect", None, "Do not show it, not even at a terminal."],
    ]
    optParameters = [
        ["target-ca", None, None, "A PEM file with the authorities of an https target."],
        ["inspect-port", None, None, "The page's port: 4040 or the next that is free.", port],
        [
            "host-header",
            None,
            None,
            "The Host that the target gets: 'target' (as in its URL), 'preserve' (the visitor's) "
            "or a host.",
        ],
        [
            "http-header-replace",
            "H",
            None,
            "With --http-mode: 'Name: value' to set in requests; an empty value removes.",
        ],
        [
            "http-header-rewrite",
            "R",
            "host,referer,origin",
            "With --http-mode: headers in which the public host becomes the target's.",
        ],
        *folder_parameters("record", None),
    ]
    lists = frozenset({"http-header-replace", "http-header-rewrite"})


class Configure(Command):
    synopsis_words = "ID set KEY VALUE ... | unset KEY ..."
    longdesc = (
        "Change settings of a tunnel: target-url, transport-ws, transport-ssh, ingress-http, "
        "ingress-http-altnames, ingress-http-host, ingress-sni, ingress-tcp, ingress-tcp-port, "
        "policy."
    )
    least = 3


class Info(Command):
    synopsis_words = "ID"
    longdesc = "Show a tunnel."
    least = most = 1


class List(Command):
    longdesc = "List the account's tunnels."
    most = 0


class Disconnect(Command):
    synopsis_words = "ID"
    longdesc = "End the connections of a tunnel's clients."
    least = most = 1


class Delete(Command):
    synopsis_words = "ID"
    longdesc = "Delete a tunnel."
    least = most = 1


class Tunnel(Command):
    """``tunnel COMMAND``, and the short form ``tunnel TARGET [ID]``.

    :ivar short: whether the short form was used.
    """

    synopsis_words = "COMMAND | TARGET [ID]"
    longdesc = "exposr tunnel TARGET [ID] is short for exposr tunnel connect ID TARGET."
    subCommands = [
        ("create", None, Create, "Make a tunnel."),
        ("connect", None, Connect, "Connect a tunnel to a target."),
        ("configure", None, Configure, "Change a tunnel's settings."),
        ("info", None, Info, "Show a tunnel."),
        ("list", None, List, "List the account's tunnels."),
        ("disconnect", None, Disconnect, "End the connections of a tunnel's clients."),
        ("delete", None, Delete, "Delete a tunnel."),
    ]
    short = False

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        words = list(options or ())
        rest = [word for word in self._sort(list(words))[1] if not word.startswith("-")]
        names = [entry[0] for entry in self.subCommands]
        if rest and rest[0] not in names:
            if not _is_target(rest[0]):
                raise usage.UsageError(
                    f"{rest[0]!r} is no command and no target; the commands are: "
                    f"{', '.join(names)}; a target is like http://localhost:3000"
                )
            self.short = True
            words.insert(0, "connect")
        super().parseOptions(words)


#: Which inspector ``logs`` and ``replay`` ask.
INSPECTOR: list[Any] = [
    *("inspector", None, None, "The address that the client printed."),
    url("http"),
]


class PolicyTest(Command):
    synopsis_words = "DIR INPUT.json"
    longdesc = (
        "Evaluate policies on an input, as a server would, and print the decision. "
        "INPUT.json holds the input's fields; - is standard input. Exit status: 0 allowed, "
        "1 denied, 2 what is given cannot be used."
    )
    optFlags = [["explain", None, "Tell what was loaded and read, and what each rule gives."]]
    optParameters = [["package", None, "auth.server", "The package to ask."]]
    least = most = 2


class Policy(Command):
    synopsis_words = "test"
    subCommands = [("test", None, PolicyTest, "Evaluate policies on an input.")]


class AdminAccountCreate(Command):
    longdesc = "Make an account in a server's storage, whether the server runs or not."
    optParameters = [
        ["storage-url", None, None, "The server's storage, like sqlite:///var/lib/exposr/db."]
    ]
    most = 0


class AdminAccount(Command):
    synopsis_words = "create"
    subCommands = [("create", None, AdminAccountCreate, "Make an account in a storage.")]


class AdminTunnelList(Command):
    longdesc = "List tunnels of all accounts, through a server's administration API."
    optParameters = [
        ["api-key", None, None, "The key of the administration API."],
        ["verbose", "v", "true", "Ask for more than the names.", choice("true", "false")],
        ["count", None, "25", "How many.", count],
    ]
    secret = frozenset({"api-key"})
    switches = frozenset({"verbose"})
    most = 0


class AdminTunnel(Command):
    synopsis_words = "list"
    subCommands = [("list", None, AdminTunnelList, "List tunnels of all accounts.")]


class Admin(Command):
    synopsis_words = "account create | tunnel list"
    subCommands = [
        ("account", None, AdminAccount, "Accounts in a server's storage."),
        ("tunnel", None, AdminTunnel, "Tunnels of all accounts."),
    ]


class Logs(Command):
    synopsis_words = "[ID]"
    longdesc = (
        "Show what passes through the tunnels of a client that runs with an inspector, or all of "
        "one exchange."
    )
    optFlags = [
        ["follow", "f", "Go on: show each exchange when it ends."],
        ["json", None, "One JSON object on each line."],
        ["show-secrets", None, "With an ID: show credentials too."],
    ]
    optParameters = [INSPECTOR]
    secret = frozenset({"inspector"})  # it has the token
    most = 1


class Replay(Command):
    """Sends a request again.

    :ivar headers: fields to set, with their values; an empty one removes.
    """

    synopsis_words = "ID"
    longdesc = (
        "Send a request to its target again, byte for byte, or changed; ends when it is answered."
    )
    optFlags = [["json", None, "Print JSON."]]
    optParameters = [
        INSPECTOR,
        ["method", None, None, "Another method."],
        ["path", None, None, "Another path and query."],
        ["data", None, None, "Another body; @FILE is a file's content, @- standard input."],
    ]
    secret = frozenset({"inspector"})
    least = most = 1

    def __init__(self, environ: Any = None) -> None:
        super().__init__(environ)
        self.headers: list[tuple[str, str]] = []

    def opt_header(self, text: str) -> None:
        """'Name: value' to set in place of its own; an empty value removes. May be repeated."""
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise self.error("header", f"{name[:64]!r}: must be like 'Name: value'")
        self.headers.append((name.strip(), value.strip()))

    opt_H = opt_header


def _is_target(word: str) -> bool:
    """A first word that cannot be a command: a port, host:port, a URL."""
    return ":" in word or (word.isascii() and word.isdigit())


class ExposrOptions(Command):
    """The whole line."""

    synopsis_words = "COMMAND | PORT | HOST:PORT"
    longdesc = (
        "Gives a service on this machine a public address, through a server. "
        "Every option is also a variable: --server is EXPOSR_SERVER. "
        "Exit status: 0 success, 2 usage, 3 refused credentials, 4 server unreachable, 1 otherwise."
    )
    optFlags = [
        ["insecure-server", None, "Take any certificate of the server."],
        ["quiet", "q", "Print only public URLs, what was asked for, and errors."],
        ["non-interactive", None, "Accepted for scripts; output is always plain."],
    ]
    optParameters = [
        ["server", "s", None, "The server's URL.", url("https", "http")],
        ["server-ca", None, None, "A PEM file with the authorities of the server."],
        ["account", "a", None, "The account's number. Others see it: better --account-file."],
        ["account-file", None, None, "A file that holds the account's number."],
        ["reactor", None, None, "Twisted's reactor to run on, such as asyncio, epoll or poll."],
    ]
    secret = frozenset({"account"})
    subCommands = [
        ("tunnel", None, Tunnel, "Make, connect and look after tunnels."),
        ("account", None, Account, "Register an account."),
        ("logs", None, Logs, "Show what passes through a running client."),
        ("replay", None, Replay, "Send a request again."),
        ("policy", None, Policy, "Try policies out."),
        ("admin", None, Admin, "Administer a server."),
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        words = list(options or ())
        rest = [word for word in self._sort(list(words))[1] if not word.startswith("-")]
        if rest and _is_target(rest[0]):
            words.insert(0, "tunnel")
        elif rest[:1] == ["help"]:
            words.remove("help")
            words.append("--help")
        super().parseOptions(words)

    def command(self) -> tuple[str, Command]:
        """The words of the command, and the options that belong to it."""
        options: Any = self
        names = []
        while options.subCommand is not None:
            names.append(options.subCommand)
            options = options.subOptions
        return " ".join(names), options
