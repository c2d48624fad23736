"""Folders for HAR files, as command lines ask for them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.options import ClientOptions
from exposr_tx.client.options import Connect
from exposr_tx.client.recording import har_folder


class FolderTests(SynchronousTestCase):
    """What is told where a line records nothing."""

    def said(self, *words: str, **environ: str) -> list[str]:
        options, said = Connect(environ), list[str]()
        options.parseOptions(words)
        self.assertIsNone(har_folder(options, "record", said.append))
        return said

    def test_nothing_asked(self) -> None:
        """Who asks for nothing is told nothing; bodies' most bytes are for the inspector too."""
        self.assertEqual(self.said("--record-max-body=1M", EXPOSR_RECORD=""), [])

    def test_empty(self) -> None:
        """A folder without a name, as of a variable that is not set, is told of."""
        (line,) = self.said("--record", "", "--record-redact", "pin")
        self.assertIn("--record '' names no folder", line)

    def test_without_folder(self) -> None:
        """Options that need a folder are named, with what they lack."""
        said = self.said("--record-redact", "pin", EXPOSR_RECORD_MAX_FILES="5")
        self.assertEqual(
            said,
            [
                "--record-redact has no effect without --record; add it",
                "EXPOSR_RECORD_MAX_FILES has no effect without --record; add it",
            ],
        )

    def test_backstream(self) -> None:
        """So it is with backstream's options."""
        options, said = ClientOptions({}), list[str]()
        options.parseOptions(["--src=http://a", "--dst=http://b", "--output-max-size=1M"])
        self.assertIsNone(har_folder(options, "output", said.append))
        self.assertEqual(said, ["--output-max-size has no effect without --output; add it"])
