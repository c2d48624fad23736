"""Which TLS certificates the client believes: those of the server and those of targets."""

# ruff: noqa: PLC0415

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint

__all__ = ["Trust"]


@dataclass(frozen=True, slots=True)
class Trust:
    """The platform's authorities, those of one file instead, or anybody.

    Knows nothing of OpenSSL before it is asked: who talks to nobody by TLS does not load it.

    :ivar ca_file: a PEM file with one or more certificates.
    :ivar verify: False takes every certificate; for tests in closed networks.
    :ivar option: the option that names the file, for errors.
    """

    ca_file: str | None = None
    verify: bool = True
    option: str = "--server-ca"

    def roots(self) -> Any:
        """Twisted's trust root; None means the platform's. BadInput for a bad file."""
        if self.ca_file is None:
            return None
        from exposr_tx.client.tls import roots_of

        return roots_of(self.ca_file, self.option)

    def connection_creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """How Twisted begins TLS with a host. BadInput for a bad file or name."""
        from exposr_tx.client.tls import unverified, verified

        return verified(host, self.roots()) if self.verify else unverified(host)

    def prepare(self) -> None:
        """TLS may be needed by what is not ours: a Twisted endpoint string."""
        from exposr_tx.client.tls import complete_twisted

        complete_twisted()

    def secured(self, endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        """The endpoint with TLS over it. BadInput for a bad file or name.

        :param host: who must answer there.
        """
        from exposr_tx.client.tls import Secured

        return Secured(endpoint, self.connection_creator(host))
