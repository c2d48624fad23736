"""Which TLS certificates the client believes: those of the server and those of targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import ref

from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from exposr_tx.errors import BadInput

__all__ = ["Trust", "https_policy"]


@dataclass(frozen=True, slots=True)
class Trust:
    """The platform's authorities, those of one file instead, or anybody.

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
        try:
            with open(self.ca_file, encoding="ascii") as stream:
                text = stream.read()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{self.option} {self.ca_file!r}: cannot be read: {error}") from None
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        blocks = [begin + part.split(end)[0] + end + "\n" for part in text.split(begin)[1:]]
        try:
            certificates = [Certificate.loadPEM(block.encode("ascii")) for block in blocks]
        except Exception as error:  # OpenSSL's own errors, by version
            raise BadInput(f"{self.option} {self.ca_file!r}: not a certificate: {error}") from None
        if not certificates:
            raise BadInput(
                f"{self.option} {self.ca_file!r}: holds no certificate; it must be a PEM file"
            )
        return trustRootFromCertificates(certificates)

    def connection_creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What ``wrapClientTLS`` needs to talk to a host. BadInput for a bad file or name."""
        if not self.verify:
            return _unverified(host)
        try:
            return _Verified(host, optionsForClientTLS(host, trustRoot=self.roots()))
        except ValueError as error:  # a name that IDNA does not know
            raise BadInput(f"{host!r} is not a host name: {error}") from None


@implementer(IOpenSSLClientConnectionCreator)
class _Verified:
    """TLS with one host and nobody else.

    Twisted 26.10 asks for the names of a certificate too; but where these cannot be read, as there
    are none, or one is like ``*.com``, it logs so and believes the certificate (tried). So they are
    asked for here.
    """

    def __init__(self, host: str, creator: IOpenSSLClientConnectionCreator) -> None:
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._service = IPAddress_ID(host) if is_address else DNS_ID(host)
        self._creator = creator

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        connection: Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        protocol = ref(tlsProtocol)

        def verify(_: Connection, certificate: X509, error: int, depth: int, valid: int) -> bool:
            if depth or not valid:
                return bool(valid)
            try:
                verify_service_identity(extract_patterns(certificate), [self._service], [])
            except (VerificationError, CertificateError):
                connecting = protocol()
                if connecting is not None:
                    connecting.failVerification(Failure())
                return False
            return True

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


def _unverified(host: str) -> IOpenSSLClientConnectionCreator:
    context = CertificateOptions(verify=False).getContext()

    @implementer(IOpenSSLClientConnectionCreator)
    class Unverified:
        """TLS without asking who answers; the server name is still sent."""

        def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
            connection = Connection(context, None)
            if not isIPAddress(host) and not isIPv6Address(host):
                connection.set_tlsext_host_name(host.encode("idna"))
            return connection

    return Unverified()


def https_policy(trust: Trust) -> Any:
    """The same trust in the form that an Agent takes."""

    @implementer(IPolicyForHTTPS)
    class Policy:
        def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
            return trust.connection_creator(hostname.decode("ascii").strip("[]"))

    return Policy()
