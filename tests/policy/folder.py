"""A folder of policies for a test, and what it takes to run them."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from exposr_tx.interfaces import Question
from exposr_tx.policy.compiled import Compiled
from exposr_tx.policy.sources import read_sources

if TYPE_CHECKING:
    from tests.system.harness import Scope

try:
    import regopy  # noqa: F401
except (ImportError, OSError):
    SKIP: str | None = "needs the Rego engine: pip install 'exposr-tx[rego]'"
else:
    SKIP = None


class Folder:
    """A folder with ``*.rego`` files, for a test or for all tests of a class."""

    def __init__(self, scope: Scope, **files: str) -> None:
        made = tempfile.TemporaryDirectory()
        scope.addCleanup(made.cleanup)
        self.path = made.name
        for name, text in files.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> str:
        """Write ``name.rego``, by another file's rename as an editor does; its path."""
        path = os.path.join(self.path, f"{name}.rego")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.new", path)
        return path


def compiled(folder: Folder) -> Compiled:
    """The policies of a folder."""
    return Compiled(read_sources([folder.path]))


def question(**changed: Any) -> Question:
    """A visitor's request."""
    fields: dict[str, Any] = {
        "method": "GET",
        "target": b"/a%20b?q=1&q=2&r=",
        "fields": [(b"x-Role", b"user"), (b"Accept", b"*/*"), (b"X-ROLE", b"admin")],
        "host": "my-tunnel.tun.test",
        "remote_ip": "198.51.100.7",
        "remote_port": 40112,
        "scheme": "https",
        "tunnel": "my-tunnel",
        "account": "1234567890",
        "transport": "http",
    }
    return Question(**{**fields, **changed})
