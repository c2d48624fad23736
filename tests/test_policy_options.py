"""What the command lines of both servers say of policies."""

from __future__ import annotations

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.options import ServeOptions
from exposr_tx.server_options import Options


class PolicyOptionsTests(SynchronousTestCase):
    """Options of ``twistd exposr`` and of ``backstream serve``."""

    def test_values(self) -> None:
        """Files add up; packages of an agent do, too; times are seconds."""
        words = ["--policy-url", "https://opa.test/v1/data", "--policy-package", "office,a.b"]
        for kind in (Options, ServeOptions):
            options = kind({})
            options.parseOptions([*words, "--policy-package", "c", "--policy-cache", "1.5"])
            self.assertEqual(options["policy-package"], ("office", "a.b", "c"))
            self.assertEqual((options["policy-cache"], options["policy-timeout"]), (1.5, 0.05))

    def test_wrong(self) -> None:
        """What does not go together, and values that are none, are named with a remedy."""
        for words, said in (
            (
                ["--policy=/tmp", "--policy-url=http://h/v1/data"],
                "--policy-url 'http://h/v1/data': does not",
            ),
            (["--policy="], "--policy '': must name files or folders"),
            (["--policy=a", "--policy", " "], "--policy 'a, ': must name files or folders"),
            (["--policy-cache=1"], "--policy-cache '1': needs --policy-url"),
            (["--policy-token-file=/t"], "--policy-token-file '/t': needs --policy-url"),
            (["--policy-token-file= "], "--policy-token-file ' ': must name a file"),
            (["--policy-package=office"], "--policy-package 'office': needs --policy-url"),
            (["--policy-url=http://u:p@h/"], "//[redacted]@h/': must have no user in it"),
            (["--policy-url=http://h/?a"], "--policy-url 'http://h/?a': must be a URL like"),
            (["--policy-url=opa.test"], "--policy-url 'opa.test': must be a URL like"),
            (["--policy-timeout=0"], "--policy-timeout '0': must be a number of seconds, more"),
            (["--policy-url=http://h/", "--policy-package=a-b"], "--policy-package 'a-b': must be"),
        ):
            for kind in (Options, ServeOptions):
                problem = self.assertRaises(UsageError, kind({}).parseOptions, words)
                self.assertIn(said, str(problem))

    def test_without_policies(self) -> None:
        """Who tells how to judge, and not by what, is warned that everybody comes in."""
        for kind in (Options, ServeOptions):
            options = kind({})
            options.parseOptions(["--policy-timeout=1", "--policy-raw-paths"])
            self.assertEqual(len(options.warnings), 2)
            self.assertIn("--policy-raw-paths has no effect: nobody is judged", options.warnings[0])
            options = kind({})
            options.parseOptions(["--policy-timeout=1", "--policy-url=http://opa.test/v1/data"])
            self.assertEqual(options.warnings, [])
