"""Policies tried in a process of their own, before a server loads them.

The embedded engine has been seen to end its process over a policy that it
should have refused: that process is not to be the server's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from exposr_tx.errors import PolicyInvalid
from exposr_tx.policy.policies import PolicySet

__all__ = ["loaded"]

#: Seconds to compile; 0.3 s is usual.
PATIENCE: Final = 60.0
_CALL: Final = "import sys; from exposr_tx.policy.apart import attempt; attempt(sys.argv[1:])"


def loaded(paths: Sequence[str]) -> PolicySet:
    """Compile policies, which another process has survived. Raises PolicyInvalid."""
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _CALL, *paths],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PolicyInvalid(
            f"{', '.join(paths)}: not compiled within {PATIENCE:g} s; make it simpler"
        ) from None
    if done.returncode < 0:
        raise PolicyInvalid(
            f"{', '.join(paths)}: the engine ends with signal {-done.returncode}; undo the last "
            "change, and try the files one by one with: exposr policy test"
        )
    return PolicySet(paths)


def attempt(paths: Sequence[str]) -> None:
    """Compile, and evaluate each package once; what is wrong is told by whoever loads."""
    try:
        policies = PolicySet(paths, 1)
    except PolicyInvalid:
        return
    for package in policies.packages:
        policies.evaluate(package, {})
