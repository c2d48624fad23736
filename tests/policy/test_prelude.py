"""What is provided in place of functions that the engine gets wrong: tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.scan import scan
from exposr_tx.policy.sources import Source
from tests.policy.folder import SKIP, Folder, compiled
from tests.policy.test_builtins import EC_KEYS, EC_TOKEN, RSA_KEYS, RSA_TOKEN


def token(secret: str, algorithm: str = "HS256", **claims: Any) -> str:
    """A token that is signed with a secret."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = ".".join(part(json.dumps(p).encode()) for p in ({"alg": algorithm}, claims))
    return f"{text}.{part(hmac.digest(secret.encode(), text.encode(), hashlib.sha256))}"


def policy(constraints: str) -> str:
    return (
        "package a\nallow if {\n  some text in input.headers.token\n"
        f"  io.jwt.decode_verify(text, {constraints})[0]\n}}\n"
    )


class TokenTests(SynchronousTestCase):
    """``io.jwt.decode_verify``."""

    def test_public_key_signs_nothing(self) -> None:
        """Who has read a public key cannot sign with it as with a secret."""
        policies = compiled(Folder(self, a=policy(f"{{`cert`: `{RSA_KEYS}`}}")))
        for text, allowed in (
            (RSA_TOKEN, True),
            (token(RSA_KEYS), False),
            (token(json.dumps(RSA_KEYS)[1:-1]), False),
        ):
            decision = policies.evaluate("a", {"headers": {"token": [text]}})
            self.assertEqual(decision.allow, allowed)
        policies = compiled(Folder(self, a=policy(f"{{`cert`: `{EC_KEYS}`}}")))
        self.assertTrue(policies.evaluate("a", {"headers": {"token": [EC_TOKEN]}}).allow)

    def test_constraints(self) -> None:
        """What is asked of a token is asked: a constraint that cannot be is not passed over."""
        given = {"headers": {"token": [token("s", iss="me", aud="x")]}}
        for constraints, allowed in (
            ('{"secret": "s", "iss": "me", "aud": "x", "alg": "HS256"}', True),
            ('{"secret": "s", "aud": "x", "time": 5}', True),
            ('{"secret": "s"}', False),
            ('{"secret": "s", "aud": ["y"]}', False),
            ('{"secret": "s", "aud": "x", "iss": null}', False),
            ('{"secret": "s", "aud": "x", "isss": "you"}', False),
            ('{"secret": "s", "aud": "x", "time": "5"}', False),
            ('{"secret": "s", "cert": "s", "aud": "x"}', False),
            ('{"cert": "s", "aud": "x"}', False),
            ('{"aud": "x"}', False),
        ):
            policies = compiled(Folder(self, a=policy(constraints)))
            decision = policies.evaluate("a", given)
            self.assertEqual((constraints, decision.allow), (constraints, allowed))

    test_public_key_signs_nothing.skip = test_constraints.skip = SKIP  # type: ignore[attr-defined]

    def test_not_kept(self) -> None:
        """A decision on a token is made anew each time: the token expires."""
        self.assertTrue(scan(Source("a.rego", policy('{"secret": "s"}'))).changing)
        self.assertFalse(scan(Source("a.rego", "package a\nallow if input.headers.a")).changing)
