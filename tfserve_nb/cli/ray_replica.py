"""What the process of a replica on Ray runs: our server, started with the flags of `tfserve-nb serve`.

Ray imports `application` by its name; see `scaleout.ray.config`.

Thread: see `scaleout.ray.replica`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # Ray's objects

from ..errors import ConfigRejected
from ..scaleout.ray.replica import Replica, ReplicaSettings, application_of
from ..scaleout.ray.replica_model import check_keys
from .serve_flags import parse_serve
from .serve_plan import make_plan


def settings_of(flags: list[str]) -> ReplicaSettings:
    """What flags mean for a replica.

    Raises:
        ServingError: what is wrong, with the flag or file.
    """
    plan = make_plan(parse_serve(flags), names_models=False)
    return ReplicaSettings(plan.follow, plan.session, plan.num_run_threads, plan.settings)


class FlaggedReplica(Replica):
    """A replica that is started with flags.

    Args:
        flags: those of `tfserve-nb serve`, without models and ports.
    """

    def __init__(self, flags: list[str]) -> None:
        super().__init__(settings_of(flags))


def application(args: Mapping[str, Any]) -> Any:
    """The application that Ray Serve builds.

    Args:
        args: `flags`, those of `tfserve-nb serve`.

    Raises:
        ConfigRejected: for other arguments.
    """
    check_keys(args, ("flags",), "args")
    flags = args.get("flags", [])
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise ConfigRejected(f"args.flags={flags!r:.200} must be a list of texts", hint="flags: [--enable_batching]")
    return application_of(FlaggedReplica, flags)
