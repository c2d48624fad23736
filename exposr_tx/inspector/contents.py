"""What a body says: its coding undone, its text told from an image or from bytes.

Bodies are strangers' work: nothing here raises for what does not parse, it is shown
as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from exposr_tx.inspection.decoding import decoded, text_of
from exposr_tx.inspection.exchanges import Body

__all__ = ["Content", "content"]

#: Fields of a form that are told apart; a form with more is shown as text.
MOST_PAIRS: Final = 1000
_IMAGES: Final = frozenset(
    f"image/{name}"
    for name in (
        *("png", "apng", "jpeg", "jpg", "gif", "webp", "avif", "bmp", "x-ms-bmp", "svg+xml"),
        *("x-icon", "vnd.microsoft.icon"),
    )
)


@dataclass(frozen=True, slots=True)
class Content:
    """A body as a reader wants it.

    :ivar kind: ``"none"``, ``"json"`` (what looks like it), ``"form"``, ``"text"``, ``"image"`` or
        ``"bytes"``.
    :ivar data: the bytes, decoded where they were coded.
    :ivar text: of all but images and bytes.
    :ivar pairs: a form's fields.
    :ivar coding: what was undone, such as ``"gzip"``.
    :ivar problem: why it is not shown as it was meant, in words; empty where it is.
    """

    kind: str
    data: bytes = b""
    text: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    coding: str = ""
    problem: str = ""


def content(body: Body, media_type: str, coding: str) -> Content:
    """What a body is.

    :param media_type: the Content-Type; empty where there is none.
    :param coding: the Content-Encoding.
    """
    data, whole, problem = body.data, not body.truncated, ""
    if not data:
        return Content("none")
    if coding:
        inflated = decoded(data, coding)
        if inflated is None:
            problem, coding = f"Coded as {coding}, shown as it came.", ""
        else:
            data, ended = inflated
            if whole and not ended:
                problem = f"The first {len(data)} bytes of what it decodes to."
            whole = whole and ended
    essence = media_type.partition(";")[0].strip().lower()
    if essence in _IMAGES:
        return Content("image", data, coding=coding, problem=problem)
    text = text_of(data, media_type, whole)
    if text is None:
        return Content("bytes", data, coding=coding, problem=problem)
    if essence == "application/x-www-form-urlencoded" and (pairs := _pairs(text)):
        return Content("form", data, text, pairs, coding, problem)
    is_json = essence.endswith(("/json", "+json")) or text[:64].lstrip()[:1] in ("{", "[")
    return Content("json" if is_json else "text", data, text, (), coding, problem)


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(parse_qsl(text.strip(), keep_blank_values=True, max_num_fields=MOST_PAIRS))
    except ValueError:  # more of them
        return ()
