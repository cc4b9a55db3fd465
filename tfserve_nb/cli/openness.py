"""What `tfserve-nb serve` lets clients do that show neither a token nor a certificate, in one line for its log.

Thread: any; pure functions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..server.settings import ServerSettings
from ..serving.models.model_config import ModelConfig
from .serve_plan import ServePlan

MAX_PATHS = 3


def openness(plan: ServePlan, configs: Iterable[ModelConfig]) -> tuple[int, str]:
    """The level of the line, and the line.

    Args:
        plan: how the server is started.
        configs: the models that it was started with.
    """
    settings = plan.settings
    doors = _doors(settings)
    if not doors:
        return logging.INFO, "Open without a token or certificate: nothing but health checks"
    allowed = [f"predictions, states and metadata over {' and '.join(doors)}"]
    if settings.is_http_open and settings.metrics_path is not None:
        allowed.append(f"metrics at {settings.metrics_path}")
    if settings.is_grpc_open:
        allowed.append(f"reloads of the configuration with models {_below(configs, plan.reload_base_paths or ())}")
    if settings.is_http_open and settings.allowed_hosts:
        allowed.append(f"requests that a proxy sends for {', '.join(settings.allowed_hosts)}")
    if settings.is_http_open and settings.has_cors:
        allowed.append("requests from web pages of any origin")
    open_to = f"Open without a token: {'; '.join(allowed)}. --auth_token_file asks for a token"
    if settings.is_loopback:
        return logging.INFO, f"Every user of this machine may call the models. {open_to}"
    return logging.WARNING, f"Every machine that can reach this one may call the models. {open_to}"


def _doors(settings: ServerSettings) -> list[str]:
    return [
        *(["gRPC"] if settings.is_grpc_open else []),
        *(["REST"] if settings.is_http_open else []),
    ]


def _below(configs: Iterable[ModelConfig], extra: Iterable[str]) -> str:
    paths = list(dict.fromkeys([*(config.base_path for config in configs), *extra]))
    if not paths:
        return "nowhere (--reload_base_paths)"
    if "/" in paths:
        return "in any folder"
    more = f" and {len(paths) - MAX_PATHS} more" if len(paths) > MAX_PATHS else ""
    return f"below {', '.join(paths[:MAX_PATHS])}{more}"
