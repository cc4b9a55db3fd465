"""MLflow with the tracking server or store that its own settings name, and its errors as one line.

Where models go and come from is MLflow's to say: `mlflow.set_tracking_uri`, `mlflow.set_experiment`,
`MLFLOW_TRACKING_URI` and the like. Nothing of it is changed here.

Thread: the caller's. While MLflow is used, the process's environment bounds its first answer and hides its progress
bars, and its loggers let only errors through.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any  # MLflow's module

from ...errors import NotAvailable, ServingError
from ...export.provenance.redaction import redact
from ...export.reasons import innermost

INSTALLATION = "pip install 'tfserve_nb[mlflow]'"
_SHORT_WAIT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""How long a first answer may take; MLflow's own defaults, for large files, are many minutes."""

_NO_BARS = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_TALKATIVE = ("mlflow", "alembic", "urllib3")
"""Loggers of what MLflow does on its way: tables that it makes, attempts that it repeats."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Schemes of stores that mlflow-skinny, which is enough for a tracking server, cannot use."""


@contextlib.contextmanager
def tracking(doing: str, look: Callable[[Any], str] = lambda _: "") -> Iterator[Any]:
    """MLflow, once its server or store has answered.

    Args:
        doing: what is done with it, for messages, such as `register digits`.
        look: gives the hint when that fails, from what MLflow has; "" for a general one.

    Yields:
        The module `mlflow`.

    Raises:
        NotAvailable: if it is not installed, does not answer, or refuses what is done; one line with its own reason.
    """
    mlflow = _imported()
    where = address(mlflow)
    _check_store(mlflow, where)
    with _quiet(), _environment(_NO_BARS):
        _ask(mlflow, where)
        try:
            yield mlflow
        except ServingError:
            raise
        except Exception as error:
            hint = _hint(look, mlflow)
            raise NotAvailable(f"MLflow at {where} could not {doing}: {_reason(error)}", hint=hint) from error


def _check_store(mlflow: Any, where: str) -> None:
    """See that what the store needs is installed; MLflow itself would call the store's address unsupported."""
    scheme = str(mlflow.get_tracking_uri()).partition(":")[0].partition("+")[0]
    missing = [name for name in ("sqlalchemy", "alembic") if importlib.util.find_spec(name) is None]
    if scheme in _DATABASES and missing:
        raise NotAvailable(
            f"MLflow cannot use the store {where}: it needs {' and '.join(missing)}, which mlflow-skinny lacks",
            hint="pip install mlflow; or a tracking server, mlflow.set_tracking_uri('http://HOST:5000')",
        )


def _ask(mlflow: Any, where: str) -> None:
    """See that the server or store answers.

    Raises:
        NotAvailable: with the reason, and how long was waited.
    """
    began_s = time.perf_counter()
    try:
        with _environment(_SHORT_WAIT):
            mlflow.search_experiments(max_results=1)
    except ModuleNotFoundError as error:
        raise NotAvailable(
            f"MLflow cannot use the store {where}: {error.name} is not installed", hint=f"pip install {error.name}"
        ) from error
    except Exception as error:
        waited = f"after {time.perf_counter() - began_s:.1f} s"
        cause = _deepest(error)
        if isinstance(cause, TimeoutError):
            raise NotAvailable(
                f"MLflow at {where} does not answer: nothing came {waited}",
                hint="see whether that server runs; MLFLOW_HTTP_REQUEST_TIMEOUT=60 waits longer",
            ) from error
        is_there = not isinstance(cause, OSError)
        raise NotAvailable(
            f"MLflow at {where} {'cannot be used' if is_there else 'does not answer'}: {_reason(error)}, {waited}",
            hint="mlflow.set_tracking_uri('http://HOST:5000'), or MLFLOW_TRACKING_URI",
        ) from error


def _hint(look: Callable[[Any], str], mlflow: Any) -> str:
    found = ""
    with contextlib.suppress(Exception):  # a hint is worth no second error
        found = look(mlflow)
    return found or "see what that server holds: mlflow ui"


def address(mlflow: Any) -> str:
    """The tracking server or store, without passwords."""
    return redact(str(mlflow.get_tracking_uri())).text


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error, such as `Connection refused`."""
    deepest = _deepest(error)
    return deepest.strerror if isinstance(deepest, OSError) and deepest.strerror else innermost(error)


def _deepest(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


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
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the user has not."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let loggers say nothing but errors, unless the user has said what MLflow shall log."""
    if "MLFLOW_LOGGING_LEVEL" in os.environ:
        yield
        return
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
