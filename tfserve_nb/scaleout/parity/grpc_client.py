"""gRPC calls with messages as bytes: the text and the code of an error are what is compared.

Thread: the caller's.
"""

from __future__ import annotations

from typing import Any  # gRPC's channel

from ...errors import NotAvailable

_SERVICE = "/tensorflow.serving.PredictionService"
PREDICT, CLASSIFY, REGRESS = f"{_SERVICE}/Predict", f"{_SERVICE}/Classify", f"{_SERVICE}/Regress"
METADATA, STATUS = f"{_SERVICE}/GetModelMetadata", "/tensorflow.serving.ModelService/GetModelStatus"
_TLS = "grpcs://"


class GrpcClient:
    """Calls over one channel.

    Args:
        address: `HOST:PORT`, or `grpcs://HOST:PORT` for TLS with the machine's authorities
            (`GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` names others).
        token: what calls must carry, or None.
        limit_s: how long a call may take.
    """

    def __init__(self, address: str, token: str | None, limit_s: float) -> None:
        self.address = address
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._limit_s = limit_s
        self._channel: Any = None

    def call(self, method: str, message: bytes) -> tuple[str, str, bytes]:
        """One call: the code's name, such as `OK`; the text of an error; the response.

        Args:
            method: such as `/tensorflow.serving.PredictionService/Predict`.
            message: serialized.

        Raises:
            NotAvailable: if the server cannot be reached.
        """
        import grpc

        try:
            response: bytes = self._opened().unary_unary(method)(
                message, metadata=self._metadata, timeout=self._limit_s
            )
        except grpc.RpcError as error:
            code, text = error.code().name, str(error.details() or "")
            if code == "UNAVAILABLE" and _is_connection(text):
                raise NotAvailable(
                    f"{self.address} cannot be reached over gRPC: {text}", hint="is the port gRPC's?"
                ) from error
            return code, text, b""
        return "OK", "", response

    def close(self) -> None:
        """Close the channel. Idempotent; a later call opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _opened(self) -> Any:
        import grpc

        if self._channel is None:
            options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            if self.address.startswith(_TLS):
                credentials = grpc.ssl_channel_credentials()
                self._channel = grpc.secure_channel(self.address.removeprefix(_TLS), credentials, options)
            else:
                self._channel = grpc.insecure_channel(self.address, options)
        return self._channel


def _is_connection(text: str) -> bool:
    """Whether the channel itself says so; a server that is overloaded or loading is unavailable in its own words."""
    return "connect" in text.lower() or "resolution failed" in text.lower()
