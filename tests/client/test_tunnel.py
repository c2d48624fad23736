"""What a run does with its account and tunnel, against a stand-in for the existing exposrd."""

from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.accounts_file import AccountsFile, StoredAccount
from exposr_tx.client.answers import AccountRefused, ServerRefusal, TunnelTaken
from exposr_tx.client.settings import changes
from exposr_tx.client.target import parse_target
from exposr_tx.client.tunnel import OwnTunnel
from exposr_tx.errors import BadInput, ExposrError
from tests.client.exposrd import Exposrd


class OwnTunnelTests(SynchronousTestCase):
    """OwnTunnel."""

    def setUp(self) -> None:
        self.server = Exposrd()
        self.accounts = AccountsFile(Path(self.mktemp()))
        self.lines: list[str] = []

    def own(
        self,
        name: str = "my-tunnel",
        target: str | None = "http://h:3000",
        account: str = "",
        **more: Any,
    ) -> OwnTunnel:
        return OwnTunnel(
            self.server.client(account),
            self.accounts,
            self.lines.append,
            Random(1),
            name,
            None if target is None else parse_target(target),
            changes(more.pop("settings", [])),
            **more,
        )

    def result(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def failure(self, coroutine: Any, kind: type[Exception]) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(coroutine), kind).value)

    def test_calls_in_order(self) -> None:
        """The calls are those that the existing client makes, and nothing else is sent."""
        own = self.own(automatic=True)
        self.result(own.prepare())
        token = "GET v1/account/CDEFHJKMNPRTVWX2/token"
        self.assertEqual(
            self.server.calls,
            [
                "POST v1/account {}",
                token,
                "GET v1/tunnel/my-tunnel",
                "PUT v1/tunnel/my-tunnel {}",
                'PATCH v1/tunnel/my-tunnel {"target": {"url": "http://h:3000/"}}',
                'PATCH v1/tunnel/my-tunnel {"ingress": {"http": {"enabled": true}}}',
                'PATCH v1/tunnel/my-tunnel {"transport": {"ws": {"enabled": true}}}',
                token,
                "GET v1/tunnel/my-tunnel",
            ],
        )
        self.assertIn("Creating account...success (CDEF-HJKM-NPRT-VWX2)", self.lines)

    def test_account_that_would_be_lost(self) -> None:
        """Where it cannot be written down, no account is registered."""
        self.accounts.path.write_text("a file")
        self.accounts = AccountsFile(self.accounts.path / "accounts.toml")
        problem = self.failure(self.own(automatic=True).prepare(), BadInput)
        self.assertIn("cannot write", problem)
        self.assertEqual(self.server.calls, [])

    def test_registered_account_is_remembered(self) -> None:
        """An account that nobody asked for is written down as such."""
        self.result(self.own(automatic=True).prepare())
        self.assertEqual(
            self.accounts.account("http://tun.test/prefix/"),
            StoredAccount("CDEF-HJKM-NPRT-VWX2", automatic=True),
        )

    def test_alternative_names(self) -> None:
        """A name that exposrd does not accept needs a CNAME record, which exposrd does not say."""
        own = self.own(settings=["ingress-http-altnames", "www.example.com,example.com"])
        said = self.failure(own.prepare(), ServerRefusal)
        self.assertIn("does not accept www.example.com, example.com: the CNAME record", said)
        self.assertIn("exposr tunnel info my-tunnel", said)

    def test_deleted_when_made(self) -> None:
        """A tunnel that was made is deleted; one that was there is not."""
        own = self.own("", automatic=True)
        self.result(own.prepare())
        self.assertRegex(own.tunnel_id, r"^[a-z]+-[a-z]+-\d{4}$")
        self.result(own.release())
        self.assertEqual(self.server.tunnels, {})
        first = self.own()
        self.result(first.prepare())
        second = self.own(account=self.server.accounts[-1])
        self.result(second.prepare())
        self.result(second.release())
        self.assertIn("my-tunnel", self.server.tunnels)
        self.assertIn("Checking tunnel my-tunnel...found", self.lines)

    def test_forgetful_server(self) -> None:
        """A server that forgot an account which we made gets another one, and the tunnel again."""
        own = self.own(automatic=True)
        self.result(own.prepare())
        self.server.accounts[0] = ""
        self.server.tunnels.clear()
        self.server.owners.clear()
        tunnel = self.result(own.read())
        self.assertEqual(tunnel.target_url, "http://h:3000/")

    def test_given_account_is_never_replaced(self) -> None:
        """An account that the user gave is refused, not exchanged."""
        self.failure(self.own(account="GIVEN").prepare(), AccountRefused)
        self.assertEqual(self.server.accounts, [])

    def test_somebody_elses(self) -> None:
        """Another account's tunnel is not touched."""
        self.result(self.own().prepare())
        self.failure(self.own(automatic=True).prepare(), TunnelTaken)

    def test_no_target(self) -> None:
        """Without any target the remedy is named."""
        self.assertIn(
            "tunnel connect my-tunnel http",
            self.failure(self.own(target=None).prepare(), ExposrError),
        )

    def test_what_exposrd_does_not_know(self) -> None:
        """TCP settings are refused here; a host header is left to us."""
        self.failure(self.own(settings=["ingress-tcp", "on"]).prepare(), ExposrError)
        own = self.own("other", host_header="fixed")
        self.result(own.prepare())
        self.assertTrue(own.rewrites)
        self.result(self.own("third", "tcp://h:1").prepare())
        sent = " ".join(self.server.calls)
        self.assertNotIn('tcp": {', sent)
        self.assertNotIn("host_header", sent)

    def test_chosen_ingress(self) -> None:
        """What the user has chosen is not overruled."""
        self.result(self.own(settings=["ingress-http", "off"]).prepare())
        self.assertFalse(self.server.tunnels["my-tunnel"]["ingress"]["http"]["enabled"])
