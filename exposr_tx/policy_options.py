"""What the command lines of both servers say of policies."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from exposr_tx.option_values import comma_list, period, seconds, url
from exposr_tx.options import EnvironOptions

__all__ = ["FLAGS", "LISTS", "check", "parameters"]

#: What only makes sense with ``--policy-url``.
_REMOTE: Final = ("policy-cache", "policy-package", "policy-token-file")
#: What only makes sense with either.
_JUDGING: Final = frozenset({"policy-raw-paths", "policy-timeout"})
_PACKAGE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
FLAGS: Final[list[list[Any]]] = [
    ["policy-raw-paths", None, "With policies, serve paths that can be read in two ways."],
]
LISTS: Final = frozenset({"policy", "policy-package"})


def _agent_url(text: str) -> str:
    """Where an Open Policy Agent has its documents."""
    found = url("http", "https")(text)
    parts = urlsplit(found)
    if parts.query or parts.fragment or not found.isascii():
        raise ValueError("must be a URL like http://127.0.0.1:8181/v1/data, without a query")
    return found


def _paths(text: str) -> tuple[str, ...]:
    """Files and folders between commas. Passed over, an empty one would leave the door open."""
    paths = tuple(part.strip() for part in text.split(","))
    if not all(paths):
        raise ValueError("must name files or folders, none of them empty")
    return paths


def _file(text: str) -> str:
    """A file. Passed over, an empty one would have the agent deny everybody."""
    if not text.strip():
        raise ValueError("must name a file")
    return text


def _package(text: str) -> str:
    if not _PACKAGE.fullmatch(text):
        raise ValueError("must be names of packages, like office or auth.office")
    return text


def parameters(short: str | None) -> list[list[Any]]:
    """For ``optParameters``.

    :param short: the short name of ``--policy``.
    """
    return [
        [
            "policy",
            short,
            (),
            "File or folder of Rego policies that decide on visitors and clients; may be repeated.",
            _paths,
        ],
        [
            "policy-url",
            None,
            None,
            "Ask the Open Policy Agent with its documents there, like http://127.0.0.1:8181/v1/data.",
            _agent_url,
        ],
        ["policy-timeout", None, 0.05, "Seconds there are to decide; then it denies.", period],
        [
            "policy-cache",
            None,
            0.0,
            "With --policy-url, seconds for which a decision holds for the same input; 0: none.",
            seconds,
        ],
        [
            "policy-package",
            None,
            (),
            "With --policy-url, a package that a tunnel may choose; may be repeated.",
            comma_list(_package),
        ],
        [
            "policy-token-file",
            None,
            None,
            "With --policy-url, a file with the bearer token that the agent asks for.",
            _file,
        ],
    ]


def check(options: EnvironOptions) -> None:
    """Raises UsageError for what does not go together, and warns of what has no effect."""
    if options["policy"] and options["policy-url"]:
        raise options.error("policy-url", "does not go with --policy; give one of them")
    for name in _REMOTE:
        if options[name] and not options["policy-url"]:
            raise options.error(name, "needs --policy-url")
    if not (options["policy"] or options["policy-url"]):
        for name in sorted(_JUDGING & options.given.keys()):
            options.warnings.append(
                f"{options.given[name]} has no effect: nobody is judged without --policy or "
                "--policy-url; give one of them"
            )
