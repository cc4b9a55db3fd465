"""MLflow with the tracking server or store that its own settings name, and its errors as one line.

Where models go and come from is MLflow's to say: `mlflow.set_tracking_uri`, `mlflow.set_experiment`,
`MLFLOW_TRACKING_URI` and the like. Nothing of it is changed here.

Thread: the caller's. While the server is asked whether it answers, the process's environment bounds how long that
takes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import Any  # MLflow's module

from ...errors import NotAvailable, ServingError
from ...export.provenance.redaction import redact
from ...export.reasons import innermost

INSTALLATION = "pip install 'tfserve_nb[mlflow]'"
_SHORT_WAIT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""How long a first answer may take; MLflow's own defaults, for large files, are many minutes."""


@contextlib.contextmanager
def tracking(doing: str) -> Iterator[Any]:
    """MLflow, once its server or store has answered.

    Args:
        doing: what is done with it, for messages, such as `register digits`.

    Yields:
        The module `mlflow`.

    Raises:
        NotAvailable: if it is not installed, does not answer, or refuses what is done; one line with its own reason.
    """
    mlflow = _imported()
    where = address(mlflow)
    try:
        with _short_wait():
            mlflow.search_experiments(max_results=1)
    except ModuleNotFoundError as error:
        raise NotAvailable(
            f"MLflow cannot use the store {where}: {error.name} is not installed", hint="pip install mlflow"
        ) from error
    except Exception as error:
        raise NotAvailable(
            f"MLflow at {where} does not answer: {_reason(error)}",
            hint="mlflow.set_tracking_uri('http://HOST:5000'), or MLFLOW_TRACKING_URI; "
            "MLFLOW_HTTP_REQUEST_TIMEOUT waits longer",
        ) from error
    try:
        yield mlflow
    except ServingError:
        raise
    except Exception as error:
        raise NotAvailable(
            f"MLflow at {where} could not {doing}: {_reason(error)}", hint="see what that server holds: mlflow ui"
        ) from error


def address(mlflow: Any) -> str:
    """The tracking server or store, without passwords."""
    return redact(str(mlflow.get_tracking_uri())).text


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error, such as `Connection refused`."""
    deepest = error
    while (cause := deepest.__cause__ or deepest.__context__) is not None:
        deepest = cause
    return deepest.strerror if isinstance(deepest, OSError) and deepest.strerror else innermost(error)


def _imported() -> Any:
    missing = [name for name in ("mlflow", "pandas") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotAvailable(f"{' and '.join(missing)} is not installed", hint=INSTALLATION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own type hints
        try:
            import mlflow.pyfunc
        except ImportError as error:
            raise NotAvailable(f"MLflow cannot be imported: {innermost(error)}", hint=INSTALLATION) from error
    return mlflow


@contextlib.contextmanager
def _short_wait() -> Iterator[None]:
    """Bound requests, where the user has not."""
    added = {name: value for name, value in _SHORT_WAIT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
