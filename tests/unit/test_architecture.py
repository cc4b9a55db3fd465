"""The shape of the house: imports point down only, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tfserve_nb"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    ("__init__", "__main__"),
    ("training",),
    ("notebook", "cli"),
    ("dashboards",),
    ("api",),
    ("replay", "diff"),
    ("bench",),
    ("server",),
    ("experiment",),
    ("serving",),
    ("export",),
    ("markup", "threads", "serialization"),
    ("errors", "types", "_version"),
)
"""Top to bottom; a unit may import units of lower layers only."""

RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}

THIRD_PARTY = {
    "numpy": ("",),
    "tensorflow": ("export", "serving", "server/config_files"),
    "keras": ("export", "serving", "training/callback"),
    "tensorflow_serving": ("export", "server", "bench/load/targets"),  # protos and stubs; they import TensorFlow
    "google": ("export", "server"),  # protobuf
    "grpc": ("server", "bench/load"),
    "grpc_health": ("server",),
    "grpc_reflection": ("server",),
    "prometheus_client": ("server",),
    "cryptography": ("server",),
    "cattrs": ("serialization",),
    "httpx": ("server/admin/connection",),
    "ai_edge_litert": ("serving",),
    "tornado": ("server",),
    "httptools": ("server/http", "bench/load/http_client"),
    "uvloop": ("server/runtime/event_loop", "bench/load/generator"),
    "simdjson": ("server/rest/json_numbers",),
    "orjson": ("server",),
    "ipywidgets": ("dashboards", "notebook/display"),
    "IPython": ("notebook", "__init__"),  # the package itself names its types only, see the last test
    "traitlets": ("notebook",),
    "matplotlib": ("bench/figure", "replay/figure", "experiment/views/figure"),
    "PIL": ("dashboards/pages/values",),
    "psutil": ("serving/telemetry/resources",),
    "pynvml": ("serving/telemetry/resources",),
    "scipy": ("bench/statistics", "bench/comparison", "experiment"),
    "rich": ("cli",),
    "pandas": ("bench/result", "replay/result", "experiment/views/frames", "serving/telemetry/captured"),
    "pyarrow": ("serving/telemetry/captured",),
}
"""Package -> the parts of tfserve_nb that may import it, as prefixes of a module's path."""

ONLY_INSIDE_FUNCTIONS = {
    "tensorflow", "keras", "matplotlib", "tensorflow_serving", "google", "grpc", "grpc_health", "grpc_reflection",
    "prometheus_client", "cryptography", "ai_edge_litert", "scipy", "rich", "pandas",
    "psutil", "pynvml", "PIL", "pyarrow", "cattrs", "httpx",
}  # fmt: skip
"""Packages too slow to import for modules that `%load_ext` needs."""

ASKED_FOR = ("training/callback",)
"""Modules that are imported inside functions only, when somebody asks for what they define: a class of Keras' kind."""

NARROW = {
    "dashboards": {
        "serving.telemetry.model_metrics",
        "serving.telemetry.histogram",
        "serving.telemetry.resources",
        "serving.telemetry.request_samples",
        "serving.telemetry.batch_summary",
    },
    "server": {
        "serving.core",  # server/handle.py starts the one of a kernel
        "serving.backend",
        "serving.telemetry.metrics",
        "serving.telemetry.model_metrics",
        "serving.telemetry.histogram",
        "serving.telemetry.resources",
        "serving.telemetry.request_samples",
        "serving.telemetry.captured",
        "serving.telemetry.taps",
        "serving.telemetry.batch_summary",
        "serving.batching.options",
        "serving.models.model_config",
        "serving.telemetry.observer",
        "serving.pairs",
        "serving.admin",
        "serving.models.placement",
        "serving.models.stored_model",
        "serving.versions.source",
        "serving.versions.inputs",
        "export.example_input",
        "export.prediction_log",
    },
}
"""Units that see of the core only these modules: views run on recorded data, servers through one port."""

MAX_MODULE_LINES = 400
"""Of code: without docstrings, comments and blank lines."""
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one module.

    Attributes:
        target: dotted name; inside the package relative to it (`serving.metrics`, "" for the package itself).
        is_own: whether the target is part of tfserve_nb.
        is_relative: whether it was written with leading dots.
        is_lazy: whether it runs inside a function, or never (TYPE_CHECKING).
        line: where it stands.
    """

    target: str
    is_own: bool
    is_relative: bool
    is_lazy: bool
    line: int


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_module(dotted: str) -> bool:
    path = PACKAGE.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def resolve(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[tuple[str, bool, bool]]:
    """Yield target, is_own and is_relative of each module that an import statement names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            own = alias.name.split(".")[0] == PACKAGE.name
            yield alias.name.removeprefix(PACKAGE.name).lstrip(".") if own else alias.name, own, False
        return
    if not node.level:
        module = node.module or ""
        own = module.split(".")[0] == PACKAGE.name
        yield module.removeprefix(PACKAGE.name).lstrip(".") if own else module, own, False
        return
    package = path.relative_to(PACKAGE).parent.parts
    base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
    for alias in node.names:
        deeper = ".".join(part for part in (*base, alias.name) if part)
        yield deeper if is_module(deeper) else ".".join(part for part in base if part), True, True


def imports_of(path: Path) -> list[Import]:
    found = []

    def visit(node: ast.AST, *, is_lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                found.extend(Import(*parts, is_lazy, child.lineno) for parts in resolve(child, path))
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            visit(child, is_lazy=is_lazy or is_function or is_for_types)

    visit(ast.parse(path.read_text(encoding="utf-8")), is_lazy=False)
    return found


each_module = pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])


@each_module
def test_every_module_has_its_place_in_the_layers(path: Path) -> None:
    assert unit_of(path) in RANK


@each_module
def test_imports_point_down_only(path: Path) -> None:
    unit = unit_of(path)
    wrong = [
        f"line {found.line}: {unit} imports {found.target or 'the package itself'}"
        for found in imports_of(path)
        if found.is_own
        and found.target.split(".")[0] != unit
        and RANK[found.target.split(".")[0] or "__init__"] <= RANK[unit]
    ]

    assert wrong == []


@each_module
def test_imports_inside_the_package_are_relative(path: Path) -> None:
    assert [found for found in imports_of(path) if found.is_own and not found.is_relative] == []


@each_module
def test_third_party_packages_stay_where_they_belong(path: Path) -> None:
    place = str(path.relative_to(PACKAGE).with_suffix(""))
    wrong = []
    for found in imports_of(path):
        top = found.target.split(".")[0]
        if found.is_own or top in sys.stdlib_module_names:
            continue
        allowed = THIRD_PARTY.get(top, ())
        if not any(place == part or not part or place.startswith(f"{part}/") for part in allowed):
            wrong.append(f"line {found.line}: {place} imports {top}, allowed in {allowed}")
        if top in ONLY_INSIDE_FUNCTIONS and not found.is_lazy and place not in ASKED_FOR:
            wrong.append(f"line {found.line}: {top} must be imported inside a function")

    assert wrong == []


@each_module
def test_modules_that_import_heavy_packages_are_imported_when_asked_for(path: Path) -> None:
    wrong = [
        f"line {found.line}: {found.target} must be imported inside a function"
        for found in imports_of(path)
        if found.is_own and found.target.replace(".", "/") in ASKED_FOR and not found.is_lazy
    ]

    assert wrong == []


@each_module
def test_dashboards_and_servers_see_the_core_through_narrow_doors(path: Path) -> None:
    doors = NARROW.get(unit_of(path))
    if doors is None:
        return
    inner = {"serving", "export", "deployment"} | ({"server"} - {unit_of(path)})
    wrong = [
        f"line {found.line}: imports {found.target}"
        for found in imports_of(path)
        if found.is_own and found.target.split(".")[0] in inner and found.target not in doors
    ]

    assert wrong == []


def docstring_lines(node: ast.AST) -> int:
    """Lines of its docstring; explaining is free."""
    body = getattr(node, "body", None)
    if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
        return 0
    first = body[0]
    is_text = isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_text else 0


def code_lines(text: str) -> int:
    """Lines of a module that are neither docstring nor comment nor blank."""
    lines = [line.strip() for line in text.splitlines()]
    num_written = sum(bool(line) and not line.startswith("#") for line in lines)
    blank = {number for number, line in enumerate(lines, 1) if not line or line.startswith("#")}
    documented = 0
    for node in ast.walk(ast.parse(text)):
        if num := docstring_lines(node):
            first = node.body[0].lineno  # type: ignore[attr-defined]  # it has a body
            documented += len(set(range(first, first + num)) - blank)
    return num_written - documented


@each_module
def test_modules_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    long = [f"the module has {count} lines of code"] if (count := code_lines(text)) > MAX_MODULE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
            if num_lines > MAX_FUNCTION_LINES:
                long.append(f"line {node.lineno}: {node.name} has {num_lines} lines")

    assert long == []


def test_importing_the_package_loads_no_heavy_package() -> None:
    heavy = ("tensorflow", "keras", "matplotlib", "ipywidgets", "tornado", "IPython")
    code = f"import sys, tfserve_nb; print(*[name for name in {heavy!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.split() == []
