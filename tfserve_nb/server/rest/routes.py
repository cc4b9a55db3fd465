"""Which REST call a request line is, by TensorFlow Serving's regular expressions.

Thread: any; pure functions.

Reference: tensorflow_serving/model_servers/http_rest_api_util.cc. They match the path with its query string, so a
query is part of the model's name or makes the request malformed, here as there.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from urllib.parse import unquote

from ...errors import InvalidRequest
from ...serving.backend import ModelSpec

_TARGET = r"(?:/versions/(\d+)|/labels/([^/:]+))?"
_POST = re.compile(rf"/v1/models/([^/:]+){_TARGET}:(predict|classify|regress)", re.IGNORECASE)
_GET = re.compile(rf"/v1/models(?:/([^/:]+))?{_TARGET}(?:/(metadata))?", re.IGNORECASE)
_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Route:
    """One call.

    Attributes:
        call: `predict`, `classify`, `regress`, `status` or `metadata`.
        spec: the model it is for.
    """

    call: str
    spec: ModelSpec


class VersionOverflow(InvalidRequest):
    """A version beyond int64: TensorFlow Serving answers 400 with an empty body."""


@functools.lru_cache(maxsize=256)
def find_route(method: str, uri: str) -> Route:
    """The call of a request.

    Args:
        method: such as `POST`.
        uri: path and query, as received.

    Raises:
        InvalidRequest: `Malformed request: METHOD URI` and the like.
    """
    malformed = InvalidRequest(f"Malformed request: {method} {uri}")
    if method == "POST":
        match = _POST.fullmatch(uri)
        if match is None or match[4] not in ("predict", "classify", "regress"):
            raise malformed
        return Route(match[4], _spec(match[1], match[2], match[3]))
    if method != "GET":
        raise malformed
    match = _GET.fullmatch(uri)
    if match is None:
        raise malformed
    if match[1] is None:
        raise InvalidRequest("Missing model name in request.")
    return Route("metadata" if match[4] == "metadata" else "status", _spec(match[1], match[2], match[3]))


def _spec(name: str, version: str | None, label: str | None) -> ModelSpec:
    if version is not None and (len(version.lstrip("0")) > 19 or int(version) > _MAX_INT64):
        raise VersionOverflow(f"Failed to convert version: {version} to numeric.")
    return ModelSpec(
        unquote(name), None if version is None else int(version), None if label is None else unquote(label)
    )
