"""Recording as the commands have it: a folder for HAR files, and recordings of streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from exposr_tx.errors import BadInput

if TYPE_CHECKING:
    from exposr_tx.client.target import Target
    from exposr_tx.inspection.folder import HarFolder
    from exposr_tx.inspection.recorder import Recorder
    from exposr_tx.inspection.recording import Recording
    from exposr_tx.options import EnvironOptions

__all__ = ["har_folder", "recordings"]


def har_folder(
    options: EnvironOptions, name: str, warn: Callable[[str], object]
) -> HarFolder | None:
    """The folder that options name, ready to be written to; None where they name none.

    :param warn: told what has no effect, and what is not recorded; in any thread.
    Raises BadInput where it cannot be written to.
    """
    path = options[name]
    if not path:
        _warn_of_nothing(options, name, warn)
        return None
    # Only here: what a client loads it keeps for as long as it runs.
    from exposr_tx.inspection.folder import HarFolder  # noqa: PLC0415
    from exposr_tx.inspection.redaction import Redaction  # noqa: PLC0415

    folder = HarFolder(
        path,
        Redaction.parse(options[f"{name}-redact"] or ""),
        warn,
        options[f"{name}-max-files"],
        options[f"{name}-max-size"],
    )
    try:
        folder.open()
    except BadInput as error:
        raise BadInput(f"{options.given[name]} {error}") from None
    return folder


def _warn_of_nothing(options: EnvironOptions, name: str, warn: Callable[[str], object]) -> None:
    """Tell what a line asks for that has no effect without a folder. (The most bytes of a body
    are the inspector's as well.)"""
    if name in options.given:
        warn(f"{options.given[name]} '' names no folder, so that nothing is recorded; give it one")
        return
    for more in ("redact", "max-files", "max-size"):
        if given := options.given.get(f"{name}-{more}"):
            warn(f"{given} has no effect without --{name}; add it")


def recordings(
    recorder: Recorder, tunnel: Callable[[], str], target: Callable[[], Target | None]
) -> Callable[[str], Recording | None]:
    """What :class:`~exposr_tx.client.forward.Forward` asks for each stream's recording.

    :param tunnel: the tunnel's id.
    :param target: where its streams go; only what speaks HTTP is recorded.
    """

    def recording(visitor: str) -> Recording | None:
        goal = target()
        if goal is None or not goal.is_http:
            return None
        return recorder.recording(tunnel(), goal.url, visitor)

    return recording
