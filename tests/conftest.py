"""What holds for all tests: which reactor they run on, and that no example has to be quick.

The reactor is Twisted's choice, or what ``bin/test --reactor=NAME`` names.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from twisted.application.reactors import installReactor

if name := os.environ.get("TEST_REACTOR"):
    # Before a test module imports it. Programs that tests start get it from their harness.
    installReactor(name)

# A machine that is busy with something else is no fault of the code's.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
