"""The reference pages tell what the programs take, and all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.options import ClientOptions, ServeOptions
from exposr_tx.client.options import ExposrOptions
from exposr_tx.client.settings import SETTINGS
from exposr_tx.server_options import Options

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
# Told in the text, as every program has them.
EVERYWHERE = {"help", "version"}
ROW = re.compile(r"^\| `--([a-z-]+)`(?:, `-(\w)`)? \| (.*?) \| ", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def documented(page: str) -> dict[str, tuple[str, str]]:
    """Options in the tables of a page: name to short form and default."""
    rows = ROW.findall((REFERENCE / page).read_text())
    return {name: (short, default.strip("`")) for name, short, default in rows}


def taken(options: type[usage.Options]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Options of a class and of its sub-commands, in the same form."""
    for flag in getattr(options, "optFlags", ()):
        yield flag[0], (flag[1] or "", "off")
    for parameter in getattr(options, "optParameters", ()):
        yield parameter[0], (parameter[1] or "", default(parameter[2]))
    for _name, _short, command, _doc in getattr(options, "subCommands", ()):
        yield from taken(command)


def default(value: Any) -> str:
    """A default as the pages write it."""
    if value is None or value in ((), ""):
        return "–"
    if value is True:
        return "true"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


class ReferenceTests(SynchronousTestCase):
    """Options on the pages are those of the programs, with short forms and defaults."""

    maxDiff = None

    def test_server(self) -> None:
        """Every option of the server is on its page, and no other one."""
        self.assertEqual(documented("server.md"), dict(taken(Options)))

    def test_client(self) -> None:
        """Every option of the client's commands is on its page, and no other one."""
        self.assertEqual(
            documented("client.md"), {**dict(taken(ExposrOptions)), "header": ("H", "–")}
        )

    def test_backstream(self) -> None:
        """Every flag of backstream's commands is on its page, and no other one."""
        flags = {**dict(taken(ClientOptions)), **dict(taken(ServeOptions))}
        self.assertEqual(documented("backstream.md"), {**flags, "header": ("H", "–")})

    def test_settings(self) -> None:
        """Every key of tunnel configure is on the client's page."""
        text = (REFERENCE / "client.md").read_text()
        keys = {key for key in re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)}
        self.assertEqual(set(SETTINGS) - keys, set())

    def test_commands(self) -> None:
        """Every command of the client has its heading."""
        text = (REFERENCE / "client.md").read_text()
        headings = " ".join(re.findall(r"^## (.*)$", text, re.MULTILINE))
        for words in commands(ExposrOptions, ""):
            self.assertIn(words.strip(), headings)


def commands(options: type[usage.Options], words: str) -> Iterator[str]:
    """The words of every command."""
    below = list(getattr(options, "subCommands", ()))
    if not below:
        yield words
    for name, _short, command, _doc in below:
        yield from commands(command, f"{words} {name}")


class LinkTests(SynchronousTestCase):
    """Links between pages lead somewhere."""

    def test_links(self) -> None:
        """Every relative link of a page names a file that is there."""
        pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
        for page in pages:
            for link in LINK.findall(page.read_text()):
                self.assertTrue((page.parent / link).exists(), f"{page.name}: {link}")

    def test_pages_are_listed(self) -> None:
        """Every page of the documentation is reached from its index."""
        index = (DOCS / "index.md").read_text()
        for page in DOCS.rglob("*.md"):
            if page.name != "index.md":
                self.assertIn(f"]({page.relative_to(DOCS)})", index)
