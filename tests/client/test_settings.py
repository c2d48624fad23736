"""Pairs of key and value."""

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.settings import changes, unsettings
from exposr_tx.errors import BadInput


class ChangesTests(SynchronousTestCase):
    """changes and unsettings."""

    def test_bodies(self) -> None:
        """Each key changes its own member, as the existing client changes it."""
        for key, text, body in (
            ("target-url", "http://h:3000", {"target": {"url": "http://h:3000/"}}),
            ("transport-ws", "on", {"transport": {"ws": {"enabled": True}}}),
            ("transport-ssh", "no", {"transport": {"ssh": {"enabled": False}}}),
            ("ingress-http", "ENABLED", {"ingress": {"http": {"enabled": True}}}),
            ("ingress-sni", "0", {"ingress": {"sni": {"enabled": False}}}),
            (
                "ingress-http-altnames",
                "A.example.com, b.example.com",
                {"ingress": {"http": {"alt_names": ["a.example.com", "b.example.com"]}}},
            ),
            ("ingress-http-host", "preserve", {"ingress": {"http": {"host_header": "preserve"}}}),
            ("ingress-tcp", "yes", {"ingress": {"tcp": {"enabled": True}}}),
            ("ingress-tcp-port", "20001", {"ingress": {"tcp": {"port": 20001}}}),
            ("policy", "auth.office", {"policy": "auth.office"}),
        ):
            (change,) = changes([key, text])
            self.assertEqual(change.body, body)

    def test_unset(self) -> None:
        """Unset says what to go back to, not nothing."""
        names, url = unsettings(["ingress-http-altnames", "target-url"])
        self.assertEqual(names.body, {"ingress": {"http": {"alt_names": None}}})
        self.assertEqual(url.body, {"target": {"url": None}})
        self.assertEqual(unsettings(["ingress-http"])[0].value, False)
        self.assertEqual(unsettings(["policy"])[0].body, {"policy": None})

    def test_errors(self) -> None:
        """Errors name the key, the value and what it must be."""
        for words, said in (
            (["ingress-http"], "has no value"),
            (["colour", "red"], "unknown setting 'colour'"),
            (["ingress-http", "perhaps"], "ingress-http 'perhaps': must be true or false"),
            (["ingress-tcp-port", "0"], "ingress-tcp-port '0': must be a port"),
            (["target-url", "tcp://h"], "needs a port"),
            (["policy", "a b"], "policy 'a b': must be the name of a package"),
        ):
            self.assertIn(said, str(self.assertRaises(BadInput, changes, words)))
        self.assertRaises(BadInput, unsettings, ["colour"])
