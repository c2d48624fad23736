"""The access log: what a line holds, whatever a visitor sends."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from exposr_tx.accesslog import MAX_PATH, AccessLog, route
from exposr_tx.interfaces import IAccessLog

NOW = 1_700_000_000.25


class AccessLogTests(SynchronousTestCase):
    """Lines of the access log."""

    def setUp(self) -> None:
        self.lines: list[bytes] = []

    def write(
        self, path: bytes = b"/", host: bytes = b"h", text: bool = False, request_id: bytes = b"i-1"
    ) -> bytes:
        log = AccessLog(self.lines.append, text, lambda: NOW)
        log.write(b"GET", host, path, 200, 1, 2, 3.25, 4.5, b"my-tunnel", request_id)
        return self.lines[-1]

    def test_interface(self) -> None:
        """It provides IAccessLog."""
        self.assertTrue(verifyObject(IAccessLog, AccessLog(self.lines.append, False)))

    def test_fields(self) -> None:
        """A JSON line has exactly the documented fields."""
        self.assertEqual(
            json.loads(self.write(b"/a/b")),
            {
                "event": "access",
                "time": "2023-11-14T22:13:20.250Z",
                "method": "GET",
                "host": "h",
                "path": "/a/b",
                "status": 200,
                "bytes_in": 1,
                "bytes_out": 2,
                "first_byte_ms": 3.25,
                "last_byte_ms": 4.5,
                "tunnel": "my-tunnel",
                "request_id": "i-1",
            },
        )

    def test_text(self) -> None:
        """A text line has the same, for people."""
        self.assertEqual(
            self.write(b"/a", text=True),
            b'2023-11-14T22:13:20.250Z access GET "h" "/a" 200 in=1 out=2 first=3.250ms'
            b' last=4.500ms tunnel="my-tunnel" id="i-1"\n',
        )

    @given(st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=64), st.booleans())
    def test_hostile(self, path: bytes, host: bytes, request_id: bytes, text: bool) -> None:
        """No bytes of a visitor's break a line, or put a control character into it."""
        line = self.write(path, host, text, request_id)
        self.assertTrue(line.endswith(b"\n"))
        self.assertTrue(all(0x20 <= byte < 0x7F for byte in line[:-1]), line)
        if not text:
            entry = json.loads(line)
            self.assertEqual(entry["path"], path.decode("utf-8", "backslashreplace"))
            self.assertEqual(entry["request_id"], request_id.decode("utf-8", "backslashreplace"))

    def test_long(self) -> None:
        """A long path is cut, so that a line stays a line."""
        path = json.loads(self.write(b"/" + b"x" * 8000))["path"]
        self.assertEqual(path, "/" + "x" * (MAX_PATH - 1) + "...")
        self.assertLess(len(self.write(b"/", b"h" * 9000, request_id=b"r" * 9000)), 1024)

    def test_many_hosts(self) -> None:
        """Hosts that nobody will ask for again are not kept for ever."""
        log = AccessLog(self.lines.append, False, lambda: NOW)
        for number in range(10_000):
            log.write(b"GET", b"%d.test" % number, b"/", 404, 0, 0, 0.0, 0.0, b"", b"")
        self.assertLess(len(log._words), 5_000)


class RouteTests(SynchronousTestCase):
    """What an API path looks like in the log."""

    def test_templates(self) -> None:
        """Accounts and tunnels are left out of the paths of the API."""
        for path, shown in (
            (b"/v1/account", b"/v1/account"),
            (b"/v1/account/MNF4P6Y6M2MRRVCT/token", b"/v1/account/:account_id/token"),
            (b"/V1/Account/anything%20at-all/token", b"/V1/Account/:account_id/token"),
            (b"/v1/tunnel/my-tunnel/ws-endpoint", b"/v1/tunnel/:tunnel_id/ws-endpoint"),
            (b"/else/mnf4-p6y6-m2mr-rvct", b"/else/[redacted]"),
            (b"/\xff", b"/\xff"),
        ):
            self.assertEqual(route(path), shown)
