"""TLS: keys and certificates are checked, and become OpenSSL's context.

Thread: any.
"""

from __future__ import annotations

import datetime as dt
import ssl

from ..errors import ServerFailed
from ..temporary import TemporaryFolder
from .config_files import TlsFiles


def check(tls: TlsFiles) -> None:
    """Refuse keys and certificates that no client could talk to.

    Raises:
        ServerFailed: naming the file and the field: no PEM, key and certificate that do not belong together, or a
            certificate that is not valid today.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(tls.certificate)
    except ValueError as error:
        raise ServerFailed(f"{tls.path}: server_cert is no PEM certificate") from error
    try:
        key = load_pem_private_key(tls.key, password=None)
    except (ValueError, TypeError) as error:
        raise ServerFailed(f"{tls.path}: server_key is no PEM key without a password") from error
    if key.public_key() != certificate.public_key():
        raise ServerFailed(f"{tls.path}: server_key does not belong to server_cert")
    now = dt.datetime.now(dt.UTC)
    name = certificate.subject.rfc4514_string() or "without a name"
    if now > certificate.not_valid_after_utc:
        raise ServerFailed(
            f"{tls.path}: server_cert ({name}) expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint="a new certificate",
        )
    if now < certificate.not_valid_before_utc:
        raise ServerFailed(
            f"{tls.path}: server_cert ({name}) is valid from {certificate.not_valid_before_utc:%Y-%m-%d} only",
            hint="check this machine's clock",
        )


def http_context(tls: TlsFiles) -> ssl.SSLContext:
    """A server context for HTTPS.

    Raises:
        ServerFailed: if OpenSSL refuses what `check` let pass.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # OpenSSL's Python side loads a chain from files only; these are readable by their owner and gone at once.
        with TemporaryFolder("tfserve-tls") as folder:
            chain, key = folder.path / "chain.pem", folder.path / "key.pem"
            chain.write_bytes(tls.certificate)
            key.write_bytes(tls.key)
            context.load_cert_chain(chain, key)
        if tls.verifies_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            if tls.client_ca:
                context.load_verify_locations(cadata=tls.client_ca.decode())
    except ssl.SSLError as error:
        raise ServerFailed(f"{tls.path}: {error.reason or error}") from error
    return context
