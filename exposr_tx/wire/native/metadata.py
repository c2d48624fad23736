"""What the opener of a stream says about it.

Source: docs/protocols/exposr-tx-1.md, "Metadata of a stream".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from exposr_tx.errors import RemoteProtocolError

__all__ = ["KINDS", "MAX_ATTACHMENT", "Address", "Metadata", "Tls", "number", "text"]

#: An IP address, without a zone, and a port.
Address = tuple[str, int]

#: The kinds of streams that this version knows.
KINDS: Final = frozenset({"http", "tcp", "tls"})

#: The highest number of an attached tunnel; 0 is the one of the upgrade request.
MAX_ATTACHMENT: Final = 65535


@dataclass(frozen=True, slots=True)
class Tls:
    """The visitor came over TLS; empty strings where it did not say, or we do not know."""

    sni: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """One stream's.

    :ivar kind: one of :data:`KINDS`; from a peer any text.
    :ivar peer: the visitor's address; None where it is not known.
    :ivar host: the server's address that the visitor reached; None where it is not known.
    :ivar tls: None where the visitor came without.
    :ivar attachment: which of the connection's tunnels.
    """

    kind: str
    peer: Address | None = None
    host: Address | None = None
    tls: Tls | None = None
    attachment: int = 0

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> Metadata:
        """From OPEN's object; unknown keys are ignored.

        :raises RemoteProtocolError: a key is missing, or its value not as the page says.
        """
        peer, host, tls = fields.get("peer"), fields.get("host"), fields.get("tls")
        attachment = 0
        if fields.get("attachment") is not None:
            attachment = number(fields, "attachment", lowest=0)
        return cls(
            text(fields, "kind"),
            None if peer is None else _address("peer", peer),
            None if host is None else _address("host", host),
            None if tls is None else _tls(tls),
            attachment,
        )

    def to_json(self) -> dict[str, object]:
        """For OPEN: what is not known is left out."""
        fields: dict[str, object] = {"kind": self.kind}
        if self.peer is not None:
            fields["peer"] = _written(self.peer)
        if self.host is not None:
            fields["host"] = _written(self.host)
        if self.tls is not None:
            names = {"sni": self.tls.sni, "version": self.tls.version}
            fields["tls"] = {name: value for name, value in names.items() if value}
        if self.attachment:
            fields["attachment"] = self.attachment
        return fields


def text(fields: Mapping[str, object], key: str) -> str:
    """A key that must be there and hold a string."""
    value = fields.get(key)
    if not isinstance(value, str) or not _is_text(value):
        raise RemoteProtocolError(f"{key!r} is no text")
    return value


def _is_text(value: str) -> bool:
    """Whether it can be written: JSON's escapes can make half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def number(fields: Mapping[str, object], key: str, lowest: int = 1) -> int:
    """A key that must be there and hold the number of an attached tunnel."""
    value = fields.get(key)
    # A bool is an int to Python, and none to JSON.
    if type(value) is not int or not lowest <= value <= MAX_ATTACHMENT:
        raise RemoteProtocolError(f"{key!r} is no number of an attachment")
    return value


def _tls(value: object) -> Tls:
    if not isinstance(value, dict):
        raise RemoteProtocolError("'tls' is no object")
    sni, version = (
        "" if value.get(key) is None else text(value, key) for key in ("sni", "version")
    )
    return Tls(sni, version)


def _address(key: str, value: object) -> Address:
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        if len(port) <= 5 and port.isascii() and port.isdigit() and int(port) <= 65535:
            bracketed = host[:1] == "[" and host[-1:] == "]"
            host = host[1:-1] if bracketed else host
            try:
                # 0.3 µs; the ipaddress module takes ten times as long.
                inet_pton(AF_INET6 if bracketed else AF_INET, host)
            except (OSError, ValueError):
                pass
            else:
                return host, int(port)
    raise RemoteProtocolError(f"{key!r} is no address with a port")


def _written(address: Address) -> str:
    host, port = address
    if ":" not in host:
        return f"{host}:{port}"
    zoneless, _, _ = host.partition("%")
    return f"[{zoneless}]:{port}"
