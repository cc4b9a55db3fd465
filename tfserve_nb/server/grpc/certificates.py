"""TLS for gRPC, with certificates that can be renewed while the server runs.

gRPC asks for the certificates with each handshake, and gets new ones when there are any.

Thread: `renew` on the server's loop; gRPC asks on threads of its own.

Reference: grpc.dynamic_ssl_server_credentials.
"""

from __future__ import annotations

from typing import Any  # gRPC's objects

from ...errors import ServerFailed
from .. import tls
from ..config_files import TlsFiles


class Certificates:
    """The key and the certificates of one server.

    Args:
        files: those to begin with.

    Raises:
        ServerFailed: if they do not do.
    """

    def __init__(self, files: TlsFiles) -> None:
        tls.check(files)
        if files.verifies_clients and not files.client_ca:
            raise ServerFailed(
                f"{files.path}: client_verify needs custom_ca",
                hint="custom_ca: the certificates of those who sign the clients' certificates",
            )
        self._files = files

    def renew(self, files: TlsFiles) -> None:
        """Use other ones, which `tls.check` has let pass, for new connections."""
        self._files = files

    def credentials(self) -> Any:
        """GRPC's credentials for one port."""
        import grpc

        last = self._files

        def fetch() -> Any:
            nonlocal last
            if self._files is last:
                return None
            last = self._files
            return _configuration(last)

        return grpc.dynamic_ssl_server_credentials(_configuration(last), fetch, last.verifies_clients)


def _configuration(files: TlsFiles) -> Any:
    import grpc

    return grpc.ssl_server_certificate_configuration(
        [(files.key, files.certificate)], root_certificates=files.client_ca or None
    )
