"""What the command lines of both servers say of policies."""

from __future__ import annotations

from typing import Any, Final

from exposr_tx.options import comma_list

__all__ = ["FLAGS", "LISTS", "parameters"]

FLAGS: Final[list[list[Any]]] = [
    ["policy-raw-paths", None, "With policies, serve paths that can be read in two ways."],
]
LISTS: Final = frozenset({"policy"})


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
            comma_list(str),
        ],
    ]
