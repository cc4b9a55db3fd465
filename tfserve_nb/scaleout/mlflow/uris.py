"""What MLflow calls a model: `models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/RUN/PATH`.

Thread: any; pure functions.
"""

from __future__ import annotations

MODELS, RUNS = "models:/", "runs:/"


def is_uri(value: object) -> bool:
    """Whether a value names a model of MLflow."""
    return isinstance(value, str) and value.startswith((MODELS, RUNS))


def name_of(uri: str) -> str:
    """What a model is called that is deployed from MLflow without a name: as there.

    Example:
        >>> [name_of(uri) for uri in ("models:/digits@stable", "models:/digits/3", "runs:/5f0e/models/digits")]
        ['digits', 'digits', 'digits']
    """
    parts = uri.partition(":/")[2].strip("/").split("/")
    return parts[0].partition("@")[0] if uri.startswith(MODELS) else parts[-1]


def alias_of(uri: str) -> tuple[str, str]:
    """The registered model and the alias that a URI names; two empty texts when it names no alias."""
    name, at, alias = uri.removeprefix(MODELS).partition("@")
    return (name, alias) if at and uri.startswith(MODELS) else ("", "")
