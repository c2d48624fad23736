"""Whether a run of the client has an inspector."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.inspecting import inspector_of
from exposr_tx.client.options import ExposrOptions
from exposr_tx.client.target import parse_target


def has_one(line: str, terminal: bool, target: str = "http://x", **variables: str) -> bool:
    """Whether a line makes an inspector."""
    options = ExposrOptions(variables)
    options.parseOptions(f"tunnel connect a {target} {line}".split())
    _, command = options.command()
    made = inspector_of(command, MemoryReactorClock(), {}, terminal, parse_target(target))
    return made is not None


class InspectorTests(SynchronousTestCase):
    """inspector_of."""

    def test_terminal(self) -> None:
        """There is one at a terminal, and none elsewhere, unless it is said."""
        self.assertTrue(has_one("", True))
        self.assertFalse(has_one("", False))
        self.assertTrue(has_one("--inspect", False))
        self.assertTrue(has_one("--inspect-port 0", False))
        self.assertFalse(has_one("--no-inspect", True))
        self.assertFalse(has_one("--inspect --no-inspect", False))

    def test_variable(self) -> None:
        """EXPOSR_INSPECT says it as well, both ways."""
        self.assertTrue(has_one("", False, EXPOSR_INSPECT="true"))
        self.assertFalse(has_one("", True, EXPOSR_INSPECT="false"))
        self.assertFalse(has_one("", True, EXPOSR_NO_INSPECT="true"))

    def test_target(self) -> None:
        """A target that does not speak HTTP has nothing to show."""
        self.assertFalse(has_one("", True, "tcp://x:22"))
        self.assertTrue(has_one("", True, "unix:/run/x"))
