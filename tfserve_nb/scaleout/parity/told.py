"""What two servers tell of their models: versions and states, which version answers, labels, traffic, metadata.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any  # JSON values
from urllib.parse import unquote

from ...errors import ModelNotFound, NotAvailable
from ...server.admin.predict_body import parse_signatures
from ...server.paths import V2
from ...server.rest.metadata_json import CHANGES_FIELD, ORDER_FIELD
from ...types import ModelStatus, SignatureSpec
from .findings import Check, Verdict
from .grpc_client import METADATA, STATUS
from .options import ParityOptions
from .side import Reply, Side, model_path

AVAILABLE = "AVAILABLE"
GONE = "END"
MAX_DIFFERENCES = 3
MAX_CHARS = 60
_NOTHING = object()
_SIGNATURES = re.compile(r"^(?:signature_def\.)+")
"""What every path in the metadata of a version begins with."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model that both servers have.

    Attributes:
        model: the model's name.
        number: the version's.
        signatures: those that both have.
        changes: what requests leave behind, in words; "" for nothing.
        draws: signature -> why answers to one request differ each time, as far as a server tells.
    """

    model: str
    number: int
    signatures: Mapping[str, SignatureSpec]
    changes: str = ""
    draws: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """What both servers tell of one model.

    Attributes:
        checks: how that compares.
        versions: those that answer on both.
        notes: what is no difference to clients, one line each.
    """

    checks: tuple[Check, ...]
    versions: tuple[Version, ...]
    notes: tuple[str, ...] = ()


def models_of(a: Side, b: Side, wanted: Iterable[str]) -> tuple[tuple[str, ...], list[Check]]:
    """The models to compare, and how the lists of both compare.

    Args:
        a: the measure.
        b: the other server.
        wanted: those that were named; none for all that are listed.

    Raises:
        ModelNotFound: if none was named and no server lists its own, or they list none.
        InvalidOption: if that is because a server wants a token.
    """
    named = tuple(dict.fromkeys(wanted))
    if named:
        return named, []
    if a.names is None and b.names is None:
        for side in (a, b):
            side.get(V2)  # one that wants a token says so
        raise ModelNotFound(
            "neither server lists its models",
            hint="--model NAME, or http://HOST:PORT/v1/models/NAME; a token for one of them would do, too",
        )
    found = tuple(sorted({*(a.names or ()), *(b.names or ())}))
    if not found:
        raise ModelNotFound("no model is served", hint="deploy one, or --model NAME")
    if a.names is None or b.names is None:
        silent = a if a.names is None else b
        return found, [Check("models", "the server", Verdict.NOT_COMPARED, f"{silent.letter} does not list its models")]
    return found, [_check("models", "the server", ", ".join(sorted(a.names)), ", ".join(sorted(b.names)))]


def compare_told(a: Side, b: Side, name: str, options: ParityOptions) -> Told:
    """Compare what both tell of a model.

    Raises:
        ModelNotFound: if neither has it.
        ServingError: if a server cannot be reached.
    """
    states_a, states_b = _states(a, name), _states(b, name)
    if states_a is None and states_b is None:
        known = ",".join(sorted({*(a.names or ()), *(b.names or ())}))
        raise ModelNotFound(f"neither server has a model {name!r}", hint=f"--model {known or 'NAME'}")
    checks = [_check("versions and states", name, _written(states_a), _written(states_b))]
    status_a, status_b = a.status(name), b.status(name)
    checks += _routing(a, b, name, (status_a, status_b), options)
    versions = []
    known_a, known_b = states_a or {}, states_b or {}
    for number in sorted(known_a.keys() & known_b.keys()):
        if known_a[number] == known_b[number] == AVAILABLE:
            check, version = _metadata(a, b, name, number, (status_a, status_b))
            checks += [check, *_over_other_doors(a, b, name, number)]
            versions.append(version)
    return Told(tuple(checks), tuple(versions), tuple(_notes(name, status_a, status_b)))


def _states(side: Side, name: str) -> dict[int, str] | None:
    """Version -> state; None for a model that is not there. A version that ended well is not there for clients."""
    reply = side.get(model_path(name))
    if reply.status == 404:
        return None
    found = {}
    try:
        for one in reply.json["model_version_status"]:
            error = one.get("status", {}).get("error_code", "OK")
            if one["state"] != GONE or error != "OK":
                found[int(one["version"])] = one["state"] if error == "OK" else f"{one['state']} ({error})"
    except (KeyError, TypeError, ValueError) as error:
        raise _unexpected(side, reply) from error
    return found


def _unexpected(side: Side, reply: Reply) -> NotAvailable:
    return NotAvailable(
        f"{side.letter} ({side.url}) is no server of TensorFlow Serving's API: it responds with {reply.status} "
        f"{reply.text}",
        hint="http://HOST:PORT, the REST port",
    )


def _written(states: Mapping[int, str] | None) -> str:
    if states is None:
        return "no such model"
    return ", ".join(f"{version} {state}" for version, state in sorted(states.items())) or "none"


def _routing(
    a: Side, b: Side, name: str, statuses: tuple[ModelStatus | None, ModelStatus | None], options: ParityOptions
) -> Iterator[Check]:
    """Which versions answer requests that name none, and those that name a label."""
    if any(status is not None and len(status.traffic) > 1 for status in statuses):
        if None in statuses:
            silent = "A" if statuses[0] is None else "B"
            reason = f"traffic is split, and {silent} does not tell how it splits it"
            yield Check("traffic", name, Verdict.NOT_COMPARED, reason)
        else:
            yield _check("traffic", name, *(_traffic(status) for status in statuses))
    else:
        yield _check("default version", name, *(_version_at(side, model_path(name)) for side in (a, b)))
    listed = {label for status in statuses if status is not None for label in status.labels}
    labels = sorted(listed | set(options.labels))
    for label in labels:
        yield _check(
            "label", f"{name}, {label}", *(_version_at(side, model_path(name, label=label)) for side in (a, b))
        )
    if None in statuses and not options.labels:
        unlisted = [letter for letter, status in zip("AB", statuses, strict=True) if status is None]
        verb = "does" if len(unlisted) == 1 else "do"
        which = "other labels" if labels else "labels"
        reason = f"{' and '.join(unlisted)} {verb} not list {which}; --labels NAME,NAME compares them"
        yield Check("labels", name, Verdict.NOT_COMPARED, reason)


def _traffic(status: ModelStatus | None) -> str:
    known = {} if status is None else status.traffic
    return ", ".join(f"version {version} {percent:g} %" for version, percent in sorted(known.items()))


def _version_at(side: Side, path: str) -> str:
    """The version that answers at a path, or why none does."""
    reply = side.get(f"{path}/metadata")
    with contextlib.suppress(KeyError, TypeError):
        if reply.status == 200:
            return f"version {reply.json['model_spec']['version']}"
    return f"{reply.status} {reply.text}"


def _metadata(
    a: Side, b: Side, name: str, number: int, statuses: tuple[ModelStatus | None, ModelStatus | None]
) -> tuple[Check, Version]:
    """Compare the signatures of a version, word for word."""
    replies = [side.get(f"{model_path(name, number)}/metadata") for side in (a, b)]
    subject = f"{name}, version {number}"
    if any(reply.status != 200 for reply in replies):
        check = _check("metadata", subject, *(f"{reply.status} {reply.text}"[:MAX_CHARS] for reply in replies))
        return check, Version(name, number, {})
    signatures_a, signatures_b = (_signatures(side, reply) for side, reply in zip((a, b), replies, strict=True))
    common = {key: signature for key, signature in signatures_a.items() if key in signatures_b}
    known = [one for status in statuses if status is not None for one in status.versions if one.version == number]
    changes = [unquote(reply.fields.get(CHANGES_FIELD, "")) for reply in replies] + [one.changes for one in known]
    draws = {name: why for one in reversed(known) for name, why in one.draws.items()}
    version = Version(name, number, common, next(filter(None, changes), ""), draws)
    return _alike("metadata", subject, *map(_metadata_in, replies)), version


def _over_other_doors(a: Side, b: Side, name: str, number: int) -> Iterator[Check]:
    """The same over the protocols that both have; that one is missing is said where requests are compared."""
    subject = f"{name}, version {number}"
    if not (a.why_no_v2 or b.why_no_v2):
        path = f"/v2{model_path(name, number).removeprefix('/v1')}"
        yield _alike("metadata over V2", subject, *(_v2_metadata(side, path) for side in (a, b)))
    if not (a.why_no_grpc or b.why_no_grpc):
        yield _alike("state over gRPC", subject, *(_grpc_status(side, name, number) for side in (a, b)))
        yield _alike("metadata over gRPC", subject, *(_grpc_metadata(side, name, number) for side in (a, b)))


def _v2_metadata(side: Side, path: str) -> Any:
    """Without the list of versions, which is compared as such."""
    value = side.get(path).json
    return {key: item for key, item in value.items() if key != "versions"} if isinstance(value, dict) else value


def _grpc_status(side: Side, name: str, version: int) -> Any:
    """State and error of a version: numbers of their enumerations, and the text; of a call that fails, its error."""
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse

    request = GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version.value = name, version
    code, text, response = side.call(STATUS, request.SerializeToString())
    if code != "OK":
        return f"{code} {text}"
    statuses = GetModelStatusResponse.FromString(response).model_version_status
    return [[one.version, one.state, one.status.error_code, one.status.error_message] for one in statuses]


def _grpc_metadata(side: Side, name: str, version: int) -> Any:
    """The signatures of a version in protobuf's JSON; of a call that fails, its error."""
    from google.protobuf.json_format import MessageToDict
    from tensorflow_serving.apis.get_model_metadata_pb2 import (
        GetModelMetadataRequest,
        GetModelMetadataResponse,
        SignatureDefMap,
    )

    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name, request.model_spec.version.value = name, version
    code, text, response = side.call(METADATA, request.SerializeToString())
    if code != "OK":
        return f"{code} {text}"
    packed = GetModelMetadataResponse.FromString(response).metadata["signature_def"]
    return MessageToDict(SignatureDefMap.FromString(packed.value), preserving_proto_field_name=True)


def _alike(what: str, subject: str, a: Any, b: Any) -> Check:
    """Compare two JSON values, word for word."""
    found = [(_SIGNATURES.sub("", path), *both) for path, *both in differences(a, b)]
    remark = "; ".join(f"{path or 'all'}: A {left}, B {right}" for path, left, right in found[:MAX_DIFFERENCES])
    if len(found) > MAX_DIFFERENCES:
        remark += f"; and {len(found) - MAX_DIFFERENCES} more"
    return Check(what, subject, Verdict.DIFFERENT if found else Verdict.SAME, remark)


def _metadata_in(reply: Reply) -> Any:
    return (reply.json or {}).get("metadata")


def _signatures(side: Side, reply: Reply) -> dict[str, SignatureSpec]:
    try:
        return parse_signatures(reply.json, reply.fields.get(ORDER_FIELD))[0]
    except (KeyError, TypeError, ValueError) as error:
        raise _unexpected(side, reply) from error


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two JSON values differ: the path, and what stands there in each.

    Example:
        >>> list(differences({"x": {"n": 1}}, {"x": {"n": 2, "m": 0}}))
        [('x.m', 'nothing', '0'), ('x.n', '1', '2')]
    """
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from differences(a.get(key, _NOTHING), b.get(key, _NOTHING), f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for place, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from differences(left, right, f"{path}[{place}]")
    elif a != b:
        yield path, _brief(a), _brief(b)


def _brief(value: Any) -> str:
    text = "nothing" if value is _NOTHING else str(value)
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def _check(what: str, subject: str, a: str, b: str) -> Check:
    if a == b:
        return Check(what, subject, Verdict.SAME, a)
    return Check(what, subject, Verdict.DIFFERENT, f"A: {a}; B: {b}")


def _notes(name: str, a: ModelStatus | None, b: ModelStatus | None) -> Iterator[str]:
    """Engines and variants are not what clients see; they explain numbers that are not quite the same."""
    runs = [
        {one.version: f"{one.engine}{f', {one.named_variant}' if one.named_variant else ''}" for one in status.versions}
        if status is not None
        else {}
        for status in (a, b)
    ]
    for version in sorted(runs[0].keys() & runs[1].keys()):
        if runs[0][version] != runs[1][version]:
            yield f"{name} version {version} is run by {runs[0][version]} on A and by {runs[1][version]} on B"
