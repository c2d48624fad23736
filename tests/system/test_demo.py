"""The first command of the README."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import ROOT, Process

#: What pip says where there is no index to install from.
NO_NETWORK = ("No matching distribution found", "NewConnectionError", "Could not find a version")


class DemoTests(SynchronousTestCase):
    """bin/demo."""

    def test_once(self) -> None:
        """bin/demo --once ends with status 0, and shows the request and the target's page."""
        if not (ROOT / "bin" / "demo").exists():
            self.skipTest("bin/demo is only in a checkout")
        venv = ROOT / ".venv"
        if venv.exists() and not any(venv.glob("exposr-*")):
            self.skipTest(".venv was not made by bin/venv, and would be changed")
        demo = Process(self, [str(ROOT / "bin" / "demo"), "--once"])
        status = demo.wait(300)
        shown = demo.report()
        if status != 0 and any(text in shown for text in NO_NETWORK):
            self.skipTest("nothing can be installed: no package index can be reached")
        self.assertEqual(status, 0, shown)
        page = "\n".join(demo.out)
        self.assertRegex(page, r"\nGET http://demo-tunnel\.localhost:\d+/\n200 OK")
        self.assertIn("<h1>Hello from behind the tunnel</h1>", page)
        self.assertIn("from a visitor through server and client to the target", page)
