"""Who may import whom: the table of the architecture page, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).resolve().parents[1] / "exposr_tx"

#: Every room may import these and itself.
EVERYWHERE = {"errors", "interfaces"}
SERVER_EDGE = {"tap", "service", "draining", "server_options"}
SERVER = {
    *("accesslog", "accounts", "addresses", "admission", "api", "arrivals", "bodies", "deadlines"),
    *("direct", "ingress", "inmemory", "lead", "logs", "memory", "monotonic", "policy", "quiet"),
    *("rounds", "routing", "splice", "storage", "transport", "tunnels", "wire"),
}
OPTIONS = {"option_values", "options"}
#: Room to the rooms that it may import besides.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "interfaces": set(),
    "option_values": set(),
    "options": {"option_values"},
    "logs": set(),
    "accesslog": {"logs"},
    "wire": set(),
    "addresses": set(),
    "bodies": set(),
    "deadlines": set(),
    "arrivals": {"rounds"},
    "direct": {"rounds"},
    "inmemory": set(),
    "rounds": set(),
    "lead": {"rounds"},
    "memory": set(),
    "monotonic": set(),
    "splice": {"direct"},
    "accounts": set(),
    "tunnels": set(),
    "storage": set(),
    "policy": {"bodies", "direct", "rounds"},
    "routing": {"addresses", "tunnels"},
    "admission": {"policy", "routing", "tunnels"},
    "transport": {"addresses", "arrivals", "wire", "splice", "direct", "rounds"},
    "ingress": {"addresses", "arrivals", "wire", "splice", "deadlines", "direct", "rounds"},
    "quiet": set(),
    "api": {"accounts", "addresses", "tunnels", "routing", "inmemory", "quiet"},
    "inspection": {"wire"},
    "inspector": {"inspection", "wire", "quiet"},
    "client": {
        *("addresses", "wire", "splice", "transport", "inspection", "inspector"),
        *("option_values", "options", "bodies", "inmemory", "lead", "memory", "monotonic"),
    },
    "policy_options": OPTIONS,
    "server_options": OPTIONS | {"policy_options"},
    "draining": set(),
    "service": {"addresses", "arrivals", "draining", "lead", "logs"},
    "tap": SERVER | SERVER_EDGE,
    "backstream": SERVER
    | SERVER_EDGE - {"tap"}
    | OPTIONS
    | {"client", "inspection", "inspector", "policy_options"},
    "lean": set(),
    "command_line": SERVER | {"client", "inspection", "inspector", "options"},
    "scripts": {"backstream", "command_line", "lean"},
    "testing": SERVER | SERVER_EDGE | {"client", "inspection", "inspector", "options"},
}
#: What only some rooms may import from outside.
OUTSIDE = {
    "klein": {"api", "inspector"},
    "werkzeug": {"api", "inspector"},
    "autobahn": {"transport"},
    "txredisapi": {"storage"},
    "prometheus_client": {"metrics"},
    "regopy": {"policy"},
}
#: The package itself: its version.
ITSELF = "exposr_tx"


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the table"
            assert node.module is not None
            if node.module == ITSELF:
                yield from (f"{ITSELF}.{alias.name}" for alias in node.names)
            elif node.module == "twisted.internet":
                yield from (f"twisted.internet.{alias.name}" for alias in node.names)
            else:
                yield node.module


class ImportTests(SynchronousTestCase):
    """The directions of import."""

    def test_rooms(self) -> None:
        """No room imports one that the table does not give it."""
        wrong = [
            f"{path.relative_to(PACKAGE)} imports {name}"
            for room, path, tree in modules()
            for name in imported(tree)
            if name.startswith(f"{ITSELF}.")
            and (other := name.split(".")[1]) not in {room, "__version__"} | EVERYWHERE
            and other not in ALLOWED.get(room, set())
        ]
        self.assertEqual(wrong, [])

    def test_every_room_is_in_the_table(self) -> None:
        """A new room is entered into the table before it is used."""
        self.assertEqual({room for room, _, _ in modules()} - set(ALLOWED), set())

    def test_wire_has_no_reactor(self) -> None:
        """Wire code knows neither Twisted nor any other room's library."""
        for room, path, tree in modules():
            if room == "wire":
                outside = {name.split(".")[0] for name in imported(tree)}
                self.assertEqual(outside & {"twisted", "zope", "autobahn", "klein"}, set(), path)

    def test_splice_and_deadlines(self) -> None:
        """What moves bytes for every room knows no room, no error and no interface of ours."""
        for room, path, tree in modules():
            if room in ("splice", "deadlines", "arrivals", "direct", "rounds"):
                ours = {name for name in imported(tree) if name.startswith(ITSELF)}
                each_other = {f"{ITSELF}.{name}" for name in ("arrivals", "direct", "rounds")}
                self.assertEqual(ours - each_other, set(), path)

    def test_libraries(self) -> None:
        """Klein stays in the API and the inspector, autobahn in the websocket transport."""
        for room, path, tree in modules():
            for name in imported(tree):
                rooms = OUTSIDE.get(name.split(".")[0])
                self.assertTrue(rooms is None or room in rooms, f"{path} imports {name}")
                if name.split(".")[0] == "autobahn":
                    self.assertEqual(path.parent.name, "websocket")

    def test_no_reactor_at_module_level(self) -> None:
        """The reactor is imported where a program begins, inside a function."""
        for _, path, tree in modules():
            top = ast.Module(
                [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))], []
            )
            self.assertNotIn("twisted.internet.reactor", set(imported(top)), path)

    def test_plugin_is_cheap(self) -> None:
        """Programs that are not ours read the plugin: it imports what they have loaded anyway."""
        plugin = PACKAGE.parent / "twisted" / "plugins" / "exposr_plugin.py"
        self.assertEqual(
            set(imported(ast.parse(plugin.read_text()))),
            {
                "twisted.application.service",
                "twisted.internet.interfaces",
                "twisted.plugin",
                "twisted.python.reflect",
                "typing",
                "zope.interface",
            },
        )
        self.assertFalse((plugin.parent / "__init__.py").exists())
