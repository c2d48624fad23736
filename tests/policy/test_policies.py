"""The policies in use: deciding, keeping decisions, loading anew."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PolicyInvalid
from exposr_tx.interfaces import Decision, IPolicy
from exposr_tx.policy import trial as trials
from exposr_tx.policy.inline import Inline
from exposr_tx.policy.policies import LOOK, Policies
from exposr_tx.policy.trial import trial
from exposr_tx.policy.verdict import LATE
from tests.policy.folder import SKIP, Folder, compiled, question
from tests.policy.test_process import FATAL

SERVER = 'package auth.server\nallow if input.path == "/a b"\n'
CLIENT = "package auth.client\nallow := 1\n"


class Asked(Inline):
    """Counts what it is asked; while ``late`` is set, that is the answer; while ``held`` is,
    there is none yet.

    :ivar runs: of all of them.
    """

    runs = 0
    late: Decision | None = None
    held: list[Callable[[Decision], object]] | None = None
    closed = False

    def ask(
        self, package: str, document: Mapping[str, Any], told: Callable[[Decision], object]
    ) -> None:
        Asked.runs += 1
        if Asked.held is not None:
            Asked.held.append(told)
        elif Asked.late:
            told(Asked.late)
        else:
            super().ask(package, document, told)

    def close(self) -> None:
        self.closed = True


class PoliciesTests(SynchronousTestCase):
    """With the real engine."""

    skip = SKIP

    def setUp(self) -> None:
        self.clock = Clock()
        self.loaded: list[Asked] = []
        self.patch(Asked, "runs", 0)
        self.patch(Asked, "late", None)
        self.patch(Asked, "held", None)

    def load(self, paths: Sequence[str]) -> Deferred[Asked]:
        def begin() -> Asked:
            self.loaded.append(Asked(paths))
            return self.loaded[-1]

        return maybeDeferred(begin)

    def policies(self, **files: str) -> Policies:
        self.folder = Folder(self, **files)
        made = Policies([self.folder.path], self.load, self.clock, self.clock.seconds)
        self.successResultOf(Deferred.fromCoroutine(made.start()))
        self.addCleanup(made.stop)
        return made

    def decide(self, policies: Policies, package: str = "auth.server", **changed: Any) -> Decision:
        decision = policies.decide(package, question(**changed))
        if isinstance(decision, Decision):
            return decision
        return self.successResultOf(decision)

    def outcome(self, policies: Policies, package: str = "auth.server", **changed: Any) -> str:
        return self.decide(policies, package, **changed).outcome

    def test_table(self) -> None:
        """Allowed, denied, undefined and failing, as in section 6; each is counted."""
        policies = self.policies(
            server=SERVER,
            client=CLIENT,
            clash="package clash\nallow := 1 if input.method\nallow := 2 if input.method",
            none="package none\nother := true",
            function="package function\nallow(x) := true",
        )
        self.assertTrue(IPolicy.providedBy(policies))
        for package, outcome in {
            "auth.server": "allowed",
            "auth.client": "error",
            "clash": "error",
            "none": "denied",
            "function": "denied",
            "nowhere": "undefined",
            "auth": "undefined",
        }.items():
            self.assertEqual(self.outcome(policies, package), outcome, package)
        self.assertEqual(self.outcome(policies, target=b"/b"), "denied")
        self.assertEqual(
            policies.counts.by_outcome,
            {"allowed": 1, "denied": 3, "undefined": 2, "error": 2, "timeout": 0},
        )
        self.flushWarnings()

    def test_other_rules_are_not_read(self) -> None:
        """A rule that fails does not matter where allow does not need it."""
        policies = self.policies(
            server="package auth.server\nallow := true\nx := 1 if true\nx := 2 if true"
        )
        self.assertEqual(self.outcome(policies), "allowed")

    def test_kept(self) -> None:
        """The same input is not evaluated twice, unless the answer could be another one."""
        policies = self.policies(server=SERVER)
        for _ in range(3):
            self.assertEqual(self.outcome(policies), "allowed")
        self.assertEqual(self.outcome(policies, fields=[], remote_port=1), "allowed")
        self.assertEqual(Asked.runs, 1)
        policies = self.policies(server="package auth.server\nallow if time.now_ns() != 1")
        Asked.runs = 0
        self.outcome(policies)
        self.outcome(policies)
        self.assertEqual(Asked.runs, 2)

    def test_kept_for_a_connection(self) -> None:
        """Where the port is read, each connection has its own decision, and keeps it."""
        for field in ("input.remote", "input.remote_port"):
            policies = self.policies(server=f"package auth.server\nallow if {field} != 1")
            Asked.runs = 0
            for port in (1, 2, 1, 2):
                self.outcome(policies, remote_port=port)
            self.assertEqual(Asked.runs, 2, field)
            self.outcome(policies, remote_port=2, remote_ip="198.51.100.8")
            self.assertEqual(Asked.runs, 2 + (field == "input.remote"), field)

    def test_time(self) -> None:
        """Where the time is read, a decision holds for the same millisecond, and no longer."""
        text = f"package auth.server\nallow if input.time < {2 * 10**9}"
        policies = self.policies(server=text)
        self.clock.advance(1.9985 - self.clock.seconds())
        Asked.runs = 0
        self.assertEqual([self.outcome(policies) for _ in range(2)], ["allowed"] * 2)
        self.assertEqual(Asked.runs, 1)
        self.clock.advance(0.001)
        self.assertEqual(self.outcome(policies), "allowed")
        self.assertEqual(Asked.runs, 2)
        self.clock.advance(0.001)
        self.assertEqual([self.outcome(policies) for _ in range(2)], ["denied"] * 2)
        self.assertEqual(Asked.runs, 3)

    def test_shared(self) -> None:
        """The same input is evaluated once for all who ask until it is decided; where the time is
        read, for those of the same millisecond."""
        for read, found in (
            ("input.path", [400, 400, 401, 400]),
            ("input.time", [400, 400, 400, 401]),
            ("time.now_ns()", [400, 401, 402, 403]),
        ):
            policies = self.policies(server=f"package auth.server\nallow if {read} != 1")
            held = Asked.held = []
            asked: list[Any] = []
            for target in (b"/", b"/", b"/b", b"/"):
                self.clock.advance(0.001 * (len(asked) == 3))
                asked.append(policies.decide("auth.server", question(target=target)))
            for number, told in enumerate(held):
                told(Decision("denied", 400 + number))
            self.assertEqual([self.successResultOf(one).status for one in asked], found, read)
            self.assertEqual(policies.counts.by_outcome["denied"], 4)

    def test_shared_failure(self) -> None:
        """Who waits for an evaluation that fails is told so; the next one is evaluated anew."""
        policies = self.policies(server=SERVER)
        held = Asked.held = []
        asked: list[Any] = [policies.decide("auth.server", question()) for _ in range(2)]
        held[0](LATE)
        self.assertEqual([self.successResultOf(one) for one in asked], [LATE, LATE])
        Asked.held = None
        self.assertEqual(self.outcome(policies), "allowed")

    def test_too_slow(self) -> None:
        """What is late denies, and is asked anew the next time."""
        policies = self.policies(server=SERVER)
        Asked.late = LATE
        self.assertEqual(self.outcome(policies), "timeout")
        self.assertEqual(policies.counts.by_outcome["timeout"], 1)
        Asked.late = None
        self.assertEqual(self.outcome(policies), "allowed")

    def test_not_loaded(self) -> None:
        """Before policies are loaded, everything is denied."""
        policies = Policies(["/no/such"], self.load, self.clock, lambda: 0.0)
        self.assertEqual(self.outcome(policies), "error")
        starting = Deferred.fromCoroutine(policies.start())
        self.failureResultOf(starting, PolicyInvalid)
        self.assertEqual(self.outcome(policies), "error")

    def test_left(self) -> None:
        """A visitor who leaves before there is a decision harms nobody."""
        policies = self.policies(server=SERVER)
        held = Asked.held = []
        left, stays = (policies.decide("auth.server", question()) for _ in range(2))
        assert isinstance(left, Deferred)
        assert isinstance(stays, Deferred)
        left.cancel()
        self.failureResultOf(left, CancelledError)
        for told in held:
            told(Decision("allowed"))
        self.assertEqual(self.successResultOf(stays).outcome, "allowed")
        self.assertEqual(policies.counts.by_outcome["allowed"], 2)

    def test_asked_while_loading(self) -> None:
        """Who comes while the server starts is judged by the policies, a little later."""
        folder = Folder(self, server=SERVER)
        loading: Deferred[Asked] = Deferred()
        policies = Policies([folder.path], lambda _: loading, self.clock, lambda: 0.0)
        starting = Deferred.fromCoroutine(policies.start())
        allowed = policies.decide("auth.server", question())
        denied = policies.decide("auth.server", question(target=b"/b"))
        left = policies.decide("auth.server", question())
        assert isinstance(allowed, Deferred)
        assert isinstance(denied, Deferred)
        assert isinstance(left, Deferred)
        left.cancel()
        self.failureResultOf(left, CancelledError)
        self.assertNoResult(allowed)
        loading.callback(Asked([folder.path]))
        self.successResultOf(starting)
        self.addCleanup(policies.stop)
        self.assertEqual(self.successResultOf(allowed).outcome, "allowed")
        self.assertEqual(self.successResultOf(denied).outcome, "denied")
        self.assertEqual(policies.counts.by_outcome["error"], 0)

    def test_asked_while_loading_fails(self) -> None:
        """Who comes while policies are loaded that do not compile is denied."""
        loading: Deferred[Asked] = Deferred()
        policies = Policies(["/no/such"], lambda _: loading, self.clock, lambda: 0.0)
        starting = Deferred.fromCoroutine(policies.start())
        waiting = policies.decide("auth.server", question())
        assert isinstance(waiting, Deferred)
        loading.errback(PolicyInvalid("does not compile"))
        self.failureResultOf(starting, PolicyInvalid)
        self.assertEqual(self.successResultOf(waiting).outcome, "error")

    def test_stopped_while_loading(self) -> None:
        """A server that is told to stop does not wait for what is being loaded, first or anew."""
        loading: list[Deferred[Asked]] = []

        def load(paths: Sequence[str]) -> Deferred[Asked]:
            loading.append(Deferred())
            return loading[-1]

        folder = Folder(self, server=SERVER)
        first = Policies([folder.path], load, self.clock, self.clock.seconds)
        starting = Deferred.fromCoroutine(first.start())
        first.stop()
        self.failureResultOf(starting, CancelledError)
        again = Policies([folder.path], load, self.clock, self.clock.seconds)
        starting = Deferred.fromCoroutine(again.start())
        loading[-1].callback(Asked([folder.path]))
        self.successResultOf(starting)
        reloading = again.reload()
        self.assertNoResult(reloading)
        self.successResultOf(again.reload())  # would be begun when the other one is over
        again.stop()
        self.assertFalse(self.successResultOf(reloading))
        self.assertEqual(len(loading), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reload(self) -> None:
        """A changed file counts from the next look on; what was kept is forgotten."""
        policies = self.policies(server=SERVER)
        self.assertEqual(self.outcome(policies), "allowed")
        self.folder.write("server", "package auth.server\nallow := false")
        self.clock.advance(LOOK)
        self.assertEqual(self.outcome(policies), "denied")
        self.clock.advance(LOOK)
        self.assertEqual([used.closed for used in self.loaded], [True, False])
        self.successResultOf(policies.reload())
        policies.stop()
        self.assertEqual([used.closed for used in self.loaded], [True, True, True])

    def test_all_or_nothing(self) -> None:
        """What does not load leaves the set that is in use; mended, it counts."""
        policies = self.policies(server=SERVER)
        for broken in ("package auth.server\nallow if {", "package x\nallow if not f(1)"):
            self.folder.write("other", broken)
            self.assertFalse(self.successResultOf(policies.reload()))
            self.assertEqual(self.outcome(policies), "allowed")
            self.assertEqual(policies.packages, {"auth.server"})
        self.folder.write("other", "package other\nallow := true")
        self.assertTrue(self.successResultOf(policies.reload()))
        self.assertEqual(self.outcome(policies, "other"), "allowed")

    def test_does_not_compile(self) -> None:
        """What the engine does not take is refused, and so is Rego before v1."""
        for text, line in (
            ("package p\nx := 1\nallow if {", 3),
            ("package p\n\nallow {\n  input.path\n}", 3),
        ):
            folder = Folder(self, p=text)
            problem = self.assertRaises(PolicyInvalid, compiled, folder)
            self.assertRegex(str(problem), rf"^{folder.path}/p\.rego:{line}: \w")

    def test_unknown_field(self) -> None:
        """A field that the input never has is told of."""
        policies = compiled(Folder(self, p="package p\nallow if not input.headrs.x"))
        self.assertIn("'headrs'", policies.warnings[0])

    def test_field_of_proxies(self) -> None:
        """A policy that looks for what proxies say among the header fields is told where it is."""
        text = 'package p\nallow if not input.header["X-Forwarded-For"]\nx if input.headers.cookie'
        (warning,) = compiled(Folder(self, p=text)).warnings
        self.assertIn("'X-Forwarded-For'", warning)
        self.assertIn("remote_ip", warning)

    def test_spelling_of_names(self) -> None:
        """A header field that is looked up by a name that the input never has is told of: a
        negation of it would always hold."""
        text = 'package p\nallow if not input.header["x-block"]\nx if input.headers["X-Block"]'
        first, second = compiled(Folder(self, p=text)).warnings
        self.assertIn("header has never a field 'x-block': write 'X-Block'", first)
        self.assertIn("headers has never a field 'X-Block': write 'x-block'", second)
        text = 'package p\nallow if not input.header["X-Block"]\nx if input.headers["x-block"]'
        self.assertEqual(compiled(Folder(self, p=text)).warnings, [])

    def test_print_is_dropped(self) -> None:
        """print is allowed, and shows nothing."""
        policies = self.policies(server="package auth.server\nallow if {\n  print(input.path)\n}")
        self.assertEqual(self.outcome(policies), "allowed")

    def test_odd_values(self) -> None:
        """Text of any kind goes through the engine as it is."""
        for text in ('"', "\\", "{", "é", "`x`", "\\u0061", "x\ty", "\x7f", "😀", "a/b", '\\"'):
            literal = json.dumps(text)  # with as many escapes as there can be
            policies = self.policies(
                server=f"package auth.server\nallow := input.headers.a == [{literal}]"
            )
            self.assertEqual(self.outcome(policies, fields=[(b"A", text.encode())]), "allowed")
            for other in (literal.encode(), b"x", b"\xff", text.encode() + b'"'):
                if other != text.encode():
                    self.assertEqual(self.outcome(policies, fields=[(b"A", other)]), "denied")


class CidrTests(SynchronousTestCase):
    """net.cidr_contains, which the prelude provides."""

    skip = SKIP

    def test_cases(self) -> None:
        """Addresses of both kinds, with and without port, in networks of any length."""
        text = (
            "package p\nallow := net.cidr_contains(input.headers.network[0], input.headers.ip[0])\n"
        )
        policies = compiled(Folder(self, p=text))
        for network, ip, outcome in (
            ("192.0.2.0/24", "192.0.2.255", "allowed"),
            ("192.0.2.0/24", "192.0.3.0", "denied"),
            ("192.0.2.0/24", "192.0.2.1:80", "allowed"),
            ("192.0.2.128/25", "192.0.2.127", "denied"),
            ("192.0.2.128/25", "192.0.2.129", "allowed"),
            ("192.0.2.4/30", "192.0.2.7", "allowed"),
            ("192.0.2.4/30", "192.0.2.8", "denied"),
            ("192.0.2.5/32", "192.0.2.5", "allowed"),
            ("192.0.2.5", "192.0.2.5", "allowed"),
            ("192.0.2.5", "192.0.2.6", "denied"),
            ("0.0.0.0/0", "203.0.113.9", "allowed"),
            ("0.0.0.0/0", "2001:db8::1", "denied"),
            ("10.0.0.0/7", "11.255.0.1", "allowed"),
            ("::/0", "2001:db8::1", "allowed"),
            ("2001:db8::/33", "2001:db8:7fff::1", "allowed"),
            ("2001:db8::/33", "2001:db8:8000::1", "denied"),
            ("2001:DB8::/32", "[2001:db8::1]:443", "allowed"),
            ("2001:db8::/32", "[2001:db8::1%eth0]:443", "allowed"),
            ("::1/128", "0:0:0:0:0:0:0:1", "allowed"),
            ("192.0.2.0/24", "::ffff:192.0.2.9", "allowed"),
            ("192.0.2.0/33", "192.0.2.1", "denied"),
            ("192.0.2.0/x", "192.0.2.1", "denied"),
            ("192.0.2/24", "192.0.2.1", "denied"),
            ("192.0.2.0/24", "192.0.2.256", "denied"),
            ("192.0.2.0/24", "", "denied"),
            ("192.0.2.0/24", "unix", "denied"),
            ("2001:db8::/32", "2001:db8:::1", "denied"),
            ("2001:db8::/32", "2001:db8:1", "denied"),
            ("10.0.0.0/8", "10.1.0.0/16", "allowed"),
            ("10.0.0.0/8", "10.0.0.0/8", "allowed"),
            ("10.1.0.0/16", "10.0.0.0/8", "denied"),
            ("10.0.0.0/8", "11.0.0.0/16", "denied"),
            ("10.0.0.0/8", "10.1.0.0/x", "denied"),
            ("10.0.0.0/8", "10.1.0.0/+9", "denied"),
            ("10.0.0.0/8", "10.1.0.0/0x9", "denied"),
            ("10.0.0.0/8", "10.1.0.0/9.5", "denied"),
            ("10.0.0.0/8", "10.1.0.0/", "denied"),
            ("10.0.0.0/ 8", "10.1.0.0", "denied"),
            ("10.0.0.0/8", "010.1.0.0", "denied"),
            ("::/0", "10.0.0.0/8", "denied"),
            ("2001:db8::/32", "2001:db8:1::/48", "allowed"),
        ):
            given = {"headers": {"network": [network], "ip": [ip]}}
            self.assertEqual(policies.evaluate("p", given).outcome, outcome, (network, ip))

    def test_of_the_visitor(self) -> None:
        """A network that is written down has the visitor or not; his port is no matter."""
        for network, outcomes in {
            "198.51.100.0/25": ("allowed", "denied", "denied"),
            "0.0.0.0/0": ("allowed", "allowed", "denied"),
            "2001:db8::/32": ("denied", "denied", "allowed"),
        }.items():
            text = f'package p\nallow if net.cidr_contains("{network}", input.remote)'
            policies = compiled(Folder(self, p=text))
            keys = {policies.reading.key("p", question(remote_port=port)) for port in (1, 2)}
            self.assertEqual(len(keys), 1)
            for ip, outcome in zip(
                ("198.51.100.7", "198.51.100.200", "2001:db8::1"), outcomes, strict=True
            ):
                given = policies.reading.of(question(remote_ip=ip), 0)
                self.assertEqual(policies.evaluate("p", given).outcome, outcome)


class TrialTests(SynchronousTestCase):
    """exposr policy test"""

    skip = SKIP

    def run_trial(self, text: str, given: Any, explain: bool = False) -> tuple[int, str, str]:
        folder = Folder(self, p=text)
        path = Path(folder.path, "input.json")
        path.write_text(given if isinstance(given, str) else json.dumps(given))
        out, err = io.StringIO(), io.StringIO()
        status = trial(folder.path, str(path), "auth.server", explain, out, err)
        return status, out.getvalue(), err.getvalue()

    def test_statuses(self) -> None:
        """0 is allowed, 1 denied, 2 unusable; the decision is a line of JSON."""
        status, out, _ = self.run_trial(SERVER, {"path": "/a b"})
        self.assertEqual((status, json.loads(out)["allow"]), (0, True))
        status, out, _ = self.run_trial(SERVER, {"path": "/b"})
        self.assertEqual((status, json.loads(out)["outcome"]), (1, "denied"))
        for text, given in (
            *((SERVER, given) for given in ("[]", "{", '{"path": "\\ud800"}', "[" * 9999)),
            ("package p\nallow if f(1)", "{}"),
        ):
            status, out, err = self.run_trial(text, given)
            self.assertEqual((status, out, err[:8]), (2, "", "exposr: "))

    def test_explain(self) -> None:
        """--explain tells what is read, what each rule gives, and why."""
        text = SERVER + "other := input.method\nthird if input.method\n"
        status, out, _ = self.run_trial(text, {"path": "/a b", "method": "GET", "x": 1}, True)
        self.assertEqual(status, 0)
        self.assertIn("reads method, path\n", out)
        self.assertIn('auth.server.other: "GET"\n', out)
        self.assertIn("auth.server.allow: true\n", out)
        self.assertIn("the rule allow holds", out)
        _, out, _ = self.run_trial(text, {}, True)
        self.assertIn("auth.server.third: undefined\n", out)

    def test_unlike(self) -> None:
        """--explain tells of what no server would give, and of nothing else."""
        for given, line in (
            ({"input": {"path": "/"}}, "no input has a field 'input'; it has account, "),
            ({"remote_port": "80"}, "the input's remote_port is always a whole number"),
            ({"header": {"content-type": "a"}}, "the input's header is always an object of str"),
            ({"header": {"Content-Type": 5}}, "the input's header is always an object of str"),
            ({"headers": {"Content-Type": ["a"]}}, "the input's headers is always an object of l"),
            ({"query": "a=b"}, "the input's query is always an object of lists"),
            ({"path": None}, "the input's path is always a string"),
        ):
            _, out, _ = self.run_trial(SERVER, given, True)
            self.assertIn(f"warning: {line}", out)
        usual = {"path": "/", "time": 1, "headers": {"x-a": ["b"]}, "query": {"A": ["b", ""]}}
        self.assertNotIn("warning", self.run_trial(SERVER, usual, True)[1])

    def test_explain_how_long(self) -> None:
        """--explain tells how long a decision holds."""
        for read, how_long in (
            ("input.method", "kept for the same input\n"),
            ("input.time", "kept for the same millisecond\n"),
            ("time.now_ns()", "made anew for each request\n"),
        ):
            _, out, _ = self.run_trial(f"package auth.server\nallow if {read} != 1", {}, True)
            self.assertIn(how_long, out)

    def test_fatal(self) -> None:
        """A policy of which the engine dies is an error as any other, that says what to do."""
        status, out, err = self.run_trial(FATAL, {})
        self.assertEqual((status, out), (2, ""))
        self.assertIn("p.rego: the embedded engine dies (SIGABRT)", err)
        self.assertIn("--policy-url", err)

    def test_takes_long(self) -> None:
        """An evaluation without an end ends."""
        self.patch(trials, "PATIENCE", 0.05)
        endless = "regex.match(`^([a-z]|[a-z])*$`, input.path)"
        given = {"path": "a" * 50 + "!"}
        status, out, err = self.run_trial(f"package auth.server\nallow if {endless}\n", given)
        self.assertEqual((status, out), (2, ""))
        self.assertIn("takes too long when it evaluates auth.server", err)
