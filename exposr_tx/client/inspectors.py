"""Running inspectors, found and asked: what ``exposr logs`` and ``exposr replay`` stand on.

They are on this machine and answer at once, so that they are asked by blocking calls, and no
reactor is started for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from exposr_tx.client.accounts_file import AccountsFile
from exposr_tx.errors import BadInput, ExposrError
from exposr_tx.inspector.address import Address

__all__ = ["Inspected", "InspectorRefusal", "NoInspector", "addresses_folder", "find"]

#: Seconds for an answer; a replay takes as long as its target.
TIMEOUT: Final = 10.0
REPLAY_TIMEOUT: Final = 330.0


class NoInspector(ExposrError):
    """No client with an inspector runs, or it does not answer."""


class InspectorRefusal(ExposrError):
    """The inspector does not do it; the message is its own.

    :ivar http_status: what it answers with.
    """

    def __init__(self, http_status: int, text: str) -> None:
        super().__init__(text)
        self.http_status = http_status


def addresses_folder(environ: Mapping[str, str]) -> Path:
    """Where a user's inspectors leave their addresses: gone after a restart of the machine where
    that is possible, else beside the accounts file."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base) and os.path.isdir(base):
        return Path(base) / "exposr"
    return AccountsFile.of_user(environ).path.parent / "run"


class Inspected:
    """A running inspector.

    :param url: ``http://127.0.0.1:PORT``.
    :param token: of its run.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80

    def __repr__(self) -> str:
        return f"<Inspected {self.url}>"

    def tunnels(self) -> list[str]:
        """Names of the tunnels that it shows. Raises NoInspector, InspectorRefusal."""
        try:
            return list(self.get("/api/about")["tunnels"])
        except (KeyError, TypeError):
            raise NoInspector(f"{self.url} is no inspector of exposr") from None

    def get(self, path: str) -> Any:
        """What is at a path, from JSON. Raises NoInspector, InspectorRefusal."""
        return self._read(self._asked("GET", path))

    def post(self, path: str, value: Any) -> Any:
        """Send JSON, and read what comes back. Raises NoInspector, InspectorRefusal."""
        body = json.dumps(value).encode()
        return self._read(self._asked("POST", path, body, REPLAY_TIMEOUT))

    def _read(self, answer: HTTPResponse) -> Any:
        try:
            return json.loads(answer.read())
        except (OSError, HTTPException) as error:
            raise NoInspector(f"the inspector {self.url} does not answer: {error}") from None
        except ValueError:
            raise NoInspector(f"{self.url} is no inspector of exposr") from None

    def events(self) -> Iterator[Any]:
        """The feed, until the inspector ends. Raises NoInspector, InspectorRefusal."""
        answer = self._asked("GET", "/api/events", timeout=None)
        try:
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        except (OSError, HTTPException):
            return

    def _asked(
        self, method: str, path: str, body: bytes | None = None, timeout: float | None = TIMEOUT
    ) -> HTTPResponse:
        connection = HTTPConnection(self._host, self._port, timeout=timeout)
        fields = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            if answer.status < 300:
                return answer
            text = json.loads(answer.read())["message"]
        except (OSError, HTTPException) as error:
            raise NoInspector(f"the inspector {self.url} does not answer: {error}") from None
        except (ValueError, KeyError, TypeError):
            raise NoInspector(f"{self.url} is no inspector of exposr") from None
        raise InspectorRefusal(answer.status, text)


def find(url: str | None, environ: Mapping[str, str]) -> Inspected:
    """The inspector with a URL, or the one that runs.

    :param url: with its token, or without one where the inspector is this user's; None for
        whichever runs.
    :raises NoInspector: none runs, or none at the URL.
    :raises InspectorRefusal: the token is not its own.
    :raises BadInput: several run, or the URL is nobody's.
    """
    known = list(Address.all(addresses_folder(environ)))
    if url is not None:
        return _named(url, known)
    running = []
    for address in known:
        inspected = Inspected(address.url, address.token)
        try:
            running.append((inspected, ", ".join(inspected.tunnels())))
        except (NoInspector, InspectorRefusal):
            continue  # its process is another one by now
    if not running:
        raise NoInspector(
            "no client with an inspector runs here; start one with: exposr tunnel TARGET --inspect"
        )
    if len(running) > 1:
        shown = ", ".join(f"{inspected.url} ({tunnels})" for inspected, tunnels in running)
        raise BadInput(f"several inspectors run; choose one with --inspector: {shown}")
    return running[0][0]


def _named(url: str, known: list[Address]) -> Inspected:
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}"
    token = "".join(parse_qs(parts.query).get("token", [])[:1])
    if not token:
        token = next((address.token for address in known if address.url == base), "")
    if not token:
        raise BadInput(
            f"--inspector {base!r}: has no token, and is none of this user's; give the whole "
            "address that the client printed"
        )
    inspected = Inspected(base, token)
    inspected.tunnels()  # so that nothing else is taken for one
    return inspected
