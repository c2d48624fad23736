"""What the script says: progress, results and errors as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TextIO

from exposr_tx.client.answers import Tunnel
from exposr_tx.client.events import Events
from exposr_tx.client.tunnel import OwnTunnel

if TYPE_CHECKING:
    from exposr_tx.transport.websocket import Lost

__all__ = ["Printer", "Progress"]


class Printer:
    """Where lines go: progress and results to one stream, errors to another."""

    def __init__(self, out: TextIO, err: TextIO, quiet: bool) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet

    @property
    def at_terminal(self) -> bool:
        """Whether a person reads it as it comes."""
        return self._out.isatty()

    def say(self, line: str) -> None:
        """Progress."""
        if not self._quiet:
            self.show(line)

    def show(self, line: str) -> None:
        """What was asked for."""
        _print(self._out, line)

    def url(self, kind: str, url: str) -> None:
        """A public URL."""
        self.show(url if self._quiet else f"Ingress {kind}: {url}")

    def error(self, text: str) -> None:
        _print(self._err, f"exposr: {text}")


def _print(stream: TextIO, line: str) -> None:
    # What a server says must not move the cursor of a terminal.
    shown = "".join(letter if letter.isprintable() else "?" for letter in line)
    try:
        stream.write(shown + "\n")
        stream.flush()
    except (OSError, UnicodeEncodeError):
        pass  # nobody reads any more; the tunnel goes on


#: The reason with which servers refuse a connection too many (protocol page C.11).
NO_ROOM: Final = "unable to establish tunnel"


class Progress(Events):
    """A tunnel's events in lines."""

    def __init__(self, printer: Printer, own: OwnTunnel) -> None:
        self._printer = printer
        self._own = own
        self._urls: list[tuple[str, str]] = []
        self._first = True
        self._said = ""

    def connected(self, tunnel: Tunnel, number: int, total: int) -> None:
        self._said = ""
        if self._first:
            self._first = False
            target = self._own.in_use
            shown = target.url if target is not None else ""
            self._printer.say(f"Connecting tunnel {tunnel.tunnel_id}...connected to {shown}")
            if not tunnel.ingress_urls():
                self._printer.error(self._no_address(tunnel))
        urls = tunnel.ingress_urls()
        if urls != self._urls:
            self._urls = urls
            for kind, url in urls:
                self._printer.url(kind, url)
        self._printer.say(f"Tunnel {tunnel.tunnel_id} connection {number}/{total} connected")

    def _no_address(self, tunnel: Tunnel) -> str:
        name, target = tunnel.tunnel_id, self._own.in_use
        why = "every ingress is off"
        if target is not None and target.scheme == "tcp" and not tunnel.runs_tcp:
            why = "this server has no TCP ingress, and the others are off"
        return (
            f"the tunnel {name} has no public address: {why}; "
            f"HTTP comes with: exposr tunnel configure {name} set ingress-http on"
        )

    def lost(self, tunnel: Tunnel, number: int, lost: Lost) -> None:
        name = tunnel.tunnel_id
        why = lost.why
        if lost.reason == NO_ROOM:
            why += f" (others hold all of its connections: exposr tunnel disconnect {name})"
        self._printer.say(f"Lost connection to tunnel {name}: {why}")
        self._printer.say(f"Attempting to reconnect {name}...")

    def waiting(self, error: Exception, seconds: float) -> None:
        # Once for each kind of failure, not for each attempt.
        if str(error) != self._said:
            self._said = str(error)
            self._printer.error(f"{error}; trying again")
