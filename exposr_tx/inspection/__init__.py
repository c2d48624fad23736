"""What passes between a tunnel and its target, as exchanges, for its user to see."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_BODY", "MAX_BYTES", "MAX_FILES"]

# Limits that commands show as defaults; here, so that ``--help`` loads nothing more.

#: Bytes that are kept of each body.
MAX_BODY: Final = 1024 * 1024
#: Files of one run in a folder, and bytes of them: then the oldest go.
MAX_FILES: Final = 10_000
MAX_BYTES: Final = 1024 * 1024 * 1024
