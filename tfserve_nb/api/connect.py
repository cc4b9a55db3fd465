"""Handles: of models served here, of models served before a restart, and of models on another server.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import InvalidOption, ModelNotFound
from ..export.layout import check_folder
from ..server.handle import ServerHandle, split_url
from ..types import Progress, no_progress
from .deployment import DEFAULT_BASE_PATH, Deployment
from .servers import ensure_child, ensure_kernel, lost_models, served, settle


def deployment(name: str) -> Deployment:
    """The handle of a served model.

    Raises:
        ModelNotFound: naming the models that are served.
    """
    handle = Deployment(name)
    handle.status()
    return handle


def deployments() -> list[Deployment]:
    """The handles of all served models, by name."""
    return [Deployment(name) for name in served()]


def connect(url: str, token: str | None = None, name: str | None = None) -> Deployment:
    """The handle of a model on a server elsewhere: another kernel's, or `tfserve-nb serve --auth_token_file=...`.

    Args:
        url: `http://HOST:PORT` or `https://...`, or a model's `.../v1/models/NAME`.
        token: what the server asks for; it must ask for one.
        name: the model, when the server has several and the URL names none.

    Raises:
        InvalidOption: if the URL cannot be used, or names no model although the server has several.
        ModelNotFound: if the server has no such model.
        NotAvailable: if the server cannot be reached, or has no admin API.
    """
    base, in_url = split_url(url)
    server = remote_server(base, token)
    names = server.models.names
    wanted = name or in_url or (names[0] if len(names) == 1 else "")
    if not wanted:
        raise InvalidOption(f"{url} serves {', '.join(names) or 'no model'}", hint="connect(url, token, name=...)")
    handle = Deployment(wanted, server)
    handle.status()
    return handle


def remote_server(url: str, token: str | None) -> ServerHandle:
    """A server that is reached by its URL only, such as `https://host:8501`; no request is sent yet."""
    from ..server.admin.client import RemoteExperiments, RemoteModels  # brings Tornado, see `servers`

    models = RemoteModels(url, token)
    return ServerHandle("remote", models, RemoteExperiments(models), url, token)


def resume(
    base_path: str | Path | None = None,
    name: str | None = None,
    *,
    isolate: bool = False,
    progress: Progress = no_progress,
    report: Callable[[str], None] = lambda _: None,
) -> list[Deployment]:
    """Serve again what an earlier kernel served: versions, labels, default version and traffic.

    An isolated server that died too often is started anew, with its models.

    Args:
        base_path: the folder with the models; `tfserve_models` by default.
        name: one model; all by default.
        isolate: serve them in a child process.
        progress: called with each step.
        report: called with a line for each version or model that could not be restored.

    Returns:
        The handles of the models that are served again.

    Raises:
        ModelNotFound: if nothing is stored there.
    """
    folder = check_folder(base_path or DEFAULT_BASE_PATH).absolute()
    served_before = {handle.name for handle in deployments()}
    lost = lost_models()
    server = ensure_child(progress=progress) if isolate or lost else ensure_kernel()
    try:
        problems = server.models.resume(folder, name, progress)
    finally:
        settle()
    for model, texts in problems.items():
        for text in texts:
            report(f"{model}: {text}")
    if not problems and (not served_before or (name is not None and name not in served_before)):
        what = "any model" if name is None else f"model {name!r}"
        raise ModelNotFound(f"nothing is stored about {what} in {folder}", hint="--base-path FOLDER, or deploy it anew")
    served = server.models.names
    return [Deployment(model) for model in dict.fromkeys((*lost, *problems)) if model in served]
