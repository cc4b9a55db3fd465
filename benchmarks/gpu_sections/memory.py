"""Memory of several versions that stay loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from .setting import Found, Setting, attempt, batching, deployed, memory

NUM_VERSIONS = 3


def memory_per_version(setting: Setting) -> Iterator[Found]:
    """Memory after each of several versions that stay loaded, and after they are gone."""
    for model in setting.models:
        with contextlib.ExitStack() as stack:
            for number in range(1, NUM_VERSIONS + 1):
                options = {"device": setting.device, "keep": NUM_VERSIONS, **batching(setting)}
                deployment = stack.enter_context(deployed(model.version, model.name, is_kept=number > 1, **options))
                deployment.predict(model.rows[:1])
                case = f"{model.name}, {number} version{'s' if number > 1 else ''} loaded"
                yield attempt(case, partial(memory, deployment, setting))
            with deployed(setting.models[0].version, "other", device="/CPU:0") as other:
                stack.close()  # the server goes on, so that its memory can still be asked for
                yield attempt(f"{model.name}, undeployed", partial(memory, other, setting))
