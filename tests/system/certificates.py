"""An authority of our own, and certificates for the names a test needs.

They have what RFC 5280 asks for: Python's ssl insists on it from 3.13 on.
"""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.system.harness import Scope, temporary_folder

PEM = serialization.Encoding.PEM

SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """Signs certificates that are good for a day.

    :ivar path: its own certificate, for whoever is to believe in it.
    """

    def __init__(self, scope: Scope) -> None:
        self._folder = Path(temporary_folder(scope))
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("authority of a test")
        own = (
            self._unsigned(self._subject, self._key)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(SIGNS_CERTIFICATES, True)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / "authority.pem"
        file.write_bytes(own.public_bytes(PEM))
        self.path = str(file)

    def certificate(self, *names: str) -> str:
        """A file with a key and a certificate for DNS names and addresses, or for none."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = names[0] if names else "nobody"
        builder = self._unsigned(_name(subject), key).add_extension(
            x509.BasicConstraints(False, None), True
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_general(n) for n in names])
            builder = builder.add_extension(alternatives, False)
        made = builder.sign(self._key, hashes.SHA256())
        plain = serialization.NoEncryption()
        file = self._folder / f"{subject}.pem"
        file.write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain)
            + made.public_bytes(PEM)
        )
        return str(file)

    def _unsigned(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(issuer, False)
        )
