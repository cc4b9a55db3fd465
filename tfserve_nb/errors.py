"""The exceptions that tfserve_nb raises on purpose.

::

    ServingError
    ├── ModelNotServable      what was given cannot become a version
    ├── ExportFailed          writing or checking the SavedModel went wrong
    ├── VersionExists         a version of that number is already on disk
    ├── ReplayFailed          a new version did not keep its limits in a replay
    ├── VariantFailed         a variant of a new version answers otherwise than the model
    ├── InvalidOption         an option has a value that is not allowed
    ├── InvalidRequest        400, the request does not fit the protocol or the signature
    ├── FailedPrecondition    400, the protocol's other kind of bad request
    ├── Unimplemented         501
    ├── ModelNotFound         404, no such model, or no version of it that serves
    ├── VersionNotFound       404
    ├── LabelNotFound         400, as in TensorFlow Serving
    ├── DeadlineExceeded      504, the response would have come too late
    ├── QueueFull             503, the batch queue is full
    ├── NotAvailable          503, the version is loading, unloading or failed
    ├── Cancelled             499, the caller went away
    ├── RunFailed             500 (or 400), TensorFlow could not run the batch
    ├── ConfigRejected        a server configuration that cannot be followed
    ├── PortInUse             the port asked for is taken
    └── ServerFailed          the server thread did not start

The message of a `ServingError` is public: it may be sent to a client. `hint` names the next step.
"""

from __future__ import annotations


class ServingError(Exception):
    """Base of all errors that tfserve_nb raises on purpose.

    Args:
        message: what failed and the value that made it fail; one line, safe to show to a client.
        hint: what to type or change next; one line, shown to the person, never sent over HTTP.
        retry_after_s: when it may work again, in seconds; 0 for unknown. HTTP sends it as `Retry-After`.

    Example:
        >>> try:
        ...     raise VersionNotFound("Could not find version 7 of model digits", hint="loaded: 1, 2")
        ... except ServingError as error:
        ...     print(error.http_status, error)
        404 Could not find version 7 of model digits
    """

    http_status = 500
    code = "INTERNAL"
    """The name of the gRPC status code that TensorFlow Serving would use."""

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback (its hook for exceptions with a text of their own)."""
        lines = [f"{type(self).__name__}: {self.message}"]
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return lines


class ModelNotServable(ServingError):
    """What was given is no model, or one that cannot become a version."""

    http_status, code = 400, "INVALID_ARGUMENT"


class ExportFailed(ServingError):
    """Writing or checking the SavedModel went wrong; nothing was left behind."""


class VersionExists(ServingError):
    """The version asked for is already on disk."""

    http_status, code = 409, "ALREADY_EXISTS"


class ReplayFailed(ServingError):
    """A new version did not keep its limits when captured requests were replayed onto it; nothing was switched."""

    http_status, code = 409, "FAILED_PRECONDITION"


class VariantFailed(ServingError):
    """A variant (`--optimize`) answers otherwise than the model that it was made from; nothing was deployed."""

    http_status, code = 409, "FAILED_PRECONDITION"


class InvalidOption(ServingError):
    """An option has a value that is not allowed."""

    http_status, code = 400, "INVALID_ARGUMENT"


class InvalidRequest(ServingError):
    """The request does not fit the protocol or the signature."""

    http_status, code = 400, "INVALID_ARGUMENT"


class FailedPrecondition(ServingError):
    """The request is right in itself, but not for the model that it names."""

    http_status, code = 400, "FAILED_PRECONDITION"


class Unimplemented(ServingError):
    """The server has no such function."""

    http_status, code = 501, "UNIMPLEMENTED"


class ModelNotFound(ServingError):
    """No model of that name, or no version of it that serves."""

    http_status, code = 404, "NOT_FOUND"


class VersionNotFound(ServingError):
    """The model has no such version."""

    http_status, code = 404, "NOT_FOUND"


class LabelNotFound(ServingError):
    """The model has no such label (400 as in TensorFlow Serving, not 404)."""

    http_status, code = 400, "INVALID_ARGUMENT"


class DeadlineExceeded(ServingError):
    """The deadline passed before the prediction was there."""

    http_status, code = 504, "DEADLINE_EXCEEDED"


class QueueFull(ServingError):
    """The batch queue is full; the request was rejected at once."""

    http_status, code = 503, "UNAVAILABLE"


class NotAvailable(ServingError):
    """The version cannot serve now: it is loading, unloading or has failed."""

    http_status, code = 503, "UNAVAILABLE"


class Cancelled(ServingError):
    """The caller went away before the prediction was there."""

    http_status, code = 499, "CANCELLED"


class RunFailed(ServingError):
    """TensorFlow could not run the batch."""


class RunRejected(RunFailed):
    """TensorFlow could not run the batch because of the values in it."""

    http_status, code = 400, "INVALID_ARGUMENT"


class ConfigRejected(ServingError):
    """A server configuration that cannot be followed; what was served before still is.

    Args:
        message: as for every `ServingError`.
        code: `INVALID_ARGUMENT`, `FAILED_PRECONDITION`, `NOT_FOUND`, `PERMISSION_DENIED` or `UNKNOWN`.
        hint: as for every `ServingError`.
    """

    http_status = 400

    def __init__(self, message: str, *, code: str = "INVALID_ARGUMENT", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class PortInUse(ServingError):
    """The port asked for is taken."""


class ServerFailed(ServingError):
    """The server thread did not start."""
