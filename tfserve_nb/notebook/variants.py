"""What `%variants` does with its options.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any  # the user's variables

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ..api.connect import deployments
from ..api.deployment import Deployment
from ..api.variants import variants_of_model
from ..export.source import is_model
from ..options import given, read
from ..variants.options import VariantOptions
from ..variants.result import VariantsResult
from .arguments import look_up_model, look_up_variables
from .commands import MeasuredModel
from .progress import progress_view


def measure(
    shell: InteractiveShell,
    parsed: argparse.Namespace,
    variables: Mapping[str, Any],
    served: Callable[[str | None], Deployment],
    *,
    is_quiet: bool,
) -> VariantsResult:
    """Carry `%variants` out.

    Args:
        shell: where progress is shown.
        parsed: the line.
        variables: the user's.
        served: finds the handle of a served model by its name.
        is_quiet: whether progress is not shown.

    Raises:
        UsageError: if there is no such model, or the version of one in memory is asked for.
        InvalidOption: naming the value that is not allowed.
    """
    wanted = read(MeasuredModel, parsed)
    words = given(parsed, VariantOptions)
    read(VariantOptions, parsed)  # what is not allowed is found before anything else
    options = VariantOptions(**{**words, **look_up_variables(variables, VariantOptions, words)})
    handle = _handle(wanted.model, variables, served)
    name = handle.name if handle is not None else str(wanted.model)
    if handle is None and wanted.version is not None:
        raise UsageError(f"--version is of a served model, and {name} is none")
    with progress_view(shell, f"variants of {name}", is_quiet=is_quiet) as progress:
        if handle is not None:
            return handle.measure_variants(options, wanted.version, progress)
        return variants_of_model(look_up_model(variables, name), name, options, progress)


def _handle(
    word: str | None, variables: Mapping[str, Any], served: Callable[[str | None], Deployment]
) -> Deployment | None:
    """The served model that a word names; None for a model in memory or a path.

    A variable goes first if it is a model: what is in memory may be newer than what is served under its name.
    """
    if word is None:
        return served(None)
    value = variables.get(word)
    if isinstance(value, Deployment):
        return value
    is_served = any(handle.name == word for handle in deployments())
    return served(word) if is_served and not is_model(value) else None
