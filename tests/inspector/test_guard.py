"""Who is let in."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspector.guard import Guard, NotAllowed

GOOD = {"host": "127.0.0.1:4040", "authorization": "Bearer right"}


class GuardTests(SynchronousTestCase):
    """Guard."""

    def refused(self, method: str = "GET", **changes: str) -> int:
        """The status of a refusal; 0 where there is none."""
        fields = GOOD | {name.replace("_", "-"): value for name, value in changes.items()}
        try:
            Guard("right").check(4040, method, fields.get)
        except NotAllowed as refusal:
            self.assertNotIn("right", str(refusal))
            return refusal.status
        return 0

    def test_let_in(self) -> None:
        """Its own pages and programs with the token, by every name of loopback."""
        for host in ("127.0.0.1:4040", "localhost:4040", "LOCALHOST:4040", "[::1]:4040"):
            self.assertEqual(self.refused(host=host), 0)
        own = {"origin": "http://localhost:4040", "sec_fetch_site": "same-origin"}
        self.assertEqual(self.refused(**own), 0)
        self.assertEqual(self.refused("POST", content_type="application/json; charset=utf-8"), 0)

    def test_rebinding(self) -> None:
        """A name that leads to loopback, another port, or none."""
        for host in ("evil.example:4040", "127.0.0.1", "127.0.0.1:80", "", "127.0.0.1.:4040"):
            self.assertEqual(self.refused(host=host), 403, host)

    def test_other_origins(self) -> None:
        """Pages of other origins, https and opaque ones included."""
        for origin in ("http://evil.example", "https://127.0.0.1:4040", "null", "http://localhost"):
            self.assertEqual(self.refused(origin=origin), 403, origin)
        self.assertEqual(self.refused(sec_fetch_site="cross-site"), 403)
        self.assertEqual(self.refused(sec_fetch_site="same-site"), 403)

    def test_token(self) -> None:
        """Without the token, or with another one."""
        for shown in ("", "Bearer", "Bearer wrong", "right", "Basic right", "Bearer rïght"):
            self.assertEqual(self.refused(authorization=shown), 401, shown)

    def test_forms(self) -> None:
        """What a form could send changes nothing."""
        for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            self.assertEqual(self.refused("POST", content_type=kind), 415)
            self.assertEqual(self.refused("DELETE", content_type=kind), 415)
