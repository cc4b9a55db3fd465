"""gRPC's ModelService: the states of versions, and reloading the configuration.

Thread: the server's loop; a reload runs on `tfserve-reload`, a daemon, because it waits for models to load.

Reference: tensorflow_serving/apis/model_service.proto, model_servers/get_model_status_impl.cc and
model_service_impl.cc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any  # protobuf messages

from ...errors import InvalidRequest, Unimplemented
from ...serving.models.model_config import ModelConfig
from ..calls import RequestContext
from ..config_files import to_model_configs
from ..event_loop import run_in_thread
from .calls import GrpcCalls, spec_of

Reload = Callable[[tuple[ModelConfig, ...]], None]
"""Follows a new configuration; raises `ServingError`."""

CounterValue = Callable[[str], int | None]
"""The value of a metric by its name, such as `/tensorflow/serving/request_count`; None for an unknown one."""


class ModelService:
    """The methods of `tensorflow.serving.ModelService`.

    Args:
        grpc_calls: what every method does around its work.
        reload: follows a new configuration; None for a server that follows none.
        counter_value: for reloads that ask how much a metric grew.
    """

    def __init__(self, grpc_calls: GrpcCalls, reload: Reload | None, counter_value: CounterValue) -> None:
        self._grpc = grpc_calls
        self._reload = reload
        self._counter_value = counter_value

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - the method's name on the wire
        """The states of a model's versions, newest first."""
        return await self._grpc.answer("GetModelStatus", self._status, request, context)

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve what the request's configuration lists; answers when models new in it do."""
        return await self._grpc.answer("HandleReloadConfigRequest", self._apply, request, context)

    async def _status(self, request: Any, _context: Any, notes: RequestContext) -> Any:
        import grpc
        from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse

        spec = spec_of(request)
        notes.model = spec.name
        response = GetModelStatusResponse()
        for found in self._grpc.calls.backend.status(spec):
            status = response.model_version_status.add(version=found.version, state=found.state.value)
            # Numbers of gRPC's codes and of TensorFlow's are the same.
            status.status.error_code = grpc.StatusCode[found.error_code].value[0]
            status.status.error_message = found.error_message
        return response

    async def _apply(self, request: Any, _context: Any, _notes: RequestContext) -> Any:
        from tensorflow_serving.apis.model_management_pb2 import ReloadConfigResponse

        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidRequest(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        if self._reload is None:
            raise Unimplemented("This server follows no configuration; deploy and undeploy in its notebook")
        before = {name: self._counter_value(name) for name in request.metric_names}
        configs = to_model_configs(request.config.model_config_list)
        reload = self._reload
        await run_in_thread("tfserve-reload", lambda: reload(configs))
        response = ReloadConfigResponse()
        response.status.error_code = 0
        for name, value in before.items():
            now = self._counter_value(name)
            if value is not None and now is not None:
                response.metric.add(name=name, int64_value_increase=now - value)
        return response
