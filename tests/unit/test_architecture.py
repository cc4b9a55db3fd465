"""The shape of the house: imports point down only, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
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
    ("reports",),
    ("agreement", "markup", "threads", "serialization"),
    ("errors", "options", "types", "_version"),
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
    "matplotlib": ("reports/figure",),
    "PIL": ("dashboards/pages/values",),
    "psutil": ("serving/telemetry/resources",),
    "pynvml": ("serving/telemetry/resources",),
    "scipy": ("bench/statistics", "bench/comparison", "experiment", "agreement"),
    "rich": ("cli", "reports/text"),
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

NARROW = {
    "dashboards": {
        "serving.telemetry.model_metrics",
        "serving.telemetry.histogram",
        "serving.telemetry.resources",
        "serving.telemetry.request_samples",
        "serving.telemetry.batch_summary",
    },
    "server": {
        "serving.backend",
        "serving.telemetry.metrics",
        "serving.telemetry.model_metrics",
        "serving.telemetry.histogram",
        "serving.telemetry.resources",
        "serving.telemetry.request_samples",
        "serving.telemetry.captured",
        "serving.telemetry.records",
        "serving.telemetry.batch_summary",
        "serving.batching.options",
        "serving.models.model_config",
        "serving.telemetry.observer",
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

SERVING_LAYERS = (
    ("configured",),
    ("core",),
    ("admin", "direct", "shadow"),
    ("models",),
    ("versions",),
    ("batching",),
    ("backend",),
    ("telemetry", "traffic"),
)
"""The same inside `serving/`, whose docstring explains them."""

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


@pytest.mark.parametrize("path", [path for path in MODULES if unit_of(path) == "serving"], ids=str)
def test_imports_inside_serving_point_down_only(path: Path) -> None:
    rank = {unit: rank for rank, layer in enumerate(SERVING_LAYERS) for unit in layer} | {"__init__": -1}
    unit = path.relative_to(PACKAGE / "serving").with_suffix("").parts[0]
    below = [found for found in imports_of(path) if found.is_own and found.target.startswith("serving.")]
    wrong = [
        f"line {found.line}: {unit} imports {found.target}"
        for found in below
        if found.target.split(".")[1] != unit and rank[found.target.split(".")[1]] <= rank[unit]
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
        if top in ONLY_INSIDE_FUNCTIONS and not found.is_lazy:
            wrong.append(f"line {found.line}: {top} must be imported inside a function")

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


def code_lines(text: str) -> set[int]:
    """The numbers of the lines with code: explaining it, in docstrings and comments, is free."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def test_lines_of_code_are_counted_without_docstrings_comments_and_blank_lines() -> None:
    text = '"""What.\n\nMore."""\n\n# why\nx = """a\nb"""\n\n\ndef f() -> None:\n    """That."""\n    g(  # so\n    )\n'

    assert sorted(code_lines(text)) == [6, 7, 10, 12, 13]


@each_module
def test_modules_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = code_lines(text)
    long = [f"the module has {len(lines)} lines of code"] if len(lines) > MAX_MODULE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = len(lines.intersection(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            if num_lines > MAX_FUNCTION_LINES:
                long.append(f"line {node.lineno}: {node.name} has {num_lines} lines of code")

    assert long == []


def test_importing_the_package_loads_no_heavy_package() -> None:
    heavy = ("tensorflow", "keras", "matplotlib", "ipywidgets", "tornado", "IPython")
    code = f"import sys, tfserve_nb; print(*[name for name in {heavy!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.split() == []
