"""A tunnel's settings as ``key value`` pairs of the command line, and their PATCH bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from exposr_tx.client.target import parse_target
from exposr_tx.errors import BadInput
from exposr_tx.option_values import boolean

__all__ = ["SETTINGS", "Change", "changes", "unknown", "unsettings"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key.

    :ivar path: where its value stands in the tunnel's JSON.
    :ivar parse: from the word of the command line; raises ValueError or BadInput.
    :ivar unset: the value that takes it back.
    :ivar ours: the existing exposrd does not know it and must not be sent it.
    """

    path: tuple[str, ...]
    parse: Callable[[str], Any]
    unset: Any
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One setting with its new value.

    :ivar shown: what the user is told that it is set to.
    """

    key: str
    value: Any
    shown: str

    @property
    def ours(self) -> bool:
        return SETTINGS[self.key].ours

    @property
    def body(self) -> dict[str, Any]:
        """What to PATCH: only this."""
        value = self.value
        for name in reversed(SETTINGS[self.key].path):
            value = {name: value}
        return dict(value)


def _target(text: str) -> str:
    return parse_target(text).url


def _names(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",") if name.strip()]


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536):
        raise ValueError("must be a port number from 1 to 65535")
    return int(text)


def _host(text: str) -> str:
    if not text or not text.isascii() or any(letter <= " " for letter in text):
        raise ValueError("must be target, preserve or a host name")
    return text


def _package(text: str) -> str:
    if not text or not all(word.isidentifier() for word in text.split(".")):
        raise ValueError("must be the name of a package, like office")
    return text


SETTINGS: dict[str, Setting] = {
    "target-url": Setting(("target", "url"), _target, None),
    "transport-ws": Setting(("transport", "ws", "enabled"), boolean, False),
    "transport-ssh": Setting(("transport", "ssh", "enabled"), boolean, False),
    "ingress-http": Setting(("ingress", "http", "enabled"), boolean, False),
    "ingress-http-altnames": Setting(("ingress", "http", "alt_names"), _names, None),
    "ingress-http-host": Setting(("ingress", "http", "host_header"), _host, "target", ours=True),
    "ingress-sni": Setting(("ingress", "sni", "enabled"), boolean, False),
    "ingress-tcp": Setting(("ingress", "tcp", "enabled"), boolean, False, ours=True),
    "ingress-tcp-port": Setting(("ingress", "tcp", "port"), _port, None, ours=True),
    "policy": Setting(("policy",), _package, None, ours=True),
}


def _setting(key: str) -> Setting:
    try:
        return SETTINGS[key]
    except KeyError:
        raise unknown(key) from None


def unknown(word: str) -> BadInput:
    """The error about a word that stands where a setting should."""
    return BadInput(f"unknown setting {word!r}; the settings are {', '.join(SETTINGS)}")


def change(key: str, text: str) -> Change:
    """One pair; BadInput names the key, the value and what it must be."""
    setting = _setting(key)
    try:
        value = setting.parse(text)
    except ValueError as error:
        raise BadInput(f"{key} {text!r}: {error}") from None
    if isinstance(value, bool):
        return Change(key, value, str(value).lower())
    return Change(key, value, value if isinstance(value, str) else text)


def changes(words: Sequence[str]) -> list[Change]:
    """``key value key value …``"""
    if len(words) % 2:
        raise BadInput(f"setting {words[-1]!r} has no value; settings come as key and value")
    return [change(words[at], words[at + 1]) for at in range(0, len(words), 2)]


def unsettings(keys: Sequence[str]) -> list[Change]:
    """``key key …``, each back to what a new tunnel has."""
    return [Change(key, _setting(key).unset, "") for key in keys]
