"""The inspector of a client: whether a command line asks for one, and one for programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exposr_tx.inspection import MAX_BODY

if TYPE_CHECKING:
    from exposr_tx.client.options import Command
    from exposr_tx.client.target import Target
    from exposr_tx.inspection.exchanges import Watcher
    from exposr_tx.inspector.service import Inspector

__all__ = ["inspector_of", "start_inspector"]


def inspector_of(
    command: Command,
    reactor: Any,
    environ: Mapping[str, str],
    terminal: bool,
    target: Target | None,
    **more: Any,
) -> Inspector | None:
    """The inspector that a command line asks for, not started; None where it asks for none.

    At a terminal nobody needs to ask, unless the target is known not to speak HTTP.

    :param more: see :class:`~exposr_tx.inspector.service.Inspector`.
    """
    asked = bool(command["inspect"]) or command["inspect-port"] is not None
    refused = command["no-inspect"] or ("inspect" in command.given and not command["inspect"])
    if refused or not (asked or (terminal and (target is None or target.is_http))):
        return None
    return _inspector(reactor, command["inspect-port"], environ, **more)


def start_inspector(
    port: int | None = None,
    *,
    watchers: Sequence[Watcher] = (),
    max_body: int = MAX_BODY,
    environ: Mapping[str, str] | None = None,
    reactor: Any = None,
) -> Inspector:
    """An inspector that listens, to give to :func:`~exposr_tx.client.listen`; it closes itself
    when the reactor shuts down.

    :param port: None takes 4040 or the next that is free; 0 any.
    :param watchers: others who are told of each exchange.
    :param max_body: bytes that are kept of each body.
    :param environ: where variables are looked up, the process's unless given.
    :param reactor: the installed one unless given.
    :raises NoPort: the port is taken; a BadInput.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415
    variables = os.environ if environ is None else environ
    inspector = _inspector(reactor, port, variables, watchers=watchers, max_body=max_body)
    inspector.start()
    running: Any = reactor
    running.addSystemEventTrigger("before", "shutdown", inspector.close)
    return inspector


def _inspector(
    reactor: Any, port: int | None, environ: Mapping[str, str], **more: Any
) -> Inspector:
    # Only here: most clients have none, and are to stay small.
    from exposr_tx.client.inspectors import addresses_folder  # noqa: PLC0415
    from exposr_tx.inspector.service import Inspector  # noqa: PLC0415

    return Inspector(reactor, port, addresses_folder(environ), **more)
