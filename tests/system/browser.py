"""A real Chromium, without a window, driven over the pipe of its DevTools protocol.

    browser = Browser(self)
    page = browser.open("http://127.0.0.1:4040/?token=…")
    page.wait_for("document.querySelectorAll('#list li').length == 1")
    page.click("#replay")

Source: chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.system.harness import PATIENCE, Scope, wait_until

#: The program; None where it is not installed.
CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=1280,800"),
]
#: Numbers of keys that a browser itself does something for.
CODES = {"Escape": 27}
#: Chromium reads commands from descriptor 3 and writes answers to 4.
LAUNCH = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Refused(Exception):
    """Chromium does not do a command, or what it runs has failed."""


class Browser:
    """A running Chromium with an empty profile."""

    def __init__(self, test: Scope) -> None:
        assert CHROMIUM is not None
        home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        test.addCleanup(home.cleanup)
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        launch = [sys.executable, "-c", LAUNCH, str(commands), str(answers)]
        self._process = subprocess.Popen(
            [*launch, CHROMIUM, *FLAGS, f"--user-data-dir={home.name}", "about:blank"],
            env={**os.environ, "HOME": home.name},
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        test.addCleanup(self.close)
        self._number = 0
        self._rest = b""

    def close(self) -> None:
        """End it, with all its processes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
            self._process.wait(PATIENCE)
            os.close(self._commands)
            os.close(self._answers)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command; its result. Raises Refused."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        command |= {"sessionId": session} if session else {}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise Refused(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = max(0.0, end - time.monotonic())
            ready = select.select([self._answers], [], [], left)[0]
            assert ready, f"Chromium has not answered within {PATIENCE} s"
            data = os.read(self._answers, 1 << 18)
            assert data, "Chromium has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def open(self, url: str) -> Page:
        """A new tab."""
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        page = Page(lambda method, **more: self.call(method, session, **more))
        page.go(url)
        return page


class Page:
    """A tab of a browser."""

    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self.call = call

    def go(self, url: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=url)

    def close(self) -> None:
        """Close the tab, with its connections."""
        self.call("Page.close")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page. Raises Refused where it throws."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise Refused(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The same, as soon as it is true; a page that is being loaded has not all yet."""

        def look() -> Any:
            try:
                return self.evaluate(expression)
            except Refused:
                return None

        try:
            return wait_until(look, expression)
        except AssertionError as problem:
            text = self.evaluate("document.body.innerText")
            raise AssertionError(f"{problem}; the page says: {text}") from None

    def text(self, selector: str) -> str:
        """What a reader sees of an element."""
        return str(self.wait_for(f"document.querySelector({selector!r})?.innerText"))

    def click(self, selector: str) -> None:
        """Press an element that is there."""
        self.wait_for(f"Boolean(document.querySelector({selector!r}))")
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def key(self, key: str) -> None:
        """Press a key; a letter is typed."""
        more = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": CODES.get(key, 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def hold(self, key: str, repeats: int) -> None:
        """Press a key, and hold it until it has been repeated so many times."""
        for number in range(repeats + 1):
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, autoRepeat=number > 0)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def scheme(self, name: str) -> None:
        """``"light"`` or ``"dark"``, as its user prefers."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """What it looks like, as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
