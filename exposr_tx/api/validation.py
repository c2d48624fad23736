"""What may stand in a request, and the words for what may not.

Only the first fault is told: known keys in the order of the schema, then
unknown ones. Texts are those that today's clients show their users.
Schema: protocols/exposr.md A.4, and contract "REST" for what is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from exposr_tx.errors import BadInput
from exposr_tx.tunnels import Change, is_tunnel_id

__all__ = ["check_change", "check_page"]

MAX_ALT_NAMES = 10
#: Tunnels in one page of the list, at most and unless asked for.
MAX_PAGE, PAGE = 100, 25
#: Characters of a URL that is stored, a host header included.
MAX_URL = 8192

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})+", re.IGNORECASE)
#: Top-level names that nobody can have (RFC 2606, RFC 6762).
_RESERVED = frozenset({"test", "example", "invalid", "localhost", "local"})
#: An absolute URI of RFC 3986, in the characters that it may have.
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~!$&'()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{2})+"
)
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def check_page(args: Mapping[bytes, list[bytes]]) -> tuple[str, int]:
    """The cursor and the count in a query: what comes after which id, and how many."""
    cursor = args.get(b"cursor", [b""])[-1].decode("utf-8", "replace")
    if cursor and not is_tunnel_id(cursor):
        raise BadInput('"cursor" must be one that this server has given')
    count = args.get(b"count", [b"%d" % PAGE])[-1]
    if not re.fullmatch(rb"[0-9]{1,9}", count):
        raise BadInput('"count" must be a number')
    if not 1 <= int(count) <= MAX_PAGE:
        raise BadInput(f'"count" must be from 1 to {MAX_PAGE}')
    return cursor, int(count)


def check_change(body: Mapping[str, Any]) -> Change:
    """The change that the body of a PUT or PATCH asks for. Raises BadInput."""
    return Change(**_object("", body, _SCHEMA))


def _object(path: str, value: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Change that stand in an object.

    A schema gives for each key either the schema of an object, or the name of
    a field of Change and the check of its value.
    """
    if not isinstance(value, Mapping):
        raise BadInput(f'"{path}" must be of type object')
    fields: dict[str, Any] = {}
    for key, rule in schema.items():
        if key not in value:
            continue
        below = f"{path}.{key}" if path else key
        if isinstance(rule, Mapping):
            fields |= _object(below, value[key], rule)
        else:
            field, check = rule
            fields[field] = check(below, value[key])
    for key in value:
        if key not in schema:
            raise BadInput(f'"{path}.{key}" is not allowed' if path else f'"{key}" is not allowed')
    return fields


def _boolean(path: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise BadInput(f'"{path}" must be a boolean')
    return value


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadInput(f'"{path}" must be a string')
    if not value:
        raise BadInput(f'"{path}" is not allowed to be empty')
    return value


def _target_url(path: str, value: Any) -> str:
    if value is None:
        return ""
    url = _text(path, value)
    if len(url) > MAX_URL or not _URI.fullmatch(url) or not _has_place(url):
        raise BadInput(f'"{path}" must be a valid uri')
    return url


def _has_place(url: str) -> bool:
    """Whether a URI's host and port can be ones; only those of HTTP must be there."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # a port that is no number or too large, brackets around no address
        return False
    return bool(host) or not (parts.netloc or parts.scheme in ("http", "https"))


def _policy(path: str, value: Any) -> str:
    return "" if value is None else _text(path, value)


def _host_header(path: str, value: Any) -> str:
    if value is None:
        return "target"
    text = _text(path, value)
    if not _HOST.fullmatch(text):
        raise BadInput(f'"{path}" must be one of [target, preserve] or a host[:port]')
    return text


def _alt_names(path: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadInput(f'"{path}" must be an array')
    for at, name in enumerate(value):
        text = _text(f"{path}[{at}]", name).lower()
        top = text.rpartition(".")[2]
        if not _DOMAIN.fullmatch(text) or top in _RESERVED or top.isdigit():
            raise BadInput(f'"{path}[{at}]" must contain a valid domain name')
    if len(value) > MAX_ALT_NAMES:
        raise BadInput(f'"{path}" must contain less than or equal to {MAX_ALT_NAMES} items')
    if value:
        raise BadInput(
            f'"{path}" must be empty: this server cannot verify and serve other names yet;'
            " use the tunnel's own URL"
        )
    return ()


def _port(path: str, value: Any) -> int:
    """0 for "any"."""
    if value is None:
        return 0
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f'"{path}" must be a number')
    if isinstance(value, float) and not value.is_integer():  # infinity is none
        raise BadInput(f'"{path}" must be an integer')
    if not 1 <= value <= 65535:
        raise BadInput(f'"{path}" must be from 1 to 65535')
    return int(value)


_SCHEMA: Mapping[str, Any] = {
    "ingress": {
        "http": {
            "enabled": ("http_enabled", _boolean),
            "alt_names": ("alt_names", _alt_names),
            "host_header": ("host_header", _host_header),
        },
        "sni": {"enabled": ("sni_enabled", _boolean)},
        "tcp": {"enabled": ("tcp_enabled", _boolean), "port": ("tcp_port", _port)},
    },
    "target": {"url": ("target_url", _target_url)},
    "policy": ("policy", _policy),
    "transport": {
        "ws": {"enabled": ("ws_enabled", _boolean)},
        "ssh": {"enabled": ("ssh_enabled", _boolean)},
    },
}
