"""Programs that are not ours, published by ``exposr:`` endpoint strings: no port of their own."""

from __future__ import annotations

import json
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.system.harness import (
    ROOT,
    Process,
    Server,
    Visitor,
    environ,
    temporary_folder,
    twistd,
    wait_until,
)
from tests.system.websockets import frame, open_websocket

ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"][::-1]})
        return
    host = dict(scope["headers"])[b"host"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi for " + host})
"""


def needs(module: str) -> None:
    """Skip a test of a program that is not installed."""
    if find_spec(module) is None:
        raise SkipTest(f"{module} is not installed; pip install 'exposr_tx[test]'")


def published(server: Server, name: str, kind: str = "") -> str:
    """The endpoint string for a name on a server."""
    return f"exposr:{name}:server=http\\://localhost\\:{server.port}{kind}"


def text_message(websocket: Visitor) -> bytes:
    """The next text message of a server, which is short and in one frame."""
    kind, size = websocket.read(2)
    assert kind == 0x81, kind
    assert size <= 126, size
    return websocket.read(int.from_bytes(websocket.read(2), "big") if size == 126 else size)


class ProgramTests(SynchronousTestCase):
    """Each publishes through a real server, serves a visitor, and ends by SIGTERM."""

    def setUp(self) -> None:
        folder = temporary_folder(self)
        self.folder = Path(folder)
        self.home = {"HOME": folder, "XDG_CONFIG_HOME": folder}
        self.server = Server(
            self,
            *("--allow-registration", "--ingress", "http,tcp"),
            *("--ingress-tcp-ports", "20000-29999"),
        )

    def run_program(self, *command: str, **variables: str) -> Process:
        return Process(self, command, {**self.home, **variables}, cwd=str(self.folder))

    def wait_public(self, name: str) -> None:
        """Until visitors reach the tunnel."""

        def there() -> bool:
            with self.server.visit(name) as visitor:
                return visitor.get(b"/").status not in (404, 502, 503)

        wait_until(there, f"{name} is public")

    def wait_gone(self, name: str) -> None:
        """Until the tunnel is deleted."""

        def gone() -> bool:
            with self.server.visit(name) as visitor:
                return visitor.get(b"/").status == 404

        wait_until(gone, f"{name} is deleted")

    def end(self, process: Process, name: str) -> None:
        """SIGTERM ends the program, without a complaint, and takes the tunnel away."""
        status = process.stop(signal.SIGTERM)
        self.assertIn(status, (0, -signal.SIGTERM), process.report())
        self.assertNotRegex(process.report(), "Traceback|Unhandled")
        self.wait_gone(name)

    def test_twistd_web(self) -> None:
        """``twistd web`` shares a folder, and says where."""
        (self.folder / "hello.txt").write_text("hello from a folder")
        (self.folder / "below").mkdir()
        process = self.run_program(
            *twistd("-n", "--pidfile=", "web", "--path", str(self.folder)),
            *("--listen", published(self.server, "folder")),
        )
        said = process.wait_for_line(r"tunnel folder is public at (\S+)")
        self.assertEqual(said[1], f"http://folder.localhost:{self.server.port}/")
        visitor = self.server.visit("folder")
        self.assertEqual(visitor.get(b"/hello.txt").body, b"hello from a folder")
        redirect = visitor.get(b"/below")
        self.assertEqual(redirect.fields[b"location"], b"/below/")
        visitor.close()
        self.assertNotRegex("\n".join([*process.out, *process.err]), "[A-Z0-9]{4}(-[A-Z0-9]{4}){3}")
        self.end(process, "folder")

    def test_daphne(self) -> None:
        """daphne serves an ASGI application: a page, and a websocket open to the end."""
        needs("daphne")
        (self.folder / "program.py").write_text(ASGI)
        process = self.run_program(
            *(sys.executable, "-m", "daphne", "-e", published(self.server, "asgi-app")),
            "program:app",
            PYTHONPATH=f"{environ()['PYTHONPATH']}:{self.folder}",
        )
        self.wait_public("asgi-app")
        visitor = self.server.visit("asgi-app")
        self.assertEqual(visitor.get(b"/").body, b"asgi for " + visitor.host)
        visitor.close()
        websocket = self.server.visit("asgi-app")
        self.addCleanup(websocket.close)
        open_websocket(websocket, b"/")
        websocket.send(b"\x81" + frame(b"abc")[1:])
        self.assertEqual(text_message(websocket), b"cba")
        process.wait_for_line(r"Listening on TCP address asgi-app\.localhost")
        self.end(process, "asgi-app")

    def test_wormhole_mailbox(self) -> None:
        """A magic-wormhole mailbox server gets a public port, and clients' websockets by it."""
        needs("wormhole_mailbox_server")
        process = self.run_program(
            *(sys.executable, "-m", "twisted", "--log-format=text", "wormhole-mailbox"),
            *("--port", published(self.server, "mailbox", ":kind=tcp")),
            *("--channel-db", ":memory:"),
        )
        found = process.wait_for_line(r"tunnel mailbox is public at tcp://localhost:(\d+)")
        with Visitor(int(found[1])) as websocket:
            open_websocket(websocket, b"/v1")
            self.assertEqual(json.loads(text_message(websocket))["type"], "welcome")
        self.end(process, "mailbox")

    def test_refused_at_once(self) -> None:
        """A string that cannot work ends the program when it starts, with the remedy."""
        process = self.run_program(
            *twistd("-n", "--pidfile=", "web", "--path", str(self.folder)),
            *("--listen", f"exposr:folder:server=http://localhost:{self.server.port}"),
        )
        self.assertNotEqual(process.wait(), 0)
        self.assertRegex(
            process.report(),
            re.escape(f"exposr:folder:server=http\\://localhost\\:{self.server.port}"),
        )


class LibraryTests(SynchronousTestCase):
    """The documentation's programs run as they stand there."""

    def test_asyncio(self) -> None:
        """A program that is asyncio's listens in public, and SIGTERM takes its tunnel away."""
        page = (ROOT / "docs" / "howto" / "library.md").read_text()
        blocks: list[str] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        (source,) = [block for block in blocks if "asyncioreactor" in block]
        server = Server(self, "--allow-registration")
        folder = temporary_folder(self)
        home = {"HOME": folder, "XDG_CONFIG_HOME": folder}
        url = f"http://localhost:{server.port}"
        process = Process(self, [sys.executable, "-c", source], {**home, "EXPOSR_SERVER": url})
        process.wait_for_line("public at http://from-asyncio.localhost")
        with server.visit("from-asyncio") as visitor:
            self.assertEqual(visitor.get(b"/").body, b"hello from asyncio")
        self.assertIn(process.stop(signal.SIGTERM), (0, -signal.SIGTERM), process.report())
        self.assertNotRegex(process.report(), "Traceback|Unhandled")
        with server.visit("from-asyncio") as visitor:
            self.assertEqual(visitor.get(b"/").status, 404)
