"""The options of a folder for HAR files, as two commands have them.

``exposr tunnel connect`` calls the folder ``--record``, ``backstream client``
``--output``. Like all of the command line this loads nothing that talks to a network.
"""

from __future__ import annotations

from typing import Any

from exposr_tx.inspection import MAX_BODY, MAX_BYTES, MAX_FILES
from exposr_tx.option_values import positive, size

__all__ = ["folder_parameters"]


def folder_parameters(name: str, short: str | None) -> list[list[Any]]:
    """``optParameters`` of a folder for HAR files.

    :param name: the option that names the folder; those of its others begin with it.
    """
    return [
        [name, short, None, "A folder for HAR files, one for each exchange with the target."],
        [
            f"{name}-redact",
            None,
            None,
            "Names whose values are left out of them, besides the usual ones; -NAME keeps one, "
            "'none' all that stand before.",
        ],
        [f"{name}-max-body", None, MAX_BODY, "Bytes of each body that are recorded.", size],
        [f"{name}-max-files", None, MAX_FILES, "Files that stay; the oldest go.", positive],
        [f"{name}-max-size", None, MAX_BYTES, "Bytes of files that stay.", size],
    ]
