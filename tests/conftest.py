"""Which reactor the tests run on: Twisted's choice, or what ``bin/test --reactor=NAME`` names."""

from __future__ import annotations

import os

from twisted.application.reactors import installReactor

if name := os.environ.get("TEST_REACTOR"):
    # Before a test module imports it. Programs that tests start get it from their harness.
    installReactor(name)
