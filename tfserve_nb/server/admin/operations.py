"""The operations of the admin API, each declared once: the handlers and the remote clients follow from this table.

An operation is a method of `ModelAdmin` or `ExperimentAdmin` with an HTTP method and a path below `/tfserve/v1/`. What
it takes and gives is read from the method's signature: `name` stands in the path, `progress` stays with the caller, and
the other parameters are the query of a GET or the JSON body of a POST. docs/admin-api.md describes the result.

Thread: any; immutable.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import Any, get_origin, get_type_hints  # JSON values, arguments of any operation

from ...agreement.result import Disagreement
from ...errors import InvalidRequest
from ...experiment.admin import ExperimentAdmin
from ...serialization import from_json, to_json
from ...serving.admin import ModelAdmin
from ..paths import ADMIN

PREFIX = ADMIN
READ_S = 10.0
CHANGE_S = 660.0
"""How long a change may take: a little more than the longest load."""
CAPTURE_S = 120.0
MAX_SPAN_S = 900
MAX_DISAGREEMENT_BYTES = 16 << 20
"""Of all tensors of a response: a client waits for it, and the server's loop writes it at once."""

Body = dict[str, Any]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        http_method: `GET` or `POST`.
        path: below `/tfserve/v1/`; `{name}` stands for the model's name.
        call: the method that carries it out.
        answer: the name under which the result stands in the response; "" for a result that is the response.
        repeats: the parameter that the response repeats, for a method that returns nothing; "" for none.
        limit_s: how long a client waits.
        to_body: from the arguments as JSON to the body, where it is laid out otherwise.
        from_body: the inverse, for a server; refuses what is not allowed.
        to_result: what of a result is sent.
    """

    http_method: str
    path: str
    call: Callable[..., Any]
    answer: str = ""
    repeats: str = ""
    limit_s: float = READ_S
    to_body: Callable[[Body], Body] = _same
    from_body: Callable[[Body], Body] = _same
    to_result: Callable[[Any], Any] = _same

    @cached_property
    def types(self) -> Mapping[str, Any]:
        """Parameter -> its annotation; `return` for the result."""
        return get_type_hints(self.call, include_extras=True)

    @cached_property
    def sent(self) -> tuple[inspect.Parameter, ...]:
        """The parameters that a request carries beside its path."""
        parameters = list(inspect.signature(self.call).parameters.values())[1:]
        is_named = "{name}" in self.path
        left_out = ("progress", "name") if is_named else ("progress",)
        return tuple(parameter for parameter in parameters if parameter.name not in left_out)

    def body_of(self, arguments: Mapping[str, Any]) -> Body:
        """What a client sends; arguments that are not given have their defaults on the server."""
        names = {parameter.name for parameter in self.sent}
        return self.to_body(
            {name: to_json(value, self.types[name]) for name, value in arguments.items() if name in names}
        )

    def carry_out(self, admin: object, name: str, body: Mapping[str, Any]) -> Any:
        """Call the method with what a client sent; the response's JSON value.

        Args:
            admin: a `ModelAdmin` or `ExperimentAdmin`.
            name: the model, for a path with `{name}`.
            body: the query or the JSON body.

        Raises:
            InvalidRequest: naming what is missing, is of another kind, has no such name, or is not allowed.
            ServingError: what the method raises.
        """
        given = self.from_body({**body, "name": name} if "{name}" in self.path else dict(body))
        arguments = {"name": name} if "name" in inspect.signature(self.call).parameters else {}
        for parameter in self.sent:
            if parameter.name in given:
                arguments[parameter.name] = _read(given, parameter.name, self.types[parameter.name])
            elif parameter.default is parameter.empty:
                raise InvalidRequest(f"{parameter.name!r} is missing", hint=self._hint)
        result = getattr(admin, self.call.__name__)(**arguments)
        if self.repeats:
            return {self.repeats: to_json(arguments[self.repeats])}
        if result is None and not self.answer:
            return {}
        value = to_json(self.to_result(result), self.types["return"])
        return {self.answer: value} if self.answer else value

    @property
    def _hint(self) -> str:
        return f"{self.http_method} {self.path} takes {', '.join(parameter.name for parameter in self.sent)}"

    def result_of(self, answer: Any) -> Any:
        """What the method returns to a client that got this response."""
        kind = self.types["return"]
        return None if kind is type(None) else from_json(answer[self.answer] if self.answer else answer, kind)


def fitting(rows: Iterable[Disagreement]) -> list[Disagreement]:
    """The worst rows, as many as a response has room for; the first one in any case."""
    kept: list[Disagreement] = []
    num_bytes = 0
    for row in rows:
        tensors = (row.inputs, row.outputs_a, row.outputs_b)
        num_bytes += sum(array.nbytes for part in tensors for array in part.values())
        if kept and num_bytes > MAX_DISAGREEMENT_BYTES:
            break
        kept.append(row)
    return kept


def _read(given: Mapping[str, Any], name: str, kind: Any) -> Any:
    """The value of a parameter.

    Raises:
        InvalidRequest: naming the parameter and what is wrong.
    """
    value = given[name]
    try:
        return from_json(value, kind, is_strict=True)
    except KeyError as error:
        reason = f"{error} is missing"
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error) or type(error).__name__
        if not isinstance(value, Mapping) and _is_object(kind):
            reason = "needed is a JSON object"
    raise InvalidRequest(" ".join(f"{name}={json.dumps(value):.200}: {reason}".split()))


def _is_object(kind: Any) -> bool:
    origin = get_origin(kind)
    return is_dataclass(kind) or (isinstance(origin, type) and issubclass(origin, Mapping))


def _check_span(body: Body) -> Body:
    given = {"span_s": 120, "step_s": 2, **body}
    span_s, step_s = _read(given, "span_s", int), _read(given, "step_s", int)
    if not 1 <= step_s <= span_s <= MAX_SPAN_S:
        raise InvalidRequest(
            f"span_s={span_s} and step_s={step_s} must be from 1 to {MAX_SPAN_S}, the step the smaller"
        )
    return body


def _path_beside_source(body: Body) -> Body:
    return {**body, "path": body["source"]["path"]}


def _path_into_source(body: Body) -> Body:
    for name in ("source", "path"):
        if name not in body:
            raise InvalidRequest(f"{name!r} is missing")
    if not isinstance(body["source"], Mapping):
        raise InvalidRequest(f"source={json.dumps(body['source']):.200}: needed is a JSON object")
    return {**body, "source": {**body["source"], "path": body["path"]}}


MODEL = "models/{name}"
_EXPERIMENT = f"{MODEL}/experiment"

MODEL_OPERATIONS = (
    Operation("GET", MODEL, ModelAdmin.model_status),
    Operation("GET", f"{MODEL}/metrics", ModelAdmin.model_metrics, from_body=_check_span),
    Operation("GET", f"{MODEL}/history", ModelAdmin.history, "events"),
    Operation("GET", f"{MODEL}/samples", ModelAdmin.recent_samples),
    Operation("POST", f"{MODEL}/samples", ModelAdmin.sample_requests),
    Operation("GET", f"{MODEL}/capture", ModelAdmin.captured, limit_s=CAPTURE_S),
    Operation("POST", f"{MODEL}/capture", ModelAdmin.capture),
    Operation(
        "POST",
        f"{MODEL}/deploy",
        ModelAdmin.deploy,
        repeats="version",
        limit_s=CHANGE_S,
        to_body=_path_beside_source,
        from_body=_path_into_source,
    ),
    Operation("POST", f"{MODEL}/promote", ModelAdmin.promote, repeats="version", limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/rollback", ModelAdmin.roll_back, "version", limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/stage", ModelAdmin.stage, repeats="version", limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/label", ModelAdmin.set_label, limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/traffic", ModelAdmin.set_traffic, limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/split", ModelAdmin.set_split, limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/shadow", ModelAdmin.set_shadow, limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/engine", ModelAdmin.set_engine, "engines", limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/engine/measure", ModelAdmin.measure_engines, "engines", limit_s=CHANGE_S),
    Operation("POST", f"{MODEL}/engine/rows", ModelAdmin.give_rows),
    Operation("POST", f"{MODEL}/undeploy", ModelAdmin.undeploy, limit_s=CHANGE_S),
    Operation(
        "POST",
        "resume",
        ModelAdmin.resume,
        "problems",
        limit_s=CHANGE_S,
        to_body=lambda body: {"base_path": body["base_path"], "name": body.get("only")},
        from_body=lambda body: {**body, "only": body.get("name")},
    ),
    Operation("GET", "resources", ModelAdmin.resources),
)

EXPERIMENT_OPERATIONS = (
    Operation("GET", _EXPERIMENT, ExperimentAdmin.state, "experiment"),
    Operation(
        "POST",
        _EXPERIMENT,
        ExperimentAdmin.start,
        "experiment",
        limit_s=CHANGE_S,
        to_body=lambda body: dict(body["plan"]),
        from_body=lambda body: {"plan": body},
    ),
    Operation("POST", f"{_EXPERIMENT}/end", ExperimentAdmin.end, "experiment"),
    Operation("POST", f"{_EXPERIMENT}/feedback", ExperimentAdmin.feedback, "is_known"),
    Operation("GET", f"{_EXPERIMENT}/disagreements", ExperimentAdmin.disagreements, "disagreements", to_result=fitting),
)

OPERATIONS: Mapping[Callable[..., Any], Operation] = {
    operation.call: operation for operation in (*MODEL_OPERATIONS, *EXPERIMENT_OPERATIONS)
}
"""Method -> its operation."""
