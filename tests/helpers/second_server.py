"""A server beside that of this process's kernel, for versions that are on disk: what a second notebook would have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tfserve_nb.api.deployment import Deployment
from tfserve_nb.api.servers import IsolatedServer, KernelServer, ListenOptions
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource

TOKEN = "token-of-another-notebook"


@contextmanager
def second_server(
    base: Path, name: str, versions: Mapping[int, Path], *, stable: int, isolate: bool = False
) -> Iterator[Deployment]:
    """The handle of one with gRPC; version `stable` has that label and all traffic.

    Args:
        base: where the state is stored: no other server's.
        name: the model.
        versions: number -> folder.
        stable: one of them.
        isolate: in a child process, and not in this one.
    """
    wanted = ListenOptions(grpc_port=0)
    server = IsolatedServer(TOKEN, wanted) if isolate else KernelServer(0, TOKEN, wanted)
    try:
        models = server.handle.models
        for number, folder in versions.items():
            models.deploy(name, number, VersionSource(folder, BatchingOptions()), base, Placement(keep=9))
        models.promote(name, stable)
        models.set_label(name, "stable", stable)
        yield Deployment(name, server.handle)
    finally:
        server.stop()
