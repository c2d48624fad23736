"""TLS with servers and targets: who answers is who was meant.

Imported by the first connection that needs it (:mod:`~exposr_tx.client.trust`): OpenSSL is 12 MB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any
from weakref import ref

from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet import endpoints, posixbase
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import BadInput

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory

__all__ = ["Secured", "complete_twisted", "roots_of", "unverified", "verified"]


def roots_of(path: str, option: str) -> Any:
    """Twisted's trust root for the certificates of a PEM file. BadInput for a bad file.

    :param option: the option that names the file, for errors.
    """
    try:
        with open(path, encoding="ascii") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{option} {path!r}: cannot be read: {error}") from None
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    blocks = [begin + part.split(end)[0] + end + "\n" for part in text.split(begin)[1:]]
    try:
        certificates = [Certificate.loadPEM(block.encode("ascii")) for block in blocks]
    except Exception as error:  # OpenSSL's own errors, by version
        raise BadInput(f"{option} {path!r}: not a certificate: {error}") from None
    if not certificates:
        raise BadInput(f"{option} {path!r}: holds no certificate; it must be a PEM file")
    return trustRootFromCertificates(certificates)


def verified(host: str, roots: Any) -> IOpenSSLClientConnectionCreator:
    """TLS with one host and nobody else. BadInput for a name that IDNA does not know.

    :param roots: Twisted's trust root; None means the platform's.
    """
    try:
        return _Verified(host, optionsForClientTLS(host, trustRoot=roots))
    except ValueError as error:
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


def unverified(host: str) -> IOpenSSLClientConnectionCreator:
    """TLS without asking who answers; the server name is still sent."""
    context = CertificateOptions(verify=False).getContext()

    @implementer(IOpenSSLClientConnectionCreator)
    class Unverified:
        """TLS with anybody."""

        def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
            connection = Connection(context, None)
            if not isIPAddress(host) and not isIPv6Address(host):
                connection.set_tlsext_host_name(host.encode("idna"))
            return connection

    return Unverified()


def complete_twisted() -> None:
    """Give Twisted's endpoint strings their TLS, where its modules were loaded without."""
    if endpoints.TLSMemoryBIOFactory is None:
        importlib.reload(posixbase)
        importlib.reload(endpoints)


@implementer(IStreamClientEndpoint)
class Secured:
    """An endpoint with TLS over it. Twisted's own cannot be had where OpenSSL came late."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, creator: IOpenSSLClientConnectionCreator
    ) -> None:
        self._endpoint = endpoint
        self._creator = creator

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        over: Any = TLSMemoryBIOFactory(self._creator, True, protocolFactory)
        connecting: Deferred[Any] = self._endpoint.connect(over)
        return connecting.addCallback(lambda tls: tls.wrappedProtocol)
