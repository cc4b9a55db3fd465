"""A certificate authority of the tests' own."""

from __future__ import annotations

import datetime as dt
from typing import Any


class Authority:
    """Signs certificates for `localhost`."""

    def __init__(self) -> None:
        self.key, self.certificate = self._sign("tests", None, days=2)

    def pair(self, name: str = "localhost", *, days: int = 2) -> tuple[str, str]:
        """PEM texts of a key and a certificate."""
        from cryptography.hazmat.primitives import serialization

        key, certificate = self._sign(name, self, days=days)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return text.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def pem(self) -> str:
        from cryptography.hazmat.primitives import serialization

        text: str = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return text

    @staticmethod
    def _sign(name: str, by: Authority | None, *, days: int) -> tuple[Any, Any]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        start = min(now, now + dt.timedelta(days=days)) - dt.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if by is None else by.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        )
        return key, builder.sign(key if by is None else by.key, hashes.SHA256())
